// The documents of the knowledge base: adding by upload, the list, and finding passages.

import { get, post, upload } from "./api.js";
import { source } from "./answer.js";
import { byId, count, documentButton, el } from "./dom.js";
import { openDocument } from "./reader.js";
import { choosing, chosen, loadVersions } from "./server.js";

const AT_ONCE = 32; // files of one upload, and so of one version
const MAX_BYTES = 32e6; // of one upload, unless one file alone has more; the server takes 100 million

// --- adding ---

/** Files one by one; of a dropped folder the browser gives only its name. */
async function add(files) {
  for (const some of batches(files)) await addSome(some);
}

/** So many files together as one upload may have, in their order. */
function batches(files) {
  const found = [];
  let bytes = 0;
  for (const file of files) {
    bytes += file.size;
    if (!found.length || found.at(-1).length === AT_ONCE || bytes > MAX_BYTES) {
      found.push([]);
      bytes = file.size;
    }
    found.at(-1).push(file);
  }
  return found;
}

async function addSome(files) {
  const states = files.map(() => el("span", { class: "soft" }, "waiting"));
  const bar = el("progress", { max: 1, value: 0, "aria-label": "Sent" });
  const told = el("p", { class: "soft" }, `Sending ${count(files.length, "file")}…`);
  const shown = el("div", { class: "upload" }, told, bar,
    el("ul", { class: "rows" }, ...files.map((file, i) => el("li", {}, el("span", {}, file.name), states[i]))));
  byId("uploading").prepend(shown);
  try {
    const done = await upload(files, chosen.base(), (share) => {
      bar.value = share;
      if (share < 1) return;
      told.textContent = "Reading…";
      bar.removeAttribute("value");
      states.forEach((state) => (state.textContent = "reading"));
    });
    states.forEach((state, i) => verdict(state, done.data[i])); // in the order in which they were sent
    told.textContent = `Version ${done.version} of the knowledge base.`;
    await loadVersions();
    await show();
  } catch (error) {
    told.textContent = error.message;
    told.className = "bad";
    states.forEach((state) => verdict(state, { outcome: "failed", reason: error.message }));
  }
  bar.remove();
}

function verdict(state, found) {
  if (!found) return;
  const good = !["failed", "skipped"].includes(found.outcome);
  state.className = good ? "good" : "bad";
  state.textContent = found.reason ? `${found.outcome}: ${found.reason}` : found.outcome;
}

const drop = byId("drop");

byId("pick").addEventListener("click", () => byId("files").click());
byId("files").addEventListener("change", () => {
  add([...byId("files").files]);
  byId("files").value = "";
});
drop.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  const items = [...event.dataTransfer.items].filter((item) => item.kind === "file");
  const files = items.filter((item) => !item.webkitGetAsEntry()?.isDirectory).map((item) => item.getAsFile());
  if (files.length < items.length) {
    byId("uploading").prepend(el("p", { class: "bad" }, "Folders are not taken from here: openbook sync FOLDER keeps one up to date."));
  }
  add(files);
});
// A file dropped outside the field must not replace this page.
for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());

// --- the list ---

let last = ""; // of the paths that are shown

export async function show(after = "") {
  const found = await get("/v1/documents", { ...choosing(), after, limit: 100 });
  const rows = found.data.map(({ path }) => el("li", {}, documentButton(path, () => openDocument(path, found.version))));
  if (after) byId("list").append(...rows);
  else byId("list").replaceChildren(...(rows.length ? rows : [el("li", { class: "soft" }, "No documents yet.")]));
  byId("list-title").textContent = `In version ${found.version} of the knowledge base`;
  byId("more").hidden = !found.has_more;
  last = found.data.at(-1)?.path ?? "";
}

byId("more").addEventListener("click", async () => {
  try {
    await show(last);
  } catch (error) {
    byId("list").append(el("li", { class: "bad" }, error.message));
  }
});

// --- finding ---

byId("search").addEventListener("submit", async (event) => {
  event.preventDefault();
  const query = byId("words").value.trim();
  if (!query) return;
  try {
    const found = await post("/v1/search", { query, limit: 8, ...choosing() });
    byId("found").replaceChildren(
      el("p", { class: "soft" }, `${count(found.data.length, "passage")} of version ${found.version}, best first.`),
      ...found.data.map((hit) => source(hit.passage, found.version, [], null)),
    );
  } catch (error) {
    byId("found").replaceChildren(el("p", { class: "bad" }, error.message));
  }
});
