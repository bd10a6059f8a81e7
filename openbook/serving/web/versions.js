// The kept versions, what differs between two of them, and asking an older one.

import { get } from "./api.js";
import { baseName, byId, count, documentButton, el, when } from "./dom.js";
import { openDocument } from "./reader.js";
import { chosen, loadVersions, server } from "./server.js";

const MOST = 100; // entries of each list

/** `askOf(version)` is called to ask one. */
export async function show(askOf) {
  await loadVersions();
  const kept = server.versions;
  byId("rows").replaceChildren(...kept.map((each, i) => {
    const pick = (name, label, checked) =>
      el("label", {}, el("input", { type: "radio", name, value: String(each.version), checked, "aria-label": `${label} version ${each.version}` }), el("span", {}, label));
    return el("tr", {},
      el("th", { scope: "row" }, String(each.version), ...each.tags.map((tag) => el("span", { class: "tag" }, tag))),
      el("td", {}, el("time", { dateTime: each.created_at }, when(each.created_at))),
      el("td", {}, String(each.documents), el("span", { class: "noun" }, each.documents === 1 ? " document" : " documents")),
      el("td", { class: "picks" }, pick("before", "before", i === Math.min(1, kept.length - 1)), pick("after", "after", i === 0)),
      el("td", {}, each.documents ? el("button", { type: "button", class: "quiet go", onclick: () => askOf(i ? String(each.version) : "") }, i ? "Ask this one" : "Ask the newest") : null));
  }));
}

byId("compare").addEventListener("submit", async (event) => {
  event.preventDefault();
  const of = (name) => document.querySelector(`input[name=${name}]:checked`)?.value;
  const place = byId("difference");
  try {
    const query = { before: of("before"), after: of("after"), knowledge_base: chosen.base(), limit: MOST };
    place.replaceChildren(...differences(await get("/v1/versions/difference", query)));
  } catch (error) {
    place.replaceChildren(el("p", { class: "bad" }, error.message));
  }
});

function differences(found) {
  const { before, after, counts } = found;
  const lists = [
    documents("Added", found.added, counts.added, after),
    documents("Changed", found.changed, counts.changed, after),
    documents("Removed", found.removed, counts.removed, before),
    documents("Same text, other metadata or labels", found.metadata_changed, counts.metadata_changed, after),
    passages("Passages that came", "came", found.passages_added, counts.passages_added),
    passages("Passages that went", "went", found.passages_removed, counts.passages_removed),
  ].filter(Boolean);
  const title = el("h3", {}, `From version ${before} to ${after}`);
  return lists.length ? [title, ...lists] : [title, el("p", { class: "soft" }, "Nothing differs in what you may see.")];
}

function documents(title, paths, all, version) {
  if (!all) return null;
  const rows = paths.map((path) =>
    el("li", {}, documentButton(path, () => openDocument(path, version))));
  return el("details", { class: "change", open: true }, el("summary", {}, `${title}: ${count(all, "document")}`), el("ul", { class: "rows" }, ...rows), left(paths, all));
}

function passages(title, kind, found, all) {
  if (!all) return null;
  const shown = found.map((each) =>
    el("div", { class: `source ${kind}` }, el("p", { class: "soft where", title: each.document }, baseName(each.document)), el("blockquote", { dir: "auto" }, each.text)));
  return el("details", { class: "change" }, el("summary", {}, `${title}: ${count(all, "passage")}`), ...shown, left(found, all));
}

function left(shown, all) {
  return shown.length < all ? el("p", { class: "soft" }, `${count(all - shown.length, "more", "more")} not shown.`) : null;
}
