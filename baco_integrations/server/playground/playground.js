// The page: reads the form, asks the server, and shows what comes.

import { Answer } from "./answer.js";
import * as api from "./api.js";
import { addBranch, clearBranches } from "./branches.js";
import * as code from "./code.js";
import { Details } from "./details.js";
import { alertIn, copy, element, find, newSeed, say } from "./dom.js";
import { remember, remembered, requestOf, setFields, settingsOf } from "./state.js";
import { sweep } from "./sweep.js";

const PAUSE = 150; // ms for which gamma must rest before BACo is asked again
const COLUMNS = {
  base: { label: "base alone", over: { router: "base", gamma: undefined } },
  aligned: { label: "aligned alone", over: { router: "aligned", gamma: undefined } },
  baco: { label: "BACo", over: {} },
};
const form = find("ask");
const details = new Details(branch);
const running = new Set();
let pairs = [];
let asked = null; // the settings of the last run; gamma and router may have changed since

/** Run a task with a signal that Stop, or the next task of the same owner, aborts. */
async function run(owner, task) {
  owner.controller?.abort();
  const controller = (owner.controller = new AbortController());
  running.add(controller);
  find("stop").disabled = false;
  await task(controller.signal);
  running.delete(controller);
  find("stop").disabled = running.size === 0;
}

// -- answers ---------------------------------------------------------------------------------

/** Ask for a column's answer; return what to say of it, or nothing if it did not end. */
async function askColumn(name) {
  const { label, over } = COLUMNS[name];
  const place = find(`${name}-column`).querySelector(".place");
  const answer = new Answer(label, requestOf(asked, over), details);
  let ended = false;
  await run(COLUMNS[name], async (signal) => {
    const current = () => COLUMNS[name].controller.signal === signal;
    place.setAttribute("aria-busy", "true");
    place.querySelector(".empty")?.replaceChildren("Waiting for the first token ...");
    // What was there stays until there is something new: the page does not jump, nothing is lost.
    ended = await answer.decode(signal, () => {
      if (!current() || answer.element.isConnected) return;
      details.hide();
      place.replaceChildren(answer.element);
    });
    if (!current()) return;
    place.removeAttribute("aria-busy");
    place.querySelector(".empty")?.replaceChildren("There is no answer yet.");
    if (answer.element.isConnected) return;
    place.querySelector(":scope > .alert")?.remove();
    place.prepend(answer.alert);
  });
  return ended ? answer.summary : "";
}

async function runAll() {
  asked = settingsOf(form);
  details.hide();
  clearBranches();
  const told = await Promise.all(Object.keys(COLUMNS).map(askColumn));
  if (told.every(Boolean)) say(`Done. ${told.join(" ")}`);
}

async function runBaco() {
  const { gamma, router } = settingsOf(form);
  asked = { ...asked, gamma, router };
  say(await askColumn("baco"));
}

async function branch(parent, kept) {
  const child = addBranch(parent, kept, details);
  await run(child, async (signal) => {
    if (await child.decode(signal)) say(child.summary);
  });
}

// -- sweep and code --------------------------------------------------------------------------

async function runSweep() {
  const unused = `The router ${find("router").value} has no gamma. Choose another.`;
  alertIn(find("sweep-alert"), find("gamma").disabled ? unused : "");
  if (find("gamma").disabled || !form.reportValidity()) return;
  find("sweep-table").hidden = false;
  find("sweep-stop").disabled = false;
  const rows = find("sweep-table").tBodies[0];
  await run(find("sweep"), async (signal) => {
    try {
      await sweep(requestOf(settingsOf(form)), Number(find("samples").value), rows, signal);
      say("The sweep is done.");
    } catch (error) {
      if (!signal.aborted) alertIn(find("sweep-alert"), error.message);
    }
  });
  find("sweep-stop").disabled = true;
}

function showCode() {
  const language = document.querySelector("[name=language]:checked").value;
  const base = new URL("v1", location.origin + location.pathname).href;
  find("code-text").textContent = code[language](base, requestOf(settingsOf(form)), api.hasKey());
}

// -- settings --------------------------------------------------------------------------------

/** Show what follows from the settings. */
function showSettings() {
  const unused = find("router").selectedOptions[0].dataset.gamma === "unused";
  find("gamma").disabled = unused;
  find("gamma-value").textContent = unused ? "unused" : Number(find("gamma").value).toFixed(2);
  find("examples").hidden = find("pair").value !== "tiny";
  showCode();
}

/** Show the settings, and keep them in the URL. */
function changed() {
  showSettings();
  const open = find("sweep").open ? { sweep: 1 } : {};
  remember(settingsOf(form), { n: find("samples").value, ...open });
}

/** Fill the forms in from the URL, over what the server sets for the pair. */
function fillIn() {
  const values = remembered();
  const wanted = pairs.find(({ id }) => id === values.pair);
  setFields(form, (wanted ?? pairs[0]).baco.defaults ?? {});
  setFields(form, values);
  setFields(find("sweep-form"), values);
  find("system-box").open = find("system").value !== "";
  find("sweep").open = values.sweep === "1";
  const missing = values.pair && !wanted;
  alertIn(find("page-alert"), missing ? `The pair ${values.pair} is not served here.` : "");
  showSettings();
}

async function loadPairs() {
  try {
    pairs = await api.models();
    find("pair").replaceChildren(...pairs.map(({ id }) => element("option", {}, id)));
    find("key-form").hidden = true;
    fillIn();
  } catch (error) {
    const first = error.status === 401 && !api.hasKey();
    alertIn(find("page-alert"), first ? "" : error.message);
  }
}

// -- events ----------------------------------------------------------------------------------

function onSubmit(id, submit) {
  find(id).addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
}

const onClick = (id, click) => find(id).addEventListener("click", click);

function set(field, value) {
  field.value = value;
  changed();
}

onSubmit("ask", runAll);
onSubmit("sweep-form", runSweep);
onSubmit("key-form", () => {
  api.keepKey(find("key").value);
  loadPairs();
});
onClick("stop", () => running.forEach((controller) => controller.abort()));
onClick("sweep-stop", () => find("sweep").controller.abort());
onClick("new-seed", () => set(find("seed"), newSeed()));
onClick("copy", () => copy(find("code-text").textContent, find("copy")));
onClick("copy-link", () => copy(location.href, find("copy-link")));
onClick("examples", ({ target }) => {
  if (target.type !== "button") return;
  set(find("prompt"), target.textContent);
  form.requestSubmit();
});
find("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
let resting;
for (const id of ["gamma", "router"]) {
  find(id).addEventListener("input", () => {
    clearTimeout(resting);
    if (asked) resting = setTimeout(runBaco, PAUSE);
  });
}
find("pair").addEventListener("change", ({ target }) =>
  setFields(form, pairs.find(({ id }) => id === target.value).baco.defaults ?? {}),
);
document.addEventListener("input", showSettings);
document.addEventListener("change", changed);
find("sweep").addEventListener("toggle", changed);
addEventListener("key-needed", () => (find("key-form").hidden = false));
addEventListener("hashchange", () => {
  form.reset(); // what the new URL does not say is as it was at first
  fillIn();
});
loadPairs();
