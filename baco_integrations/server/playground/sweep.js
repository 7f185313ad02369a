// The gamma sweep: how many different answers there are at each gamma.

import { complete } from "./api.js";
import { element, percent } from "./dom.js";

const GAMMAS = [0, 0.2, 0.4, 0.6, 0.8, 1];

/** What answers have in common that count as one. */
const plain = (text) => text.toLowerCase().replace(/\p{P}/gu, "").replace(/\s+/g, " ").trim();

/** Ask for n answers at each gamma, one gamma after the other, and add a row to a table for each. */
export async function sweep(body, n, rows, signal) {
  rows.replaceChildren();
  for (const gamma of GAMMAS) {
    const { choices } = await complete({ ...body, gamma, n }, signal);
    rows.append(rowOf(gamma, choices));
  }
}

function rowOf(gamma, choices) {
  const groups = Map.groupBy(choices, (choice) => plain(choice.message.content));
  const answers = [...groups.values()].map(item);
  const share = choices.reduce((sum, choice) => sum + choice.baco.base_share, 0) / choices.length;
  const bar = element("span", { class: "bar", "aria-hidden": "true" });
  bar.style.setProperty("--part", groups.size / choices.length);
  const count = [element("b", {}, groups.size), ` of ${choices.length}`, bar];
  count.push(element("small", {}, `${percent(share)} base`));
  return element("tr", {},
    element("th", { scope: "row" }, gamma.toFixed(1)),
    element("td", { class: "count" }, ...count),
    element("td", {}, element("ul", {}, ...answers)));
}

function item(same) {
  const made = element("li", {}, same[0].message.content.trim());
  const times = element("span", { class: "times", title: "so many of these" }, `×${same.length}`);
  if (same.length > 1) made.append(" ", times);
  return made;
}
