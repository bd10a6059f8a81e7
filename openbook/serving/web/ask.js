// Not there yet.

import { html } from "./vendor/preact.js";

export function Ask() {
  return html`<section><h2>Ask</h2></section>`;
}
