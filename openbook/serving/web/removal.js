// Taking documents out of the newest version, or out of everything, after a question.

import { download, get, post } from "./api.js";
import { noteRefusal, useReply } from "./catalogue.js";
import { loadVersions, server } from "./server.js";
import { makeStore, useStore } from "./store.js";
import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { count, size, t } from "./words.js";

const AT_ONCE = 1000; // documents in one request

/** {kind: "remove" | "purge", documents, isBusy, problem, code, done}, or null. A purge and its proof stay while the user looks elsewhere. */
const removal = makeStore(null);

export const askRemoval = (kind, documents) => removal.set(() => ({ kind, documents, isBusy: false, problem: "", code: "", done: null }));

export function Removal() {
  const asked = useStore(removal);
  return asked ? html`<${RemovalDialog} ...${asked} />` : null;
}

async function act(more = {}) {
  const { kind, documents } = removal.get();
  removal.set({ isBusy: true, problem: "", code: "" });
  const paths = documents.map((each) => each.path);
  try {
    let done;
    for (let at = 0; at < paths.length; at += AT_ONCE) {
      done = await post(`/v1/documents/${kind}`, { documents: paths.slice(at, at + AT_ONCE), knowledge_base: server.get().base || undefined, ...more });
    }
    removal.set({ isBusy: false, done });
  } catch (error) {
    removal.set({ isBusy: false, problem: noteRefusal(error), code: error.code });
  }
  loadVersions().catch(() => null); // some may be gone, too, when a later request fails
}

const plain = (text) => text.replace(/\s+/g, " ").trim();

function RemovalDialog({ kind, documents, isBusy, problem, code, done }) {
  const dialog = useRef(null);
  useEffect(() => dialog.current.showModal(), []);
  const [typed, setTyped] = useState("");
  const isPurge = kind === "purge";
  const what = documents.length === 1 ? documents[0].name : count(documents.length, "{n} document", "{n} documents");
  const isMany = isPurge && documents.length > AT_ONCE;
  const isSure = !isPurge || (!isMany && plain(typed) === plain(what));
  const submit = (event) => {
    event.preventDefault();
    if (isSure && !isBusy) act();
  };
  const close = () => {
    removal.set(() => null);
    if (done) document.getElementById("documents-title")?.focus({ preventScroll: true }); // what was chosen may be gone
  };
  return html`<dialog id="removal" ref=${dialog} aria-labelledby="removal-title" onCancel=${(event) => isBusy && event.preventDefault()} onClose=${close}>
    <form onSubmit=${submit}>
      <h2 id="removal-title">${isPurge ? t("Purge {what}", { what }) : t("Remove {what}", { what })}</h2>
      ${done ? html`<${Done} isPurge=${isPurge} done=${done} />` : html`<${isPurge ? AboutPurge : AboutRemoval} documents=${documents} />`}
      ${isPurge && !done ? html`<label for="removal-sure">${t("To purge, type: {what}", { what })}</label>
        <input id="removal-sure" autocomplete="off" spellcheck=${false} value=${typed} disabled=${isBusy} onInput=${(event) => setTyped(event.target.value)} />` : null}
      <div role="status">${isBusy ? html`<p class="soft">${isPurge ? t("Deleting, then looking through all files. This can take minutes.") : t("Removing…")}</p>` : null}
        ${problem ? html`<p class="bad">${problem}</p>` : null}
        ${isMany ? html`<p class="bad">${t("At most {n} documents can be purged at once.", { n: AT_ONCE })}</p>` : null}</div>
      <p class="line">${done ? null : html`<button type="submit" class="main ${isPurge ? "danger" : ""}" disabled=${!isSure || isBusy}>${isPurge ? t("Purge for good") : t("Remove")}</button>`}
        ${code === "text_is_elsewhere" ? html`<button type="button" disabled=${!isSure || isBusy} onClick=${() => act({ copies: true })}>${t("Purge every copy of this text")}</button>` : null}
        <button type="button" class="quiet" disabled=${isBusy} onClick=${() => dialog.current.close()}>${done ? t("Close") : t("Cancel")}</button></p>
    </form>
  </dialog>`;
}

function Names({ documents }) {
  return documents.length > 1 ? html`<ul class="names">${documents.slice(0, 100).map((each) => html`<li>${each.name}</li>`)}${documents.length > 100 ? html`<li>…</li>` : null}</ul>` : null;
}

function AboutRemoval({ documents }) {
  return html`<p>${t("A new version of the knowledge base leaves it out. Older versions keep it, and whoever asks an older version still gets answers from it.")}</p>
    ${documents.some((each) => !each.isUploaded) ? html`<p class="soft">${t("A file that still lies in a folder which is kept up to date comes back with its next sync.")}</p>` : null}
    <${Names} documents=${documents} />`;
}

function AboutPurge({ documents }) {
  const questions = useReply(() => get("/v1/questions"), [])?.value?.data ?? [];
  return html`<ul class="points">
      <li>${t("Deletes the text from every version, and all that was made from it: indexes, passages that the model has read, caches.")}</li>
      <li>${t("Then looks through all files of the knowledge base and of this server for what is left, and signs what was found.")}</li>
      ${questions.some((each) => each.changes.length) ? html`<li>${t("Deletes the recorded changes of answers to your standing questions: they may quote it. The questions stay, and are asked again.")}</li>` : null}
      ${server.get().bases.length > 1 ? html`<li>${t("The pages of PDFs that were uploaded to other knowledge bases can no longer be shown as pictures until they are uploaded again. Their text stays.")}</li>` : null}
      <li>${t("Cannot be undone. Answers that read it can no longer be replayed. The first answers afterwards take longer.")}</li>
      <li>${t("Does not reach backups, receipt logs, copies elsewhere, and what a model has learned in training.")}</li>
      ${documents.some((each) => !each.isUploaded) ? html`<li>${t("Leaves the file itself where it is: delete it, or the next sync of its folder takes it in again.")}</li>` : null}</ul>
    <${Names} documents=${documents} />`;
}

function Done({ isPurge, done }) {
  if (!isPurge) return html`<p class="good" role="status">${t("Removed. Version {version} begins.", done)}</p>`;
  const reasons = {
    traces: t("Hold traces of it"), "in use": t("Not looked through, as a program writes them"), unreadable: t("Not looked through, as they cannot be read"),
    link: t("Not looked through, as they lead elsewhere"), weights: t("Not looked through, as they are the weights of models"),
  };
  const { proof } = done;
  return html`<div class="proved" role="status">
    <p class=${done.proved ? "good" : "bad"}><strong>${done.proved ? t("Purged, and proved: no trace is left in what was looked through.") : t("Purged, but not proved: some files may still hold traces.")}</strong></p>
    <p>${t("{files} were looked through ({bytes}). Version {version} begins.", { files: count(done.files_scanned, "{n} file", "{n} files"), bytes: size(done.bytes_scanned), version: done.version })}</p>
    <ul class="points">
      ${Object.entries(done.out_of_reach).map(([reason, n]) => html`<li>${reasons[reason] ?? reason}: ${count(n, "{n} file", "{n} files")}</li>`)}
      ${done.changes_deleted ? html`<li>${t("Recorded changes of answers to your standing questions that were deleted: {n}.", { n: done.changes_deleted })}</li>` : null}
      ${done.partly_kept.length ? html`<li>${t("These keep other texts in some version: {names}", { names: done.partly_kept.join(", ") })}</li>` : null}
      ${done.models_that_learned_it.length ? html`<li class="bad">${t("These models have learned from it, and a model cannot forget: {names}", { names: done.models_that_learned_it.join(", ") })}</li>` : null}
      ${done.models_that_may_have_learned_it.length ? html`<li>${t("These models may have learned from it: {names}", { names: done.models_that_may_have_learned_it.join(", ") })}</li>` : null}
      ${done.beyond_reach.map((each) => html`<li class="soft">${t("Beyond reach: {what}", { what: each })}</li>`)}</ul>
    ${proof ? html`<p><button type="button" class="main" onClick=${() => download("purge-proof.json", proof)}>${t("Download the signed proof")}</button></p>
      <p class="soft">${t("Keep it: the server does not. Others check it with: {command}", { command: "openbook verify purge-proof.json --key KEY" })}</p>` : html`<p class="soft">${t("Only a key that holds all labels gets a signed proof: it counts what was deleted.")}</p>`}
  </div>`;
}
