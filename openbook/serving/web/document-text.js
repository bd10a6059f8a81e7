// A document's text as elements by its kind, with what is cited marked.

import { markdown } from "./markdown.js";
import { indentOf, rst } from "./rst.js";
import { Source } from "./source.js";
import { html, useMemo } from "./vendor/preact.js";
import { t } from "./words.js";

const TABLES = new Set(["text/csv", "text/tab-separated-values"]);
const ITEM = /^( *)(?:[-*•–]|\d{1,4}[.)]) /;
const VALUE = /^[-+]?[\d.,:/ %€$£-]*\d[\d.,:/ %€$£-]*$/;
const MOST_COLUMNS = 60;

/** One piece: {start, text, pages, headings} as the API gives them. `spans`: in the document, in order and apart. */
export function Piece({ piece, spans, kind, isStored, isFromStart, openPage }) {
  const nodes = useMemo(() => nodesOf(piece, spans, kind, isStored, isFromStart, openPage), [piece, spans, kind, isStored, isFromStart, openPage]);
  return html`<div class="piece">${nodes}</div>`;
}

export function nodesOf(piece, spans, kind, isStored, isFromStart, openPage) {
  const within = spans.map((span) => span.map((at) => Math.max(0, at - piece.start)));
  if (!isStored && kind === "text/markdown") return markdown(piece.text, within);
  const source = new Source(piece.text, within);
  if (isStored) return html`<p class="kept">${source.show()}</p>`;
  const levels = new Map(piece.headings.map((each) => [source.unit(each.start - piece.start), each.level]));
  if (kind === "text/x-rst") return rst(source, levels);
  if (kind === "text/x-source") return code(source, isFromStart);
  return (TABLES.has(kind) && namedTable(source)) || flow(source, levels, piece, kind, openPage);
}

function code(source, isNumbered) {
  return html`<pre class=${isNumbered ? "code numbered" : "code"}><code>${source.lines().map((line) => html`<span>${source.show(line.from, line.to)}${"\n"}</span>`)}</code></pre>`;
}

function table(source, head, rows) {
  const cell = (each) => (each ? source.show(each.from, each.to) : null);
  return html`<div class="scroll" tabindex="0"><table>
    ${head ? html`<thead><tr>${head.map((each) => html`<th scope="col">${typeof each === "string" ? each : cell(each)}</th>`)}</tr></thead>` : null}
    <tbody>${rows.map((row) => html`<tr>${row.map((each) => html`<td>${cell(each)}</td>`)}</tr>`)}</tbody></table></div>`;
}

/** Lines such as `name: Ada; born: 1815` as a table; null if they are not all so. */
function namedTable(source) {
  const lines = source.lines().filter((line) => line.text.trim()).map((line) => split(line, "; ").map((part) => {
    const name = /^([^:]{1,80}): /.exec(source.text.slice(part.from, part.to));
    return { ...part, name: name?.[1] ?? "", value: part.from + (name?.[0].length ?? 0) };
  }));
  const seen = new Map();
  for (const parts of lines) for (const { name } of parts) if (name) seen.set(name, (seen.get(name) ?? 0) + 1);
  const columns = [...seen].filter(([, times]) => times >= Math.min(2, lines.length)).map(([name]) => name);
  const places = new Map(columns.map((name, i) => [name, i]));
  if (!columns.length || columns.length > MOST_COLUMNS || lines.some(([first]) => !places.has(first.name))) return null;
  const rows = lines.map((parts) => {
    const row = columns.map(() => null);
    let last = 0;
    for (const { name, from, value, to } of parts) {
      const place = places.get(name);
      const isNameMarked = source.isMarked(from, value) && !source.isMarked(value, to); // then it is shown in the cell too
      if (place === undefined || row[place]) row[last].to = to; // a value with `; ` in it
      else row[last = place] = { from: isNameMarked ? from : value, to };
    }
    return row;
  });
  return table(source, columns, rows);
}

/** {from, to} of each part of a line. */
function split(line, divider) {
  let at = line.from;
  return line.text.split(divider).map((part) => {
    const from = at;
    at += part.length + divider.length;
    return { from, to: from + part.length };
  });
}

/** Paragraphs, headings, lists, tables and pages. The lines of a PDF are joined to paragraphs. */
function flow(source, levels, piece, kind, openPage) {
  const pages = piece.pages.map((each) => ({ page: each.page, at: source.unit(each.start - piece.start) }));
  const lines = source.lines();
  const joins = kind === "application/pdf";
  const lengths = lines.map((line) => line.text.length).filter(Boolean).sort((a, b) => a - b);
  const full = joins ? 0.75 * (lengths[Math.floor(lengths.length * 0.9)] ?? 0) : 0;
  const out = [];
  let run = [];
  const flush = () => {
    if (run.length) out.push(...paragraphs(source, run, full));
    run = [];
  };
  for (const line of lines) {
    while (pages.length && pages[0].at <= line.to) {
      flush();
      out.push(html`<h3 class="page" data-page=${pages[0].page}>${pageName(kind, pages.shift().page, openPage)}</h3>`);
    }
    const level = levels.get(line.from);
    if (level && line.text.trim()) {
      flush();
      out.push(html`<p class=${`heading level-${level}`} role="heading" aria-level=${Math.min(6, level + 2)}>${source.show(line.from, line.to)}</p>`);
    } else if (line.text.trim()) run.push(line);
    else flush();
  }
  flush();
  return out;
}

function pageName(kind, page, openPage) {
  if (openPage) return html`<button type="button" class="quiet" onClick=${() => openPage(page)}>${t("Page {page}", { page })}</button>`;
  if (/presentation/.test(kind)) return t("Slide {page}", { page });
  return /spreadsheet|excel/.test(kind) ? t("Sheet {page}", { page }) : t("Page {page}", { page });
}

/** Of lines without an empty one between them. With `full`, a shorter line ends a paragraph, and so does one before an item; else lines stay. */
function paragraphs(source, lines, full) {
  const out = [];
  const kindOf = (line) => (full ? "joined" : line.text.includes(" | ") ? "row" : ITEM.test(line.text) ? "item" : "text");
  for (let i = 0; i < lines.length;) {
    const kind = kindOf(lines[i]);
    let end = i + 1;
    while (end < lines.length && kindOf(lines[end]) === kind) end += 1;
    const part = lines.slice(i, end);
    if (kind === "row" && part.length > 1) {
      const rows = part.map((line) => split(line, " | "));
      const names = rows[0].map((cell) => source.text.slice(cell.from, cell.to).trim());
      const isHead = names.every((name) => name && !VALUE.test(name)) && new Set(names).size === names.length;
      out.push(isHead ? table(source, rows[0], rows.slice(1)) : table(source, null, rows));
    } else if (kind === "item") {
      out.push(...part.map((line) => html`<p class="item" style=${{ "--depth": String(ITEM.exec(line.text)[1].length / 2) }}>${source.show(line.from + indentOf(line), line.to)}</p>`));
    } else if (kind === "joined") {
      let begin = 0;
      part.forEach((line, j) => {
        if (line.text.trim().length >= full && j + 1 < part.length && !ITEM.test(part[j + 1].text)) return;
        out.push(html`<p>${source.show(part[begin].from, line.to)}</p>`);
        begin = j + 1;
      });
    } else out.push(html`<p class="kept">${source.show(part[0].from, part.at(-1).to)}</p>`);
    i = end;
  }
  return out;
}
