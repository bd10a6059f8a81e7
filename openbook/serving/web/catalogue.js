// The documents of a knowledge base: read page by page, and which of them are shown: a folder, words, filters, an order.

import { get, key } from "./api.js";
import { choosing } from "./server.js";
import { makeStore } from "./store.js";
import { useEffect, useState } from "./vendor/preact.js";
import { baseName, order } from "./words.js";

/** `list`: those read so far; `done`: all are. `unread`: verdicts of files that could not be read, for an administrator. */
export const catalogue = makeStore({ of: "", list: [], version: null, done: false, problem: "", unread: [], mayPurge: true, mayWrite: true });

const UPLOADED = /^(.*\/uploads\/[0-9a-f]{32})\/[^/]+\/[^/]+$/;

export const isUpload = (path) => UPLOADED.test(path);

function entry(document) {
  const { path, title, media_type: kind } = document;
  const name = baseName(path);
  const ending = /[^.]\.(\w{1,8})$/.exec(name.split(/[?#]/)[0])?.[1]; // of an address without its query
  const uploads = UPLOADED.exec(path)?.[1];
  return {
    ...document, name, isUploaded: Boolean(uploads),
    folder: uploads ?? path.slice(0, Math.max(0, path.lastIndexOf("/"))),
    type: (ending ?? kind.split("/").pop()).toLowerCase(),
    words: `${name}\n${title}`.toLowerCase(),
  };
}

let turns = 0;

/** Reads the list; the first documents are shown at once. One that is renewed is shown until the new one is whole. */
export async function loadDocuments() {
  const turn = ++turns;
  const of = JSON.stringify([choosing(), key.get()]);
  const isNew = of !== catalogue.get().of;
  if (isNew) catalogue.set({ of, list: [], version: null, done: false, unread: [], mayPurge: true, mayWrite: true });
  catalogue.set({ problem: "" });
  loadUnread(turn);
  let list = [];
  let version = null;
  try {
    for (let more = true; more;) {
      const found = await get("/v1/documents", { ...choosing(), as_of: version ?? choosing().as_of, after: list.at(-1)?.path });
      if (turn !== turns) return;
      version = found.version;
      list = list.concat(found.data.map(entry));
      more = found.has_more;
      if (isNew || !more) catalogue.set({ list, version, done: !more });
    }
  } catch (error) {
    if (turn === turns) catalogue.set({ problem: error.message, done: true });
  }
}

async function loadUnread(turn) {
  try {
    const { data } = await get("/v1/verdicts", { knowledge_base: choosing().knowledge_base });
    if (turn === turns) catalogue.set({ unread: data, mayPurge: true });
  } catch (error) {
    if (turn === turns) catalogue.set({ unread: [], mayPurge: error.status !== 403 });
  }
}

/** A refusal of a change, which the key may not make. */
export function noteRefusal(error) {
  if (error.code === "insufficient_permissions") catalogue.set({ mayWrite: false, mayPurge: false });
  return error.message;
}

// --- folders ---

function shared(a, b) {
  const [one, other] = [a.split("/"), b.split("/")];
  const differs = one.findIndex((part, i) => part !== other[i]);
  return differs < 0 ? a : one.slice(0, differs).join("/");
}

const isWithin = (folder, top) => folder === top || folder.startsWith(`${top}/`);

/**
 * What lies in `folder` ("": the folder of all documents). `crumbs` and `folders`: {path, name}. A folder that holds nothing but
 * one folder is shown as one with it.
 */
export function contents(list, folder) {
  const own = list.filter((each) => !each.isUploaded);
  const top = (own.length ? own : list).map((each) => each.folder).reduce((a, b) => (isWithin(b, a) ? a : shared(a, b)), (own[0] ?? list[0])?.folder ?? "");
  const at = folder || top;
  const inside = folder ? list.filter((each) => isWithin(each.folder, at)) : list;
  const isUpload = inside.length > 0 && inside.every((each) => each.isUploaded);
  const folders = new Map();
  for (const each of inside) {
    if (each.folder === at) continue;
    const first = each.isUploaded ? each.folder : (at ? each.folder.slice(at.length + 1) : each.folder).split("/")[0];
    const found = folders.get(first);
    folders.set(first, { path: found ? shared(found.path, each.folder) : each.folder, count: (found?.count ?? 0) + 1, isUploaded: each.isUploaded });
  }
  const named = [...folders.values()].map((each) => ({ ...each, name: isWithin(each.path, at) ? each.path.slice(at.length + 1) : each.path }));
  const start = isWithin(folder, top) ? top.length + 1 : 0;
  const parts = folder.length > start && !isUpload ? folder.slice(start).split("/") : [];
  const crumbs = parts.map((name, i) => ({ name, path: folder.slice(0, start) + parts.slice(0, i + 1).join("/") }));
  return { at, inside, crumbs: crumbs.filter((each) => each.name), // none for the empty part after a scheme
     isUpload: Boolean(folder) && isUpload, folders: named.sort((a, b) => a.isUploaded - b.isUploaded || order(a.name, b.name)) };
}

// --- what is shown ---

export const byName = (list) => [...list].sort((a, b) => order(a.name, b.name));

const VALUES = { type: (each) => each.type, size: (each) => each.bytes, pages: (each) => each.pages, passages: (each) => each.passages, date: (each) => each.created_at };

/** `sort`: a key of VALUES or "name", with "-" before it for the largest first. `list` is by name. */
export function sorted(list, sort) {
  const isDown = sort.startsWith("-");
  const value = VALUES[sort.replace("-", "")];
  if (!value) return isDown ? [...list].reverse() : list;
  const sign = isDown ? -1 : 1;
  return [...list].sort((a, b) => sign * (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0));
}

const DAY = new Intl.DateTimeFormat("sv"); // writes 2026-01-31
const day = (iso) => DAY.format(new Date(iso));

export const FILTERS = ["type", "label", "from", "to", "field", "value"];

/** Those of `list` whose name or title has all words of `q`, and which pass the filters of `query`. */
export function matching(list, q, { type, label, from, to, field, value }) {
  const words = q.toLowerCase().split(/\s+/).filter(Boolean);
  return list.filter((each) => words.every((word) => each.words.includes(word))
    && (!type || each.type === type)
    && (!label || each.labels.includes(label))
    && (!from || day(each.created_at) >= from)
    && (!to || day(each.created_at) <= to)
    && (!field || (Object.hasOwn(each.metadata, field) && (!value || valuesOf(each.metadata[field]).includes(value)))));
}

/** A field's values as texts: those of a list one by one. */
export const valuesOf = (value) => [value].flat().map(String);

const MOST_VALUES = 200; // of a field, in a menu

/** What can be filtered by: {types, labels, fields: {name: values}}, each in order. */
export function facets(list) {
  const types = new Set();
  const labels = new Set();
  const fields = { __proto__: null }; // a document may name a field `constructor`
  for (const each of list) {
    types.add(each.type);
    each.labels.forEach((label) => labels.add(label));
    for (const [name, value] of ownFields(each)) {
      const seen = (fields[name] ??= new Set());
      valuesOf(value).forEach((one) => seen.add(one));
    }
  }
  const all = (set) => [...set].sort(order);
  return { types: all(types), labels: all(labels), fields: { __proto__: null, ...Object.fromEntries(all(Object.keys(fields)).map((name) => [name, all(fields[name]).slice(0, MOST_VALUES)])) } };
}

const OF_THE_FILE = ["path", "name", "type", "bytes", "title", "modified"];

/** The metadata that the list does not show anyway. */
export const ownFields = ({ metadata }) => Object.entries(metadata).filter(([name]) => !OF_THE_FILE.includes(name));

// --- replies ---

/** What `read` gives, as {value} or {problem}; null until then. */
export function useReply(read, changes) {
  const [reply, setReply] = useState(null);
  useEffect(() => {
    let isWanted = true;
    setReply(null);
    read()?.then((value) => isWanted && setReply({ value }), (error) => isWanted && setReply({ problem: error.message }));
    return () => { isWanted = false; };
  }, changes);
  return reply;
}
