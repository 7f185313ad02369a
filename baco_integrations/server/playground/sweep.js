// The gamma sweep: how many different answers there are at each gamma.

import { complete } from "./api.js";
import { element, percent } from "./dom.js";

const GAMMAS = [0, 0.2, 0.4, 0.6, 0.8, 1];

/** What answers have in common that count as one. */
const plain = (text) => text.toLowerCase().replace(/\p{P}/gu, "").replace(/\s+/g, " ").trim();

/** Ask for n answers at each gamma, one gamma after the other, and fill the rows of a table. */
export async function sweep(body, n, rows, signal) {
  const waiting = (gamma) => row(gamma, element("td", {}, "..."), element("td"));
  rows.replaceChildren(...GAMMAS.map(waiting));
  for (const [place, gamma] of GAMMAS.entries()) {
    const { choices } = await complete({ ...body, gamma, n }, signal);
    rows.children[place].replaceWith(filled(gamma, choices));
  }
}

const row = (gamma, ...cells) =>
  element("tr", {}, element("th", { scope: "row" }, gamma.toFixed(1)), ...cells);

function filled(gamma, choices) {
  const groups = Map.groupBy(choices, (choice) => plain(choice.message.content));
  const answers = [...groups.values()].map(item);
  const share = choices.reduce((sum, choice) => sum + choice.baco.base_share, 0) / choices.length;
  const bar = element("span", { class: "bar", "aria-hidden": "true" });
  bar.style.setProperty("--part", groups.size / choices.length);
  const count = [element("b", {}, groups.size), ` of ${choices.length}`, bar];
  count.push(element("small", {}, `${percent(share)} base`));
  const list = element("td", {}, element("ul", {}, ...answers));
  return row(gamma, element("td", { class: "count" }, ...count), list);
}

function item(same) {
  const made = element("li", {}, same[0].message.content.trim());
  const times = element("span", { class: "times", title: "so many duplicates" }, `×${same.length}`);
  if (same.length > 1) made.append(" ", times);
  return made;
}
