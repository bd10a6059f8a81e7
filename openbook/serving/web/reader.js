// A document's text in a window over the page, with what is cited marked; of a PDF also the page as it looks.

import { get, whole } from "./api.js";
import { baseName, byId, count, el, marked } from "./dom.js";
import { chosen } from "./server.js";

const WINDOW = 24000; // characters that are fetched at a time
const BEFORE = 6000; // of them, those before what is cited

const dialog = byId("reader");
let shown = null; // {path, version, spans, base, start, end, total, page}
let drawing = null; // an AbortController from when a picture is asked for until it is hidden
let picture = ""; // its address

byId("reader-close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
dialog.addEventListener("close", () => hidePage());
byId("reader-show").addEventListener("click", () => (byId("reader-page").hidden ? showPage() : hidePage()));

/** `version`: of the knowledge base `base`. `spans`: [start, end) to mark; the first is scrolled to. */
export async function openDocument(path, version, spans = [], base = chosen.base()) {
  shown = { path, version, spans, base };
  byId("reader-title").textContent = baseName(path);
  byId("reader-title").title = path;
  byId("reader-place").textContent = "Reading…";
  byId("reader-text").replaceChildren();
  byId("reader-show").hidden = true;
  hidePage();
  if (!dialog.open) dialog.showModal();
  const at = spans.length ? Math.max(0, spans[0][0] - BEFORE) : 0;
  const nodes = await part(at, WINDOW);
  if (!nodes) return;
  byId("reader-text").replaceChildren(...nodes);
  edges();
  const first = dialog.querySelector("mark");
  if (first) first.scrollIntoView({ block: "center" });
  byId("reader-text").focus({ preventScroll: true });
}

/** The nodes of a part of the text, or null after its failure was told. */
async function part(start, length) {
  const asked = shown;
  try {
    const query = { path: asked.path, as_of: asked.version, knowledge_base: asked.base, start, length };
    const found = await get("/v1/documents/text", query);
    if (asked !== shown) return null; // another document was opened meanwhile
    shown.start = Math.min(shown.start ?? found.start, found.start);
    shown.end = Math.max(shown.end ?? found.end, found.end);
    shown.total = found.total;
    shown.page ??= pageOf(found);
    byId("reader-show").hidden = !shown.page;
    byId("reader-place").textContent = `Version ${found.version} · ${count(found.total, "character")}`;
    return withPages(found);
  } catch (error) {
    byId("reader-place").textContent = error.message;
    return null;
  }
}

/** The number of the page of a PDF on which what is cited begins; without a citation, of the first that is shown. */
function pageOf({ media_type: kind, start, pages }) {
  if (kind !== "application/pdf") return null;
  const at = shown.spans.length ? shown.spans[0][0] : start;
  return (pages.findLast((each) => each.start <= at) ?? pages[0])?.page ?? null;
}

async function showPage() {
  const place = byId("reader-page");
  const { path, version, base, page } = shown;
  const mine = (drawing = new AbortController());
  place.replaceChildren(el("p", { class: "soft" }, `Drawing page ${page}…`));
  pressed(true);
  let made;
  try {
    const query = { path, page, as_of: version, knowledge_base: base };
    const drawn = await whole("/v1/documents/page", query, mine.signal);
    if (mine !== drawing) return;
    picture = URL.createObjectURL(drawn); // an address that the browser asks for itself would send no key
    made = el("img", { src: picture, alt: `Page ${page} of ${baseName(path)}` });
  } catch (error) {
    made = el("p", { class: "note" }, error.message);
  }
  if (mine === drawing) place.replaceChildren(made);
}

function hidePage() {
  drawing?.abort();
  drawing = null;
  byId("reader-page").replaceChildren();
  if (picture) URL.revokeObjectURL(picture);
  picture = "";
  pressed(false);
}

function pressed(is) {
  byId("reader-page").hidden = !is;
  byId("reader-show").setAttribute("aria-pressed", String(is));
  dialog.classList.toggle("wide", is);
  dialog.querySelector("mark")?.scrollIntoView({ block: "center" }); // the text has another width now
}

function withPages({ text, start, end, pages }) {
  const points = Array.from(text);
  const cuts = [...new Set([start, ...pages.map((each) => Math.max(start, each.start)), end])].sort((a, b) => a - b);
  return cuts.slice(0, -1).flatMap((from, i) => {
    const page = pages.find((each) => each.start === from);
    const piece = points.slice(from - start, cuts[i + 1] - start).join("");
    const nodes = [el("span", {}, ...marked(piece, from, shown.spans))];
    return page ? [el("h3", { class: "page" }, `Page ${page.page}`), ...nodes] : nodes;
  });
}

/** Buttons for more text before and after the part that is shown. */
function edges() {
  const text = byId("reader-text");
  text.querySelectorAll(".edge").forEach((each) => each.remove());
  const button = (label, act) => el("button", { type: "button", class: "quiet edge", onclick: act }, label);
  if (shown.start > 0) {
    text.prepend(button("Show what is before", async () => {
      const start = Math.max(0, shown.start - WINDOW);
      const nodes = await part(start, shown.start - start);
      const height = text.scrollHeight;
      if (nodes) text.prepend(...nodes);
      text.scrollTop += text.scrollHeight - height;
      edges();
    }));
  }
  if (shown.end < shown.total) {
    text.append(button("Show what follows", async () => {
      const nodes = await part(shown.end, WINDOW);
      if (nodes) text.append(...nodes);
      edges();
    }));
  }
}
