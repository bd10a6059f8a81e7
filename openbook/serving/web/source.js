// A piece of a document's text of which parts are shown, each with what is cited in it marked.

import { html } from "./vendor/preact.js";

export class Source {
  /** `spans`: [start, end) in code points from the piece's beginning, in order and apart. Other offsets here count UTF-16 units. */
  constructor(text, spans) {
    this.text = text;
    this.points = /[\ud800-\udbff]/.test(text) ? Array.from(text) : null; // null: each unit is a code point
    this.spans = spans.map((span) => span.map((at) => this.unit(at)));
  }

  unit(point) {
    if (!this.points) return Math.min(Math.max(point, 0), this.text.length);
    this.starts ??= this.points.reduce((starts, each) => [starts.push(starts.at(-1) + each.length), starts][1], [0]);
    return this.starts[Math.min(Math.max(point, 0), this.points.length)];
  }

  /** The nodes of a part, which is `text`. The mark of a span has its number. */
  show(from = 0, to = this.text.length, text = this.text.slice(from, to)) {
    const nodes = [];
    let at = from;
    this.spans.forEach(([start, end], i) => {
      const [begin, until] = [Math.max(start, at), Math.min(end, to)];
      if (begin >= until) return;
      if (at < begin) nodes.push(text.slice(at - from, begin - from));
      nodes.push(html`<mark data-span=${i}>${text.slice(begin - from, until - from)}</mark>`);
      at = until;
    });
    if (at < to) nodes.push(text.slice(at - from));
    return nodes;
  }

  isMarked(from, to) {
    return this.spans.some(([start, end]) => start < to && from < end);
  }

  /** {from, to, text} of each line, without its line feed. */
  lines() {
    let at = 0;
    return this.text.split("\n").map((text) => {
      const from = at;
      at += text.length + 1;
      return { from, to: from + text.length, text };
    });
  }
}
