// Not there yet.

import { html } from "./vendor/preact.js";

export function Questions() {
  return html`<section><h2>Questions</h2></section>`;
}
