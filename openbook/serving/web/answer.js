// One answer as it comes, then with the numbers of its sources, how sure it is, and what made it.

import { get, key, post } from "./api.js";
import { finished } from "./asking.js";
import { Copy } from "./command.js";
import { markdown } from "./markdown.js";
import { usePart } from "./parts.js";
import { href } from "./router.js";
import { chooseBase, server, where } from "./server.js";
import { useStore } from "./store.js";
import { html, useEffect, useState } from "./vendor/preact.js";
import { baseName, number, quotation, t } from "./words.js";

// The words are those of openbook/answers/certainty.py.
const confidences = () => ({
  "supported": [t("Supported"), "good", t("Of answers that measured like this one eight in ten were right.")],
  "likely": [t("Likely"), "good", t("Of answers that measured like this one six in ten were right; read the quotes first.")],
  "check it": [t("Check it"), "doubtful", t("Too few answers that measured like this one were right; compare it with the quotes.")],
  "not found": [t("Not found"), "", t("Nothing that was read seems to say it.")],
});
const unmeasured = () => t("How often such an answer is right was not measured; compare it with the quotes.");

function stageOf({ stage, done, total }, mode) {
  if (stage === "waiting") return t("Waiting for a free place…");
  if (stage === "writing") return t("Writing…");
  if (stage === "reading") return t("Reading {done} of {total} tokens", { done: number(done), total: number(total) });
  return stage === "found" || mode === "closed" ? t("Reading…") : t("Searching…");
}

/** [word, class, meaning] */
function sureness(mode, given) {
  if (given.error) return [t("Failed"), "doubtful", ""];
  if (given.stopped) return [t("Stopped"), "doubtful", t("Stopped before the answer was complete.")];
  if (given.imported) return [t("From a file"), "", ""];
  if (mode === "closed") return [t("No source"), "doubtful", ""];
  const [word, kind, meaning] = confidences()[given.confidence];
  const share = given.certainty === null ? "" : ` · ${Math.round(100 * given.certainty)} %`;
  return [word + share, kind, given.declined ? "" : share ? meaning : unmeasured()]; // who declines says so
}

/**
 * `given`: as the API gave it, or {answer, stopped, error}; `live`: as it comes. `onSource(i)` shows the source number i;
 * `onAgain()` asks again.
 */
export function Answer({ mode, turn, given, live, onSource, onAlone, onAgain }) {
  const name = mode === "open" ? t("From documents") : t("From the model alone");
  const [word, kind, meaning] = live ? [stageOf(live, mode), "", ""] : given ? sureness(mode, given) : [t("No answer"), "", ""];
  const searched = (live ?? given)?.searched;
  const text = live ? live.text : given?.answer;
  return html`<article class=${`answer${given?.declined && !live ? " abstained" : ""}`} aria-label=${name}>
    <header><h4>${name}</h4><span class=${`state ${kind}`}>${word}</span></header>
    ${searched && searched !== turn.question ? html`<p class="soft searched" dir="auto">${t("Understood as: {question}", { question: searched })}
      ${live || !onAlone ? null : html` <button type="button" class="quiet small" onClick=${onAlone}>${t("Ask without what came before")}</button>`}</p>` : null}
    ${live?.stage === "reading" ? html`<progress max=${live.total} value=${live.done} aria-label=${word}></progress>` : null}
    <div class="text" dir="auto" aria-busy=${live ? "true" : "false"}>${live || !finished(given) ? markdown(text ?? "") : markdown(text || t("No answer"), [], numbers(given, onSource))}</div>
    ${meaning ? html`<p class="soft meaning">${meaning}</p>` : null}
    ${given?.error && !live ? html`<p class="bad" role="alert">${given.error}</p>` : null}
    ${finished(given) && !live && mode === "open" && given.citations.length ? html`<${Older} given=${given} onAgain=${onAgain} />` : null}
    ${finished(given) && !live ? html`<${Below} mode=${mode} turn=${turn} given=${given} />` : null}
  </article>`;
}

/** [place in the text, node] after each sentence that states something. */
function numbers({ sentences = [], citations }, onSource) {
  return sentences.map(({ end, citation, support }) => [end, citation === null
    ? html`<span class="ref none" role="img" aria-label=${t("No source")} title=${t("This sentence could not be matched with a passage.")}>?</span>`
    : html`<button type="button" class=${`ref ${support}`} aria-label=${t("Source {n}", { n: citation + 1 })} title=${citations[citation].quote}
        onClick=${() => onSource({ number: citation })}>${citation + 1}</button>`]);
}

const changes = new Map(); // "base, path, newest version" -> a promise of the versions that changed the document, or of null: it is gone

function changesOf(knowledgeBase, path, newest) {
  const name = JSON.stringify([knowledgeBase, path, newest, key.get()]);
  if (!changes.has(name)) {
    changes.set(name, get("/v1/documents/history", { path, knowledge_base: knowledgeBase }).then(
      ({ data }) => data.filter((each) => ["changed", "removed"].includes(each.change)).map((each) => each.version),
      (error) => (error.status === 404 ? null : [])));
  }
  return changes.get(name);
}

/** Says so where a document that the answer cites has changed, or is gone, since the version that was asked. */
function Older({ given, onAgain }) {
  const { bases, base, versions, asOf } = useStore(server);
  const [newest, setNewest] = useState(null); // where one changed
  const { knowledge_base: id, knowledge_base_version: then } = given.receipt;
  const place = bases.findIndex((each) => each.id === id);
  const name = place > 0 ? bases[place].name : "";
  useEffect(() => {
    let isWanted = true;
    setNewest(null);
    const look = async () => {
      const found = name === base ? versions[0] : (await get("/v1/versions", { knowledge_base: name, limit: 1 })).data[0];
      if (!found || found.version <= then) return;
      const paths = [...new Set(given.citations.map((each) => each.document))];
      const since = await Promise.all(paths.map((path) => changesOf(name, path, found.version)));
      if (isWanted && since.some((each) => !each || each.some((version) => version > then))) setNewest(found.version);
    };
    if (place >= 0 && then) look().catch(() => null); // nothing is said then
    return () => { isWanted = false; };
  }, [given, versions, base, place]);
  if (!newest || (name === base && asOf === String(then))) return null;
  const again = () => {
    if (name === base) server.set({ asOf: "" });
    else chooseBase(name).catch(() => null);
    onAgain();
  };
  return html`<p class="soft line older-answer"><span>${t("From version {version}; the documents are now at {newest}.", { version: then, newest })}</span>
    ${onAgain ? html`<button type="button" class="quiet small" onClick=${again}>${t("Ask again")}</button>` : null}</p>`;
}

function Below({ mode, turn, given }) {
  const { notes = [], warnings = [], receipt, timings } = given;
  const address = `${location.origin}${location.pathname}${href("answer", turn.id)}`;
  return html`${[...notes.filter((note) => !given.searched || !note.startsWith("Searched for together: ")), ...warnings].map((note) => html`<p class="note" dir="auto">${note}</p>`)}
    <p class="line tools">
      <${Copy} text=${given.answer}>${t("Copy")}<//>
      ${mode === "open" ? html`<${Copy} text=${withSources(given)}>${t("Copy with sources")}<//>` : null}
      <${Copy} text=${address} told=${t("Copied. The link opens in this browser only.")}>${t("Copy link")}<//>
      ${mode === "open" ? html`<${Keep} turn=${turn} given=${given} />` : null}</p>
    ${receipt?.digest ? html`<${Details} receipt=${receipt} timings=${timings} />` : null}`;
}

/** Saves the question, so that it is asked again after every change; a follow-up as it was understood. */
function Keep({ turn, given }) {
  const { bases } = useStore(server);
  const [saved, setSaved] = useState(null); // "" or a problem
  const base = bases.find((each) => each.id === given.receipt.knowledge_base);
  if (!base) return null;
  const save = () => post("/v1/questions", { question: given.searched || turn.question, knowledge_base: base.name, where: where(turn.scope) })
    .then(() => setSaved(""), (error) => setSaved(error.message));
  return saved === "" ? html`<span class="small kept" role="status"><a href=${href("questions")}>${t("Saved under Questions")}</a></span>`
    : html`<button type="button" class="quiet small" onClick=${save}>${t("Ask this after every change")}</button>${saved ? html`<span class="bad" role="alert">${saved}</span>` : null}`;
}

/** Drawn when it is first open: most are never read. */
function Details(made) {
  const [wasOpen, setOpen] = useState(false);
  const Made = usePart(wasOpen && "receipt")?.Made;
  return html`<details class="receipt" onToggle=${() => setOpen(true)}><summary>${t("Details")}</summary>${Made ? html`<${Made} ...${made} />` : null}</details>`;
}

/** The answer as Markdown, with the numbers of its sources, and what they say. */
function withSources({ answer, sentences = [], citations, closest = [] }) {
  const points = Array.from(answer);
  for (const { end, citation } of [...sentences].sort((a, b) => b.end - a.end)) if (citation !== null) points.splice(end, 0, ` [${citation + 1}]`);
  const sources = (citations.length ? citations : closest).map(({ quote, document, page }, i) =>
    `${i + 1}. ${quotation(quote.replace(/\s+/g, " ").trim())} (${[baseName(document), page && t("page {n}", { n: page })].filter(Boolean).join(", ")})`);
  return [points.join(""), ...(sources.length ? [sources.join("\n")] : [])].join("\n\n") + "\n";
}
