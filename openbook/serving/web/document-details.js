// One document of the list: its facts, its beginning, what can be done with it, and its past.

import { get } from "./api.js";
import { catalogue, ownFields, useReply, valuesOf } from "./catalogue.js";
import { markdown } from "./markdown.js";
import { askRemoval } from "./removal.js";
import { href } from "./router.js";
import { choosing, server } from "./server.js";
import { useStore } from "./store.js";
import { addFiles, ChooseFiles } from "./upload.js";
import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { number, size, t, timely, when } from "./words.js";
import { WordDiff } from "./worddiff.js";

const PREVIEW = 900; // characters

const summaryOf = (name) => `Summarize ${name}`; // the server knows this request in English

/** `document`: its entry in the list. `close`: where the list is without it. */
export function DocumentDetails({ document: shown, close }) {
  const { path, name, title, type, bytes, pages, passages, version, created_at: date, labels, folder, isUploaded } = shown;
  const { mayWrite, mayPurge } = useStore(catalogue);
  const { asOf, base } = useStore(server);
  const heading = useRef(null);
  useEffect(() => heading.current.focus({ preventScroll: true }), [path]);
  const facts = [
    [t("Title"), !name.startsWith(title) && title], [t("Type"), type.toUpperCase()], [t("Size"), size(bytes)], [t("Pages"), pages], [t("Passages"), number(passages)],
    [t("Text since"), t("version {version} from {date}", { version, date: when(date) })], [t("File changed"), shown.metadata.modified && when(shown.metadata.modified)], [t("Labels"), labels.join(", ")], ...ownFields(shown).map(([key, value]) => [key === "version" ? t("version (of the document)") : key, valuesOf(value).map(timely).join(", ")]),
  ].filter(([, value]) => value);
  return html`<div class="details scrolls" role="region" aria-labelledby="details-title">
    <div class="top"><h3 id="details-title" tabindex="-1" ref=${heading}>${name}</h3><a class="close" href=${close} aria-label=${t("Close")}>✕</a></div>
    <p class="folder soft">${isUploaded ? t("Uploads") : folder}</p>
    <p class="acts"><a class="button main" href=${href("document", path, { version: asOf, base })}>${t("Open")}</a>
      <a class="button" href=${href("ask", "", { path })}>${t("Ask only this document")}</a>
      <a class="button" href=${href("ask", "", { question: summaryOf(name) })}>${t("Summary")}</a>
      <a class="button" href=${href("ask", "", { folder })}>${t("Ask only this folder")}</a></p>
    <dl>${facts.map(([key, value]) => html`<dt>${key}</dt><dd>${value}</dd>`)}</dl>
    <${Preview} key=${`${path} ${version}`} path=${path} />
    <${History} key=${path} path=${path} />
    ${asOf ? null : html`<p class="line changes">
      ${isUploaded && mayWrite ? html`<${Replace} key=${path} ...${shown} />` : null}
      ${mayWrite ? html`<button type="button" onClick=${() => askRemoval("remove", [shown])}>${t("Remove…")}</button>` : null}
      ${mayPurge ? html`<button type="button" class="bad" onClick=${() => askRemoval("purge", [shown])}>${t("Purge…")}</button>` : null}</p>`}
  </div>`;
}

/** An upload of the same name takes its place. */
function Replace({ name }) {
  return html`<${ChooseFiles} isOne label=${t("A file in place of {name}", { name })} onFiles=${([file]) => addFiles([new File([file], name, { type: file.type })])}>${t("Replace…")}<//>`;
}

function Preview({ path }) {
  const reply = useReply(() => get("/v1/documents/text", { ...choosing(), path, length: PREVIEW }), []);
  if (!reply) return html`<p class="soft">${t("Reading…")}</p>`;
  if (reply.problem) return html`<p class="bad">${reply.problem}</p>`;
  const { text, end, total, media_type: kind } = reply.value;
  const part = end < total ? `${text.slice(0, text.lastIndexOf(" "))} …` : text;
  return html`<div class="preview" tabindex="0" role="group" aria-label=${t("How it begins")}>${kind === "text/markdown" ? markdown(part) : part || html`<span class="soft">${t("It has no text.")}</span>`}</div>`;
}

/** The versions in which the document changed, and what changed. */
function History({ path }) {
  const [isOpen, setOpen] = useState(false);
  const [compared, compare] = useState(null); // [before, after]
  const { base, versions } = useStore(server);
  const reply = useReply(() => (isOpen ? get("/v1/documents/history", { path, knowledge_base: base }) : null), [isOpen, versions]);
  const changes = reply?.value?.data ?? [];
  const names = { added: t("added"), changed: t("text changed"), removed: t("removed"), metadata: t("other facts changed") };
  return html`<details class="history" onToggle=${(event) => setOpen(event.target.open)}>
    <summary>${t("History")}</summary>
    ${reply?.problem ? html`<p class="bad">${reply.problem}</p>` : null}
    ${isOpen && !reply ? html`<p class="soft">${t("Reading…")}</p>` : null}
    <ol class="rows">${changes.map((each, i) => html`<li>
      <span><strong>${t("Version {version}", { version: each.version })}</strong> ${names[each.change]} <span class="soft">${when(each.created_at)}</span></span>
      ${each.change === "changed" ? html`<button type="button" class="quiet go" onClick=${() => compare([changes[i + 1]?.version ?? each.version - 1, each.version])}>${t("What changed")}</button>` : null}</li>`)}</ol>
    ${compared ? html`<${Difference} path=${path} changes=${changes} before=${compared[0]} after=${compared[1]} compare=${compare} />` : null}
  </details>`;
}

function Difference({ path, changes, before, after, compare }) {
  const { base } = server.get();
  const reply = useReply(() => get("/v1/documents/difference", { path, before, after, knowledge_base: base }), [path, before, after]);
  const choose = (label, value, change) => html`<label class="inline"><span class="soft">${label}</span>
    <select value=${value} onChange=${(event) => change(Number(event.target.value))}>${[...new Set([...changes.map((each) => each.version), before])].sort((a, b) => b - a).map((each) => html`<option value=${each}>${each}</option>`)}</select></label>`;
  const root = useRef(null);
  useEffect(() => reply && root.current.scrollIntoView({ block: "nearest" }), [reply]);
  return html`<div class="difference" aria-live="polite" ref=${root}>
    <p class="line">${choose(t("From version"), before, (value) => compare([value, after]))} ${choose(t("to"), after, (value) => compare([before, value]))}</p>
    ${reply?.problem ? html`<p class="bad">${reply.problem}</p>` : reply ? reply.value.pieces.every((each) => each.kind === "same" || each.kind === "skipped") ? html`<p class="soft">${t("Both texts are the same.")}</p>` : html`<${WordDiff} pieces=${reply.value.pieces} />` : html`<p class="soft">${t("Reading…")}</p>`}
  </div>`;
}
