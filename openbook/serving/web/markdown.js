// Markdown as elements. The library only reads it; what it finds becomes text nodes and a few kinds of elements, so no text of
// a document, a model or a person becomes markup, loads anything or runs.

import { Source } from "./source.js";
import { html } from "./vendor/preact.js";
import { Lexer } from "./vendor/marked.js";
import { t } from "./words.js";

const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0" };
const ENTITY = /&(?:#(\d{1,7})|#x([0-9a-f]{1,6})|(\w{2,5}));/i;
const PARTS = /(&(?:#\d{1,7}|#x[0-9a-f]{1,6}|\w{2,5});|\s+)/i;
const NEAR = 500; // characters between a piece of text and the next: an address, marks of quotes
const MOST_SEARCHED = 1e6; // characters, for the ends of emphases
const MOST_DEPTH = 30;
const PLAIN = /^(?:[`~]+|[^])(?:(?= {2,}\n)|[^]*?(?:(?=[\\<![`*~_]|https?:\/\/|www\.|$)|[^ ](?= {2,}\n)))/; // text until what may be more

/** `value` with what its character reference stands for. */
function decoded(value) {
  return value.replace(ENTITY, (whole, decimal, hex, name) => {
    const code = decimal ? Number(decimal) : hex ? parseInt(hex, 16) : 0;
    return code ? (code > 0x10ffff ? "\ufffd" : String.fromCodePoint(code)) : (ENTITIES[name?.toLowerCase()] ?? whole);
  });
}

/**
 * Markdown as nodes, with the characters of `spans` ([start, end) in code points, counted from the text's beginning) marked,
 * or (not both) with the nodes of `inserts` ([place in code points, node], in order) after what stands before their places.
 */
export function markdown(text, spans = [], inserts = []) {
  const source = new Source(text.replace(/\r\n?/g, "\n"), spans); // as the library does; a text of OpenBook has no carriage return
  const writer = new Writer(source);
  try {
    const tokens = bounded(new Lexer({ gfm: true })).lex(source.text);
    if (inserts.length) {
      const found = new Writer(source, []);
      found.blocks(tokens);
      writer.insertAfter(found.pieces, inserts);
    }
    return writer.blocks(tokens);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // nested too deep for the stack
    return [html`<p>${source.show()}</p>`];
  }
}

/** The library takes quadratic time and more for hostile text, so it looks for fewer things there. */
function bounded(lexer) {
  const reader = lexer.tokenizer;
  const { blockquote, list, url } = reader;
  let searched = 0;
  for (const name of ["emStrong", "del"]) {
    const find = reader[name];
    reader[name] = function (text, ...rest) {
      searched += /^[*_~]/.test(text) ? text.length : 0;
      return searched < MOST_SEARCHED ? find.call(this, text, ...rest) : undefined;
    };
  }
  let depth = 0;
  for (const [name, find] of Object.entries({ blockquote, list })) {
    reader[name] = function (text) {
      depth += 1;
      const found = depth < MOST_DEPTH ? find.call(this, text) : undefined;
      depth -= 1;
      return found;
    };
  }
  reader.url = function (text) { // no addresses of mail, which it looks for at each character
    return /^(?:https?:|www\.)/i.test(text) ? url.call(this, text) : undefined;
  };
  reader.inlineText = (text) => {
    const [raw] = PLAIN.exec(text);
    return { type: "text", raw, text: raw, escaped: false };
  };
  return lexer;
}

class Writer {
  /**
   * What is written comes from the source in its order, so each piece of text is found in it after the one before.
   * `pieces`: filled with the places of all that are found.
   */
  constructor(source, pieces = null) {
    this.source = source;
    this.pieces = pieces;
    this.inserts = new Map(); // place of a piece -> [[place, node], ...]
    this.held = null; // nodes that come after the link that is written
    this.at = 0; // in the source
  }

  /** An insert belongs to the last piece that begins before its place. */
  insertAfter(pieces, inserts) {
    for (const [place, node] of inserts) {
      const at = this.source.unit(place);
      const piece = pieces.findLast((start) => start < at);
      if (piece !== undefined) this.inserts.set(piece, [...(this.inserts.get(piece) ?? []), [at, node]]);
    }
  }

  isTraced() {
    return this.source.spans.length || this.pieces || this.inserts.size;
  }

  text(value) {
    const found = ENTITY.test(value) ? null : this.find(value);
    // Else its lines may begin with marks of quotes or lists, which are not of the text.
    return found ?? value.split(PARTS).map((part) => this.find(part) ?? decoded(part));
  }

  /** `value` with marks and inserts; null if it is not found near. */
  find(value) {
    if (!this.isTraced() || !value) return [decoded(value)];
    const found = /^\s+$/.test(value) && /\s/.test(this.source.text[this.at] ?? "") ? this.at : this.near(value);
    if (found < 0) return null;
    this.at = found + value.length;
    this.pieces?.push(found);
    const inserts = this.inserts.get(found) ?? [];
    if (!inserts.length) return this.source.show(found, this.at, decoded(value));
    let before = 0;
    const parts = inserts.map(([place, node]) => {
      const part = value.slice(before, place - found);
      before += part.length;
      if (this.held) this.held.push(node);
      return [decoded(part), this.held ? null : node];
    });
    return [...parts, decoded(value.slice(before))];
  }

  near(value) {
    const found = this.source.text.slice(this.at, this.at + NEAR + value.length).indexOf(value);
    return found < 0 ? -1 : this.at + found;
  }

  /** What `write` makes of a token. The next token begins after this one's source. */
  pass(token, write) {
    const from = this.at;
    const nodes = write(token);
    if (!this.isTraced()) return nodes;
    this.at = from;
    for (const line of token.raw.split("\n")) {
      const found = this.near(line);
      if (found >= 0) this.at = found + line.length;
    }
    return nodes;
  }

  blocks(tokens) {
    return tokens.map((token) => this.pass(token, (each) => this.block(each)));
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
    return (tokens ?? []).map((each) => this.pass(each, (token) => {
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
    }));
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
