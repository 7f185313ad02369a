// The box beside a token: who gave it, how probable both models found it, and what else there was.

import { element, find, probability } from "./dom.js";
import { nameOf, visible } from "./answer.js";

const PATIENCE = 200; // ms in which a pointer can cross from the token into the box
const SIDES = ["base", "aligned", "sampled"];

/** @param {function} branch Called with an answer, a token's index, and an alternative's text. */
export class Details {
  constructor(branch) {
    this.takeBranch = branch;
    this.box = element("div", { id: "details", role: "group", "aria-label": "Token", hidden: "" });
    document.body.append(this.box);
    this.box.addEventListener("pointerenter", () => clearTimeout(this.leaving));
    this.box.addEventListener("pointerleave", () => this.leave());
    this.box.addEventListener("focusout", () => this.leave());
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.close());
    addEventListener("resize", () => this.hide());
  }

  /** Show a token's details, and describe the token by them. */
  show(answer, index) {
    this.hide();
    Object.assign(this, { answer, index, token: answer.tokenAt(index) });
    this.box.replaceChildren(...this.contents(answer, index));
    this.box.hidden = false;
    this.token.setAttribute("aria-describedby", "details-summary");
    this.token.classList.add("shown");
    answer.text.after(this.box); // so that Tab leads from the token into the box
    this.put();
  }

  contents(answer, index) {
    const step = answer.steps[index];
    const { source, p_base, p_aligned, p_sampled } = step.baco;
    const chances = element("span", { class: "chances" });
    for (const [name, p] of [["base", p_base], ["aligned", p_aligned], ["sampled", p_sampled]]) {
      chances.append(element("span", { class: name }, `${name} `, probability(p)));
    }
    const summary = element("div", { id: "details-summary" },
      element("p", { class: "name" }, element("q", {}, nameOf(step)), " from ",
        element("b", { class: source }, source)), chances);
    const open = answer.textBefore(index) !== null;
    const action = open
      ? this.button("Branch here", () => this.branch(answer, index))
      : element("p", { class: "hint" }, "No branch here: it is inside a character.");
    const offered = step.baco.alternatives;
    return offered ? [summary, this.alternatives(offered, step, open), action] : [summary, action];
  }

  alternatives(offered, step, open) {
    const rows = Math.max(...SIDES.map((side) => offered[side]?.length ?? 0));
    const body = element("tbody");
    for (let row = 0; row < rows; row += 1) {
      const cells = SIDES.map((side) => this.alternative(offered[side]?.[row], step, open));
      body.append(element("tr", {}, ...cells));
    }
    const heads = SIDES.map((side) => element("th", { scope: "col" }, side));
    const head = element("thead", { class: "hidden" }, element("tr", {}, ...heads));
    return element("table", {}, element("caption", {}, "Most probable here"), head, body);
  }

  alternative(offer, step, open) {
    if (!offer) return element("td");
    const { token_id, text, probability: p } = offer;
    const whole = open && text && !text.includes("\uFFFD");
    const name = text ? visible(text) : "(end)";
    const label = whole
      ? this.button(name, () => this.branch(this.answer, this.index, text))
      : element("span", {}, name);
    if (token_id === step.baco.token_id) label.setAttribute("aria-current", "true");
    return element("td", {}, label, " ", probability(p));
  }

  button(label, press) {
    const made = element("button", { type: "button" }, label);
    made.addEventListener("click", press);
    return made;
  }

  /** Branch before a token, if that is between characters. */
  branch(answer, index, text) {
    if (answer.textBefore(index) === null) return;
    this.close();
    this.takeBranch(answer, index, text);
  }

  /** Move the focus into the box. */
  enter() {
    this.box.querySelector("button")?.focus();
  }

  /** Put the box under its token, or above where there is no room, and within the page. */
  put() {
    const token = this.token.getClientRects()[0] ?? this.token.getBoundingClientRect();
    const { width, height } = this.box.getBoundingClientRect();
    const left = Math.max(12, Math.min(token.left, document.documentElement.clientWidth - width - 12));
    const below = token.bottom + 6;
    const above = token.top - height - 6;
    const top = below + height > innerHeight && above > 0 ? above : below;
    this.box.style.left = `${left + scrollX}px`;
    this.box.style.top = `${top + scrollY}px`;
  }

  /** Hide it soon, unless the pointer or the focus is in it, or on its token, by then. */
  leave() {
    clearTimeout(this.leaving);
    this.leaving = setTimeout(() => {
      const inside = document.activeElement;
      const pointed = this.box.matches(":hover") || this.token?.matches(":hover");
      if (!pointed && inside !== this.token && !this.box.contains(inside)) this.hide();
    }, PATIENCE);
  }

  /** Hide it, and give the focus back to its token. */
  close() {
    if (this.box.contains(document.activeElement)) this.token.focus();
    this.hide();
  }

  hide() {
    clearTimeout(this.leaving);
    this.token?.removeAttribute("aria-describedby");
    this.token?.classList.remove("shown");
    this.box.hidden = true;
  }
}
