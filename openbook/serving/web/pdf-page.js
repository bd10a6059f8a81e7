// A page of a PDF as it looks, with the quoted words marked on it.

import { whole } from "./api.js";
import { useMiddle } from "./middle.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/preact.js";
import { baseName, t } from "./words.js";

const ZOOMS = [50, 75, 100, 150, 200, 300]; // in percent; 0 fits the width
const MOST_KEPT = 8; // pictures

/**
 * `last`: the number of pages, 0 while unknown. `marks`: {span, isCurrent, words, rectangles} of this page.
 * `wanted` changes when the current mark is to be shown. `turn(page)` opens another page.
 */
export function PdfPage({ path, version, base, page, last, marks, wanted, takesFocus, turn }) {
  const pictures = useRef(new Map()).current; // page -> address
  const [shown, setShown] = useState({ page: 0, address: "", problem: "", pixels: 0 });
  const [zoom, setZoom] = useState(0);
  const [typed, setTyped] = useState(null); // until it is entered
  const pane = useRef(null);
  const middle = useMiddle(pane, ".box");

  useEffect(() => () => pictures.forEach((address) => URL.revokeObjectURL(address)), []);
  useEffect(() => {
    const address = pictures.get(page);
    if (address) {
      setShown((old) => ({ ...old, page, address, problem: "" }));
      return undefined;
    }
    const asked = new AbortController();
    whole("/v1/documents/page", { path, page, as_of: version, knowledge_base: base }, asked.signal).then((picture) => {
      if (asked.signal.aborted) return;
      pictures.set(page, URL.createObjectURL(picture)); // an address that the browser asks for itself would send no key
      for (const old of [...pictures.keys()].slice(0, -MOST_KEPT)) {
        URL.revokeObjectURL(pictures.get(old));
        pictures.delete(old);
      }
      setShown((old) => ({ ...old, page, address: pictures.get(page), problem: "" }));
    }, (error) => {
      if (!asked.signal.aborted) setShown({ page, address: "", problem: error.message, pixels: 0 });
    });
    return () => asked.abort();
  }, [page]);

  const isDrawn = shown.page === page;
  const drawn = isDrawn ? shown.address : "";
  const showMark = () => {
    const mark = pane.current.querySelector(".box.current") ?? pane.current.querySelector(".box");
    if (!mark) pane.current.scrollTo({ top: 0 });
    else mark.scrollIntoView({ block: "center", inline: "nearest" });
    if (takesFocus(Boolean(mark))) (mark ?? pane.current).focus({ preventScroll: true });
    middle.look();
  };
  const draws = `${drawn} ${wanted} ${marks.length}`;
  useEffect(() => {
    if (drawn && shown.pixels) showMark();
  }, [draws, shown.pixels > 0]);

  useLayoutEffect(middle.hold, [zoom]);

  const step = (by) => setZoom((old) => {
    const now = old || (100 * (pane.current.querySelector(".sheet")?.clientWidth ?? 1000)) / (shown.pixels || 1000);
    return (by > 0 ? ZOOMS.find((each) => each > now + 1) : ZOOMS.findLast((each) => each < now - 1)) ?? old;
  });
  const press = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(?:INPUT|SELECT)$/.test(event.target.tagName)) return;
    const { scrollTop, scrollHeight, clientHeight, scrollWidth, clientWidth } = pane.current;
    const isWide = scrollWidth > clientWidth + 1;
    const turns = {
      "+": () => step(1), "=": () => step(1), "-": () => step(-1), "0": () => setZoom(0),
      PageDown: scrollTop + clientHeight >= scrollHeight - 2 && (() => turn(page + 1)),
      PageUp: scrollTop <= 1 && (() => turn(page - 1)),
      ArrowRight: !isWide && (() => turn(page + 1)),
      ArrowLeft: !isWide && (() => turn(page - 1)),
    };
    if (!turns[event.key]) return;
    event.preventDefault();
    turns[event.key]();
  };
  return html`<div class="pdf" onKeyDown=${press}>
    <div class="bar-pdf" role="group" aria-label=${t("Pages")}>
      <button type="button" class="quiet" disabled=${page <= 1} aria-label=${t("Previous page")} title=${t("Previous page")} onClick=${() => turn(page - 1)}>‹</button>
      <label class="inline"><span class="soft word">${t("Page")}</span><input type="number" min="1" aria-label=${t("Page number")} max=${last || undefined} value=${typed ?? page}
        onInput=${(event) => setTyped(event.target.value)} onChange=${(event) => { setTyped(null); turn(Number(event.target.value) || page); }} /></label>
      <span class="soft">${last ? t("of {last}", { last }) : ""}</span>
      <button type="button" class="quiet" disabled=${last > 0 && page >= last} aria-label=${t("Next page")} title=${t("Next page")} onClick=${() => turn(page + 1)}>›</button>
      <span class="spring"></span>
      <button type="button" class="quiet" aria-label=${t("Smaller")} title=${t("Smaller")} onClick=${() => step(-1)}>−</button>
      <select aria-label=${t("Zoom")} value=${zoom} onChange=${(event) => setZoom(Number(event.target.value))}>
        <option value="0">${t("Fit width")}</option>${ZOOMS.map((each) => html`<option value=${each}>${each} %</option>`)}</select>
      <button type="button" class="quiet" aria-label=${t("Larger")} title=${t("Larger")} onClick=${() => step(1)}>+</button>
    </div>
    <div id="reader-page" ref=${pane} tabindex="0" role="region" aria-label=${t("The page as it looks")}>
      <p class="soft" role="status">${isDrawn ? "" : t("Reading…")}</p>
      ${isDrawn && shown.problem ? html`<p class="note" role="alert">${shown.problem}</p>` : null}
      ${drawn ? html`<div class="sheet" style=${{ width: zoom ? `${(shown.pixels * zoom) / 100}px` : "100%" }}>
        <img src=${drawn} alt=${t("Page {page} of {name}", { page, name: baseName(path) })} onLoad=${(event) => setShown((old) => ({ ...old, pixels: event.target.naturalWidth }))} />
        ${marks.flatMap((mark) => mark.rectangles.map((box, i) => html`<span class=${mark.isCurrent ? "box current" : "box"} key=${`${mark.span}-${i}`}
          ...${i ? { "aria-hidden": "true" } : { role: "img", tabindex: -1, "aria-label": t("Marked here: {words}", { words: mark.words }) }}
          style=${{ left: `${box[0] * 100}%`, top: `${box[1] * 100}%`, width: `${(box[2] - box[0]) * 100}%`, height: `${(box[3] - box[1]) * 100}%` }}></span>`))}
      </div>` : null}
    </div>
  </div>`;
}
