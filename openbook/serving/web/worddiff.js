// A text with what was taken out and put in.

import { html } from "./vendor/preact.js";
import { count } from "./words.js";

/** `pieces`: {kind: "same"|"removed"|"added"|"skipped", text, chars}, as the API gives them. */
export function WordDiff({ pieces }) {
  const drawn = { same: (text) => text, removed: (text) => html`<del>${text}</del>`, added: (text) => html`<ins>${text}</ins>` };
  return html`<span class="word-diff" dir="auto">${pieces.map(({ kind, text, chars }) => kind === "skipped"
    ? html`<span class="skipped">${count(chars, "{n} character is the same", "{n} characters are the same")}</span>` : drawn[kind](text))}</span>`;
}
