// The settings: as the form shows them, as a URL fragment, and as a request.

const NAMES = ["prompt", "system", "pair", "gamma", "router", "temperature", "max_tokens", "seed"];
const NUMBERS = new Set(["gamma", "temperature", "max_tokens", "seed"]);

/** Read the form. What is switched off, such as gamma under a router without one, is left out. */
export function settingsOf(form) {
  const given = new FormData(form);
  const names = NAMES.filter((name) => given.get(name));
  return Object.fromEntries(
    names.map((name) => [name, NUMBERS.has(name) ? Number(given.get(name)) : given.get(name)]),
  );
}

/** Write the settings, and which panels are open, into the URL; keys are none of them. */
export function remember(settings, panels) {
  const all = Object.entries({ ...settings, ...panels });
  const fragment = new URLSearchParams(all.filter(([, value]) => value !== undefined));
  history.replaceState(null, "", `#${fragment}`);
}

/** Fill the form in from the URL's fragment; what is no setting, or not allowed, is passed over. */
export function restore(form, fragment) {
  for (const name of NAMES) if (fragment.has(name)) setField(form.elements[name], fragment.get(name));
}

/** Set a field to a value, unless it is none that the field can have. */
export function setField(field, value) {
  const before = field.value;
  field.value = value;
  if (field.value === "" || !field.validity.valid) field.value = before;
}

/** Make a request of settings; `over` replaces single ones, and undefined takes them out. */
export function requestOf({ prompt, system, pair, ...rest }, over = {}) {
  const messages = [{ role: "user", content: prompt ?? "" }];
  if (system) messages.unshift({ role: "system", content: system });
  return { model: pair, messages, ...rest, ...over };
}
