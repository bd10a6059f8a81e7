// What made an answer: its receipt, and a replay.

import { post } from "./api.js";
import { html, useState } from "./vendor/preact.js";
import { seconds, t } from "./words.js";

/** The first characters of a digest, all of it as a hint. */
export function Digest({ value }) {
  return value ? html`<code title=${value}>${value.slice(0, 12)}</code>` : t("no digest");
}

const Row = ({ name, children }) => html`<dt>${name}</dt><dd>${children}</dd>`;

/** How a model is known, in the user's language. */
export const evidenceOf = (evidence) => ({ verified: t("verified"), claimed: t("claimed") })[evidence] ?? evidence;

export function Receipt({ receipt }) {
  const { decoding, embedder, model } = receipt;
  const base = receipt.knowledge_base === null ? t("none")
    : `${receipt.knowledge_base}, ${t("Version {version}", { version: receipt.knowledge_base_version })}`;
  const chance = decoding.temperature ? t("temperature {temperature}, seed {seed}", decoding) : t("greedy");
  return html`<dl>
    <${Row} name=${t("Receipt")}><code>${receipt.digest}</code><//>
    <${Row} name=${t("Model")}>${model.name}, ${evidenceOf(model.evidence)} <code>${model.digest || t("no digest")}</code><//>
    <${Row} name=${t("Numeric class")}>${receipt.numeric_class || t("none")}<//>
    <${Row} name=${t("Knowledge base")}>${base}<//>
    ${embedder ? html`<${Row} name=${t("Embedder")}>${embedder.name} <${Digest} value=${embedder.digest} /><//>` : null}
    <${Row} name=${t("Passages read")}>${receipt.passages.length
      ? html`<ul>${receipt.passages.map((each) => html`<li>${each.document} <${Digest} value=${each.digest} /></li>`)}</ul>` : t("none")}<//>
    <${Row} name=${t("Decoding")}>${chance}, ${t("at most {n} tokens", { n: decoding.max_tokens })}<//>
    <${Row} name=${t("Prompt")}><${Digest} value=${receipt.prompt_digest} /><//>
    <${Row} name=${t("Answer")}><${Digest} value=${receipt.answer_digest} /><//>
  </dl>`;
}

/** `receipt`: whole, or its digest alone. */
export function Made({ receipt, timings }) {
  const { model, digest, knowledge_base_version: version } = receipt;
  return html`${model ? html`<p class="made soft"><span>${model.name} <${Digest} value=${model.digest} /> ${evidenceOf(model.evidence)}</span>
        ${version === null ? null : html`<span>${t("knowledge base version {version}", { version })}</span>`}
        ${timings ? html`<span>${seconds(timings.total_s)}</span>` : null}</p>
      <${Receipt} receipt=${receipt} />
      <details><summary>${t("As JSON")}</summary><pre tabindex="0">${JSON.stringify(receipt, null, 1)}</pre></details>` : html`<p>${t("Receipt")} <code>${digest}</code></p>`}
    <${Replay} id=${digest} />`;
}

/** Answers again on the server and says whether it is the same. */
export function Replay({ id }) {
  const [told, setTold] = useState(null); // {kind, lines}
  const replay = async () => {
    if (told?.busy) return;
    setTold({ kind: "", lines: [t("Answering again…")], busy: true });
    try {
      const { identical, differences } = await post("/v1/replay", { id });
      setTold(identical ? { kind: "good", lines: [t("Identical, byte for byte.")] } : { kind: "bad", lines: differences });
    } catch (error) {
      const none = t("This server keeps no receipts to replay from. Whoever runs it can start it with --receipts and a folder.");
      setTold({ kind: "bad", lines: [error.code === "unknown_url" ? none : error.message] });
    }
  };
  return html`<div class="replay"><button type="button" class="quiet" aria-disabled=${String(told?.busy ?? false)} onClick=${replay}>${t("Replay")}</button>
    <p class="replayed ${told?.kind ?? ""}" role="status">${told?.lines.map((each) => html`<span>${each}</span>`)}</p></div>`;
}
