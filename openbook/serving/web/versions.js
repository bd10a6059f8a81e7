// Not there yet.

import { html } from "./vendor/preact.js";

export function Versions() {
  return html`<section><h2>Versions</h2></section>`;
}
