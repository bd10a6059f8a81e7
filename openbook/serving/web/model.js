// Which model answers and where it comes from; receipts by their digest.

import { get } from "./api.js";
import { Digest, evidenceOf, Receipt, Replay } from "./receipt.js";
import { server } from "./server.js";
import { useStore } from "./store.js";
import { html, useEffect, useState } from "./vendor/preact.js";
import { count, t } from "./words.js";

export function Model() {
  const { models, closed } = useStore(server);
  const [lineage, setLineage] = useState(null); // {data} or {problem}
  useEffect(() => {
    if (closed) get(`/v1/models/${encodeURIComponent(closed)}/lineage`).then(setLineage, (error) => setLineage({ problem: error.message }));
  }, [closed]);
  return html`<section aria-labelledby="model-title">
    <h2 id="model-title">${t("Model")}</h2>
    <p class="soft">${t("Its weights never change while it answers. The digest covers tensors, tokenizer and chat template.")}</p>
    <ul class="rows models">${models.map((each) => html`<${OneModel} ...${each} />`)}</ul>
    <h3>${t("Where this model comes from")}</h3>
    ${lineage?.problem ? html`<p class="soft">${lineage.problem}</p>` : null}
    ${lineage?.data ? html`<ol class="lineage">${lineage.data.map((each, i) => html`<${Made} ...${each} isFirst=${i === 0} />`)}</ol>` : null}
    <h3>${t("Look up a receipt")}</h3>
    <p class="soft">${t("Whoever has the digest of a receipt, and may read its documents, can see it and have it answered again.")}</p>
    <${LookUp} />
  </section>`;
}

function OneModel({ id, openbook }) {
  const modes = { "open-book": t("answers from documents"), "closed-book": t("answers without documents"), embedder: t("finds passages") };
  const more = [modes[openbook.mode], openbook.evidence && evidenceOf(openbook.evidence), openbook.context_tokens && count(openbook.context_tokens, "{n} token of context", "{n} tokens of context"),
    openbook.dimensions && count(openbook.dimensions, "{n} dimension", "{n} dimensions")];
  return html`<li><strong>${id}</strong><span class="soft">${more.filter(Boolean).join(" · ")}</span>
    <code class="whole">${openbook.digest || t("no digest: a remote model is claimed, not verified")}</code></li>`;
}

function Made({ digest, names, what, details, isFirst }) {
  return html`<li>
    <p><strong>${isFirst ? "" : `${t("trained from")} `}</strong><strong>${names[0] ?? what.split(",")[0]}</strong> <${Digest} value=${digest} /></p>
    <p class="soft">${what}</p>
    <ul class="soft">${details.map((each) => html`<li>${each}</li>`)}</ul>
  </li>`;
}

function LookUp() {
  const [digest, setDigest] = useState("");
  const [found, setFound] = useState(null); // {receipt} or {problem}
  const lookUp = (event) => {
    event.preventDefault();
    const id = digest.trim();
    if (id) get(`/v1/receipts/${encodeURIComponent(id)}`).then(setFound, (error) => setFound({ problem: error.code === "unknown_url" ? t("This server keeps no receipts to replay from. Whoever runs it can start it with --receipts and a folder.") : error.message }));
  };
  return html`<form class="line" onSubmit=${lookUp}>
      <label class="unseen" for="digest">${t("Digest of a receipt")}</label>
      <input id="digest" maxlength="64" spellcheck=${false} autocomplete="off" placeholder=${t("Digest of a receipt")} value=${digest} onInput=${(event) => setDigest(event.target.value)} />
      <button type="submit">${t("Look up")}</button>
    </form>
    <div id="receipt" aria-live="polite">
      ${found?.problem ? html`<p class="bad">${found.problem}</p>` : null}
      ${found?.receipt ? html`<div class="answer"><p class="text">${found.receipt.question}</p><${Receipt} receipt=${found.receipt} /><${Replay} id=${found.receipt.digest} /></div>` : null}
    </div>`;
}
