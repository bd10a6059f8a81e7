// The frame of the page: its parts, the key, the language, and what the server is doing.

import { get, key } from "./api.js";
import { Ask } from "./ask.js";
import { drafts, forgetConversations, openConversations } from "./conversations.js";
import { Documents } from "./documents.js";
import { Model } from "./model.js";
import { loadQuestions, Questions, Unseen } from "./questions.js";
import { Reader } from "./reader.js";
import { href, route } from "./router.js";
import { load, server, useKey } from "./server.js";
import { useStore } from "./store.js";
import { html, render, useEffect, useRef, useState } from "./vendor/preact.js";
import { Versions } from "./versions.js";
import { chooseLanguage, count, language, LANGUAGES, loadWords, t } from "./words.js";

const EVERY_MS = 5000;
const VIEWS = { __proto__: null, ask: Ask, answer: Ask, documents: Documents, versions: Versions, questions: Questions, model: Model };

function Page() {
  const at = useStore(route);
  const { loaded, problem, keyWanted } = useStore(server);
  const shown = at.view === "document" ? (at.below ?? { view: "documents", id: "", query: {} }) : at;
  const View = VIEWS[shown.view] ?? Ask;
  return html`<a class="skip" href="#main" onClick=${toMain}>${t("Skip to the content")}</a>
    <${Header} view=${shown.view === "answer" ? "ask" : shown.view} />
    ${problem ? html`<p class="notice" role="alert">${problem} <button type="button" onClick=${load}>${t("Try again")}</button></p>` : null}
    <main id="main" tabindex="-1">${loaded || View === Ask ? html`<${View} id=${shown.id} query=${shown.query} view=${shown.view} />` : null}</main>
    ${at.view === "document" && loaded ? html`<${Reader} path=${at.id} query=${at.query} below=${shown} />` : null}
    ${keyWanted ? html`<${KeyDialog} why=${keyWanted} />` : null}`;
}

function toMain(event) {
  event.preventDefault(); // the address says which view is shown
  document.getElementById("main").focus();
}

function Header({ view }) {
  const nav = useRef(null);
  useEffect(() => nav.current.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" }), [view]);
  const { models, closed, name: chosen } = useStore(server);
  const names = { ask: t("Ask"), documents: t("Documents"), versions: t("Versions"), questions: t("Questions"), model: t("Model") };
  const identity = models.find(({ id }) => id === closed)?.openbook;
  return html`<header class="bar">
    <h1 class="brand"><img src="/web/icon.svg" alt="" width="24" height="24" />OpenBook</h1>
    <nav ref=${nav} aria-label=${t("Parts of this page")}>${Object.entries(names).map(([name, words]) =>
      html`<a href=${href(name)} aria-current=${view === name ? "page" : undefined}>${words}${name === "questions" ? html` <${Unseen} />` : null}</a>`)}</nav>
    <div class="bar-end">
      <${Activity} />
      ${identity ? html`<span id="who" class="soft" title=${identity.digest}>${chosen}</span>` : null}
      <label class="unseen" for="language">${t("Language")}</label>
      <select id="language" class="quiet" value=${language()} onChange=${(event) => chooseLanguage(event.target.value)}>
        ${Object.entries(LANGUAGES).map(([name, words]) => html`<option value=${name} lang=${name}>${words}</option>`)}</select>
      <button type="button" id="key-open" class="quiet" onClick=${() => server.set({ keyWanted: " " })}>${t("API key")}</button>
    </div>
  </header>`;
}

/** One line while the server works for somebody. Looks for changed answers, too. */
function Activity() {
  const { loaded } = useStore(server);
  const [work, setWork] = useState(null);
  useEffect(() => {
    if (!loaded) return undefined;
    loadQuestions();
    const look = async () => {
      if (document.hidden) return;
      await loadQuestions(); // before, or it would count as work
      setWork(await get("/v1/activity").catch(() => null));
    };
    const timer = setInterval(look, EVERY_MS);
    return () => clearInterval(timer);
  }, [loaded]);
  const parts = work ? [
    work.answering && count(work.answering, "answering {n} question", "answering {n} questions"),
    work.waiting && count(work.waiting, "{n} waits", "{n} wait"),
    work.uploading && count(work.uploading, "reading {n} upload", "reading {n} uploads"),
    work.deleting && t("deleting"),
  ].filter(Boolean) : [];
  return html`<span class="soft activity" role="status">${parts.join(" · ")}</span>`;
}

/** Signing out deletes the conversations of the key. */
function KeyDialog({ why }) {
  const dialog = useRef(null);
  const [value, setValue] = useState(key.get());
  useEffect(() => dialog.current.showModal(), []);
  const change = async (next) => {
    if (!next) await forgetConversations();
    else if (key.get() && key.get() !== next) drafts.clear(); // another's
    key.set(next);
    await openConversations(); // before anything can be asked with the key
    await useKey(next);
  };
  const submit = (event) => {
    event.preventDefault();
    change(value.trim());
  };
  return html`<dialog id="key" ref=${dialog} aria-labelledby="key-title" onClose=${() => server.set({ keyWanted: "" })}>
    <form onSubmit=${submit}>
      <h2 id="key-title">${t("API key")}</h2>
      <p class="soft">${why.trim() || t("Where a key is demanded, it says what may be read and changed. It stays in this tab and is gone when you close it.")}</p>
      <label for="key-field">${t("Key")}</label>
      <input id="key-field" type="password" autocomplete="off" spellcheck=${false} maxlength="200" placeholder="ob-…" value=${value} onInput=${(event) => setValue(event.target.value)} />
      <p class="soft">${t("Conversations are kept in this browser, sealed with the key. Forgetting the key deletes them.")}</p>
      <p class="line"><button type="submit" class="main">${t("Use this key")}</button>
        <button type="button" class="quiet" onClick=${() => change("")}>${t("Forget it")}</button>
        <button type="button" class="quiet" onClick=${() => dialog.current.close()}>${t("Close")}</button></p>
    </form>
  </dialog>`;
}

// A file dropped outside a field must not replace this page.
for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());

await loadWords();
const opening = openConversations();
load();
await opening;
render(html`<${Page} />`, document.getElementById("page"));
