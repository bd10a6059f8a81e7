// A document over the view below: its text with what is cited marked; of a PDF also the page as it looks.

import { get } from "./api.js";
import { Piece } from "./document-text.js";
import { useMiddle } from "./middle.js";
import { PdfPage } from "./pdf-page.js";
import { go, href, replace, route } from "./router.js";
import { chooseBase, server } from "./server.js";
import { html, useEffect, useLayoutEffect, useMemo, useReducer, useRef } from "./vendor/preact.js";
import { baseName, count, folderName, t } from "./words.js";

const WINDOW = 24000; // characters that are fetched at a time
const BEFORE = 6000; // of them, those before what is cited
const MOST_SPANS = 20;
const MOST_WORDS = 2000; // characters of a selection to ask about
const MOST_ORIGIN = 200; // characters of an address that are shown
const PDF = "application/pdf";
const SELECTS = { __proto__: null, ArrowLeft: ["left", "word"], ArrowRight: ["right", "word"], ArrowUp: ["backward", "line"], ArrowDown: ["forward", "line"] };

/** `query`: version, base, page, and `start` and `end` or `spans=10-20,40-60` of what is cited. `below`: the view to go back to. */
export function Reader({ path, query, below }) {
  const dialog = useRef(null);
  useLayoutEffect(() => {
    const opened = dialog.current;
    opened.showModal();
    return () => opened.close(); // gives the focus back
  }, []);
  const close = () => dialog.current?.close();
  return html`<dialog id="reader" ref=${dialog} aria-labelledby="reader-title" onMouseDown=${(event) => {
      if (event.target !== dialog.current) return;
      event.preventDefault(); // else the focus goes where was pressed
      close();
    }}
      onClose=${() => route.get().view === "document" && leave(below)}>
    <${Document} key=${`${path}\n${JSON.stringify(query)}`} path=${path} query=${query} close=${close} />
  </dialog>`;
}

/** Where a document came from: a link only to web pages, to which the browser tells nothing of this one. */
export function Origin({ of }) {
  const words = html`<bdi>${of.length > MOST_ORIGIN ? `${of.slice(0, MOST_ORIGIN)}…` : of}</bdi>`;
  return /^https?:\/\/[^\s/]/i.test(of) ? html`<a href=${of} title=${of} target="_blank" rel="noopener noreferrer nofollow">${words}</a>` : words;
}

/** To the view below; back in the browser's history where that is the same. */
function leave({ view, id, query }) {
  const { navigation } = window;
  const before = navigation?.entries()[navigation.currentEntry.index - 1]?.url;
  const hash = before && before.split("#")[0] === location.href.split("#")[0] ? new URL(before).hash || "#/ask" : "";
  if (hash === href(view, id, query)) history.back();
  else replace(view, id, query);
}

/** In order and apart. */
export function spansOf({ start, end, spans }) {
  const given = spans ? spans.split(",").map((each) => each.split("-")) : [[start, end]];
  const whole = given.slice(0, MOST_SPANS).map((span) => span.map((at) => (/^\d{1,9}$/.test(at ?? "") ? Number(at) : NaN)));
  const apart = [];
  for (const [from, to] of whole.filter(([from, to]) => from < to).sort((a, b) => a[0] - b[0])) {
    if (apart.length && from <= apart.at(-1)[1]) apart.at(-1)[1] = Math.max(to, apart.at(-1)[1]);
    else apart.push([from, to]);
  }
  return apart;
}

const length = (text) => (/[\ud800-\udbff]/.test(text) ? Array.from(text).length : text.length);

/** A part of the text, cut where a block ends: not within `kept`, and only at the ends that `cuts` names. */
export function pieceOf({ text, start, end, total, pages, headings = [] }, kept, cuts) {
  const inside = kept.map((at) => Array.from(text).slice(0, Math.max(0, at - start)).join("").length);
  let head = 0;
  let tail = text.length;
  if (cuts.includes("head") && start > 0) {
    const before = text.slice(0, Math.min(inside[0], text.length / 2));
    for (const each of ["\n", "\n\n"]) if (before.includes(each)) head = before.indexOf(each) + each.length;
  }
  if (cuts.includes("tail") && end < total) {
    for (const each of [" ", "\n", "\n\n"]) {
      const at = text.lastIndexOf(each) + each.length;
      if (at > Math.max(inside[1], text.length / 2)) tail = at;
    }
  }
  const from = start + length(text.slice(0, head));
  const piece = { start: from, end: from + length(text.slice(head, tail)), text: text.slice(head, tail) };
  const within = pages.filter((page, i) => page.start < piece.end && (pages[i + 1]?.start ?? Infinity) > from);
  return { ...piece, pages: within, headings: headings.filter((each) => each.start >= from && each.start < piece.end) };
}

/** `piece` with the pages that begin in it only. */
const continued = (piece) => ({ ...piece, pages: piece.pages.filter((each) => each.start >= piece.start) });

/** Where page `page` begins in the text, or null. Asks the server, which tells the page of a character. */
async function pageStart(where, page, last, total) {
  let [low, high] = [{ page: 1, start: 0 }, { page: last + 1, start: total }];
  for (let i = 0; i < 40 && low.start < high.start; i += 1) {
    const share = (page + 0.5 - low.page) / (high.page - low.page);
    const guess = i < 8 ? low.start + share * (high.start - low.start) : (low.start + high.start) / 2;
    const at = Math.min(Math.max(Math.floor(guess), low.start), high.start - 1);
    const found = (await get("/v1/documents/text", { ...where, start: at, length: 1 })).pages.at(-1);
    if (!found || found.page === page) return found?.start ?? null;
    if (found.page > page) high = found;
    else low = { page: found.page, start: at + 1 };
  }
  return null;
}

/** {stops, marks}: `stops` names each span and each page on which it was found (or null); `marks` are the rectangles. */
async function locate(where, spans) {
  const found = await Promise.all(spans.map(([start, end]) => get("/v1/documents/marks", { ...where, start, end })));
  const marks = found.flatMap(({ pages }, span) => pages.filter((each) => each.found).map(({ page, rectangles }) => ({ span, page, rectangles })));
  const stops = spans.flatMap((_, span) => {
    const pages = marks.filter((mark) => mark.span === span).map(({ page }) => ({ span, page }));
    return pages.length ? pages : [{ span, page: null }];
  });
  return { stops, marks };
}

function Document({ path, query, close }) {
  const spans = useMemo(() => spansOf(query), []);
  const base = query.base || server.get().base || server.get().bases[0]?.name;
  const where = { path, knowledge_base: base, as_of: query.version };
  const [state, change] = useReducer((old, next) => {
    const given = typeof next === "function" ? next(old) : next;
    return given === old ? old : { ...old, ...given };
  }, {
    pieces: [], total: 0, version: 0, newest: 0, kind: "", origin: "", last: 0, problem: "", note: "", isBusy: false,
    showsPage: false, canDraw: true, page: 1, marks: [], stops: spans.map((_, span) => ({ span, page: null })), at: 0, shown: 0,
    isStored: false, selected: "", copied: "",
  });
  const text = useRef(null);
  const middle = useMiddle(text, "mark");
  const wanted = useRef({ span: 0, page: 0, takesFocus: true }); // what is to be scrolled to as soon as it is drawn, and focused
  const heightBefore = useRef(0);
  const hasChosen = useRef(false);
  const isGone = useRef(false);
  const tell = (error) => isGone.current || change({ note: error.message, isBusy: false });

  /** Shows the part around `at` instead of what is shown. `more`: what else changes, from the answer. */
  const show = async (at, until = at, more = () => ({})) => {
    const start = at <= 2 * BEFORE ? 0 : at - BEFORE;
    const found = await get("/v1/documents/text", { ...where, start, length: WINDOW });
    const piece = pieceOf(found, [at, Math.min(until, found.end)], "head tail");
    change({ pieces: [piece], total: found.total, version: found.version, kind: found.media_type, origin: found.origin, isBusy: false, ...more(found) });
    return found;
  };

  const open = async () => {
    const [start, end] = spans[0] ?? [0, 0];
    const found = await show(start, end, ({ media_type: kind, pages }) => ({
      showsPage: kind === PDF && Boolean(spans.length || query.page),
      page: (spans.length ? pages.findLast((each) => each.start <= start)?.page : Math.trunc(Number(query.page))) || 1,
    }));
    if (query.version) {
      get("/v1/versions", { knowledge_base: base, limit: 1 }).then(({ data }) => change({ newest: data[0]?.version ?? 0 }), () => null);
    }
    if (spans.some(([, until]) => until > found.total)) {
      change({ note: t("What is to be marked is not in this text. Perhaps the document has changed since.") });
    }
    if (!found.pages.length) return;
    const end1 = await get("/v1/documents/text", { ...where, start: Math.max(0, found.total - 1), length: 1 });
    const last = end1.pages.at(-1)?.page ?? 0;
    change((old) => ({ last, page: Math.min(Math.max(old.page, 1), last || 1) }));
    if (found.media_type !== PDF) return;
    if (!spans.length) {
      if (query.page) showText(Math.min(Number(query.page), last), last, found.total);
      return;
    }
    try {
      const located = await locate(where, spans);
      const first = located.marks[0];
      const missing = located.stops.some(({ page }) => page === null);
      change((old) => ({
        ...located, page: hasChosen.current || !first ? old.page : first.page, shown: old.shown + 1,
        showsPage: first || hasChosen.current ? old.showsPage : false,
        note: missing ? t("The words could not be found on the picture of the page. They are marked in the text.") : old.note,
      }));
    } catch (error) {
      change({ note: error.message, showsPage: false, canDraw: error.status !== 409 });
    }
  };

  useEffect(() => {
    open().catch((error) => isGone.current || change({ problem: error.message }));
    const select = () => {
      const selection = getSelection();
      const isInside = selection.anchorNode && text.current?.contains(selection.anchorNode);
      change((old) => {
        const selected = isInside ? selection.toString().trim().slice(0, MOST_WORDS) : "";
        return selected === old.selected ? old : { selected };
      });
    };
    document.addEventListener("selectionchange", select);
    return () => {
      isGone.current = true;
      document.removeEventListener("selectionchange", select);
    };
  }, []);

  useLayoutEffect(() => {
    const root = text.current;
    if (!root?.getClientRects().length || !state.pieces.length) return; // on narrow screens, the page is shown instead
    if (heightBefore.current) root.scrollTop += root.scrollHeight - heightBefore.current;
    heightBefore.current = 0;
    if (!wanted.current) return;
    const { span, page, takesFocus } = wanted.current;
    const mark = page ? root.querySelector(`[data-page="${page}"]`) : root.querySelector(`mark[data-span="${span}"]`);
    if (!mark && (page || spans.length)) return;
    root.querySelectorAll("mark").forEach((each) => each.classList.toggle("current", !page && spans.length > 1 && each.dataset.span === String(span)));
    mark?.scrollIntoView({ block: page ? "start" : "center" });
    middle.look();
    if (takesFocus) {
      if (mark) mark.tabIndex = -1;
      (mark ?? root).focus({ preventScroll: true });
    }
    wanted.current = null;
  });

  const showStop = (at) => {
    const { span, page } = state.stops[at];
    wanted.current = { span };
    change((old) => ({ at, page: page ?? old.page, shown: old.shown + 1, isBusy: false }));
    const [start, end] = spans[span];
    if (!state.pieces.some((each) => each.start <= start && start < each.end)) show(start, end).catch(tell);
  };
  const showText = async (page, last = state.last, total = state.total) => {
    wanted.current = { page };
    if (text.current?.querySelector(`[data-page="${page}"]`)) return;
    const start = await pageStart(where, page, last, total).catch(() => null);
    if (start !== null && !isGone.current && wanted.current?.page === page) await show(start).catch(tell);
  };
  const turn = (page) => {
    const next = Math.min(Math.max(Math.trunc(page), 1), state.last || Infinity);
    hasChosen.current = true;
    if (next === state.page && state.showsPage) return;
    change({ page: next, showsPage: true });
    showText(next);
  };
  const turning = useRef(turn);
  turning.current = turn; // the pieces are not drawn again for it
  const openPage = useMemo(() => (number) => turning.current(number), []);
  const choose = (showsPage) => {
    hasChosen.current = true;
    if (spans.length) wanted.current = { span: state.stops[state.at].span };
    change((old) => ({ showsPage, shown: old.shown + 1 }));
  };
  const extend = async (isBefore) => {
    if (state.isBusy) return;
    change({ isBusy: true, note: "" });
    try {
      const { pieces } = state;
      const start = isBefore ? Math.max(0, pieces[0].start - WINDOW) : pieces.at(-1).end;
      const size = isBefore ? pieces[0].start - start : WINDOW;
      const found = await get("/v1/documents/text", { ...where, start, length: size });
      const piece = pieceOf(found, isBefore ? [found.end, found.end] : [start, start], isBefore ? "head" : "tail");
      if (isBefore) heightBefore.current = text.current.scrollHeight;
      change({ pieces: isBefore ? [piece, continued(pieces[0]), ...pieces.slice(1)] : [...pieces, continued(piece)], isBusy: false });
    } catch (error) {
      tell(error);
    }
  };

  const cited = spans.length ? { spans: spans.map((span) => span.join("-")).join(",") } : { page: state.showsPage ? state.page : "" };
  const copy = async () => {
    const one = spans.length === 1 ? { start: spans[0][0], end: spans[0][1] } : cited;
    const link = location.href.split("#")[0] + href("document", path, { version: state.version, ...one, base });
    const isCopied = await navigator.clipboard?.writeText(link).then(() => true, () => false);
    change({ copied: isCopied ? t("Copied") : link });
  };

  /** Shift and an arrow key begin a selection at what has the focus, such as a mark, or is in view. The browser extends it. */
  const select = (event) => {
    const [root, selection, way] = [text.current, getSelection(), event.shiftKey && SELECTS[event.key]];
    if (!way || (root.contains(selection.focusNode) && !selection.isCollapsed)) return;
    event.preventDefault();
    const { top } = root.getBoundingClientRect();
    const first = event.target !== root ? event.target : [...root.querySelectorAll(".piece *")].find((each) => each.textContent.trim() && each.getBoundingClientRect().top >= top);
    if (first && !root.contains(selection.focusNode)) selection.collapse(first, 0);
    selection.modify("extend", ...way);
  };

  const askHere = () => { // in this document's knowledge base
    const { bases, base: chosen } = server.get();
    const wanted = base === bases[0]?.name ? "" : base;
    if (wanted !== chosen) chooseBase(wanted).catch(() => null);
  };

  const { pieces, problem, note, stops, at, showsPage, page, last, kind, origin, version, newest, selected } = state;
  const isPdf = kind === PDF && state.canDraw;
  const facts = version ? [t("Version {version}", { version }), count(state.total, "{n} character", "{n} characters"), last > 0 && kind === PDF && count(last, "{n} page", "{n} pages")] : [];
  const wordsOf = (span) => pieces.map((each) => Array.from(each.text).slice(Math.max(0, spans[span][0] - each.start), Math.max(0, spans[span][1] - each.start)).join("")).join("").slice(0, 200);
  return html`<div class=${isPdf && showsPage ? "document shows-page" : "document"}>
    <header class="head">
      <div><h2 id="reader-title" tabindex="-1" autofocus=${true} dir="auto" title=${path}>${baseName(path)}</h2>
        <p class="soft">${[folderName(path), ...facts].filter(Boolean).join(" · ")}${origin ? html` · <${Origin} of=${origin} />` : null}</p></div>
      <button type="button" class="quiet" aria-label=${t("Close")} title=${t("Close")} onClick=${close}>✕</button>
    </header>
    ${newest > version && version ? html`<p class="older">${t("Version {version}; the newest is {newest}.", { version, newest })}${" "}
      <a href=${href("document", path, { base })} onClick=${(event) => { event.preventDefault(); replace("document", path, { base }); }}>${t("Show the newest")}</a></p>` : null}
    <div class="tools">
      ${isPdf ? html`<fieldset class="choice"><legend class="unseen">${t("What is shown")}</legend>
        <label><input type="radio" name="reader-shows" checked=${showsPage} onChange=${() => choose(true)} /><span>${t("Page")}</span></label>
        <label><input type="radio" name="reader-shows" checked=${!showsPage} onChange=${() => choose(false)} /><span>${t("Text")}</span></label></fieldset>` : null}
      ${stops.length > 1 ? html`<span class="stops"><button type="button" class="quiet" aria-label=${t("Previous mark")} title=${t("Previous mark")} disabled=${at === 0} onClick=${() => showStop(at - 1)}>↑</button>
        <span role="status">${t("Mark {n} of {all}", { n: at + 1, all: stops.length })}</span>
        <button type="button" class="quiet" aria-label=${t("Next mark")} title=${t("Next mark")} disabled=${at + 1 === stops.length} onClick=${() => showStop(at + 1)}>↓</button></span>` : null}
      ${stops.length === 1 && pieces.length ? html`<button type="button" class="quiet" onClick=${() => showStop(0)}>${t("Show the mark")}</button>` : null}
      <span class="spring"></span>
      ${kind && kind !== "text/plain" ? html`<button type="button" class="quiet stored-open" aria-pressed=${String(state.isStored)} onClick=${() => {
        if (spans.length) wanted.current = { span: stops[at].span };
        change({ isStored: !state.isStored });
      }}>${t("Unformatted")}</button>` : null}
    </div>
    <p class="note" role="status">${note}</p>
    <div class="body">
      ${isPdf && showsPage ? html`<${PdfPage} path=${path} version=${version} base=${base} page=${page} last=${last} wanted=${state.shown} turn=${turn}
        marks=${state.marks.filter((mark) => mark.page === page).map((mark) => ({ ...mark, words: wordsOf(mark.span), isCurrent: stops.length > 1 && stops[at].span === mark.span && stops[at].page === page }))}
        takesFocus=${(hasMark) => {
          const takes = wanted.current?.takesFocus && (hasMark || !spans.length) && !text.current?.getClientRects().length;
          if (takes) wanted.current = { ...wanted.current, takesFocus: false };
          return takes;
        }} />` : null}
      <div id="reader-text" class=${state.isStored ? "stored" : ""} ref=${text} tabindex="0" role="region" aria-label=${t("Text")} aria-describedby="select-help" onKeyDown=${select}>
        ${problem ? html`<p class="bad" role="alert">${problem}</p>` : pieces.length ? null : html`<p class="soft" role="status">${t("Reading…")}</p>`}
        ${pieces.length && pieces[0].start > 0 ? html`<button type="button" class="quiet edge" aria-disabled=${String(state.isBusy)} onClick=${() => extend(true)}>${t("Show what is before")}</button>` : null}
        ${pieces.map((piece) => html`<${Piece} key=${piece.start} piece=${piece} spans=${spans} kind=${kind} isStored=${state.isStored} isFromStart=${pieces[0].start === 0}
          openPage=${isPdf ? openPage : null} />`)}
        ${pieces.length && pieces.at(-1).end < state.total ? html`<button type="button" class="quiet edge" aria-disabled=${String(state.isBusy)} onClick=${() => extend(false)}>${t("Show what follows")}</button>` : null}
      </div>
    </div>
    <footer class="foot">
      <a class="button" href=${href("ask", "", { path })} onClick=${askHere}>${t("Ask about this document")}</a>
      <button type="button" disabled=${!selected} onMouseDown=${(event) => event.preventDefault()} onClick=${() => { askHere(); go("ask", "", { path, about: selected }); }}>${t("Ask about the selected words")}</button>
      <span id="select-help">${t("Shift and the arrow keys select words.")}</span>
      <span class="spring"></span>
      <span class="copied" role="status">${state.copied}</span>
      <button type="button" class="quiet" onClick=${copy}>${t("Copy link")}</button>
    </footer>
  </div>`;
}
