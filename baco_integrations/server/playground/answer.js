// One answer: its tokens as they come, each of which can be pointed at, focused and chosen.

import { ApiError, stream } from "./api.js";
import { alertIn, element, percent } from "./dom.js";

const ENDS = { stop: "ended", length: "cut at max tokens" };

/**
 * An answer to a request.
 *
 * @param {string} label What to call it.
 * @param {object} body The request, to which branches go back.
 * @param {Details} details Shows a token's details, and branches from it.
 * @param {string} kept The text that it continues.
 */
export class Answer {
  constructor(label, body, details, kept = "") {
    Object.assign(this, { label, body, details, kept, steps: [], current: 0 });
    const name = `Tokens of ${label}`;
    this.tokens = element("span", { class: "tokens", role: "group", "aria-label": name });
    this.text = element("div", { class: "text" });
    if (kept) this.text.append(element("span", { class: "kept" }, kept));
    this.text.append(this.tokens);
    this.facts = element("p", { class: "facts" });
    this.alert = element("p", { class: "alert", role: "alert", hidden: "" });
    this.element = element("div", { class: "answer" }, this.text, this.alert, this.facts);
    this.listen();
  }

  /** Decode it; `begun` is called with each token. Returns whether it came to its end. */
  async decode(signal, begun = () => {}) {
    try {
      for await (const choice of stream({ ...this.body, logprobs: true, top_logprobs: 5 }, signal)) {
        for (const step of choice.logprobs?.content ?? []) this.add(step);
        if (this.steps.length) begun();
        if (choice.finish_reason) this.finish(choice);
      }
      return true;
    } catch (error) {
      if (signal.aborted) this.facts.textContent = `Stopped after ${this.steps.length} tokens.`;
      else alertIn(this.alert, error instanceof ApiError ? error.message : String(error));
      return false;
    }
  }

  add(step) {
    const { text, source } = step.baco;
    const kind = text === "\n" ? "line-break" : text ? "" : step.bytes.length ? "held" : "end";
    const word = text.trimStart(); // white space in front is not underlined
    const mark = element("span", { class: "word" }, word);
    const space = text.slice(0, text.length - word.length);
    const attributes = {
      class: `token ${source} ${kind}`,
      role: "button",
      tabindex: this.steps.length ? -1 : 0,
      "aria-label": `${nameOf(step)}, ${source}`,
    };
    const parts = kind === "line-break" ? [mark, space] : [space, mark];
    this.tokens.append(element("span", attributes, ...parts));
    this.steps.push(step);
  }

  finish({ finish_reason, baco }) {
    const base = `${percent(baco.base_share)} base`;
    this.summary = `${this.label}: ${base}, ${this.steps.length} tokens.`;
    const share = element("span", { class: "share", "aria-hidden": "true" });
    share.style.setProperty("--share", baco.base_share);
    const rest = ` · ${this.steps.length} tokens · ${ENDS[finish_reason] ?? ""} (${finish_reason})`;
    this.facts.replaceChildren(share, element("b", {}, base), rest);
    // For screen readers: the text in one piece, before its tokens.
    this.text.before(element("p", { class: "hidden" }, this.text.textContent));
  }

  /** The text before a token, or null where the token begins inside a character. */
  textBefore(index) {
    const bytes = this.steps.slice(0, index).flatMap((step) => step.bytes);
    try {
      const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
      const text = utf8.decode(Uint8Array.from(bytes));
      return this.kept ? this.kept + text : text.trimStart();
    } catch {
      return null;
    }
  }

  tokenAt(index) {
    return this.tokens.children[index];
  }

  /** Focus a token; it is the answer's one tab stop from then on. */
  focus(index = this.current) {
    this.tokenAt(Math.max(0, Math.min(index, this.steps.length - 1)))?.focus();
  }

  focused(index) {
    this.tokenAt(this.current).tabIndex = -1;
    this.tokenAt(index).tabIndex = 0;
    this.current = index;
    this.details.show(this, index);
  }

  listen() {
    const on = (type, react) =>
      this.tokens.addEventListener(type, (event) => {
        const index = [...this.tokens.children].indexOf(event.target.closest(".token"));
        if (index >= 0) react(index, event);
      });
    on("pointerover", (index, event) => {
      if (event.pointerType === "mouse") this.details.show(this, index);
    });
    on("pointerout", () => this.details.leave());
    on("focusin", (index) => this.focused(index));
    on("focusout", () => this.details.leave());
    on("keydown", (index, event) => this.press(index, event));
    on("click", (index, event) => {
      // A finger cannot hover: its tap shows the details, which have a button.
      if (event.pointerType === "touch") this.details.show(this, index);
      else this.details.branch(this, index);
    });
  }

  press(index, event) {
    const last = this.steps.length - 1;
    const moves = { ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: last };
    if (event.key in moves) this.focus(moves[event.key]);
    else if (event.key === "Enter" || event.key === " ") this.details.branch(this, index);
    else if (event.key === "ArrowDown") this.details.enter();
    else return;
    event.preventDefault();
  }
}

/** What to call a token: its text, or what it does where it has none to show. */
export function nameOf({ token, bytes, baco }) {
  if (!bytes.length) return "end of turn";
  return !baco.text && token.includes("\uFFFD") ? "part of a character" : visible(baco.text || token);
}

/** A text, with white space made visible where there is nothing else. */
export const visible = (text) => text.trim() || text.replaceAll("\n", "↵").replaceAll(" ", "␣");
