// reStructuredText as elements, read by lines: headings, paragraphs, lists, literal blocks, directives, and what stands in a line.

import { html } from "./vendor/preact.js";
import { t } from "./words.js";

const RULE = /^([!-/:-@[-`{-~])\1+\s*$/;
const BULLET = /^(?:[-*+•]|(?:\d{1,4}|#|[A-Za-z])[.)]|\((?:\d{1,4}|[A-Za-z])\))(?: +|$)/;
const FIELD = /^:((?:[^:\\]|\\.){1,80}):(?: +|$)/;
const DIRECTIVE = /^\.\. (?:\|[^|]{1,80}\| )?([\w:+.-]{1,60})::(?: +|$)/;
const CODE = /^(?:code|code-block|sourcecode|parsed-literal|math|doctest|productionlist|literalinclude|csv-table|raw|highlight|testcode|prompt)$/;
const TABLE_RULE = /^=+(?: +=+)+ *$|^\+[-=+]+\+ *$/;
const LEVELS = { "=": 1, "-": 2, "~": 3 };
const MOST_DEPTH = 20;
const INLINE = new RegExp([
  "``(.{1,500}?)``(?!`)", // 1 literal
  ":[\\w:+.-]{1,40}:`([^`]{1,500})`", // 2 role
  "`([^`<]{0,300}?) ?<([^`<>]{1,1000})>`__?", // 3, 4 link
  "`([^`]{1,500})`_{0,2}", // 5 reference, or a role without a name
  "\\*\\*(?=\\S)(.{1,500}?)\\*\\*", // 6 strong
  "\\*(?=[^\\s*])([^*]{1,500}?)\\*(?!\\w)", // 7 emphasized
  "(https?://[^\\s<>`]{1,1000}[^\\s<>`.,;:!?)\\]}'\"])", // 8 address
].map((each) => `(?:${each})`).join("|"), "gs");

/** `levels`: of headings, by where they begin. */
export function rst(source, levels) {
  return blocks(source, source.lines().map((line) => ({ ...line, text: line.text.trimEnd() })), levels, 0);
}

export const indentOf = (line) => line.text.length - line.text.trimStart().length;

/** `line` without its first `n` characters. */
const cut = (line, n) => ({ from: Math.min(line.from + n, line.to), to: line.to, text: line.text.slice(n) });

const dedent = (lines, most = Math.min(...lines.filter((line) => line.text).map(indentOf))) => lines.map((line) => cut(line, Math.min(most, indentOf(line))));

function pre(source, lines) {
  const last = lines.findLastIndex((line) => line.text);
  const first = lines.findIndex((line) => line.text);
  if (last < 0) return null;
  return html`<pre tabindex="0"><code>${dedent(lines.slice(first, last + 1)).map((line) => [source.show(line.from, line.to), "\n"])}</code></pre>`;
}

function blocks(source, lines, levels, depth) {
  const out = [];
  if (depth > MOST_DEPTH) return lines.length ? [html`<p>${source.show(lines[0].from, lines.at(-1).to)}</p>`] : out;
  const inner = (part) => blocks(source, part, levels, depth + 1);
  /** The lines from `i` that are empty or indented by `least`, without the empty ones at their end. */
  const body = (i, least = 1) => {
    let end = i;
    for (let j = i; j < lines.length && (!lines[j].text || indentOf(lines[j]) >= least); j++) if (lines[j].text) end = j + 1;
    return lines.slice(i, end);
  };
  let literal = false; // the paragraph before ended with ::
  for (let i = 0; i < lines.length;) {
    const { text, from, to } = lines[i];
    const next = lines[i + 1]?.text ?? "";
    if (!text) {
      i += 1;
      continue;
    }
    if (indentOf(lines[i])) {
      const part = body(i);
      out.push(literal ? pre(source, part) : html`<blockquote>${inner(dedent(part))}</blockquote>`);
      literal = false;
      i += part.length;
      continue;
    }
    literal = false;
    const over = RULE.test(text) && RULE.test(lines[i + 2]?.text ?? "") && next.trim() && text[0] === lines[i + 2].text[0];
    if (over || (RULE.test(next) && !RULE.test(text) && next.length >= Math.min(text.length, 4))) {
      const title = over ? lines[i + 1] : lines[i];
      const level = levels.get(from) ?? levels.get(title.from) ?? (over ? 1 : LEVELS[next[0]] ?? 3);
      out.push(html`<p class=${`heading level-${level}`} role="heading" aria-level=${Math.min(6, level + 2)}>${inline(source, title.from + indentOf(title), title.to)}</p>`);
      i += over ? 3 : 2;
    } else if (TABLE_RULE.test(text)) {
      let end = i + 1;
      while (end < lines.length && lines[end].text) end += 1;
      out.push(pre(source, lines.slice(i, end)));
      i = end;
    } else if (RULE.test(text)) {
      out.push(html`<hr />`);
      i += 1;
    } else if (text.startsWith(".. ") || text === "..") {
      const part = body(i + 1);
      out.push(explicit(source, lines[i], part, inner));
      i += 1 + part.length;
    } else if (BULLET.test(text)) {
      const items = [];
      const isOrdered = !/^[-*+•]/.test(text);
      const start = parseInt(text.replace(/^\(/, ""), 10);
      for (let marker; i < lines.length && !indentOf(lines[i]) && (marker = BULLET.exec(lines[i].text)?.[0]) && isOrdered === !/^[-*+•]/.test(marker);) {
        const rest = body(i + 1);
        items.push(html`<li>${inner([cut(lines[i], marker.length), ...dedent(rest, marker.length)])}</li>`);
        i += 1 + rest.length;
        while (i < lines.length && !lines[i].text) i += 1;
      }
      out.push(html`<${isOrdered ? "ol" : "ul"} class="list" start=${start > 1 ? start : undefined}>${items}<//>`);
    } else if (FIELD.test(text)) {
      const name = FIELD.exec(text);
      const part = body(i + 1);
      out.push(html`<div class="field"><p class="label">${source.show(from + 1, from + 1 + name[1].length)}</p>${inner([cut(lines[i], name[0].length), ...dedent(part)])}</div>`);
      i += 1 + part.length;
    } else if (/^(?:>>> |\| |\|$)/.test(text)) {
      const begin = i;
      while (lines[i]?.text) i += 1;
      out.push(text[0] === ">" ? pre(source, lines.slice(begin, i))
        : html`<p class="kept">${lines.slice(begin, i).map((line) => [inline(source, Math.min(line.from + 2, line.to), line.to), "\n"])}</p>`);
    } else if (next && indentOf(lines[i + 1])) {
      const part = body(i + 1);
      out.push(html`<div class="field"><p class="label">${inline(source, from, to)}</p>${inner(dedent(part))}</div>`);
      i += 1 + part.length;
    } else {
      const begin = i;
      while (lines[i]?.text && (i === begin || (!indentOf(lines[i]) && !BULLET.test(lines[i].text)))) i += 1;
      const last = lines[i - 1];
      literal = last.text.endsWith("::");
      const end = last.from + last.text.length - (literal ? (/(?:^|\s)::$/.test(last.text) ? 2 : 1) : 0);
      if (end > from) out.push(html`<p>${inline(source, from, end)}</p>`);
    }
  }
  return out;
}

/** A directive, a target or a comment. */
function explicit(source, line, part, inner) {
  const directive = DIRECTIVE.exec(line.text);
  if (!directive) {
    const isTarget = /^\.\. _[^:]{1,200}:$/.test(line.text) && !part.length && !source.isMarked(line.from, line.to);
    return isTarget ? null : html`<p class="markup">${source.show(line.from, (part.at(-1) ?? line).to)}</p>`;
  }
  const [whole, name] = directive;
  const kind = name.split(":").at(-1);
  const given = line.text.length > whole.length ? inline(source, line.from + whole.length, line.to) : null;
  let options = 0;
  while (part[options]?.text && FIELD.test(part[options].text.trim())) options += 1;
  const body = part.slice(options);
  if (CODE.test(kind)) return [kind === "csv-table" && given ? html`<p class="label">${given}</p>` : null, pre(source, body)];
  if (kind === "image" || kind === "figure") {
    return [html`<p class="markup">${t("[image: {name}]", { name: line.text.slice(whole.length) })}</p>`, inner(body.length ? dedent(body) : [])];
  }
  const rows = kind === "list-table" ? listTable(body) : null;
  if (rows) {
    return html`${given ? html`<p class="label">${given}</p>` : null}<div class="scroll" tabindex="0"><table><tbody>
      ${rows.map((row) => html`<tr>${row.map((cell) => html`<td>${inner(cell)}</td>`)}</tr>`)}</tbody></table></div>`;
  }
  return html`<div class="aside"><p class="label">${/^[a-z]/.test(kind) ? kind[0].toUpperCase() + kind.slice(1) : kind} ${given}</p>
    ${inner(body.length ? dedent(body) : [])}</div>`;
}

/** The lines of each cell in each row of `* - `, or null. */
function listTable(lines) {
  const rows = [];
  for (const line of lines) {
    const begun = /^(\s*)(\*\s+)?-(?:\s+|$)/.exec(line.text);
    if (begun?.[2]) rows.push([]);
    if (begun && rows.length) rows.at(-1).push([cut(line, begun[0].length)]);
    else if (line.text && !rows.at(-1)?.length) return null;
    else if (line.text) rows.at(-1).at(-1).push(cut(line, indentOf(line)));
  }
  return rows.length ? rows : null;
}

function inline(source, from, to) {
  const out = [];
  let at = from;
  for (const match of source.text.slice(from, to).matchAll(INLINE)) {
    const begin = from + match.index;
    const which = match.findIndex((group, i) => i && group !== undefined && (i !== 3 || group));
    const start = begin + (which === 8 ? 0 : match[0].indexOf(match[which], which === 2 ? match[0].indexOf("`") : 1));
    const words = source.show(start, start + match[which].length);
    const address = which === 8 ? match[8] : match[4];
    out.push(source.show(at, begin));
    if (which === 1 || which === 2) out.push(html`<code>${words}</code>`);
    else if (which === 6) out.push(html`<strong>${words}</strong>`);
    else if (which === 7) out.push(html`<em>${words}</em>`);
    else if (/^(?:https?|mailto):/i.test(address ?? "")) {
      out.push(html`<a href=${address} title=${address} target="_blank" rel="noopener noreferrer nofollow">${words}</a>`);
    } else out.push(words);
    at = begin + match[0].length;
  }
  return [...out, source.show(at, to)];
}
