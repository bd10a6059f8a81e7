// Files on their way into the knowledge base: sent in parts, then read, then each with its verdict.

import { key, upload } from "./api.js";
import { catalogue, noteRefusal } from "./catalogue.js";
import { loadVersions, server } from "./server.js";
import { makeStore, useStore } from "./store.js";
import { html, useRef, useState } from "./vendor/preact.js";
import { size, t } from "./words.js";

const AT_ONCE = 32; // files of one upload, and so of one version
const MAX_BYTES = 32e6; // of one upload, unless one file alone has more; the server takes 100 million

/** Parts, newest first: {id, of (a key), files, sent (a share), verdicts, version, problem}. They stay while the user looks elsewhere. */
const uploads = makeStore([]);

export function useUploads() {
  return useStore(uploads).filter((each) => each.of === key.get());
}

let made = 0;

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

/** Ends when all are read. Raises nothing. */
export async function addFiles(files) {
  const { base } = server.get();
  const parts = batches(files).map((some) => ({ id: (made += 1), of: key.get(), files: some, sent: null, verdicts: [], version: 0, problem: "" }));
  uploads.set((old) => [...parts.toReversed(), ...old]);
  for (const part of parts) await send(part, base);
}

async function send({ id, files }, base) {
  const tell = (change) => uploads.set((old) => old.map((each) => (each.id === id ? { ...each, ...change } : each)));
  tell({ sent: 0 });
  try {
    const { data, version } = await upload(files, base, (sent) => tell({ sent }));
    tell({ verdicts: data, version }); // in the order in which they were sent
    if (server.get().base === base) await loadVersions();
  } catch (error) {
    tell({ problem: noteRefusal(error) });
  }
}

const isGood = ({ outcome }) => !["failed", "skipped"].includes(outcome);

/** The paths that came by the uploads which are still told of. */
export const addedBy = (parts) => new Set(parts.flatMap((each) => each.verdicts).filter((each) => ["added", "updated"].includes(each.outcome)).map((each) => each.path));

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
  const parts = useUploads();
  const isOver = parts.every((each) => each.version || each.problem);
  return html`<div aria-live="polite">${parts.length ? html`<div class="uploads">
    <p class="line"><strong>${isOver ? t("Uploads") : t("Adding files…")}</strong><span class="spring"></span>
      ${isOver ? html`<button type="button" class="quiet" onClick=${() => uploads.set(() => [])}>${t("Clear")}</button>` : null}</p>
    ${parts.map((part) => html`<${Part} key=${part.id} ...${part} />`)}</div>` : null}</div>`;
}

function Part({ files, sent, verdicts, version, problem }) {
  const { unread, mayWrite } = useStore(catalogue);
  const before = files.map((_, i) => files.slice(0, i).reduce((sum, file) => sum + file.size, 0));
  const total = before.at(-1) + files.at(-1).size;
  const isBusy = !version && !problem;
  const state = (file, i) => {
    if (sent === null) return { words: t("waiting") };
    const share = file.size ? Math.min(1, Math.max(0, (sent * total - before[i]) / file.size)) : sent;
    return share < 1 ? { words: t("{sent} of {size} sent", { sent: size(share * file.size), size: size(file.size) }), share } : { words: t("reading"), share };
  };
  const told = problem || (version ? t("Version {version} of the knowledge base.", { version }) : "");
  return html`<div class="upload">
    ${told ? html`<p class=${problem ? "bad" : "soft"}>${told} ${problem && mayWrite ? html`<button type="button" onClick=${() => addFiles(files)}>${t("Try again")}</button>` : null}</p>` : null}
    <ul class="rows">${files.map((file, i) => html`<li><span>${file.name}</span>${
      verdicts[i] ? html`<${Outcome} ...${verdicts[i]} remedy=${unread.find((each) => each.path === verdicts[i].path)?.remedy} />`
        : problem ? html`<span class="bad">${t("not added")}</span>`
          : html`<span class="soft" aria-live="off">${state(file, i).words}</span>
            ${isBusy && sent !== null ? html`<progress max="1" value=${state(file, i).share < 1 ? state(file, i).share : undefined} aria-label=${t("{name}, sent", { name: file.name })}></progress>` : null}`}</li>`)}</ul>
  </div>`;
}

function Outcome({ outcome, reason, remedy }) {
  const names = { added: t("added"), updated: t("updated"), unchanged: t("unchanged"), failed: t("not added"), skipped: t("left out") };
  return html`<span class=${isGood({ outcome }) ? "good" : "bad"}>${names[outcome] ?? outcome}${reason ? `: ${reason}` : ""}</span>
    ${remedy ? html`<${Remedy} text=${remedy} />` : null}`;
}

const COMMAND = /((?:OPENBOOK_\w+=\S+ )?(?:openbook|apt|chmod|(?:'[^']*'|\S+) -m pip) (?:'[^']*'|[^'(])+?)(?= \(|\. Then|, then|\.?$)/;

/** What helps; each command in it can be copied. */
export function Remedy({ text }) {
  const [copied, setCopied] = useState(0);
  return html`<p class="remedy">${text.split(COMMAND).map((part, i) => (i % 2 === 0 ? part : html`<code>${part}</code>
    ${navigator.clipboard ? html`<button type="button" class="quiet" aria-label=${t("Copy {command}", { command: part })} onClick=${() => navigator.clipboard.writeText(part).then(() => setCopied(i))}>${copied === i ? t("Copied") : t("Copy")}</button>` : null}`))}</p>`;
}
