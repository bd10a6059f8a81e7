// The conversation: all of it is sent with each question, since the server keeps nothing. It is in this page and nowhere else.

import { chat } from "./api.js";
import { card, finish } from "./answer.js";
import { byId, count, el } from "./dom.js";
import { choosing, server } from "./server.js";

let turns = []; // {question, answers: {open?: text, closed?: text}}
let running = null; // an AbortController while answers come

const question = byId("question");

function modes() {
  const mode = document.querySelector("input[name=mode]:checked").value;
  return mode === "both" ? ["open", "closed"] : [mode];
}

/** The transcript as one mode saw it; where it gave no answer, with the other's. */
function messages(mode) {
  const other = mode === "open" ? "closed" : "open";
  return turns.flatMap((turn) => {
    const answer = turn.answers[mode] || turn.answers[other];
    const asked = { role: "user", content: turn.question };
    return answer && turn !== turns.at(-1) ? [asked, { role: "assistant", content: answer }] : [asked];
  });
}

async function ask(text) {
  const wanted = modes();
  const turn = { question: text, answers: {} };
  turns.push(turn);
  const sources = wanted.includes("open") ? el("aside", { class: "sources", "aria-label": "Sources" }) : null;
  const cards = wanted.map((mode) => card(mode));
  const shown = el("li", { class: "turn" },
    el("h3", { dir: "auto" }, text),
    el("div", { class: "side" }, el("div", { class: "answers" }, ...cards.map((each) => each.root)), sources));
  byId("welcome").classList.add("unseen");
  byId("turns").append(shown);
  shown.scrollIntoView({ block: "start" });
  running = new AbortController();
  busy(true);
  await Promise.all(wanted.map((mode, i) => answerIn(mode, turn, cards[i], mode === "open" ? sources : null, running.signal)));
  running = null;
  busy(false);
}

async function answerIn(mode, turn, shown, sources, signal) {
  try {
    await server.ready;
    const body = { model: mode === "open" ? server.model : server.closed, messages: messages(mode) };
    if (mode === "open") body.openbook = choosing();
    for await (const chunk of chat(body, signal)) {
      const piece = chunk.choices[0]?.delta.content;
      if (piece) {
        turn.answers[mode] = (turn.answers[mode] ?? "") + piece;
        shown.text.textContent = turn.answers[mode];
        shown.state.textContent = "Writing…";
      }
      if (chunk.openbook) {
        turn.answers[mode] = chunk.openbook.answer;
        finish(shown, chunk.openbook, sources);
        byId("said").textContent = `Answered, ${count(chunk.openbook.citations.length, "source")}.`;
      }
    }
  } catch (error) {
    shown.text.setAttribute("aria-busy", "false");
    const stopped = error.name === "AbortError";
    shown.state.textContent = stopped ? "Stopped" : "Failed";
    shown.state.className = "state doubtful";
    shown.below.replaceChildren(el("p", { class: stopped ? "note" : "bad", role: "alert" }, stopped ? "Stopped before the answer was complete." : error.message));
  }
}

function busy(is) {
  byId("stop").hidden = !is;
  byId("send").hidden = is;
  byId("new").disabled = is;
}

function fit() {
  question.rows = Math.min(8, question.value.split("\n").length);
}

byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = question.value.trim();
  if (!text || running) return;
  question.value = "";
  fit();
  ask(text);
});

question.addEventListener("input", fit);
question.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    byId("composer").requestSubmit();
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && running && !document.querySelector("dialog[open]")) running.abort();
});

byId("stop").addEventListener("click", () => {
  running?.abort();
  question.focus();
});

byId("new").addEventListener("click", () => {
  turns = [];
  byId("turns").replaceChildren();
  byId("welcome").classList.remove("unseen");
  byId("said").textContent = "A new conversation.";
  question.focus();
});
