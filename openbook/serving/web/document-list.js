// The rows of a folder or a search. Of thousands, those in sight are drawn.

import { href } from "./router.js";
import { html, useLayoutEffect, useRef, useState } from "./vendor/preact.js";
import { count, day, number, size, t, when } from "./words.js";

const BEYOND = 12; // rows that are drawn above and below those in sight

const columns = () => [
  ["name", t("Name")], ["type", t("Type")], ["size", t("Size")], ["pages", t("Pages")], ["passages", t("Passages")], ["date", t("Changed")],
];

/** Which of `n` rows to draw, [from, to), and the height of one. */
function useSlice(body, n) {
  const [slice, setSlice] = useState({ from: 0, to: 60, height: 44 });
  useLayoutEffect(() => {
    const look = () => {
      const height = body.current.querySelector("[role=row]")?.getBoundingClientRect().height || 44;
      const above = -body.current.getBoundingClientRect().top / height;
      const from = Math.max(0, Math.floor(above / 4) * 4 - BEYOND);
      const to = Math.max(4 * BEYOND, Math.ceil((above + window.innerHeight / height) / 4) * 4 + BEYOND);
      setSlice((old) => (old.from === from && old.to === to && old.height === height ? old : { from, to, height }));
    };
    look();
    window.addEventListener("scroll", look, { passive: true });
    const moved = new ResizeObserver(look); // what stands above may grow
    moved.observe(document.body);
    return () => {
      window.removeEventListener("scroll", look);
      moved.disconnect();
    };
  }, [n]);
  return { ...slice, from: Math.min(slice.from, Math.max(0, n - 1)), to: Math.min(slice.to, n) };
}

/**
 * `folders` and `documents`: rows. `open`: the path whose details are shown. `address(row)` is a row's link. `picked`: chosen
 * paths; `pick(paths, on)` chooses. `marked`: paths that are new. `isFlat`: rows say in which folder they are.
 */
export function DocumentList({ folders, documents, open, address, sort, onSort, picked, pick, marked, isFlat, at }) {
  const body = useRef(null);
  const rows = [...folders, ...documents];
  const { from, to, height } = useSlice(body, rows.length);
  const move = (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const row = step && event.target.closest("[role=row]");
    if (!row) return;
    event.preventDefault();
    (step > 0 ? row.nextElementSibling : row.previousElementSibling)?.querySelector("a").focus();
  };
  const all = documents.length > 0 && documents.every((each) => picked.has(each.path));
  const hasLabels = documents.some((each) => each.labels.length);
  return html`<div class=${hasLabels ? "files" : "files plain"} role="table" aria-label=${t("Documents")} aria-rowcount=${rows.length + 1}>
    <div role="rowgroup"><div role="row" class="file head" aria-rowindex="1">
      <span role="columnheader"><input type="checkbox" checked=${all} disabled=${!documents.length} aria-label=${t("Choose all in this list")} onChange=${(event) => pick(documents.map((each) => each.path), event.target.checked)} /></span>
      ${columns().map(([name, words]) => html`<span role="columnheader" class="of-${name}" aria-sort=${{ [name]: "ascending", [`-${name}`]: "descending" }[sort] ?? "none"}>
        <button type="button" class="quiet" onClick=${() => onSort(sort === name ? `-${name}` : sort === `-${name}` ? name : name === "name" || name === "type" ? name : `-${name}`)}>${words}</button></span>`)}
      ${hasLabels ? html`<span role="columnheader" class="of-labels">${t("Labels")}</span>` : null}
    </div></div>
    <div role="rowgroup" ref=${body} onKeyDown=${move} style=${{ paddingTop: `${from * height}px`, paddingBottom: `${(rows.length - to) * height}px` }}>
      ${rows.slice(from, to).map((each, i) => (each.count === undefined
        ? html`<${Row} key=${each.path} at=${from + i} document=${each} isOpen=${each.path === open} link=${address(each)} isPicked=${picked.has(each.path)} pick=${pick} hasLabels=${hasLabels} isNew=${marked.has(each.path)} folder=${isFlat && each.folder !== at ? (each.isUploaded ? t("Uploads") : each.folder.slice(at.length + 1)) : ""} />`
        : html`<${Folder} key=${`${each.path}/`} at=${from + i} folder=${each} link=${address(each)} />`))}
    </div>
  </div>`;
}

function Folder({ folder, at, link }) {
  const name = folder.isUploaded ? t("Uploads") : folder.name;
  return html`<div role="row" class="file" aria-rowindex=${at + 2}>
    <span role="cell"></span>
    <span role="cell" class="of-name"><a href=${link} class="is-folder" title=${folder.path}>${name}</a><small class="about soft">${count(folder.count, "{n} document", "{n} documents")}</small></span>
    <span role="cell" class="of-count soft">${count(folder.count, "{n} document", "{n} documents")}</span>
  </div>`;
}

function Row({ document, at, isOpen, link, isPicked, pick, hasLabels, isNew, folder }) {
  const { path, name, title, type, bytes, pages, passages, created_at: date, labels } = document;
  const about = [type.toUpperCase(), size(bytes), day(date)].join(" · ");
  return html`<div role="row" class="file ${isOpen ? "open" : ""}" aria-rowindex=${at + 2}>
    <span role="cell"><input type="checkbox" checked=${isPicked} aria-label=${t("Choose {name}", { name })} onChange=${(event) => pick([path], event.target.checked)} /></span>
    <span role="cell" class="of-name"><a href=${link} title=${title && title !== name ? `${title}\n${path}` : path} aria-current=${isOpen ? "true" : undefined}>${name}</a>
      ${isNew ? html`<span class="tag">${t("new")}</span>` : null}${folder ? html`<small class="in soft">${folder}</small>` : null}<small class="about soft">${about}</small></span>
    <span role="cell" class="of-type soft">${type.toUpperCase()}</span>
    <span role="cell" class="of-size">${size(bytes)}</span>
    <span role="cell" class="of-pages">${pages || ""}</span>
    <span role="cell" class="of-passages">${number(passages)}</span>
    <span role="cell" class="of-date soft" title=${when(date)}>${day(date)}</span>
    ${hasLabels ? html`<span role="cell" class="of-labels">${labels.map((label) => html`<span class="tag">${label}</span>`)}</span>` : null}
  </div>`;
}
