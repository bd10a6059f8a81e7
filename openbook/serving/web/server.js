// What the page knows of the server: its models, its knowledge bases and their versions, and which of them is asked.

import { get, key } from "./api.js";
import { makeStore } from "./store.js";

/**
 * `model` (from documents; "" without any) and `closed` (the model alone) are names to ask by. `base` and `asOf`: what was
 * chosen; empty for the first knowledge base and its newest version. `problem`: why the server could not be read.
 */
export const server = makeStore({
  loaded: false, problem: "", model: "", closed: "", models: [], bases: [], versions: [], base: "", asOf: "", keyWanted: "",
});

/** Which documents are asked, for a query or a body of the API. */
export function choosing() {
  const { base, asOf } = server.get();
  return { knowledge_base: base || undefined, as_of: asOf || undefined };
}

let loading = Promise.resolve();
/** Ends when the page knows the server, or why not. */
export const ready = () => loading;

export function load() {
  loading = loadAll().then(() => server.set({ loaded: true, problem: "" }), (error) => {
    // A missing key opens its field instead.
    server.set({ loaded: false, problem: error.status === 401 ? "" : error.message });
  });
  return loading;
}

async function loadAll() {
  const models = (await get("/v1/models")).data;
  const of = (mode) => models.find((each) => each.openbook.mode === mode);
  const bases = of("open-book")?.openbook.knowledge_bases ?? [];
  const { base } = server.get();
  server.set({
    models, bases, model: of("open-book")?.id ?? "", closed: of("closed-book").id,
    base: bases.some((each) => each.name === base) ? base : "", // else the first
  });
  await loadVersions();
}

/** Raises ApiError. */
export async function loadVersions() {
  const { base, bases, asOf } = server.get();
  const versions = bases.length ? (await get("/v1/versions", { knowledge_base: base })).data : [];
  const kept = versions.slice(1).some((each) => String(each.version) === asOf);
  server.set({ versions, asOf: kept ? asOf : "" });
}

/** A number means another version in another knowledge base. Raises ApiError. */
export async function chooseBase(base) {
  server.set({ base, asOf: "" });
  await loadVersions();
}

document.addEventListener("key-needed", (event) => server.set({ keyWanted: event.detail || " " }));

/** Signs in, or out with "". Raises nothing. */
export async function useKey(value) {
  key.set(value);
  server.set({ keyWanted: "", loaded: false, models: [], bases: [], versions: [] }); // those of another key
  await load();
}
