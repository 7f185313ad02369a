// The box at a token: who gave it, how probable either model found it, and what else there was.

import { nameOf, visible } from "./answer.js";
import { button, element, probability } from "./dom.js";

const PATIENCE = 200; // ms in which a pointer can cross from a token into the box
const SIDES = ["base", "aligned", "sampled"];

/** @param {function} branched Called with an answer, and the text of it that is kept. */
export class Details {
  constructor(branched) {
    this.branched = branched;
    this.box = element("div", { id: "details", role: "group", "aria-label": "Token", hidden: "" });
    this.box.addEventListener("pointerleave", () => this.leave());
    this.box.addEventListener("focusout", () => this.leave());
    this.box.addEventListener("keydown", (event) => this.press(event));
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.close());
    addEventListener("resize", () => this.box.hidden || this.put());
  }

  /** Show a token's details, and describe the token by them. */
  show(answer, index) {
    this.hide();
    Object.assign(this, { answer, index, token: answer.tokenAt(index) });
    this.box.replaceChildren(...this.contents(answer.steps[index]));
    this.box.hidden = false;
    this.token.setAttribute("aria-describedby", "details-summary");
    this.token.classList.add("shown");
    answer.text.after(this.box); // so that Tab leads on from there
    this.put();
  }

  contents(step) {
    const { source, alternatives } = step.baco;
    const open = this.answer.textBefore(this.index) !== null;
    const given = [element("q", {}, nameOf(step)), " from ", element("b", { class: source }, source)];
    const chance = (side) =>
      element("span", { class: side }, `${side} `, probability(step.baco[`p_${side}`], 1));
    const chances = element("p", { class: "chances" }, ...SIDES.map(chance));
    return [
      element("div", { id: "details-summary" }, element("p", { class: "name" }, ...given), chances),
      this.table(alternatives, step, open),
      open
        ? this.action("Branch here")
        : element("p", { class: "hint" }, "It begins inside a character: no branch here."),
    ];
  }

  table(offered, step, open) {
    const rows = offered.base.map((_, row) =>
      element("tr", {}, ...SIDES.map((side) => this.alternative(offered[side][row], step, open))),
    );
    const heads = SIDES.map((side) => element("th", { scope: "col" }, side));
    const head = element("thead", { class: "hidden" }, element("tr", {}, ...heads));
    const caption = element("caption", {}, "Most probable here");
    return element("table", {}, caption, head, element("tbody", {}, ...rows));
  }

  alternative(offer, step, open) {
    if (!offer) return element("td");
    const { token_id, text } = offer;
    const whole = open && text && !text.includes("\uFFFD");
    const choice = whole
      ? this.action(visible(text), text)
      : element("span", {}, text ? visible(text) : "(end)");
    if (token_id === step.baco.token_id) choice.setAttribute("aria-current", "true");
    return element("td", {}, choice, " ", probability(offer.probability, 0));
  }

  /** A button that the arrow keys reach: Tab would have to pass too many of them. */
  action(label, alternative) {
    const branch = () => this.branch(this.answer, this.index, alternative);
    return button(label, branch, { tabindex: -1 });
  }

  /** Branch at a token, unless it begins inside a character. */
  branch(answer, index, alternative = "") {
    const text = answer.textBefore(index);
    if (text === null) return;
    this.close();
    this.branched(answer, text + alternative);
  }

  /** Move the focus into the box. */
  enter() {
    this.box.querySelector("button")?.focus();
  }

  /** Move on to the next button, or back, and from the first one back to the token. */
  press(event) {
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const all = [...this.box.querySelectorAll("button")];
    const next = all.indexOf(document.activeElement) + step;
    (next < 0 ? this.token : all[next])?.focus();
    event.preventDefault();
  }

  /** Put the box under its token, or above where there is no room, and within the page. */
  put() {
    const token = this.token.getClientRects()[0];
    const { width, height } = this.box.getBoundingClientRect();
    const most = document.documentElement.clientWidth - width - 12;
    const under = token.bottom + 6 + height <= innerHeight || token.top < height + 6;
    this.box.style.left = `${Math.max(12, Math.min(token.left, most)) + scrollX}px`;
    this.box.style.top = `${(under ? token.bottom + 6 : token.top - height - 6) + scrollY}px`;
  }

  /** Hide it soon, unless the pointer or the focus is in it, or on its token, by then. */
  leave() {
    clearTimeout(this.leaving);
    this.leaving = setTimeout(() => {
      const used = (place) => place.matches(":hover") || place.contains(document.activeElement);
      if (!used(this.box) && !used(this.token)) this.hide();
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
