// What the page knows of the server: its models, its knowledge bases and their versions, and which of them is asked.

import { get } from "./api.js";
import { byId, count, el, when } from "./dom.js";

/** `model` (from documents; "" without any) and `closed` are names to ask by. `ready`: what a question waits for. */
export const server = { ready: Promise.resolve(), model: "", closed: "", models: [], bases: [], versions: [] };

export const chosen = {
  base: () => byId("base").value,
  asOf: () => byId("as-of").value,
};

/** Which documents are asked, for a query or a body of the API: empty for the newest version of the first knowledge base. */
export function choosing() {
  return { knowledge_base: chosen.base() || undefined, as_of: chosen.asOf() || undefined };
}

/** Raises ApiError, and so does `server.ready`. */
export function load() {
  server.ready = loadAll();
  return server.ready;
}

async function loadAll() {
  server.models = (await get("/v1/models")).data;
  const of = (mode) => server.models.find((each) => each.openbook.mode === mode);
  server.model = of("open-book")?.id ?? "";
  server.closed = of("closed-book").id;
  server.bases = of("open-book")?.openbook.knowledge_bases ?? [];
  const names = server.bases.map((each) => each.name);
  byId("base").replaceChildren(...names.map((name) => el("option", { value: name }, name)));
  byId("base-label").hidden = names.length < 2;
  await loadVersions();
}

export async function loadVersions() {
  server.versions = server.bases.length ? (await get("/v1/versions", { knowledge_base: chosen.base() })).data : [];
  const before = chosen.asOf();
  const older = server.versions.slice(1).filter((each) => each.documents);
  byId("as-of").replaceChildren(
    el("option", { value: "" }, server.versions.length ? `newest (${server.versions[0].version})` : "newest"),
    ...older.map((each) => el("option", { value: String(each.version) }, `${each.version} · ${when(each.created_at)}`)),
  );
  if (older.some((each) => String(each.version) === before)) byId("as-of").value = before;
  const newest = server.versions[0];
  byId("holds").textContent = newest
    ? `${count(newest.documents, "document")} in version ${newest.version}, from ${when(newest.created_at)}.`
    : "This server has no knowledge base; the model can only be asked alone.";
}
