// Not there yet.

import { html } from "./vendor/preact.js";

export function Reader() {
  return html`<section><h2>Reader</h2></section>`;
}
