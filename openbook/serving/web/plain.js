// Markdown and reStructuredText as plain words, with the cited ones known.

import { markdown } from "./markdown.js";
import { rst } from "./rst.js";
import { Source } from "./source.js";

const PART = "\u2029"; // between headings, items and cells; "\n" between paragraphs
const PARTS = new Set(["li", "td", "th", "tr", "pre"]);
const BLOCKS = new Set(["p", "div", "blockquote", "ul", "ol", "table", "hr", "br"]);

/** [text, whether it is marked] of each piece of text in `nodes`. What is shown as markup is left out unless it is marked. */
function pieces(nodes, isMarked = false) {
  if (Array.isArray(nodes)) return nodes.flatMap((each) => pieces(each, isMarked));
  if (typeof nodes === "string" || typeof nodes === "number") return [[String(nodes), isMarked]];
  if (!nodes?.type) return [];
  const { type, props } = nodes;
  const kind = props.class ?? "";
  const found = pieces(props.children, isMarked || type === "mark");
  if (kind === "markup" && !found.some(([, marked]) => marked)) return [];
  const gap = PARTS.has(type) || /^heading|^label/.test(kind) ? PART : BLOCKS.has(type) ? "\n" : "";
  return gap ? [[gap, false], ...found, [gap, false]] : found;
}

/** {before, quote, after}: the words of a passage of `document` before, in and after [start, end) in code points. */
export function plain(document, text, start, end) {
  const points = Array.from(text);
  const raw = [points.slice(0, start), points.slice(start, end), points.slice(end)].map((some) => some.join(""));
  const isMarkdown = /\.(?:md|markdown)$/i.test(document);
  if (!isMarkdown && !/\.rst$/i.test(document)) return { before: raw[0], quote: raw[1], after: raw[2] };
  const spans = start < end ? [[start, end]] : [];
  const found = pieces(isMarkdown ? markdown(text, spans) : rst(new Source(text, spans), new Map()));
  const first = found.findIndex(([, isMarked]) => isMarked);
  const last = found.findLastIndex(([, isMarked]) => isMarked) + 1;
  const words = (from, to) => found.slice(from, to).map(([each]) => each).join("");
  if (first < 0) return start < end ? { before: raw[0], quote: raw[1], after: raw[2] } : { before: "", quote: "", after: words(0) };
  return { before: words(0, first), quote: words(first, last), after: words(last) };
}

/** In one line. */
export const flat = (text) => text.replace(/\s*\u2029\s*/g, " · ").replace(/\s+/g, " ");

/** With a line for each part. */
export const lined = (text) => text.replaceAll("\u2029", "\n").replace(/\s*\n\s*/g, "\n");

/** As `flat`, of a text without marks. */
export const plainLine = (document, text) => flat(plain(document, text, 0, 0).after).replace(/^[\s·]+|[\s·]+$/g, "");
