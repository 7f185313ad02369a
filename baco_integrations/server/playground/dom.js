// Small helpers for elements and numbers.

/** Make an element. Text goes in as text nodes, never as markup. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

export const find = (id) => document.getElementById(id);

/** Say something to screen readers, once. */
export function say(text) {
  find("live").textContent = text;
}

/** Show an error in words where it happened, or clear it. */
export function alertIn(place, text = "") {
  place.textContent = text;
  place.hidden = !text;
}

export const percent = (share) => `${Math.round(100 * share)} %`;

/** A probability as text, with the exact number beside it. */
export function probability(p) {
  const shown = p > 0 && p < 0.001 ? "< 0.1 %" : `${(100 * p).toFixed(1)} %`;
  return element("data", { value: p }, shown);
}

export const newSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];

export async function copy(text, button) {
  const label = button.dataset.label ?? (button.dataset.label = button.textContent);
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed here: select it and press Ctrl+C"; // outside of https
  }
  say(button.textContent);
  setTimeout(() => (button.textContent = label), 2000);
}
