// Conversations, kept in this browser and nowhere else. Those of an API key are sealed with it: without the key they cannot be
// read, and signing out deletes them.

import { key } from "./api.js";
import { makeStore } from "./store.js";
import { t } from "./words.js";

const FORMAT = { format: "openbook conversation 1" }; // docs/formats/transcript.md
const CHANGED = new BroadcastChannel("openbook-conversations"); // tells other tabs

/** `list`: {id, title, changed, words} of each, newest first; `words` is what a search looks in. `kept`: whether they stay. */
export const conversations = makeStore({ list: [], kept: true, loaded: false });

let opened = null; // {database, seal} or null, while they are in memory alone
let unkept = new Map(); // id -> conversation, where nothing can be kept

const asked = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

async function digestOf(text) {
  const bytes = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return new Uint8Array(bytes);
}

const hex = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** Where those of this key are. A key needs `crypto.subtle`, which browsers give to HTTPS and to this machine alone. */
async function place() {
  if (!key.get()) return { name: "openbook", seal: null };
  const name = `openbook-${hex(await digestOf(`name ${key.get()}`)).slice(0, 32)}`;
  const seal = await crypto.subtle.importKey("raw", await digestOf(`seal ${key.get()}`), "AES-GCM", false, ["encrypt", "decrypt"]);
  return { name, seal };
}

async function sealed(value) {
  if (!opened.seal) return value;
  const iv = crypto.getRandomValues(new Uint8Array(12));
  const data = new TextEncoder().encode(JSON.stringify(value));
  return { iv, data: await crypto.subtle.encrypt({ name: "AES-GCM", iv }, opened.seal, data) };
}

async function unsealed(value) {
  if (!opened.seal) return value;
  const data = await crypto.subtle.decrypt({ name: "AES-GCM", iv: value.iv }, opened.seal, value.data);
  return JSON.parse(new TextDecoder().decode(data));
}

const table = (name, mode = "readonly") => opened.database.transaction(name, mode).objectStore(name);

/** Reads the list. To be called again after another key was given. */
export async function openConversations() {
  opened?.database.close();
  opened = null;
  unkept = new Map();
  try {
    const { name, seal } = await place();
    const request = indexedDB.open(name, 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("list", { keyPath: "id" });
      request.result.createObjectStore("conversations", { keyPath: "id" });
    };
    const database = await asked(request);
    database.onversionchange = () => database.close(); // another tab signs out
    opened = { database, seal };
    await readList();
  } catch {
    conversations.set({ list: [], kept: false, loaded: true });
  }
}

async function readList() {
  const rows = await asked(table("list").getAll());
  const list = await Promise.all(rows.map(async ({ id, value }) => ({ id, ...(await unsealed(value)) })));
  conversations.set({ list: list.sort((a, b) => b.changed - a.changed), kept: true, loaded: true });
}

CHANGED.onmessage = () => opened && readList();

/** A new conversation; it is kept with its first question. */
export function newConversation() {
  return { id: crypto.randomUUID?.() ?? hex(crypto.getRandomValues(new Uint8Array(16))), title: "", changed: 0, turns: [], draft: "" };
}

/** {id, title, changed, turns, draft}, or null. A turn: {id, question, answers: {open?, closed?}}, an answer as the API gives it. */
export async function loadConversation(id) {
  if (!opened) return unkept.get(id) ?? null;
  const row = await asked(table("conversations").get(id));
  return row ? unsealed(row.value) : null;
}

/** The conversation that has the turn `turn`, or null. */
export async function conversationOf(turn) {
  const { list } = conversations.get();
  return list.find((each) => each.turns.includes(turn))?.id ?? null;
}

export async function keepConversation(conversation) {
  const { id, changed, turns } = conversation;
  const title = conversation.title || turns[0]?.question || t("New conversation");
  const said = turns.flatMap((turn) => [turn.question, ...Object.values(turn.answers).map((each) => each.answer ?? "")]);
  const row = { title: title.slice(0, 200), changed, words: said.join("\n").toLowerCase().slice(0, 20000), turns: turns.map((turn) => turn.id) };
  if (opened) {
    const [summary, whole] = await Promise.all([sealed(row), sealed(conversation)]);
    const transaction = opened.database.transaction(["list", "conversations"], "readwrite");
    transaction.objectStore("list").put({ id, value: summary });
    transaction.objectStore("conversations").put({ id, value: whole });
    CHANGED.postMessage(id);
  } else unkept.set(id, conversation);
  conversations.set(({ list, ...rest }) => ({ ...rest, list: [{ id, ...row }, ...list.filter((each) => each.id !== id)].sort((a, b) => b.changed - a.changed) }));
}

export async function deleteConversation(id) {
  unkept.delete(id);
  if (opened) {
    const transaction = opened.database.transaction(["list", "conversations"], "readwrite");
    for (const name of ["list", "conversations"]) transaction.objectStore(name).delete(id);
    CHANGED.postMessage(id);
  }
  conversations.set(({ list, ...rest }) => ({ ...rest, list: list.filter((each) => each.id !== id) }));
}

/** Deletes all that was kept for this key. To be called before it is forgotten. */
export async function forgetConversations() {
  const name = opened?.database.name;
  opened?.database.close();
  opened = null;
  unkept = new Map();
  if (name) await asked(indexedDB.deleteDatabase(name)).catch(() => null);
  conversations.set({ list: [], loaded: true });
}

// --- as files of `openbook chat` ---

export function transcript({ turns }) {
  const lines = turns.flatMap(({ question, answers }) => {
    const answer = answers.open ?? answers.closed;
    if (!answer?.answer) return [];
    const citations = answer.citations.map(({ passage_id: _, ...each }) => Object.fromEntries(Object.entries(each).filter(([, value]) => value && value.length !== 0)));
    return [{ role: "user", content: question },
      { role: "assistant", content: answer.answer, abstained: answer.declined, citations, receipt: answer.receipt?.digest ?? "" }];
  });
  return [FORMAT, ...lines].map((line) => `${JSON.stringify(line)}\n`).join("");
}

/** The conversation in a transcript. Raises Error that says which line is wrong. */
export function imported(text, name) {
  const lines = text.split("\n").map((line, i) => [line.trim(), i + 1]).filter(([line]) => line);
  const values = lines.map(([line, number]) => {
    try {
      return JSON.parse(line);
    } catch {
      throw new Error(t("Line {number} is not JSON.", { number }));
    }
  });
  if (values[0]?.format !== FORMAT.format) throw new Error(t("This is not a conversation of OpenBook: its first line must be {line}", { line: JSON.stringify(FORMAT) }));
  const made = { ...newConversation(), title: name.replace(/\.jsonl?$/, ""), changed: Date.now() };
  values.slice(1).forEach((value, i) => {
    const wanted = i % 2 ? "assistant" : "user";
    if (value?.role !== wanted || typeof value.content !== "string") throw new Error(t("Line {number} must have the role {role} and a text.", { number: lines[i + 1][1], role: wanted }));
    if (wanted === "user") made.turns.push({ id: newConversation().id, question: value.content, answers: {} });
    else {
      const citations = Array.isArray(value.citations) ? value.citations.filter((each) => typeof each?.quote === "string" && typeof each.document === "string") : [];
      made.turns.at(-1).answers.open = { answer: value.content, declined: value.abstained === true, citations, imported: true };
    }
  });
  return made;
}
