// The conversations of this browser: next to what is asked, or in a drawer on narrow screens.

import { download } from "./api.js";
import { busy, change, leave, shown } from "./asking.js";
import { changeConversation, conversations, deleteConversation, imported, loadConversation, transcript } from "./conversations.js";
import { go, href } from "./router.js";
import { useStore } from "./store.js";
import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { count, t, when } from "./words.js";

const SHOWN = 50; // at first

export function List() {
  const { list, kept, full } = useStore(conversations);
  const { id, turns } = useStore(shown);
  const [words, setWords] = useState("");
  const [most, setMost] = useState(SHOWN);
  const [gone, setGone] = useState(null);
  const [problem, setProblem] = useState("");
  const [panel, undoing] = [useRef(null), useRef(null)];
  useEffect(() => void requestAnimationFrame(() => undoing.current?.focus()), [gone]); // after the field of the new conversation
  const close = () => panel.current.matches(":popover-open") && panel.current.hidePopover();
  useEffect(() => {
    close();
    if (!turns.length) return;
    setGone(null);
    setProblem("");
  }, [id, turns.length > 0]);
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  const found = wanted.length ? list.filter((each) => wanted.every((word) => each.words.includes(word))) : list;
  const open = async (event) => {
    const [file] = event.target.files;
    event.target.value = "";
    setProblem("");
    try {
      const made = imported(await file.text(), file.name);
      await changeConversation(made.id, () => made);
      go("ask", made.id);
    } catch (error) {
      setProblem(`${file.name}: ${error.message}`);
    }
  };
  const remove = async (each) => {
    busy.get()[each.id]?.abort();
    if (each.id === shown.get().id) leave();
    setGone(await deleteConversation(each.id));
  };
  const undo = async () => {
    await changeConversation(gone.id, () => gone);
    setGone(null);
    go("ask", gone.id);
  };
  return html`<aside id="conversations" popover="auto" ref=${panel} aria-label=${t("Conversations")}>
    <p class="line"><a class="button" id="new" href=${href("ask")} onClick=${close}>${t("New conversation")}</a></p>
    ${list.length ? html`<label class="unseen" for="find">${t("Search in conversations")}</label>
      <input id="find" type="search" placeholder=${t("Search in conversations")} value=${words} onInput=${(event) => {
        setWords(event.target.value);
        setMost(SHOWN);
      }} />` : null}
    ${gone ? html`<p class="notice small" role="status">${t("Deleted.")} <button type="button" class="quiet go" ref=${undoing} onClick=${undo}>${t("Undo")}</button></p>` : null}
    ${problem ? html`<p class="bad small" role="alert">${problem}</p>` : null}
    ${!kept ? html`<p class="note">${t("This browser keeps no conversations here: they are gone when you close the page.")}</p>` : null}
    ${full ? html`<p class="note" role="alert">${t("The last conversation could not be kept: {why} Export it, or delete others.", { why: full })}</p>` : null}
    <ul>${found.slice(0, most).map((each) => html`<${Row} key=${each.id} each=${each} isShown=${each.id === id} onDelete=${() => remove(each)} />`)}</ul>
    ${wanted.length && !found.length ? html`<p class="soft small" role="status">${t("No conversation has these words.")}</p>` : null}
    ${found.length > most ? html`<button type="button" class="quiet" onClick=${() => setMost(most + SHOWN)}>${count(found.length - most, "Show {n} more", "Show {n} more")}</button>` : null}
    <p class="end"><label class="button quiet small" for="import">${t("Import a conversation")}</label>
      <input id="import" class="unseen" type="file" accept=".jsonl,.json" onChange=${open} /></p>
  </aside>`;
}

/** A conversation; what can be done with it, where it is the one that is shown. */
function Row({ each, isShown, onDelete }) {
  const [name, setName] = useState(null); // while it is changed
  const [field, link] = [useRef(null), useRef(null)];
  const isNamed = name !== null;
  const wasNamed = useRef(false);
  useEffect(() => {
    if (isNamed) field.current.select();
    else if (wasNamed.current) link.current.focus();
    wasNamed.current = isNamed;
  }, [isNamed]);
  const keep = (event) => {
    event.preventDefault();
    const title = name.trim().slice(0, 200);
    setName(null);
    if (title) change(each.id, (old) => ({ ...old, title }));
  };
  const save = async () => {
    const whole = await loadConversation(each.id);
    download(`${each.title.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 60) || "conversation"}.jsonl`, transcript(whole), "application/jsonl");
  };
  if (isNamed) {
    return html`<li><form class="line" onSubmit=${keep}>
      <label class="unseen" for="rename">${t("Name of the conversation")}</label>
      <input id="rename" value=${name} maxlength="200" ref=${field}
        onInput=${(event) => setName(event.target.value)} onKeyDown=${(event) => event.key === "Escape" && setName(null)} />
      <button type="submit">${t("Rename")}</button></form></li>`;
  }
  return html`<li class=${isShown ? "shown" : ""}>
    <a ref=${link} href=${href("ask", each.id)} aria-current=${isShown ? "true" : undefined} title=${when(each.changed)} dir="auto">${each.title}</a>
    ${isShown ? html`<p class="line tools">
      <button type="button" class="quiet small" onClick=${() => setName(each.title)}>${t("Rename")}</button>
      <button type="button" class="quiet small" onClick=${save}>${t("Export")}</button>
      <button type="button" class="quiet small" onClick=${onDelete}>${t("Delete")}</button></p>` : null}
  </li>`;
}
