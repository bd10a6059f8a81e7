// The documents of a knowledge base as folders of files. The address holds the folder, the search, the filters and the order.

import { post } from "./api.js";
import { byName, catalogue, contents, facets, FILTERS, isUpload, loadDocuments, matching, noteRefusal, sorted, useReply } from "./catalogue.js";
import { Command, useSyncCommand } from "./command.js";
import { DocumentDetails } from "./document-details.js";
import { DocumentList } from "./document-list.js";
import { plainLine } from "./plain.js";
import { askRemoval, Removal } from "./removal.js";
import { go, href, replace } from "./router.js";
import { chooseBase, choosing, server, where } from "./server.js";
import { useStore } from "./store.js";
import { addedBy, addFiles, ChooseFiles, dismiss, dropped, Remedy, Uploads, useUploads } from "./upload.js";
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./vendor/preact.js";
import { baseName, count, folderName, t } from "./words.js";

const FOUND = 10; // passages

export function Documents({ id, query }) {
  const { list, done, problem, unread, mayPurge, mayWrite } = useStore(catalogue);
  const { base, bases, asOf, versions } = useStore(server);
  const parts = useUploads();
  useLayoutEffect(() => {
    if (bases.length) loadDocuments();
  }, [base, asOf, versions]); // another key may see others
  const [typed, setTyped, told] = useTyped(id, query);
  const [picked, setPicked] = useState(new Set());
  const [drop, setDrop] = useState({ isOver: false, hadFolder: false });
  const sync = useSyncCommand();

  const { folder = "", sort = "name", words = "" } = query;
  const inOrder = useMemo(() => byName(list), [list]);
  const place = useMemo(() => contents(inOrder, folder), [inOrder, folder]);
  const isFlat = Boolean(query.flat || typed.trim()) || FILTERS.some((name) => query[name]);
  const inside = useMemo(() => (isFlat ? matching(place.inside, typed, query) : place.inside), [place, typed, query, isFlat]);
  const found = useMemo(() => sorted(isFlat ? inside : inside.filter((each) => each.folder === place.at), sort), [place, inside, isFlat, sort]);
  const marked = addedBy(parts);
  const chosen = useMemo(() => list.filter((each) => picked.has(each.path)), [list, picked]);
  const open = id && list.find((each) => each.path === id);

  const now = { ...query, q: typed };
  const seen = useRef("");
  useEffect(() => {
    if (open) seen.current = id;
    else if (done && id && seen.current === id) replace("documents", "", now); // it was removed
  }, [open, id, done]);
  const address = (each) => (each.count === undefined ? href("documents", each.path, now) : href("documents", "", { ...now, folder: each.path }));
  const change = (more) => {
    told.current = typed;
    go("documents", id, { ...now, ...more });
  };
  const type = (text) => {
    setTyped(text);
    if (!text && words) go("documents", id, { ...now, q: "", words: "" });
  };
  const pick = (paths, isOn) => setPicked((old) => {
    const next = new Set(old);
    for (const path of paths) isOn ? next.add(path) : next.delete(path);
    return next;
  });
  const mayAdd = mayWrite && !asOf;
  const take = (event) => {
    if (!mayAdd || !event.dataTransfer?.types.includes("Files")) return;
    if (event.type !== "drop") {
      setDrop((old) => (old.isOver === (event.type === "dragover") ? old : { ...old, isOver: !old.isOver }));
      return;
    }
    const { files, hadFolder } = dropped(event.dataTransfer);
    setDrop({ isOver: false, hadFolder });
    addFiles(files);
  };
  const leave = (event) => {
    if (event.key !== "Escape" || !open || event.target.closest("dialog")) return;
    document.querySelector(".file.open a")?.focus();
    go("documents", "", now);
  };
  if (!bases.length) return html`<section id="documents"><h2>${t("Documents")}</h2><p class="soft">${t("This server has no documents to read: the model answers alone.")}</p></section>`;
  const isEmpty = done && !problem && !list.length;
  return html`<section id="documents" class=${drop.isOver ? "over" : ""} aria-labelledby="documents-title" onDragOver=${take} onDragLeave=${take} onDrop=${take} onKeyDown=${leave}>
    <div class="title"><div><h2 id="documents-title" tabindex="-1">${t("Documents")}</h2><${Summary} /></div>
      ${mayAdd && !isEmpty ? html`<p><span class="soft hint">${t("Drop files here, or")}</span> <${ChooseFiles} kind="main" label=${t("Files to add")} onFiles=${addFiles}>${t("Add files")}<//></p>` : null}</div>
    ${mayAdd && isEmpty ? html`<${Empty} />` : null}
    ${drop.hadFolder ? html`<p class="told bad" role="status">${t("A folder cannot be dropped here: choose the files in it.")}
      ${sync ? html`<span>${t("To keep a folder up to date, run this on the server:")} <${Command} text=${sync} /></span>` : null}
      <button type="button" class="quiet" onClick=${() => setDrop({ isOver: false, hadFolder: false })}>${t("Close")}</button></p>` : null}
    <${Uploads} />
    ${problem ? html`<p class="bad" role="alert">${problem} <button type="button" onClick=${loadDocuments}>${t("Try again")}</button></p>` : null}
    ${unread.length ? html`<${Unread} unread=${unread} mayWrite=${mayWrite} />` : null}
    ${list.length ? html`
      <${Search} typed=${typed} setTyped=${type} search=${() => change({ words: typed.trim() })} folder=${place.crumbs.at(-1)?.name} />
      <${Filters} list=${list} query=${query} sort=${sort} change=${change} />
      ${words ? html`<${Passages} key=${words} words=${words} folder=${folder} close=${() => change({ words: "" })} />` : null}
      <${Crumbs} place=${place} now=${now} n=${inside.length} isFlat=${isFlat} />
      ${chosen.length ? html`<p class="line picks-made" role="status"><strong>${count(chosen.length, "{n} chosen", "{n} chosen")}</strong>
        ${inside.some((each) => !picked.has(each.path)) ? html`<button type="button" class="quiet go" onClick=${() => pick(inside.map((each) => each.path), true)}>${count(inside.length, "All {n}", "All {n}")}</button>` : null}
        <button type="button" class="quiet" onClick=${() => setPicked(new Set())}>${t("None")}</button><span class="spring"></span>
        ${mayAdd ? html`<button type="button" onClick=${() => askRemoval("remove", chosen)}>${t("Remove…")}</button>` : null}
        ${mayPurge && !asOf ? html`<button type="button" class="bad" onClick=${() => askRemoval("purge", chosen)}>${t("Purge…")}</button>` : null}</p>` : null}
      <div class=${open ? "shelf with" : "shelf"}>
        ${found.length || place.folders.length && !isFlat ? html`<${DocumentList} folders=${isFlat ? [] : place.folders} documents=${found} open=${open?.path} address=${address}
          sort=${sort} onSort=${(next) => change({ sort: next === "name" ? "" : next })} picked=${picked} pick=${pick} marked=${marked} isFlat=${isFlat} at=${place.at} />`
          : html`<p class="soft" role="status">${typed.trim() ? t("No document has these words in its name. “Search in texts” looks inside.") : isFlat ? t("Nothing fits.") : t("This folder is empty.")}</p>`}
        ${open ? html`<${DocumentDetails} document=${open} close=${href("documents", "", now)} />` : null}
      </div>
      ${id && !open && done ? html`<p class="soft" role="status">${t("There is no document {path} here.", { path: id })}</p>` : null}` : null}
    <${Removal} />
  </section>`;
}

/** The words of the search field, which the address takes over when the user pauses; `told`: those that it has from here. */
function useTyped(id, query) {
  const { q = "" } = query;
  const [typed, setTyped] = useState(q);
  const told = useRef(q);
  useEffect(() => {
    if (q !== told.current) setTyped(q); // back, or a link
    told.current = q;
  }, [q]);
  useEffect(() => {
    if (typed === q) return undefined;
    const { hash } = location;
    const timer = setTimeout(() => {
      if (location.hash !== hash) return; // the user has gone on
      told.current = typed;
      replace("documents", id, { ...query, q: typed });
    }, 250);
    return () => clearTimeout(timer);
  }, [typed, query, id]);
  return [typed, setTyped, told];
}

function Summary() {
  const { list, version, done } = useStore(catalogue);
  const { base, bases, asOf, versions } = useStore(server);
  const choose = (name) => {
    replace("documents");
    chooseBase(name).catch((error) => catalogue.set({ problem: error.message }));
  };
  const words = list.length || done ? [count(list.length, "{n} document", "{n} documents"), version !== null && !asOf && t("Version {version}", { version })].filter(Boolean).join(" · ") : t("Reading…");
  return html`<p class="soft line"><span role="status">${done ? words : `${words} …`}</span>
    ${asOf ? html`<span class="doubtful">${t("Version {version}; the newest is {newest}.", { version: asOf, newest: versions[0]?.version })}</span> <button type="button" class="quiet go" onClick=${() => server.set({ asOf: "" })}>${t("Show the newest")}</button>` : null}
    ${bases.length > 1 ? html`<label class="inline">${t("Knowledge base")} <select value=${base} onChange=${(event) => choose(event.target.value)}>
      ${bases.map(({ name }, i) => html`<option value=${i ? name : ""}>${name}</option>`)}</select></label>` : null}</p>`;
}

function Empty() {
  const sync = useSyncCommand();
  return html`<div class="drop"><p><span class="soft">${t("Drop files here, or")}</span> <${ChooseFiles} kind="main" label=${t("Files to add")} onFiles=${addFiles}>${t("Add files")}<//></p>
    <p class="soft">${t("PDF, Office, images, HTML, Markdown, CSV, e-mail, source code and plain text. They are read in a sandbox; the knowledge base keeps their text.")}</p>
    ${sync ? html`<p class="soft">${t("To keep a folder up to date, run this on the server:")} <${Command} text=${sync} /></p>` : null}</div>`;
}

function Unread({ unread, mayWrite }) {
  const [problem, setProblem] = useState("");
  const own = mayWrite ? unread.map((each) => each.path).filter(isUpload) : []; // others' uploads are not told
  const summary = useRef(null);
  const forget = (paths) => {
    summary.current.focus(); // the button goes
    dismiss(paths).then(() => setProblem(""), (error) => setProblem(noteRefusal(error)));
  };
  return html`<details class="unread"><summary ref=${summary}>${t("Could not be read ({n})", { n: unread.length })}</summary>
    ${problem ? html`<p class="bad" role="alert">${problem}</p>` : null}
    ${own.length > 1 ? html`<p><button type="button" class="quiet" onClick=${() => forget(own.slice(0, 1000))}>${count(own.length, "Dismiss {n} upload", "Dismiss {n} uploads")}</button></p>` : null}
    <ul class="rows">${unread.slice(0, 200).map(({ path, outcome, reason, remedy }) => html`<li>
      <span title=${path}><strong>${baseName(path)}</strong> <span class="soft">${folderName(path)}</span></span>
      ${mayWrite && isUpload(path) ? html` <button type="button" class="quiet go" aria-label=${t("Dismiss {name}", { name: baseName(path) })} onClick=${() => forget([path])}>${t("Dismiss")}</button>` : null}
      <p class=${outcome === "failed" ? "bad" : "soft"}>${outcome === "failed" ? "" : `${t("left out")}: `}${reason}</p>${remedy ? html`<${Remedy} text=${remedy} />` : null}</li>`)}</ul>
    ${unread.length > 200 ? html`<p class="soft">${t("The first {n} are shown.", { n: 200 })}</p>` : null}
  </details>`;
}

function Search({ typed, setTyped, search, folder }) {
  const submit = (event) => {
    event.preventDefault();
    if (typed.trim()) search();
  };
  return html`<form class="line find" role="search" onSubmit=${submit}>
    <label class="unseen" for="words">${t("Find by name, or by words in the texts")}</label>
    <input id="words" type="search" maxlength="8000" autocomplete="off" placeholder=${folder ? t("Find in {folder}", { folder }) : t("Find by name, or by words in the texts")} value=${typed} onInput=${(event) => setTyped(event.target.value)} />
    <button type="submit" disabled=${!typed.trim()}>${t("Search in texts")}</button>
  </form>`;
}

/** `text` with the longer words of a search marked; the search itself goes by meaning, too. */
function withWords(text, search) {
  const all = search.match(/[\p{L}\p{N}]+/gu) ?? [];
  const long = all.filter((each) => each.length > 3);
  const some = long.length ? long : all;
  return some.length ? text.split(new RegExp(`(?<![\\p{L}\\p{N}])(${some.join("|")})(?![\\p{L}\\p{N}])`, "giu")).map((part, i) => (i % 2 ? html`<mark>${part}</mark>` : part)) : text;
}

function Passages({ words, folder, close }) {
  const { base, asOf } = useStore(server);
  const reply = useReply(() => post("/v1/search", { query: words, limit: FOUND, where: where({ folder }), ...choosing() }), [words, folder, base, asOf]);
  const found = reply?.value;
  return html`<div id="found" role="region" aria-label=${t("Passages")} aria-live="polite">
    <p class="line"><strong>${found ? count(found.data.length, "{n} passage near “{words}”", "{n} passages near “{words}”").replace("{words}", words) : t("Searching…")}</strong>
      <span class="spring"></span><button type="button" class="quiet" onClick=${close}>${t("Close")}</button></p>
    ${reply?.problem ? html`<p class="bad">${reply.problem}</p>` : null}
    ${found?.data.map(({ passage }) => {
      const { document, start, end, page, headings, text } = passage;
      const place = [page && t("page {n}", { n: page }), headings.join(" › ")].filter(Boolean).join(" · ");
      return html`<div class="source" key=${passage.id}><a class="link" title=${document} href=${href("document", document, { version: found.version, base, start, end, page })}>
        <span class="path">${baseName(document)}</span><span class="folder soft">${folderName(document)}</span></a>
        ${place ? html`<p class="soft where">${place}</p>` : null}<blockquote dir="auto">${withWords(plainLine(document, text), words)}</blockquote></div>`;
    })}</div>`;
}

function Filters({ list, query, sort, change }) {
  const { types, labels, fields } = useMemo(() => facets(list), [list]);
  const menu = (name, words, none, values, more = {}) => (values.length || query[name] ? html`<label>${words}
    <select value=${query[name] ?? ""} onChange=${(event) => change({ [name]: event.target.value, ...more })}><option value="">${none}</option>${values.map((each) => html`<option>${each}</option>`)}</select></label>` : null);
  const date = (name, words) => html`<label>${words} <input type="date" value=${query[name] ?? ""} onChange=${(event) => change({ [name]: event.target.value })} /></label>`;
  const used = FILTERS.filter((name) => query[name]).length;
  const orders = { name: t("Name"), type: t("Type"), "-size": t("Largest first"), "-date": t("Newest first"), date: t("Oldest first") };
  return html`<details class="filters"><summary>${used ? t("Filters ({n})", { n: used }) : t("Filters")}</summary>
    <div class="menus">
      ${menu("type", t("Type"), t("any"), types)}
      ${menu("label", t("Labels"), t("any"), labels)}
      ${date("from", t("Changed from"))} ${date("to", t("until"))}
      ${menu("field", t("Metadata"), t("any"), Object.keys(fields), { value: "" })}
      ${query.field ? menu("value", query.field, t("any"), fields[query.field] ?? []) : null}
      <label class="order">${t("Order")} <select value=${sort} onChange=${(event) => change({ sort: event.target.value })}>${Object.entries(orders).map(([name, words]) => html`<option value=${name}>${words}</option>`)}</select></label>
      ${used ? html`<button type="button" class="quiet go" onClick=${() => change(Object.fromEntries(FILTERS.map((name) => [name, ""])))}>${t("Clear filters")}</button>` : null}
    </div></details>`;
}

function Crumbs({ place, now, n, isFlat }) {
  const steps = [{ name: t("All documents"), path: "" }, ...(place.isUpload ? [{ name: t("Uploads"), path: place.at }] : place.crumbs)];
  return html`<div class="crumbs"><nav aria-label=${t("Folder")}><ol>${steps.map(({ name, path }, i) => html`<li>
      <a href=${href("documents", "", { ...now, folder: path })} aria-current=${i === steps.length - 1 ? "location" : undefined}>${name}</a></li>`)}</ol></nav>
    <span class="soft"><span role="status">${count(n, "{n} document", "{n} documents")}</span>${now.flat || (place.folders.length && !isFlat)
      ? html` · <a href=${href("documents", "", { ...now, flat: now.flat ? "" : "1" })}>${now.flat ? t("Show folders") : t("Show all in one list")}</a>` : null}</span></div>`;
}
