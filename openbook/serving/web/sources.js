// The passages that were found and read for an answer, and the quotes that it rests on.

import { finished } from "./asking.js";
import { flat, lined, plain } from "./plain.js";
import { href } from "./router.js";
import { server } from "./server.js";
import { html, useEffect, useMemo, useRef, useState } from "./vendor/preact.js";
import { baseName, count, folderName, t } from "./words.js";

const AROUND = 110; // characters on each side of a quote: about two lines

/** `lit`: {number} of the source that was looked for. */
export function Sources({ given, live, lit }) {
  const hits = live?.passages ?? (live ? [] : given?.passages ?? []);
  if (live || !finished(given)) {
    return html`<div class="sources" role="group" aria-label=${t("Sources")} aria-live="polite">${hits.length
      ? html`<h4>${count(hits.length, "{n} passage found, read in this order", "{n} passages found, read in this order")}</h4>
        <ol>${hits.map(({ passage }) => html`<${Card} key=${passage.id} passage=${passage} cited=${passage} brief />`)}</ol>` : null}</div>`;
  }
  const { citations, sentences = [], closest = [], receipt } = given;
  const passageOf = (cited) => hits.find((hit) => hit.passage.id === cited.passage_id)?.passage;
  const names = new Set(citations.map((cited) => cited.passage_id));
  const others = hits.filter((hit) => !names.has(hit.passage.id)).map((hit) => hit.passage);
  const supports = (i) => sentences.some((each) => each.citation === i && each.support === "backed") ? "backed" : "near";
  const heading = citations.length ? t("Sources") : closest.length ? t("Closest in your documents") : hits.length ? "" : t("Nothing near the question was found");
  const link = { version: receipt.knowledge_base_version, base: nameOf(receipt.knowledge_base) };
  return html`<div class="sources" role="group" aria-label=${t("Sources")}>
    ${heading ? html`<h4>${heading}</h4>` : null}
    <ol>${(citations.length ? citations : closest).map((cited, i) => html`<${Card} key=${i} cited=${cited} passage=${passageOf(cited)} link=${link}
      number=${citations.length ? i + 1 : null} support=${citations.length && sentences.length ? supports(i) : ""} lit=${lit?.number === i ? lit : null} />`)}</ol>
    ${others.length ? html`<${Others} passages=${others} link=${link} isOpen=${!heading} />` : null}
  </div>`;
}

/** Drawn when they are first open: most are never read. */
function Others({ passages, link, isOpen }) {
  const [wasOpen, setOpen] = useState(isOpen);
  return html`<details open=${isOpen} onToggle=${() => setOpen(true)}><summary>${t("Read, but not cited ({n})", { n: passages.length })}</summary>
    ${wasOpen ? html`<ol>${passages.map((passage) => html`<${Card} key=${passage.id} passage=${passage} cited=${passage} link=${link} brief />`)}</ol>` : null}</details>`;
}

/** The name of the knowledge base that has the identifier `id`, where there are several. */
function nameOf(id) {
  const { bases } = server.get();
  return bases.length > 1 ? bases.find((each) => each.id === id)?.name : "";
}

/** `cited`: {document, page, start, end, quote} in `passage`, if that is known. `brief`: the beginning of the passage alone. */
function Card({ cited, passage, link = {}, number = null, support = "", lit = null, brief = false }) {
  const [whole, setWhole] = useState(false);
  const head = useRef(null);
  useEffect(() => lit && head.current.focus(), [lit]);
  const parts = [...new Set([passage?.title, ...(passage?.headings ?? [])].filter((part) => part && bare(part) !== bare(baseName(cited.document))))];
  const place = [cited.page && t("page {n}", { n: cited.page }), parts.join(" › ")].filter(Boolean).join(" · ");
  const backs = { backed: t("backs the answer"), near: t("only resembles the answer") };
  const words = useMemo(() => plainOf(cited, passage, brief), [cited, passage, brief]);
  const shown = (text) => (number ? html`<mark>${text}</mark>` : text); // what is near was not cited
  const part = brief ? beginning(words.after) : snippet(words, shown);
  const isWhole = whole || part.isWhole;
  return html`<li class=${`source${lit ? " lit" : ""}`}>
    <a class="link" ref=${head} title=${cited.document} href=${href("document", cited.document, { ...link, start: cited.start, end: cited.end, page: cited.page })}>
      ${number ? html`<span class="number">${number}</span>` : null}<span class="path">${baseName(cited.document)}</span><span class="folder soft">${folderName(cited.document)}</span></a>
    ${place || support ? html`<p class="soft where">${support ? html`<span class=${`support ${support}`}>${backs[support]}</span>${place ? " · " : ""}` : null}${place}</p>` : null}
    <blockquote dir="auto">${whole ? [lined(words.before).trimStart(), words.quote && shown(lined(words.quote)), lined(words.after).trimEnd()] : part.nodes}</blockquote>
    ${part.isWhole ? null : html`<button type="button" class="quiet small" aria-expanded=${isWhole} onClick=${() => setWhole(!whole)}>${whole ? t("Show less") : t("Show the passage")}</button>`}
  </li>`;
}

/** A name without what a file's name has instead of spaces, and without its ending. */
const bare = (name) => name.toLowerCase().replace(/\.\w+$/, "").replace(/[^\p{L}\p{N}]+/gu, " ");

/** The plain words before, in and after what is cited. */
function plainOf(cited, passage, brief) {
  if (!passage) return plain(cited.document, cited.quote, 0, Array.from(cited.quote).length);
  const [start, end] = brief ? [0, 0] : [cited.start - passage.start, cited.end - passage.start];
  return plain(cited.document, passage.text, start, end);
}

/** The whole quote, with the words around it. */
export function snippet({ before, quote, after }, shown) {
  const [head, tail] = [flat(before).replace(/^[\s·]+/, ""), flat(after).replace(/[\s·]+$/, "")];
  const [first, last] = [Array.from(head), Array.from(tail)];
  const nodes = [
    first.length > AROUND ? `… ${first.slice(-AROUND).join("").replace(/^\S*\s?/, "")}` : head, // whole words
    shown(flat(quote).replace(/^[\s·]+|[\s·]+$/g, "")),
    last.length > AROUND ? `${last.slice(0, AROUND).join("").replace(/\s?\S*$/, "")} …` : tail,
  ];
  return { nodes, isWhole: first.length <= AROUND && last.length <= AROUND };
}

function beginning(text) {
  const words = flat(text).replace(/^[\s·]+|[\s·]+$/g, "");
  const points = Array.from(words);
  return points.length <= 2 * AROUND ? { nodes: [words], isWhole: true } : { nodes: [`${points.slice(0, 2 * AROUND).join("").replace(/\S*$/, "")}…`], isWhole: false };
}
