// The gamma sweep: how many different answers there are at each gamma.

import { complete } from "./api.js";
import { element, percent } from "./dom.js";

export const GAMMAS = [0, 0.2, 0.4, 0.6, 0.8, 1];

/** What two answers must have in common to count as one. */
export const plain = (text) =>
  text.toLowerCase().replace(/\p{P}/gu, "").replace(/\s+/g, " ").trim();

/** Ask for n answers at each gamma, one gamma after the other, and fill the table's body. */
export async function sweep(body, n, rows, signal) {
  rows.replaceChildren(...GAMMAS.map(waitingRow));
  for (const [place, gamma] of GAMMAS.entries()) {
    const { choices } = await complete({ ...body, gamma, n }, signal);
    rows.children[place].replaceWith(rowOf(gamma, choices));
  }
}

const waitingRow = (gamma) =>
  element("tr", {}, head(gamma), element("td", {}, "..."), element("td"));

const head = (gamma) => element("th", { scope: "row" }, gamma.toFixed(1));

function rowOf(gamma, choices) {
  const groups = Map.groupBy(choices, (choice) => plain(choice.message.content));
  const answers = element("ul", {});
  for (const same of groups.values()) answers.append(itemOf(same));
  const share = choices.reduce((sum, choice) => sum + choice.baco.base_share, 0) / choices.length;
  const count = element("td", { class: "count" },
    element("b", {}, groups.size), ` of ${choices.length}`, bar(groups.size, choices.length),
    element("small", {}, `${percent(share)} base`));
  return element("tr", {}, head(gamma), count, element("td", {}, answers));
}

function itemOf(same) {
  const item = element("li", {}, same[0].message.content.trim());
  if (same.length > 1) {
    const times = element("span", { class: "times", title: "duplicates" }, `×${same.length}`);
    item.append(" ", times);
  }
  return item;
}

function bar(part, whole) {
  const made = element("span", { class: "bar", "aria-hidden": "true" });
  made.style.setProperty("--part", part / whole);
  return made;
}
