// The settings: as the form shows them, as a URL fragment, and as a request.

const TEXTS = ["prompt", "system", "pair", "router"];
const NUMBERS = ["gamma", "temperature", "max_tokens", "seed"];

/** Read the form. What is switched off, such as gamma under a router without one, is left out. */
export function settingsOf(form) {
  const given = new FormData(form);
  const settings = {};
  for (const name of TEXTS) if (given.get(name)) settings[name] = given.get(name);
  for (const name of NUMBERS) if (given.get(name)) settings[name] = Number(given.get(name));
  return settings;
}

/** Write values into the form; what is no setting, or not allowed, is passed over. */
export function setFields(form, values) {
  for (const [name, value] of Object.entries(values)) {
    const field = form.elements.namedItem(name); // which knows no prototypes
    if (!field || value === null) continue;
    const before = field.value;
    field.value = value;
    if (field.value === "" || !field.validity.valid) field.value = before;
  }
}

/** Write the settings, and what else is given, into the URL; keys are none of them. */
export function remember(settings, more) {
  history.replaceState(null, "", `#${new URLSearchParams({ ...settings, ...more })}`);
}

/** What the URL says. */
export const remembered = () =>
  Object.fromEntries(new URLSearchParams(location.hash.slice(1)).entries());

/** Make a request of settings; `over` replaces single ones, and undefined takes them out. */
export function requestOf({ prompt = "", system, pair, ...rest }, over = {}) {
  const messages = [{ role: "user", content: prompt }];
  if (system) messages.unshift({ role: "system", content: system });
  return { model: pair, messages, ...rest, ...over };
}
