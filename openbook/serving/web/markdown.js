// Markdown as elements. The library only reads it; what it finds becomes text nodes and a few kinds of elements, so no text of
// a document, a model or a person becomes markup, loads anything or runs.

import { html } from "./vendor/preact.js";
import { Lexer } from "./vendor/marked.js";
import { t } from "./words.js";

const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0" };

/**
 * Markdown as nodes, with the characters of `spans` ([start, end) in code points, counted from the text's beginning) marked,
 * or (not both) with the nodes of `inserts` ([place in code points, node], in order) after what stands before their places.
 */
export function markdown(text, spans = [], inserts = []) {
  const source = text.replace(/\r\n?/g, "\n"); // as the library does; a text of OpenBook has no carriage return
  const writer = new Writer(source, spans);
  try {
    const tokens = new Lexer({ gfm: true }).lex(source);
    if (inserts.length) {
      const found = new Writer(source, spans, []);
      found.blocks(tokens);
      writer.insertAfter(found.pieces, inserts);
    }
    return writer.blocks(tokens);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // nested too deep for the stack
    return [html`<p>${marked(text, 0, spans)}</p>`];
  }
}

/**
 * `text` (which begins at `offset` of its document) as nodes, with the spans of `spans` ([start, end) in the document) marked.
 * Offsets count code points, as everywhere in the API; spans may overlap and reach beyond the text.
 */
export function marked(text, offset, spans) {
  if (!spans.length) return [text];
  const points = Array.from(text);
  const cuts = new Set([0, points.length]);
  for (const span of spans) for (const at of span) cuts.add(Math.min(Math.max(at - offset, 0), points.length));
  const places = [...cuts].sort((a, b) => a - b);
  return places.slice(0, -1).map((from, i) => {
    const to = places[i + 1];
    const piece = points.slice(from, to).join("");
    const within = spans.some(([start, end]) => start <= offset + from && offset + to <= end);
    return within ? html`<mark>${piece}</mark>` : piece;
  });
}

/** `value` with what its character references stand for. */
function decoded(value) {
  return value.replace(/&(?:#(\d{1,7})|#x([0-9a-f]{1,6})|(\w{2,5}));/gi, (whole, decimal, hex, name) => {
    const code = decimal ? Number(decimal) : hex ? parseInt(hex, 16) : 0;
    return code ? (code > 0x10ffff ? "\ufffd" : String.fromCodePoint(code)) : (ENTITIES[name?.toLowerCase()] ?? whole);
  });
}

class Writer {
  /**
   * What is written comes from the source in its order, so each piece of text is found in it after the one before.
   * `pieces`: filled with the places of all that are found.
   */
  constructor(source, spans, pieces = null) {
    this.source = source;
    this.spans = spans;
    this.pieces = pieces;
    this.inserts = new Map(); // place of a piece -> [[place, node], ...]
    this.held = null; // nodes that come after the link that is written
    this.at = 0; // in the source, UTF-16
    this.pointsAt = 0; // the same place in code points
    this.counted = 0;
  }

  /** An insert belongs to the last piece that begins before its place. */
  insertAfter(pieces, inserts) {
    const points = Array.from(this.source);
    for (const [place, node] of inserts) {
      const at = points.slice(0, place).join("").length;
      const piece = pieces.findLast((start) => start < at);
      if (piece !== undefined) this.inserts.set(piece, [...(this.inserts.get(piece) ?? []), [at, node]]);
    }
  }

  text(value) {
    const isTraced = this.spans.length || this.pieces || this.inserts.size;
    const found = isTraced && value ? this.source.indexOf(value, this.at) : -1;
    if (found < 0) return isTraced && /.\n./.test(value) ? value.split(/(?<=\n)/).map((line) => this.text(line)) : [decoded(value)]; // the library takes indentation away
    this.pointsAt += Array.from(this.source.slice(this.counted, found)).length;
    this.counted = found;
    this.at = found + value.length;
    this.pieces?.push(found);
    const inserts = this.inserts.get(found) ?? [];
    if (!inserts.length) return decoded(value) === value ? marked(value, this.pointsAt, this.spans) : [decoded(value)];
    let before = 0;
    const parts = inserts.map(([place, node]) => {
      const part = value.slice(before, place - found);
      before += part.length;
      if (this.held) this.held.push(node);
      return [decoded(part), this.held ? null : node];
    });
    return [...parts, decoded(value.slice(before))];
  }

  blocks(tokens) {
    return tokens.map((token) => this.block(token));
  }

  block(token) {
    switch (token.type) {
      case "space": case "def": return null;
      case "heading": return html`<p class=${`heading level-${token.depth}`} role="heading" aria-level=${Math.min(6, token.depth + 2)}>${this.inline(token)}</p>`;
      case "code": return html`<pre tabindex="0"><code>${this.text(token.text)}</code></pre>`;
      case "hr": return html`<hr />`;
      case "blockquote": return html`<blockquote>${this.blocks(token.tokens)}</blockquote>`;
      case "list": return html`<${token.ordered ? "ol" : "ul"} class="list" start=${token.ordered && token.start !== 1 ? token.start : undefined}>
        ${token.items.map((item) => html`<li>${item.task ? (item.checked ? "☑ " : "☐ ") : ""}${this.blocks(item.tokens)}</li>`)}<//>`;
      case "table": return html`<div class="scroll" tabindex="0"><table>
        <thead><tr>${token.header.map((cell) => html`<th scope="col" class=${cell.align ?? ""}>${this.inline(cell)}</th>`)}</tr></thead>
        <tbody>${token.rows.map((row) => html`<tr>${row.map((cell) => html`<td class=${cell.align ?? ""}>${this.inline(cell)}</td>`)}</tr>`)}</tbody>
      </table></div>`;
      case "paragraph": return html`<p>${this.inline(token)}</p>`;
      case "text": return token.tokens ? html`<span>${this.inline(token)}</span>` : this.text(token.text);
      default: return html`<p class="markup">${this.text(token.raw)}</p>`; // HTML, which is shown and not followed
    }
  }

  inline({ tokens }) {
    return (tokens ?? []).map((token) => {
      switch (token.type) {
        case "strong": return html`<strong>${this.inline(token)}</strong>`;
        case "em": return html`<em>${this.inline(token)}</em>`;
        case "del": return html`<del>${this.inline(token)}</del>`;
        case "codespan": return html`<code>${this.text(token.text)}</code>`;
        case "br": return html`<br />`;
        case "link": return this.link(token);
        case "image": return html`<span class="markup" title=${token.href}>${t("[image: {name}]", { name: token.text || token.href })}</span>`;
        case "checkbox": return null;
        case "text": case "escape": return token.tokens ? this.inline(token) : this.text(token.text);
        default: return /^<br\s*\/?>$/i.test(token.raw) ? html`<br />` : html`<span class="markup">${this.text(token.raw)}</span>`;
      }
    });
  }

  link(token) {
    if (!/^(?:https?|mailto):/i.test(token.href)) return this.inline(token);
    this.held = [];
    const words = this.inline(token);
    const after = this.held;
    this.held = null;
    return [html`<a href=${token.href} title=${token.href} target="_blank" rel="noopener noreferrer nofollow">${words}</a>`, ...after];
  }
}
