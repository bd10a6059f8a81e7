// The frame of the page: its parts, the key, the language, and what the server is doing.

import { get, key } from "./api.js";
import { Ask } from "./ask.js";
import { drafts, forgetConversations, openConversations } from "./conversations.js";
import { isBroken, prepare, usePart } from "./parts.js";
import { href, route } from "./router.js";
import { load, server, useKey } from "./server.js";
import { loadQuestions, Unseen } from "./standing.js";
import { useStore } from "./store.js";
import { html, render, useEffect, useLayoutEffect, useRef, useState } from "./vendor/preact.js";
import { chooseLanguage, count, language, LANGUAGES, speak, speech, t } from "./words.js";

const EVERY_MS = 5000;
const VIEWS = { __proto__: null, documents: "Documents", versions: "Versions", questions: "Questions", model: "Model" }; // else Ask

function Page() {
  useStore(speech);
  const at = useStore(route);
  const { loaded, problem, keyWanted } = useStore(server);
  const wanted = at.view === "document" ? (at.below ?? { view: "documents", id: "", query: {} }) : at;
  const name = VIEWS[wanted.view];
  const part = usePart(name && wanted.view);
  const { Reader } = usePart(at.view === "document" && "document") ?? {};
  const shown = useRef(null); // stays until the next view is read
  if (part || !name) shown.current = { View: name ? part[name] : Ask, ...wanted };
  const { View, view, id, query } = shown.current ?? {};
  useHeading(View);
  return html`<a class="skip" href="#main" onClick=${toMain}>${t("Skip to the content")}</a>
    <${Header} view=${wanted.view === "answer" ? "ask" : wanted.view} />
    ${problem ? html`<p class="notice" role="alert">${problem} <button type="button" onClick=${again}>${t("Try again")}</button></p>` : null}
    <main id="main" tabindex="-1">${View && (loaded || View === Ask) ? html`<${View} id=${id} query=${query} view=${view} />` : null}</main>
    ${Reader && loaded ? html`<${Reader} path=${at.id} query=${at.query} below=${wanted} />` : null}
    ${keyWanted ? html`<${KeyDialog} why=${keyWanted} />` : null}`;
}

async function again() {
  await load();
  if (isBroken && !server.get().problem) location.reload();
}

function toMain(event) {
  event.preventDefault(); // the address says which view is shown
  document.getElementById("main").focus();
}

// --- where the focus goes ---

function focusOn(heading) {
  if (!heading) return;
  heading.tabIndex = -1;
  heading.focus({ preventScroll: true });
}

/** Another view begins at its heading, unless it put the focus elsewhere. */
function useHeading(View) {
  const before = useRef(undefined);
  useEffect(() => {
    if (before.current) requestAnimationFrame(() => document.activeElement.closest("#main *") || focusOn(document.querySelector("#main h2")));
    before.current = View;
  }, [View]);
}

let had = []; // the element that had the focus, and all around it
document.addEventListener("focusin", ({ target }) => {
  for (had = []; target; target = target.parentElement) had.push(target);
});
document.addEventListener("pointerdown", () => { had = []; }, true); // a click on nothing takes the focus away

const isLost = () => had.length > 0 && (document.activeElement === document.body || document.activeElement.disabled);

/** Where that element is gone or disabled, a button next to it gets the focus, or the nearest heading. */
function keepFocus() {
  if (!isLost()) return;
  const [last] = had;
  const next = last.isConnected && last.disabled && [...last.parentElement.children].find((each) => each.matches("button:enabled"));
  if (next) next.focus();
  else focusOn(had.find((each) => each.isConnected && each.querySelector("h2, h3"))?.querySelector("h2, h3"));
}

new MutationObserver(() => isLost() && setTimeout(keepFocus, 100)) // what is drawn may take the focus itself
  .observe(document.body, { subtree: true, childList: true, attributeFilter: ["disabled"] });

function Header({ view }) {
  const { models, closed, name: chosen } = useStore(server);
  const names = { ask: t("Ask"), documents: t("Documents"), versions: t("Versions"), questions: t("Questions"), model: t("Model") };
  const identity = models.find(({ id }) => id === closed)?.openbook;
  const choose = (event) => chooseLanguage(event.target.value).catch(() => server.set({ problem: t("The server cannot be reached. Is it still running?") }));
  return html`<header class="bar">
    <h1 class="brand"><img src="/web/icon.svg" alt="" width="24" height="24" />OpenBook</h1>
    <nav aria-label=${t("Parts of this page")}>${Object.entries(names).map(([name, words]) =>
      html`<a href=${href(name)} aria-current=${view === name ? "page" : undefined}>${words}${name === "questions" ? html` <${Unseen} />` : null}</a>`)}</nav>
    <div class="bar-end">
      <${Activity} />
      ${identity ? html`<span id="who" class="soft" title=${identity.digest}>${chosen}</span>` : null}
      <label class="unseen" for="language">${t("Language")}</label>
      <select id="language" class="quiet" value=${language()} onChange=${choose}>
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
  useLayoutEffect(() => {
    const opened = dialog.current;
    opened.showModal();
    return () => opened.close(); // gives the focus back
  }, []);
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

prepare(route.get().view);
load();
await Promise.all([speak().catch(() => speak("en")), openConversations()]);
render(html`<${Page} />`, document.getElementById("page"));
