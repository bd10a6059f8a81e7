// Standing questions: asked again after every new version, and what changed in their answers.

import { post } from "./api.js";
import { diffWords } from "./diff.js";
import { Digest, Replay } from "./receipt.js";
import { href } from "./router.js";
import { server } from "./server.js";
import { loadQuestions, seen, standing } from "./standing.js";
import { useStore } from "./store.js";
import { html, useEffect, useState } from "./vendor/preact.js";
import { baseName, t, when } from "./words.js";
import { WordDiff } from "./worddiff.js";

export function Questions() {
  const { data, problem } = useStore(standing);
  const { bases, base } = useStore(server);
  const [question, setQuestion] = useState("");
  const [refused, setRefused] = useState("");
  useEffect(() => {
    loadQuestions().then(check);
    return seen; // what came while the view was open was looked at
  }, []);
  const send = (path, body) => post(path, body).then(() => { setRefused(""); return loadQuestions(); }, (error) => setRefused(error.message));
  const check = () => (standing.get().data?.length ? send("/v1/questions/check", {}) : null);
  const add = async (event) => {
    event.preventDefault();
    const text = question.trim();
    if (!text) return;
    await send("/v1/questions", { question: text, knowledge_base: base || undefined });
    if (!standing.get().problem) setQuestion("");
    check();
  };
  return html`<section id="questions" aria-labelledby="questions-title">
    <h2 id="questions-title">${t("Standing questions")}</h2>
    <p class="soft">${t("Saved questions are asked again when this view opens after a change of the documents, and by “openbook questions watch”. You see which answers changed, and because of which document.")}</p>
    ${bases.length ? html`<form class="line" onSubmit=${add}>
      <label class="unseen" for="standing">${t("Question to keep asking")}</label>
      <input id="standing" maxlength="8000" placeholder=${t("Question to keep asking")} value=${question} onInput=${(event) => setQuestion(event.target.value)} />
      <button type="submit" class="main">${t("Save")}</button>
      ${data?.length ? html`<button type="button" class="quiet" onClick=${check}>${t("Check now")}</button>` : null}
    </form>` : html`<p>${t("This server has no documents to read: the model answers alone.")}</p>`}
    ${refused || problem ? html`<p class="bad" role="alert">${refused || problem}</p>` : null}
    ${data && !data.length ? html`<p class="soft empty">${t("No questions yet. Save one whose answer should not change unnoticed, such as a price, a deadline or a rule.")}</p>` : null}
    <ul class="standing">${(data ?? []).map((each) => html`<${Standing} key=${each.id} ...${each} isOneBase=${bases.length < 2} remove=${() => send("/v1/questions/remove", { id: each.id })} />`)}</ul>
  </section>`;
}

function Standing({ question, knowledge_base: base, where, state, version, asked_at: at, error, answer, receipt, changes, isOneBase, remove }) {
  const isFirst = state === "same" && !changes.length;
  const words = { new: t("Being asked…"), same: isFirst ? "" : t("Unchanged"), changed: t("Changed"), failed: t("Failed") };
  const kind = isFirst ? "" : { same: "good", changed: "doubtful", failed: "bad" }[state] ?? "";
  return html`<li class="answer">
    <header><h3 dir="auto">${question}</h3><span class="state ${kind}">${words[state]}</span></header>
    ${answer ? html`<p class="text" dir="auto">${answer}</p>` : null}
    ${error ? html`<p class="bad">${error}</p>` : null}
    <p class="made soft">${[
      version && t("asked of version {version}, {when}", { version, when: when(at) }),
      isOneBase ? "" : base,
      where && t("only where {where}", { where }),
    ].filter(Boolean).map((each) => html`<span>${each}</span>`)}
      ${receipt ? html`<span>${t("Receipt")} <${Digest} value=${receipt} /></span>` : null}
      <button type="button" class="quiet" onClick=${remove} aria-label=${t("Delete the question: {question}", { question })}>${t("Delete")}</button></p>
    ${changes.length ? html`<ol class="changes">${changes.map((each, i) => html`<${Change} key=${each.at} ...${each} isOpen=${i === 0} base=${isOneBase ? "" : base} />`)}</ol>` : null}
  </li>`;
}

function Change({ version_before: then, version_after: now, at, before, after, documents, isOpen, base }) {
  return html`<li><details open=${isOpen}>
    <summary>${t("From version {before} to {after}", { before: then, after: now })}, ${when(at)}</summary>
    <p class="text" dir="auto"><${WordDiff} pieces=${diffWords(before.answer, after.answer)} /></p>
    ${documents.length ? html`<p class="soft">${t("Because of:")} ${documents.map((path, i) => html`${i ? ", " : ""}<a href=${href("document", path, { version: now, base })}>${baseName(path)}</a>`)}</p>` : null}
    <details class="receipt"><summary>${t("Both receipts")}</summary>
      ${[[then, before], [now, after]].map(([version, side]) => html`<h4>${t("Version {version}", { version })}</h4>
        <p><code>${side.receipt}</code></p><${Replay} id=${side.receipt} />`)}
    </details>
  </details></li>`;
}
