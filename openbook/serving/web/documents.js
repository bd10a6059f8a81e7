// Not there yet.

import { html } from "./vendor/preact.js";

export function Documents() {
  return html`<section><h2>Documents</h2></section>`;
}
