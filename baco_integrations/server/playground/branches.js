// Branches: answers that keep the beginning of another one, and go on in another way.

import { Answer } from "./answer.js";
import { button, element, find, newSeed } from "./dom.js";

let count = 0;

/** Add a branch of an answer that keeps a text; return it, yet to be decoded. */
export function addBranch(parent, kept, details) {
  const messages = parent.body.messages.filter(({ role }) => role !== "assistant");
  const body = { ...parent.body, messages, seed: newSeed() };
  if (kept) {
    messages.push({ role: "assistant", content: kept });
    body.continue_final_message = true;
  }
  count += 1;
  const child = new Answer(`branch ${count}`, body, details, kept);
  const item = element("li", {}, caption(child, parent), child.element);
  find("branch-list").append(item);
  find("branches").hidden = false;
  item.scrollIntoView({ block: "nearest" });
  return child;
}

function caption(child, parent) {
  const { router, gamma, seed } = child.body;
  const settings = [router, ...(gamma === undefined ? [] : [`gamma ${gamma}`]), `seed ${seed}`];
  const remove = () => {
    child.controller?.abort();
    child.details.hide();
    child.element.parentElement.remove();
    find("branches").hidden = !find("branch-list").children.length;
  };
  return element("div", { class: "caption" },
    element("h3", {}, child.label),
    button(`from ${parent.label}`, () => parent.focus(), { class: "quiet", title: "Go back to it" }),
    element("span", { class: "hint" }, settings.join(" · ")),
    button("Remove", remove, { class: "quiet", "aria-label": `Remove ${child.label}` }));
}

export function clearBranches() {
  find("branch-list").replaceChildren();
  find("branches").hidden = true;
  count = 0;
}
