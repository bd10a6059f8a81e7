// Two texts of a document in one: what went is struck out, what came is underlined.

import { html } from "./vendor/preact.js";
import { count, t } from "./words.js";

/** `pieces`: as `GET /v1/documents/difference` gives them. */
export function WordDiff({ pieces }) {
  if (!pieces.some((each) => each.kind === "removed" || each.kind === "added")) return html`<p class="soft">${t("Both texts are the same.")}</p>`;
  return html`<div class="worddiff">${pieces.map(({ kind, text, chars }) => {
    switch (kind) {
      case "removed": return html`<del>${text}</del>`;
      case "added": return html`<ins>${text}</ins>`;
      case "skipped": return html`<span class="skipped">${count(chars, "{n} character is the same", "{n} characters are the same")}</span>`;
      default: return text;
    }
  })}</div>`;
}
