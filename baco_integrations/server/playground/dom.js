// Small helpers: elements, numbers, the clipboard.

/** Make an element. Text goes in as text nodes, never as markup. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export function button(label, press, attributes = {}) {
  const made = element("button", { type: "button", ...attributes }, label);
  made.addEventListener("click", press);
  return made;
}

export const find = (id) => document.getElementById(id);

/** Say something to screen readers. */
export const say = (text) => (find("live").textContent = text);

/** Show an error in words, or clear it. */
export function alertIn(place, text = "") {
  place.textContent = text;
  place.hidden = !text;
}

export const percent = (share) => `${Math.round(100 * share)} %`;

/** A probability as text, with the exact number beside it. */
export function probability(p, places) {
  const least = 10 ** -places;
  const shown = p > 0 && 100 * p < least ? `< ${least}` : (100 * p).toFixed(places);
  return element("data", { value: p }, `${shown} %`);
}

export const newSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];

export async function copy(text, pressed) {
  const written = navigator.clipboard?.writeText(text) ?? Promise.reject();
  await written.catch(() => copyFromField(text)); // without https, from another machine
  say("Copied.");
  pressed.dataset.copied = "";
  setTimeout(() => delete pressed.dataset.copied, 1500);
}

function copyFromField(text) {
  const field = element("textarea", {}, text);
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}
