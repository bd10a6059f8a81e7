// What the page knows of the server: its models, its knowledge bases and their versions, and which of them is asked.

import { get, key } from "./api.js";
import { makeStore } from "./store.js";

const ALONE = ":closed-book"; // ends the name of a model that reads no documents

/**
 * `name`: the chosen one of the `served` models. To ask by it: `model` (from documents; "" without any), `closed` (the model
 * alone). `base` and `asOf`: what was chosen; empty for the first knowledge base and its newest version. `problem`: why the
 * server could not be read.
 */
export const server = makeStore({
  loaded: false, problem: "", model: "", closed: "", name: "", served: [], models: [], bases: [], versions: [], base: "", asOf: "", keyWanted: "",
});

/** Which documents are asked, for a query or a body of the API. */
export function choosing() {
  const { base, asOf } = server.get();
  return { knowledge_base: base || undefined, as_of: asOf || undefined };
}

/** The filter of the API for one document, or for what lies in a folder; undefined for all. */
export function where(scope) {
  const quoted = (text) => `'${text.replaceAll("'", "''")}'`;
  const folder = scope?.folder?.replace(/\/$/, "");
  return scope?.path ? `path = ${quoted(scope.path)}` : folder ? `path >= ${quoted(`${folder}/`)} and path < ${quoted(`${folder}0`)}` : undefined; // "0" comes after "/"
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
  const bases = models.find((each) => each.openbook.mode === "open-book")?.openbook.knowledge_bases ?? [];
  const served = models.filter(({ id, openbook }) => openbook.mode === "closed-book" && id.endsWith(ALONE)).map(({ id }) => id.slice(0, -ALONE.length));
  const { base, name } = server.get();
  server.set({ models, bases, served, base: bases.some((each) => each.name === base) ? base : "" }); // else the first
  chooseModel(served.includes(name) ? name : served[0]);
  await loadVersions();
}

export const chooseModel = (name) => server.set({ name, model: server.get().bases.length ? name : "", closed: name + ALONE });

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
