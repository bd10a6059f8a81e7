// One answer as it comes, then with its sources, what made it, its receipt and a replay.

import { get, post } from "./api.js";
import { baseName, count, digest, documentButton, el, marked } from "./dom.js";
import { openDocument } from "./reader.js";
import { server } from "./server.js";

const NAMES = { open: "From documents", closed: "From memory" };
const CONFIDENCE = {
  "supported": ["Supported", "good", "Of answers that measured like this one eight in ten were right."],
  "likely": ["Likely", "good", "Of answers that measured like this one six in ten were right; read the quotes first."],
  "check it": ["Check it", "doubtful", "Most answers that measured like this one were wrong; compare it with the quotes."],
  "not found": ["Not found", "", "Nothing that was read seems to say it."],
};
const UNMEASURED = "How often such an answer is right was not measured; compare it with the quotes.";
const NO_LOG = "This server keeps no receipts to replay from. Start it with: openbook serve --receipts FOLDER";

/** A card that fills: `text` is replaced as pieces come. */
export function card(mode) {
  const text = el("p", { class: "text", "aria-live": "polite", "aria-busy": "true" });
  const state = el("span", { class: "state" }, "Reading…");
  const below = el("div");
  const root = el("article", { class: "answer", "aria-label": NAMES[mode] },
    el("header", {}, el("h4", {}, NAMES[mode]), state), text, below);
  return { root, text, state, below };
}

/** What the last event of an answer tells. `place` gets the sources, or is null where nothing was read. */
export function finish({ root, text, state, below }, answer, place) {
  text.textContent = answer.answer || "No answer.";
  text.setAttribute("aria-busy", "false");
  root.classList.toggle("abstained", answer.declined);
  const cited = answer.citations.length;
  const closed = answer.receipt.strategy === "closed-book";
  const [words, kind, meaning] = closed ? ["No sources", "doubtful", ""] : CONFIDENCE[answer.confidence];
  const measured = closed || answer.declined || answer.certainty !== null;
  state.textContent = answer.certainty === null ? words : `${words} · ${Math.round(100 * answer.certainty)} %`;
  state.className = `state ${kind}`;
  const cards = place ? showSources(place, answer) : [];
  if (cited) {
    text.append(" ", ...cards.map((each, i) => el("button", {
      type: "button", class: "ref", "aria-label": `Source ${i + 1}`, onclick: () => each.querySelector("button").focus(),
    }, String(i + 1))));
  }
  const notes = [
    ...answer.closest.map((citation) => `Closest in your documents: “${citation.quote}” (${baseName(citation.document)})`),
    ...answer.sentences.filter((each) => each.support === "none").map((each) =>
      `Could not be matched with a passage: “${[...answer.answer].slice(each.start, each.end).join("")}”`),
    ...answer.notes,
    ...answer.warnings,
  ];
  below.replaceChildren(
    meaning ? el("p", { class: "soft meaning" }, measured ? meaning : UNMEASURED) : "",
    ...notes.map((note) => el("p", { class: "note" }, note)),
    madeBy(answer.receipt, answer.timings?.total_s),
    receiptDetails(answer.receipt),
    replayButton(answer.receipt.digest),
  );
}

function madeBy(receipt, seconds) {
  const { model, knowledge_base_version: version } = receipt;
  return el("p", { class: "made soft" },
    el("span", {}, `${model.name} `, digest(model.digest), ` ${model.evidence}`),
    version === null ? null : el("span", {}, `knowledge base version ${version}`),
    seconds === undefined ? null : el("span", {}, `${seconds.toFixed(1)} s`));
}

// --- sources ---

/** The cards of the citations, in their order. */
function showSources(place, answer) {
  const { knowledge_base: id, knowledge_base_version: version } = answer.receipt;
  const base = server.bases.find((each) => each.id === id)?.name; // it stays the answer's, whichever is chosen later
  const cards = answer.citations.map((citation, i) => {
    const { passage } = answer.passages.find((hit) => hit.passage.id === citation.passage_id);
    const backs = answer.sentences.some((each) => each.citation === i && each.support === "backed");
    return source(passage, version, [[citation.start, citation.end]], i + 1, base, backs ? "" : "only near");
  });
  const cited = new Set(answer.citations.map((citation) => citation.passage_id));
  const others = answer.passages.map((hit) => hit.passage).filter((passage) => !cited.has(passage.id));
  const rest = others.map((passage) => source(passage, version, [], null, base));
  place.replaceChildren(
    el("h4", {}, cards.length ? "Sources" : answer.passages.length ? "Read, but not cited" : "Nothing near the question was found"),
    ...(cards.length ? cards : rest),
    cards.length && rest.length
      ? el("details", {}, el("summary", {}, `Also read: ${count(rest.length, "passage")}`), ...rest)
      : "",
  );
  for (const quote of place.querySelectorAll("blockquote")) {
    const mark = quote.querySelector("mark");
    if (mark) quote.scrollTop = mark.offsetTop - quote.clientHeight / 3;
  }
  return cards;
}

/** A passage with what is cited of it marked; its head opens the document there. */
export function source(passage, version, spans, number, base, mark = "") {
  const parts = [...new Set([passage.title, ...passage.headings].filter((part) => part && part !== baseName(passage.document)))];
  const where = [mark, passage.page ? `page ${passage.page}` : "", parts.join(" › ")].filter(Boolean).join(" · ");
  const target = spans.length ? spans : [[passage.start, passage.end]];
  const blank = passage.text.length - passage.text.trimStart().length; // white space is one code unit each
  return el("div", { class: "source" },
    documentButton(passage.document, () => openDocument(passage.document, version, target, base), number),
    where ? el("p", { class: "soft where" }, where) : null,
    el("blockquote", { dir: "auto" }, ...marked(passage.text.trim(), passage.start + blank, spans)));
}

// --- receipts ---

function row(name, ...value) {
  return [el("dt", {}, name), el("dd", {}, ...value)];
}

function fields(receipt) {
  const { decoding, embedder } = receipt;
  const base = receipt.knowledge_base === null ? "none was read" : `${receipt.knowledge_base}, version ${receipt.knowledge_base_version}`;
  const chance = decoding.temperature ? `temperature ${decoding.temperature}, seed ${decoding.seed}` : "greedy";
  return el("dl", {},
    ...row("Receipt", el("code", {}, receipt.digest)),
    ...row("Model", `${receipt.model.name}, ${receipt.model.evidence} `, el("code", {}, receipt.model.digest || "no digest")),
    ...row("Numeric class", receipt.numeric_class || "none promised"),
    ...row("Knowledge base", base),
    ...(embedder ? row("Embedder", `${embedder.name} `, digest(embedder.digest)) : []),
    ...row("Passages read", receipt.passages.length ? el("ul", {}, ...receipt.passages.map((each) => el("li", {}, each.document, " ", digest(each.digest)))) : "none"),
    ...row("Decoding", `${chance}, at most ${decoding.max_tokens} tokens`),
    ...row("Prompt", digest(receipt.prompt_digest)),
    ...row("Answer", digest(receipt.answer_digest)));
}

function receiptDetails(receipt) {
  return el("details", { class: "receipt" }, el("summary", {}, "Receipt ", digest(receipt.digest)), fields(receipt),
    el("details", {}, el("summary", {}, "As JSON"), el("pre", { tabIndex: 0 }, JSON.stringify(receipt, null, 1))));
}

/** Answers again on the server and says whether it is the same. */
function replayButton(id) {
  const told = el("p", { class: "replayed", role: "status" });
  const button = el("button", { type: "button", class: "quiet" }, "Replay");
  button.addEventListener("click", async () => {
    button.disabled = true;
    told.className = "replayed";
    told.textContent = "Answering again…";
    try {
      const { identical, differences } = await post("/v1/replay", { id });
      told.classList.add(identical ? "good" : "bad");
      told.replaceChildren(...(identical ? ["Identical, byte for byte."] : differences.map((each) => el("span", {}, each))));
    } catch (error) {
      told.classList.add("bad");
      told.textContent = error.code === "unknown_url" ? NO_LOG : error.message;
    }
    button.disabled = false;
  });
  return el("div", { class: "replay" }, button, told);
}

/** A receipt by its digest, from the log of the server. */
export async function lookUp(id, place) {
  try {
    const { receipt } = await get(`/v1/receipts/${encodeURIComponent(id)}`);
    place.replaceChildren(el("div", { class: "answer" }, el("p", { class: "text" }, receipt.question), fields(receipt), replayButton(id)));
  } catch (error) {
    place.replaceChildren(el("p", { class: "bad" }, error.code === "unknown_url" ? NO_LOG : error.message));
  }
}
