// The page: reads the form, asks the server, and shows what comes.

import { Answer } from "./answer.js";
import * as api from "./api.js";
import * as code from "./code.js";
import { Details } from "./details.js";
import { alertIn, copy, element, find, newSeed, say } from "./dom.js";
import { remember, requestOf, restore, setField, settingsOf } from "./state.js";
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
let asked = null; // the settings of the last run, of which gamma and router can change since
let branches = 0;
let pairs = [];

/** Give a task a signal that Stop, or the next task of the same place, aborts. */
async function run(place, task) {
  place.controller?.abort();
  const controller = (place.controller = new AbortController());
  running.add(controller);
  find("stop").disabled = false;
  try {
    return await task(controller.signal);
  } finally {
    running.delete(controller);
    find("stop").disabled = running.size === 0;
  }
}

// -- answers ---------------------------------------------------------------------------------

function askColumn(name) {
  const column = COLUMNS[name];
  const place = find(`${name}-column`).querySelector(".place");
  const answer = new Answer(column.label, requestOf(asked, column.over), details);
  place.setAttribute("aria-busy", "true");
  return run(column, async (signal) => {
    // What was there stays until there is something new: the page does not jump, nothing is lost.
    const ended = await answer.decode(signal, () => {
      if (signal.aborted || answer.element.isConnected) return;
      details.hide();
      place.replaceChildren(answer.element);
    });
    if (column.controller.signal === signal) {
      place.removeAttribute("aria-busy");
      if (!answer.element.isConnected) place.prepend(answer.alert);
    }
    return ended ? `${column.label}: ${answer.summary}.` : "";
  });
}

async function runAll() {
  asked = settingsOf(form);
  clearBranches();
  const told = await Promise.all(Object.keys(COLUMNS).map(askColumn));
  if (told.every(Boolean)) say(`Done. ${told.join(" ")}`);
}

async function runBaco() {
  const { gamma, router } = settingsOf(form);
  asked = { ...asked, gamma, router };
  say(await askColumn("baco"));
}

// -- branches --------------------------------------------------------------------------------

function branch(answer, index, alternative = "") {
  const kept = answer.textBefore(index) + alternative;
  const messages = answer.body.messages.filter((message) => message.role !== "assistant");
  const body = { ...answer.body, messages, seed: newSeed() };
  if (kept) {
    messages.push({ role: "assistant", content: kept });
    body.continue_final_message = true;
  }
  branches += 1;
  const child = new Answer(`branch ${branches}`, body, details, kept);
  const item = element("li", {}, captionOf(child, answer), child.element);
  find("branch-list").append(item);
  find("branches").hidden = false;
  item.scrollIntoView({ block: "nearest" });
  run(child, async (signal) => {
    if (await child.decode(signal)) say(`${child.label}: ${child.summary}.`);
  });
}

function captionOf(child, parent) {
  const { router, gamma, seed } = child.body;
  const settings = [router, gamma === undefined ? "" : `gamma ${gamma}`, `seed ${seed}`];
  const back = button(`from ${parent.label}`, () => parent.focus(parent.current));
  back.title = "Go back to it";
  const remove = button("Remove", () => {
    child.controller?.abort();
    details.hide();
    remove.closest("li").remove();
    find("branches").hidden = !find("branch-list").children.length;
  });
  remove.setAttribute("aria-label", `Remove ${child.label}`);
  const title = element("h3", {}, child.label);
  const told = element("span", { class: "hint" }, settings.filter(Boolean).join(" · "));
  return element("div", { class: "caption" }, title, back, told, remove);
}

function clearBranches() {
  details.hide();
  find("branch-list").replaceChildren();
  find("branches").hidden = true;
  branches = 0;
}

function button(label, press) {
  const made = element("button", { type: "button", class: "quiet" }, label);
  made.addEventListener("click", press);
  return made;
}

// -- sweep and code --------------------------------------------------------------------------

async function runSweep() {
  const place = find("sweep");
  if (find("gamma").disabled) {
    alertIn(find("sweep-alert"), `The router ${find("router").value} has no gamma. Choose another.`);
    return;
  }
  alertIn(find("sweep-alert"));
  find("sweep-table").hidden = false;
  find("sweep-stop").disabled = false;
  const body = requestOf(settingsOf(form));
  const rows = find("sweep-table").tBodies[0];
  await run(place, async (signal) => {
    try {
      await sweep(body, Number(find("samples").value), rows, signal);
      say("The sweep is done.");
    } catch (error) {
      if (!signal.aborted) alertIn(find("sweep-alert"), error.message);
    }
  });
  find("sweep-stop").disabled = true;
}

function showCode() {
  const language = document.querySelector("[name=language]:checked").value;
  const base = new URL("v1", location.href.split("#")[0]).href;
  find("code-text").textContent = code[language](base, requestOf(settingsOf(form)), api.hasKey());
}

// -- the form --------------------------------------------------------------------------------

/** Show what follows from the settings. */
function showSettings() {
  const unused = find("router").selectedOptions[0].dataset.gamma === "unused";
  find("gamma").disabled = unused;
  find("gamma-value").value = unused ? "unused" : Number(find("gamma").value).toFixed(2);
  find("examples").hidden = find("pair").value !== "tiny";
  showCode();
}

/** Show the settings, and keep them in the URL. */
function changed() {
  showSettings();
  remember(settingsOf(form), { sweep: find("sweep").open ? 1 : undefined, n: find("samples").value });
}

/** Fill the form in from the URL, over what the server sets for the pair. */
function fillIn() {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const wanted = fragment.get("pair");
  form.reset();
  useDefaults(pairs.find(({ id }) => id === wanted) ?? pairs[0]);
  restore(form, fragment);
  if (fragment.has("n")) setField(find("samples"), fragment.get("n"));
  find("system-box").open = find("system").value !== "";
  find("sweep").open = fragment.get("sweep") === "1";
  const served = !wanted || pairs.some(({ id }) => id === wanted);
  alertIn(find("page-alert"), served ? "" : `The pair ${wanted} of this link is not served here.`);
  showSettings();
}

function useDefaults({ baco }) {
  for (const [name, value] of Object.entries(baco.defaults ?? {})) {
    if (value !== null && form.elements[name]) setField(form.elements[name], value);
  }
}

async function loadPairs() {
  try {
    pairs = await api.models();
    const option = ({ id, baco }) =>
      element("option", { value: id }, baco.loaded ? id : `${id} (loads when asked)`);
    find("pair").replaceChildren(...pairs.map(option));
    find("key-form").hidden = true;
    fillIn();
  } catch (error) {
    const refused = error.status === 401;
    find("key-form").hidden = !refused;
    if (!refused || api.hasKey()) alertIn(find("page-alert"), error.message);
  }
}

function listen() {
  const onSubmit = (id, submit) =>
    find(id).addEventListener("submit", (event) => {
      event.preventDefault();
      submit();
    });
  const onClick = (id, click) => find(id).addEventListener("click", click);
  onSubmit("ask", runAll);
  onSubmit("sweep-form", runSweep);
  onSubmit("key-form", () => {
    api.keepKey(find("key").value);
    loadPairs();
  });
  onClick("stop", () => running.forEach((controller) => controller.abort()));
  onClick("sweep-stop", () => find("sweep").controller.abort());
  onClick("new-seed", () => {
    find("seed").value = newSeed();
    changed();
  });
  onClick("copy", () => copy(find("code-text").textContent, find("copy")));
  onClick("copy-link", () => copy(location.href, find("copy-link")));
  onClick("examples", ({ target }) => {
    if (target.type !== "button") return;
    find("prompt").value = target.textContent;
    changed();
    form.requestSubmit();
  });
  find("prompt").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  document.addEventListener("input", showSettings);
  document.addEventListener("change", changed);
  find("pair").addEventListener("change", () => {
    useDefaults(pairs.find(({ id }) => id === find("pair").value));
    changed();
  });
  let resting;
  for (const id of ["gamma", "router"]) {
    find(id).addEventListener("input", () => {
      clearTimeout(resting);
      if (asked) resting = setTimeout(runBaco, PAUSE);
    });
  }
  find("sweep").addEventListener("toggle", changed);
  addEventListener("hashchange", fillIn);
}

listen();
loadPairs();
