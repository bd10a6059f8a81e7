// Files on their way into the knowledge base: sent in parts, then read, then each with its verdict.

import { get, key, post, upload } from "./api.js";
import { catalogue, loadDocuments, noteRefusal } from "./catalogue.js";
import { Command } from "./command.js";
import { loadVersions, server } from "./server.js";
import { makeStore, useStore } from "./store.js";
import { html, useMemo, useRef } from "./vendor/preact.js";
import { count, number, size, t } from "./words.js";

const AT_ONCE = 32; // files of one request, and so of one version
const MAX_BYTES = 32e6; // of one request, unless one file alone has more; the server takes 100 million
const PARTS = 3; // requests for what was chosen, if that is not too much: each makes a version, and a file's verdict comes with its own
const LONG = 12; // files that are seen at once; more scroll
const FATAL = [0, 401, 403, 429]; // no answer, no right, too many: the other requests would fail, too

/**
 * What was chosen together, newest first: {id, of (a key), base, before (the version then), files, isBusy, stop (an AbortController)}.
 * `files`: {file, kind, share, verdict, version, problem}; the kind is "waiting", "sending", "reading", "told" (with its verdict),
 * "failed" (with the problem) or "stopped". They stay while the user looks elsewhere.
 */
const uploads = makeStore([]);

export function useUploads() {
  return useStore(uploads).filter((each) => each.of === key.get());
}

let made = 0;

/** Which files go together, in their order: places in `files`. */
function parts(files) {
  const waiting = files.map((row, place) => ({ ...row, place })).filter((row) => row.kind === "waiting");
  const most = Math.min(AT_ONCE, Math.ceil(waiting.length / PARTS));
  const found = [];
  let bytes = 0; // of the last part
  for (const { file, place } of waiting) {
    if (!found.length || found.at(-1).length === most || bytes + file.size > MAX_BYTES) {
      found.push([]);
      bytes = 0;
    }
    found.at(-1).push(place);
    bytes += file.size;
  }
  return found;
}

/** Ends when all are read. Raises nothing. */
export async function addFiles(files) {
  if (!files.length) return;
  const { base, versions } = server.get();
  const id = (made += 1);
  const rows = files.map((file) => ({ file, kind: "waiting" }));
  uploads.set((old) => [{ id, of: key.get(), base, before: versions[0]?.version ?? 0, files: rows, isBusy: false, stop: null }, ...old]);
  await run(id);
}

const change = (id, how) => uploads.set((old) => old.map((each) => (each.id === id ? { ...each, ...how(each) } : each)));

/** Sends those that wait. */
async function run(id) {
  const stop = new AbortController();
  const { of, base, files } = uploads.get().find((each) => each.id === id);
  change(id, () => ({ isBusy: true, stop }));
  const tell = (places, how) => change(id, (old) => ({ files: old.files.map((row, i) => (places.includes(i) ? { ...row, ...how(row, places.indexOf(i)) } : row)) }));
  const waiting = parts(files);
  while (waiting.length && key.get() === of) { // not with another's key
    const places = waiting.shift();
    const sent = (share) => tell(places, (_, i) => progress(places.map((each) => files[each].file), i, share));
    sent(0);
    try {
      const { data, version } = await upload(places.map((each) => files[each].file), base, sent, stop.signal);
      tell(places, (_, i) => ({ kind: "told", verdict: data[i], version })); // in the order in which they were sent
      if (server.get().base === base) await loadVersions().catch(() => null);
    } catch (error) {
      if (error.code === "invalid_file_name") { // of each of them
        tell(places, (row) => ({ kind: "told", verdict: { path: row.file.name, outcome: "failed", reason: error.message } }));
        continue;
      }
      const isStopped = error.name === "AbortError";
      const others = isStopped || FATAL.includes(error.status) ? waiting.splice(0).flat() : [];
      const problem = isStopped ? "" : noteRefusal(error);
      tell([...places, ...others], () => ({ kind: isStopped ? "stopped" : "failed", problem }));
      if (isStopped) await settled();
    }
  }
  tell(waiting.flat(), () => ({ kind: "stopped" }));
  change(id, () => ({ isBusy: false, stop: null }));
}

/** Where file `i` of one request is when this share of the request has left. */
function progress(files, i, share) {
  const sizes = files.map((file) => file.size);
  const [before, all] = [sizes.slice(0, i), sizes].map((some) => some.reduce((a, b) => a + b, 0));
  const own = sizes[i] ? Math.min(1, Math.max(0, (share * all - before) / sizes[i])) : share;
  return own < 1 ? { kind: "sending", share: own } : { kind: "reading" };
}

/** The server ends a request that was stopped between two steps, so that the last one may still come in. */
async function settled() {
  try {
    for (let i = 0; i < 20 && (await get("/v1/activity")).uploading; i += 1) await new Promise((resolve) => setTimeout(resolve, 250));
    await loadVersions();
  } catch {
    // the list says what is in
  }
}

function again(id) {
  change(id, (old) => ({ files: old.files.map((row) => (["failed", "stopped"].includes(row.kind) ? { file: row.file, kind: "waiting" } : row)) }));
  run(id);
}

const isGood = ({ outcome }) => !["failed", "skipped"].includes(outcome);

/** Forgets failed uploads of the user's own. Raises ApiError. */
export async function dismiss(paths) {
  await post("/v1/verdicts/remove", { paths, knowledge_base: server.get().base || undefined });
  uploads.set((old) => old.map((each) => ({ ...each, files: each.files.filter(({ verdict }) => !verdict || isGood(verdict) || !paths.includes(verdict.path)) })).filter((each) => each.files.length));
  await loadDocuments();
}

/** The paths that came by the uploads which are still told of. */
export const addedBy = (some) => new Set(some.flatMap((each) => each.files).filter(({ verdict }) => ["added", "updated"].includes(verdict?.outcome)).map(({ verdict }) => verdict.path));

/** The files in what was dropped. A folder is not one: the browser gives its name alone. */
export function dropped(transfer) {
  const items = [...transfer.items].filter((item) => item.kind === "file");
  const files = items.filter((item) => !item.webkitGetAsEntry()?.isDirectory).map((item) => item.getAsFile());
  return { files, hadFolder: files.length < items.length };
}

/** A button that lets files be chosen. */
export function ChooseFiles({ children, label, isOne = false, onFiles, kind = "" }) {
  const field = useRef(null);
  const change = ({ target }) => { // not the field's own: the view may have changed while files were chosen
    onFiles([...target.files]);
    target.value = "";
  };
  return html`<button type="button" class=${kind} onClick=${() => field.current.click()}>${children}</button>
    <input ref=${field} type="file" class="unseen" tabindex="-1" multiple=${!isOne} aria-label=${label} onChange=${change} />`;
}

export function Uploads() {
  const all = useUploads();
  return html`<div class="uploads-told">${all.map((each) => html`<${Upload} key=${each.id} ...${each} />`)}</div>`;
}

/** Of an upload's files those that were not removed since; what was stopped and came in all the same is told as that. */
function useStanding({ base, before, files }) {
  const { list, done, version, of } = useStore(catalogue);
  const { base: chosen, asOf } = useStore(server);
  return useMemo(() => {
    const isNewest = done && base === chosen && !asOf && of;
    if (!isNewest) return files;
    const there = new Set(list.map((each) => each.path));
    const cameIn = new Set(list.filter((each) => each.isUploaded && each.version > before).map((each) => each.name));
    return files.filter((row) => row.kind !== "told" || !isGood(row.verdict) || row.version > version || there.has(row.verdict.path))
      .map((row) => (row.kind === "stopped" && cameIn.has(row.file.name) ? { ...row, kind: "told", verdict: { outcome: "added", path: "", reason: "" } } : row));
  }, [files, list, done, version, base, chosen, asOf]);
}

function Upload({ id, base, before, files, isBusy, stop }) {
  const { unread, mayWrite } = useStore(catalogue);
  const rows = useStanding({ base, before, files });
  const isIn = (row) => row.kind === "told" && isGood(row.verdict);
  const n = rows.filter(isIn).length;
  const bad = rows.filter((row) => row.kind === "failed" || (row.kind === "told" && !isIn(row))).length;
  const stopped = rows.filter((row) => row.kind === "stopped").length;
  const version = Math.max(0, ...rows.map((row) => row.version ?? 0));
  const problems = [...new Set(rows.map((row) => row.problem).filter(Boolean))];
  const close = () => uploads.set((old) => old.filter((each) => each.id !== id));
  if (!rows.length) return null;
  const list = (some) => html`<ul class=${some.length > LONG ? "rows scrolls" : "rows"} ...${some.length > LONG ? { tabindex: 0, "aria-label": t("Files"), role: "list" } : {}}>${some.map((row) =>
    html`<li><span class="path">${row.file.name}</span> <${State} ...${row} remedy=${unread.find((each) => each.path === row.verdict?.path)?.remedy} /></li>`)}</ul>`;
  return html`<div class="upload">
    <div class="line"><p role="status"><strong>${!isBusy && n === rows.length ? count(n, "{n} file is in", "{n} files are in") : t("{n} of {all} files are in", { n: number(n), all: number(rows.length) })}</strong>
      <span class="soft">${[bad && count(bad, "{n} could not be added", "{n} could not be added"), stopped && count(stopped, "{n} stopped", "{n} stopped"),
        !isBusy && n > 0 && version > 0 && t("Version {version}", { version })].filter(Boolean).map((each) => ` · ${each}`)}</span></p>
      <span class="spring"></span>
      ${isBusy ? html`<button type="button" onClick=${() => stop.abort()}>${t("Cancel")}</button>` : null}
      ${!isBusy && mayWrite && (problems.length || stopped) ? html`<button type="button" onClick=${() => again(id)}>${t("Try again")}</button>` : null}
      ${isBusy ? null : html`<button type="button" class="quiet" onClick=${close}>${t("Close")}</button>`}</div>
    ${rows.length > 1 && isBusy ? html`<progress max=${rows.length} value=${n + bad} aria-label=${t("Files")}></progress>` : null}
    ${problems.map((each) => html`<p class="bad" role="alert">${each}</p>`)}
    ${isBusy || rows.length === 1 ? list(rows) : html`${n ? html`<details><summary>${t("Files")}</summary>${list(rows.filter(isIn))}</details>` : null}
      ${n < rows.length ? list(rows.filter((row) => !isIn(row))) : null}`}
  </div>`;
}

function State({ file, kind, share, verdict, remedy }) {
  if (kind === "told") return html`<${Outcome} ...${verdict} remedy=${remedy} />`;
  if (kind === "failed") return html`<span class="bad">${t("not added")}</span>`;
  const words = kind === "sending" ? t("{percent} % of {size} sent", { percent: Math.floor(100 * share), size: size(file.size) })
    : { waiting: t("waiting"), reading: t("reading"), stopped: t("stopped") }[kind];
  return html`<span class=${kind === "waiting" || kind === "stopped" ? "soft" : ""}>${words}</span>
    ${kind === "sending" || kind === "reading" ? html`<progress max="1" value=${kind === "sending" ? share : undefined} aria-label=${file.name}></progress>` : null}`;
}

function Outcome({ outcome, reason, remedy }) {
  const names = { added: t("added"), updated: t("updated"), unchanged: t("unchanged"), failed: t("not added"), skipped: t("left out") };
  return html`<span class=${isGood({ outcome }) ? "good" : "bad"}>${names[outcome] ?? outcome}${reason ? `: ${reason}` : ""}</span>
    ${remedy ? html`<${Remedy} text=${remedy} />` : null}`;
}

const COMMAND = /((?:OPENBOOK_\w+=\S+ )?(?:openbook|apt|chmod|(?:'[^']*'|\S+) -m pip) (?:'[^']*'|[^'(])+?)(?= \(|\. Then|, then|\.?$)/;

/** What helps; each command in it can be copied. */
export function Remedy({ text }) {
  return html`<p class="remedy">${text.split(COMMAND).map((part, i) => (i % 2 === 0 ? part : html`<${Command} key=${i} text=${part} />`))}</p>`;
}
