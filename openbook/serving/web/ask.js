// Asking: the conversation, its turns, and the field in which questions are written.

import { Answer } from "./answer.js";
import { get } from "./api.js";
import { answer, ask, busy, change, choice, finished, liveOf, said, shown, start, stop } from "./asking.js";
import { Command, useSyncCommand } from "./command.js";
import { conversationOf, drafts, loadConversation, NEW, titleOf, touched } from "./conversations.js";
import { List } from "./list.js";
import { href, replace } from "./router.js";
import { choosing, chooseBase, chooseModel, server } from "./server.js";
import { Sources } from "./sources.js";
import { useStore } from "./store.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/preact.js";
import { baseName, count, quotation, t, when } from "./words.js";

const QUOTE_CHARS = 2000;

export function Ask({ view, id, query }) {
  const conversation = useStore(shown);
  const isNew = conversation.turns.length === 0;
  const { era } = useStore(touched);
  const first = useRef(true);
  useLayoutEffect(() => {
    show(view, id, query, first.current);
    first.current = false;
  }, [view, id, query.path, query.folder, query.about, query.question, era]);
  return html`<section id="ask" aria-labelledby="ask-title">
    <${List} key=${era} />
    <div class="talk">
      <p class="line drawer">
        <button type="button" popovertarget="conversations">${t("Conversations")}</button>
        <a class="button" href=${href("ask")}>${t("New")}</a>
      </p>
      ${isNew && !conversation.loading ? html`<${Welcome} missing=${conversation.missing} />` : html`<h2 id="ask-title" class="unseen">${titleOf(conversation)}</h2>`}
      <ol id="turns">${conversation.turns.map((turn, i) =>
        html`<${Turn} key=${turn.id} turn=${turn} later=${conversation.turns.length - i - 1} isLast=${i === conversation.turns.length - 1} linked=${view === "answer" && id === turn.id} />`)}</ol>
      <${Composer} conversation=${conversation} draft=${isNew ? NEW : conversation.id} focus=${view === "ask" && "mouse"} />
      <${Said} />
    </div>
  </section>`;
}

function Said() {
  return html`<p id="said" class="unseen" role="status">${useStore(said).text}</p>`;
}

/** What an address names. Coming back without one shows what was shown last. */
async function show(view, id, query, isFirst) {
  const { path, folder, about, question } = query;
  const wanted = view === "answer" ? conversationOf(id) : id;
  if (wanted && wanted === shown.get().id) return;
  if (id) {
    start({ loading: true });
    const waiting = shown.get().id;
    const found = wanted && await loadConversation(wanted).catch(() => null);
    if (shown.get().id === waiting) found ? shown.set(() => found) : start({ missing: true });
    return;
  }
  if (path || folder || about || question) {
    if (path && choice.get().mode === "closed" && server.get().model) choice.set({ mode: "open" }); // or the document would not be read
    if (question) drafts.set(NEW, question);
    if (about) drafts.set(NEW, `${quotation(about.slice(0, QUOTE_CHARS))}\n${drafts.get(NEW)}`);
    start({ scope: path ? { path } : folder ? { folder: `${folder.replace(/\/+$/, "")}/` } : null });
    if (about || question) replace("ask", "", { path, folder }); // once
    return;
  }
  const { id: last, turns, missing, scope } = shown.get();
  if (isFirst && turns.length) replace("ask", last);
  else if (turns.length || missing || (scope && !isFirst)) start();
}

/** What is there to ask, before the first question. */
function Welcome({ missing }) {
  const { loaded, bases, versions, base, asOf } = useStore(server);
  const [examples, setExamples] = useState([]);
  const sync = useSyncCommand();
  useEffect(() => {
    setExamples([]);
    if (loaded && bases.length) get("/v1/examples", { ...choosing(), limit: 4 }).then(({ data }) => setExamples(data), () => null);
  }, [loaded, base, asOf]);
  const version = versions.find((each) => String(each.version) === asOf) ?? versions[0];
  const questions = examples.map(({ document, heading }) => (heading ? t("What does {document} say about “{heading}”?", { document: baseName(document), heading: heading.replace(/^[\d.]*\d[.)]\s+/, "") })
    : t("What does {document} say?", { document: baseName(document) })));
  const holds = version && [count(version.documents, "{n} document", "{n} documents"),
    t("version {version} from {date}", { version: version.version, date: when(version.created_at) })].join(" · ");
  return html`<div id="welcome">
    ${missing ? html`<p class="note" role="alert">${t("The conversation of this link is not in this browser. Conversations stay where they were held.")}</p>` : null}
    <h2 id="ask-title">${t("Ask your documents")}</h2>
    <p class="soft">${t("Answers come with the exact words of the documents that they rest on. When the documents do not hold the answer, it says so.")}</p>
    ${loaded && !bases.length ? html`<p id="holds">${t("This server has no documents to read: the model answers alone.")}</p>` : null}
    ${version?.documents ? html`<p id="holds" class="soft">${holds}</p>` : null}
    ${version && !version.documents ? html`<div class="first"><h3>${t("There are no documents yet")}</h3>
      <p><a class="button" href=${href("documents")}>${t("Add documents")}</a></p>
      ${sync ? html`<p class="soft">${t("To keep a folder up to date, run this on the server:")}</p>
        <p><${Command} text=${sync} /></p>` : null}</div>` : null}
    ${questions.length ? html`<ul class="examples">${questions.map((each) =>
      html`<li><button type="button" onClick=${() => asking(each)}>${each}</button></li>`)}</ul>` : null}
  </div>`;
}

function asking(question, where) {
  ask(question, where);
  replace("ask", shown.get().id);
}

function Turn({ turn, later, isLast, linked }) {
  const live = useStore(liveOf(turn.id));
  const answering = Boolean(useStore(busy)[shown.get().id]);
  const [lit, setLit] = useState(null); // the source that was looked for
  const [edited, setEdited] = useState(drafts.get(turn.id));
  const [root, heading, editing] = [useRef(null), useRef(null), useRef(null)];
  useEffect(() => {
    if (!linked && !(isLast && turn.modes.some((mode) => !finished(turn.answers[mode])))) return;
    root.current.scrollIntoView({ block: "start" });
    if (linked) heading.current?.focus({ preventScroll: true });
  }, [linked]);
  const edit = (text) => {
    drafts.set(turn.id, text);
    setEdited(text);
    if (!text) setTimeout(() => editing.current?.focus());
  };
  const again = () => {
    heading.current?.focus();
    answer(turn);
  };
  const alone = () => {
    start({ scope: turn.scope });
    asking(turn.question);
  };
  const repeat = () => {
    choice.set({ mode: turn.modes.length > 1 ? "both" : turn.modes[0] });
    asking(turn.question, { again: turn.again ?? turn.id });
  };
  const failed = !answering && turn.modes.some((mode) => !finished(turn.answers[mode]));
  const open = turn.modes.includes("open");
  return html`<li class="turn" ref=${root}>
    ${edited ? html`<${Editor} turn=${turn} text=${edited} later=${later} onInput=${edit} isBusy=${answering} />` : html`<div class="asked">
      <h3 dir="auto" tabindex="-1" ref=${heading}>${turn.question}</h3>
      <button type="button" class="quiet small" ref=${editing} disabled=${answering} onClick=${() => edit(turn.question)}>${t("Edit")}</button></div>`}
    ${turn.scope ? html`<p class="chip">${only(turn.scope)}</p>` : null}
    <div class=${open ? "side" : ""}>
      <div class="answers">${turn.modes.map((mode) =>
        html`<${Answer} key=${mode} mode=${mode} turn=${turn} given=${turn.answers[mode]} live=${live[mode]} onSource=${setLit} onAlone=${answering ? null : alone} onAgain=${answering ? null : repeat} />`)}
        ${failed ? html`<p><button type="button" class="main" onClick=${again}>${t("Try again")}</button></p>` : null}</div>
      ${open ? html`<${Sources} given=${turn.answers.open} live=${live.open} lit=${lit} />` : null}
    </div>
  </li>`;
}

const only = ({ path, folder }) => t("Only: {name}", { name: path ? baseName(path) : `${baseName(folder.slice(0, -1))}/` });

function Editor({ turn, text, later, onInput, isBusy }) {
  const submit = (event) => {
    event.preventDefault();
    if (!text.trim() || isBusy) return;
    onInput("");
    asking(text.trim(), { replaced: turn.id });
    document.getElementById("question").focus();
  };
  const id = `edit-${turn.id}`;
  return html`<form class="editor" onSubmit=${submit}>
    <label class="unseen" for=${id}>${t("Your question")}</label>
    <${Field} id=${id} text=${text} onInput=${onInput} onEscape=${() => onInput("")} />
    <p class="line"><button type="submit" class="main" disabled=${isBusy}>${t("Ask again")}</button>
      <button type="button" class="quiet" onClick=${() => onInput("")}>${t("Cancel")}</button>
      ${later ? html`<span class="soft">${count(later, "{n} later answer will be replaced.", "{n} later answers will be replaced.")}</span>` : null}</p>
  </form>`;
}

/**
 * Where a question is written: Enter asks, Shift and Enter begins a new line. It takes the focus whenever `of` is another;
 * `focus`: "mouse" spares a phone its keyboard.
 */
function Field({ id, of, text, onInput, onEscape, focus = true, ...more }) {
  const field = useRef(null);
  useEffect(() => {
    if (!focus || (focus === "mouse" && matchMedia("(pointer: coarse)").matches)) return undefined;
    const frame = requestAnimationFrame(() => { // when what stands around it is laid out anyway
      const area = field.current;
      if (!area) return; // another view was opened within this frame
      area.focus({ preventScroll: true });
      area.setSelectionRange(area.value.length, area.value.length);
      area.scrollTop = area.scrollHeight;
    });
    return () => cancelAnimationFrame(frame);
  }, [of]);
  const press = (event) => {
    if (event.key === "Escape") onEscape?.();
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    event.target.form.requestSubmit();
  };
  return html`<textarea id=${id} ref=${field} dir="auto" maxlength="8000" rows=${Math.min(8, text.split("\n").length)} value=${text}
    onInput=${(event) => onInput(event.target.value)} onKeyDown=${press} ...${more}></textarea>`;
}

function Composer({ conversation, draft, focus }) {
  const [text, setText] = useState(drafts.get(draft));
  const { scope, id } = conversation;
  const answering = Boolean(useStore(busy)[id]);
  useLayoutEffect(() => setText(drafts.get(draft)), [id]);
  const write = (value) => {
    drafts.set(draft, value);
    setText(value);
  };
  const submit = (event) => {
    event.preventDefault();
    const question = text.trim();
    if (!question || answering) return;
    write("");
    asking(question);
  };
  useEffect(() => {
    if (!answering) return undefined;
    const press = (event) => event.key === "Escape" && !document.querySelector("dialog[open], :popover-open") && stop();
    document.addEventListener("keydown", press);
    return () => document.removeEventListener("keydown", press);
  }, [answering]);
  const halt = () => {
    stop();
    document.getElementById("question").focus();
  };
  const everywhere = () => {
    if (conversation.turns.length) change(id, (old) => ({ ...old, scope: null }));
    else {
      shown.set({ scope: null });
      replace("ask");
    }
    document.getElementById("question").focus();
  };
  return html`<form id="composer" aria-label=${t("Ask")} onSubmit=${submit}>
    ${scope ? html`<p class="chip">${only(scope)} <button type="button" aria-label=${t("Ask all documents again")} title=${t("Ask all documents again")} onClick=${everywhere}>×</button></p>` : null}
    <label for="question" class="unseen">${t("Question")}</label>
    <${Field} of=${`${id} ${conversation.turns.length > 0}`} id="question" text=${text} onInput=${write} focus=${focus} placeholder=${t("Ask a question")} aria-describedby="question-help" />
    <span id="question-help" class="unseen">${t("Enter asks, Shift and Enter begins a new line, Escape stops an answer.")}</span>
    <div class="controls">
      <${Choices} />
      <span class="spring"></span>
      ${answering ? html`<button type="button" id="stop" onClick=${halt}>${t("Stop")}</button>` : html`<button type="submit" id="send" class="main">${t("Ask")}</button>`}
    </div>
  </form>`;
}

/** From what is answered: documents or the model alone; which knowledge base, and which version of it. */
function Choices() {
  const { served, name: chosen, bases, base, versions, asOf, model, loaded } = useStore(server);
  const { mode } = useStore(choice);
  const [problem, setProblem] = useState("");
  const alone = loaded && !model; // no knowledge base
  useEffect(() => {
    if (alone) choice.set({ mode: "closed" });
  }, [alone]);
  const modes = {
    open: [t("Documents"), t("The answer rests on passages of your documents, and shows them.")],
    closed: [t("Model alone"), t("The model answers from what it learned in training. It reads no document.")],
    both: [t("Both"), t("Both answers side by side, so that you see what the documents change.")],
  };
  return html`<fieldset class="choice"><legend class="unseen">${t("Answer from")}</legend>
      ${Object.entries(modes).map(([name, [words, hint]]) => html`<label title=${hint}><input type="radio" name="mode" value=${name} checked=${mode === name}
        disabled=${alone && name !== "closed"} onChange=${() => choice.set({ mode: name })} aria-describedby=${`mode-${name}`} /><span>${words}</span></label>
        <span id=${`mode-${name}`} hidden>${hint}</span>`)}</fieldset>
    ${served.length > 1 ? html`<label class="inline"><span class="soft">${t("Model")}</span>
      <select id="model" value=${chosen} onChange=${(event) => chooseModel(event.target.value)}>
        ${served.map((name) => html`<option value=${name}>${name}</option>`)}</select></label>` : null}
    ${mode !== "closed" && bases.length > 1 ? html`<label class="inline"><span class="soft">${t("Knowledge base")}</span>
      <select id="base" value=${base} onChange=${(event) => chooseBase(event.target.value).then(() => setProblem(""), (error) => setProblem(error.message))}>
        ${bases.map(({ name }, i) => html`<option value=${i ? name : ""}>${name}</option>`)}</select></label>` : null}
    ${mode !== "closed" && versions.length > 1 ? html`<label class="inline"><span class="soft">${t("Version")}</span>
      <select id="as-of" value=${asOf} onChange=${(event) => server.set({ asOf: event.target.value })}>
        ${versions.map(({ version, created_at: at }, i) => html`<option value=${i ? String(version) : ""}>${i ? `${version} · ${when(at)}` : t("newest")}</option>`)}</select></label>` : null}
    ${problem ? html`<span class="bad" role="alert">${problem}</span>` : null}`;
}
