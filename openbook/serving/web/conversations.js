// Conversations, kept in this browser and nowhere else. Those of an API key are sealed with it: without the key they cannot be
// read, and signing out deletes them.

import { key } from "./api.js";
import { makeStore } from "./store.js";
import { t } from "./words.js";

const FORMAT = { format: "openbook conversation 1" }; // docs/formats/transcript.md
const LINE = ["role", "content", "abstained", "searched", "citations", "receipt"];
const TABLES = ["list", "conversations"];
const DRAFTS = "openbook-drafts";
const AT_ONCE = 50;
const CHANGED = new BroadcastChannel("openbook-conversations"); // tells other tabs

/**
 * `list`: {id, title, changed, words, turns} of each, newest first; `words` is what a search looks in, `turns` are ids.
 * `kept`: whether they stay. `full`: why the last change is not kept.
 */
export const conversations = makeStore({ list: [], kept: true, full: "" });

/** `id`: the conversation that another tab changed; "": all of them are others now, and `era` is another number. */
export const touched = makeStore({ id: "", era: 0 });

let opening = null; // a promise of {database, seal}, or of null where nothing can be kept
const unkept = new Map(); // id -> conversation that is in memory alone

const asked = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

/** Does `change(list, conversations)` with both tables of a database, whole or not at all. */
const write = (database, change) => new Promise((resolve, reject) => {
  const transaction = database.transaction(TABLES, "readwrite");
  transaction.oncomplete = resolve;
  transaction.onabort = () => reject(transaction.error);
  change(...TABLES.map((name) => transaction.objectStore(name)));
});

async function digestOf(text) {
  const bytes = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return new Uint8Array(bytes);
}

const hex = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");

export const newId = () => hex(crypto.getRandomValues(new Uint8Array(16)));

/** Where those of this key are. A key needs `crypto.subtle`, which browsers give to HTTPS and to this machine alone. */
async function place() {
  if (!key.get()) return { name: "openbook", seal: null };
  const name = `openbook-${hex(await digestOf(`name ${key.get()}`)).slice(0, 32)}`;
  const seal = await crypto.subtle.importKey("raw", await digestOf(`seal ${key.get()}`), "AES-GCM", false, ["encrypt", "decrypt"]);
  return { name, seal };
}

async function open() {
  const { name, seal } = await place();
  const request = indexedDB.open(name, 1);
  request.onupgradeneeded = () => {
    for (const table of TABLES) request.result.createObjectStore(table, { keyPath: "id" });
  };
  const database = await asked(request);
  database.onversionchange = () => { // another tab signs out; the next question opens a new database
    database.close();
    opening = null;
    unkept.clear();
    conversations.set({ list: [] });
    replaced();
  };
  return { database, seal };
}

const opened = () => (opening ??= open().catch(() => null));

async function sealed(value, seal) {
  if (!seal) return value;
  const iv = crypto.getRandomValues(new Uint8Array(12));
  const data = new TextEncoder().encode(JSON.stringify(value));
  return { iv, data: await crypto.subtle.encrypt({ name: "AES-GCM", iv }, seal, data) };
}

async function unsealed(value, seal) {
  if (!seal) return value;
  const data = await crypto.subtle.decrypt({ name: "AES-GCM", iv: value.iv }, seal, value.data);
  return JSON.parse(new TextDecoder().decode(data));
}

const replaced = () => touched.set(({ era }) => ({ id: "", era: era + 1 }));

const ordered = (list) => list.sort((a, b) => b.changed - a.changed);

/** Reads the list. To be called again after another key was given. */
export async function openConversations() {
  (await opening)?.database.close();
  opening = null;
  unkept.clear();
  const found = await opened();
  const rows = found ? await asked(found.database.transaction("list").objectStore("list").getAll()).catch(() => []) : [];
  const list = [];
  for (let i = 0; i < rows.length; i += AT_ONCE) { // in parts, so that nothing stands still meanwhile
    const read = await Promise.allSettled(rows.slice(i, i + AT_ONCE).map(async ({ id, value }) => ({ id, ...(await unsealed(value, found.seal)) })));
    list.push(...read.filter((each) => each.value).map((each) => each.value));
  }
  conversations.set({ list: ordered(list), kept: found !== null, full: "" });
  replaced();
}

CHANGED.onmessage = async ({ data: id }) => {
  const its = opening;
  const found = await its;
  if (!found) return;
  const row = await asked(found.database.transaction("list").objectStore("list").get(id)).catch(() => null);
  const value = row && await unsealed(row.value, found.seal);
  if (its !== opening) return; // another key was given
  listed(id, value);
  touched.set({ id });
};

function listed(id, row) {
  conversations.set(({ list, ...rest }) => ({ ...rest, list: ordered([...(row ? [{ id, ...row }] : []), ...list.filter((each) => each.id !== id)]) }));
}

/** A new conversation; it is kept with its first question. */
export const newConversation = () => ({ id: newId(), title: "", changed: 0, scope: null, turns: [] });

/** {id, title, changed, scope, turns}, or null. A turn: {id, question, modes, answers: {open?, closed?}}, an answer as the API gives it. */
export async function loadConversation(id) {
  if (unkept.has(id)) return unkept.get(id);
  const found = await opened();
  const row = found && await asked(found.database.transaction("conversations").objectStore("conversations").get(id));
  return row ? unsealed(row.value, found.seal) : null;
}

/** The conversation that has the turn `turn`, or null. */
export const conversationOf = (turn) => conversations.get().list.find((each) => each.turns.includes(turn))?.id ?? null;

export const titleOf = ({ title, turns }) => title || turns[0]?.question.slice(0, 200) || t("New conversation");

let last = Promise.resolve();
/** Does one change after the other, in all tabs where the browser can. */
function inTurn(work) {
  last = last.then(() => (navigator.locks ? navigator.locks.request("openbook-conversations", work) : work()));
  return last;
}

/**
 * Keeps what `change` makes of the conversation `id` as it is kept now (null: it is not). Nothing is kept when `change` gives
 * null or the same. Returns the conversation; null also if there is another key meanwhile.
 */
export function changeConversation(id, change) {
  const its = opened(); // of the key that there is now
  return inTurn(async () => {
    if (its !== opening) return null; // meanwhile there is another key, or none
    const kept = await loadConversation(id).catch(() => null);
    const made = change(kept);
    if (!made || made === kept) return made;
    const { changed, turns } = made;
    const said = turns.flatMap((turn) => [turn.question, ...Object.values(turn.answers).map((each) => each.answer ?? "")]);
    const row = { title: titleOf(made), changed, words: [made.title, ...said].join("\n").toLowerCase(), turns: turns.map((turn) => turn.id) };
    const found = await its;
    try {
      if (!found) throw new Error("");
      const [summary, whole] = await Promise.all([sealed(row, found.seal), sealed(made, found.seal)]);
      await write(found.database, (list, all) => { list.put({ id, value: summary }); all.put({ id, value: whole }); });
      unkept.delete(id);
      conversations.set({ full: "" });
    } catch (error) {
      if (its !== opening) return null;
      unkept.set(id, made);
      conversations.set({ full: error.message });
    }
    listed(id, row);
    CHANGED.postMessage(id);
    return made;
  });
}

/** Returns what was deleted. */
export function deleteConversation(id) {
  return inTurn(async () => {
    const gone = await loadConversation(id).catch(() => null);
    unkept.delete(id);
    const found = await opened();
    if (found) await write(found.database, (...tables) => tables.forEach((table) => table.delete(id)));
    listed(id, null);
    CHANGED.postMessage(id);
    return gone;
  });
}

/** Deletes all that was kept for this key. To be called before it is forgotten. */
export async function forgetConversations() {
  if (!key.get()) return; // there is nothing to sign out of
  drafts.clear();
  const found = await opened();
  opening = null;
  if (!found) return;
  const { database } = found;
  await write(database, (...tables) => tables.forEach((table) => table.clear())).catch(() => null);
  database.close();
  await new Promise((resolve) => {
    const request = indexedDB.deleteDatabase(database.name);
    request.onsuccess = request.onerror = request.onblocked = resolve; // blocked: by a tab that sleeps; it is empty already
  });
}

export const NEW = "new"; // the draft of a conversation that has no question yet

/** What was typed and not asked, by the id of its conversation or turn. It stays in this tab, as the key does. */
export const drafts = {
  get: (id) => JSON.parse(sessionStorage.getItem(DRAFTS) ?? "{}")[id] ?? "",
  set(id, text) {
    const all = JSON.parse(sessionStorage.getItem(DRAFTS) ?? "{}");
    if (text) all[id] = text;
    else delete all[id];
    if (Object.keys(all).length) sessionStorage.setItem(DRAFTS, JSON.stringify(all));
    else drafts.clear();
  },
  clear: () => sessionStorage.removeItem(DRAFTS),
};

// --- as files, like those of `openbook chat --save` ---

/** A last question without an answer stays. */
export function transcript({ turns }) {
  const lines = turns.flatMap(({ question, answers }, i) => {
    const answer = answers.open?.answer ? answers.open : answers.closed;
    const asks = { role: "user", content: question };
    if (!answer?.answer) return i === turns.length - 1 ? [asks] : [];
    const citations = (answer.citations ?? []).map(({ passage_id: _, ...each }) => Object.fromEntries(Object.entries(each).filter(([, value]) => value && value.length !== 0)));
    return [asks, { role: "assistant", content: answer.answer, abstained: answer.declined ?? false, citations, receipt: answer.receipt?.digest ?? "" }];
  });
  return [FORMAT, ...lines].map((line) => `${JSON.stringify(line)}\n`).join("");
}

/** The conversation in a transcript. Raises Error that says which line is wrong. */
export function imported(text, name) {
  const lines = text.replace(/^\ufeff/, "").split("\n").map((line, i) => [line.trim(), i + 1]).filter(([line]) => line);
  const wrong = (number, why) => new Error(t("Line {number}: {why}", { number, why }));
  const values = lines.map(([line, number]) => {
    try {
      return [JSON.parse(line), number];
    } catch {
      throw wrong(number, t("this is not JSON."));
    }
  });
  if (JSON.stringify(values[0]?.[0]) !== JSON.stringify(FORMAT)) throw wrong(1, t("a conversation of OpenBook begins with {line}", { line: JSON.stringify(FORMAT) }));
  const made = { ...newConversation(), title: name.replace(/\.jsonl?$/, ""), changed: Date.now() };
  values.slice(1).forEach(([value, number], i) => {
    const role = i % 2 ? "assistant" : "user";
    if (value?.role !== role || typeof value.content !== "string") throw wrong(number, t("it must have the role {role} and a text.", { role }));
    const strange = Object.keys(value).find((each) => !(role === "user" ? LINE.slice(0, 2) : LINE).includes(each));
    if (strange) throw wrong(number, t("{key} is not known.", { key: strange }));
    if (role === "user") {
      if (!value.content.trim()) throw wrong(number, t("the question is empty."));
      made.turns.push({ id: newId(), question: value.content, modes: ["open"], answers: {} });
      return;
    }
    const citations = (Array.isArray(value.citations) ? value.citations : []).filter((each) => typeof each?.quote === "string" && typeof each.document === "string");
    const whole = (number) => (Number.isSafeInteger(number) ? number : null);
    made.turns.at(-1).answers.open = {
      answer: value.content, declined: value.abstained === true, imported: true, receipt: { digest: String(value.receipt ?? "") },
      citations: citations.map(({ document, page, start, end, quote }) => ({ document, page: whole(page), start: whole(start), end: whole(end), quote, also_in: [] })),
    };
  });
  return made;
}
