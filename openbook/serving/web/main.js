// The parts of the page, the key, and what is shown first.

import { key } from "./api.js";
import "./ask.js";
import * as documents from "./documents.js";
import { byId, digest } from "./dom.js";
import * as model from "./model.js";
import { load, loadVersions, server } from "./server.js";
import * as versions from "./versions.js";

const tabs = [...document.querySelectorAll("nav button")];

const SHOW = {
  ask: async () => byId("question").focus(),
  documents: async () => documents.show(),
  versions: async () => versions.show(askOf),
  model: async () => model.show(),
};

async function go(view) {
  for (const tab of tabs) {
    const here = tab.dataset.view === view;
    byId(tab.dataset.view).hidden = !here;
    if (here) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
  await trying(SHOW[view]);
}

function askOf(version) {
  byId("as-of").value = version;
  go("ask");
}

/** Tells what fails on the page. A missing key opens its field instead. */
async function trying(work) {
  byId("problem").hidden = true;
  try {
    await work();
  } catch (error) {
    if (error.status === 401) return;
    byId("problem").textContent = error.message;
    byId("problem").hidden = false;
  }
}

async function start() {
  await trying(async () => {
    await load();
    const { openbook } = server.models[0];
    byId("who").replaceChildren(`${server.closed.split(":")[0]} `, digest(openbook.digest), ` ${openbook.evidence}`);
    for (const mode of ["open", "both"]) document.querySelector(`input[value=${mode}]`).disabled = !server.model;
    if (!server.model) document.querySelector("input[value=closed]").checked = true;
  });
}

for (const tab of tabs) tab.addEventListener("click", () => go(tab.dataset.view));
byId("base").addEventListener("change", () => {
  byId("as-of").value = ""; // a number means another version there
  trying(loadVersions);
});

// --- the key ---

const dialog = byId("key");

function askForKey(why = "") {
  if (why) byId("key-why").textContent = why;
  byId("key-field").value = key.get();
  if (!dialog.open) dialog.showModal();
}

document.addEventListener("key-needed", (event) => askForKey(event.detail));
byId("key-open").addEventListener("click", () => askForKey());
byId("key-close").addEventListener("click", () => dialog.close());
byId("key-forget").addEventListener("click", () => useKey(""));
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(byId("key-field").value.trim());
});

async function useKey(value) {
  key.set(value);
  byId("key-field").value = "";
  dialog.close();
  await start();
  if (server.closed) await go(tabs.find((tab) => tab.hasAttribute("aria-current")).dataset.view);
}

await start();
