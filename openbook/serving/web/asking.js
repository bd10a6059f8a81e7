// The conversation that is shown, and the answers that come: they go on coming while another view or conversation is shown.

import { ApiError, chat, key } from "./api.js";
import { changeConversation, drafts, NEW, newConversation, newId, touched } from "./conversations.js";
import { replace, route } from "./router.js";
import { choosing, ready, server, where } from "./server.js";
import { makeStore } from "./store.js";
import { count, t } from "./words.js";

/** As conversations.js has it. `missing`: what a link names is not in this browser. */
export const shown = makeStore(newConversation());
/** What is answered, by the id of its conversation: its AbortController. */
export const busy = makeStore({});
/** `mode`: "open" (from documents), "closed" (the model alone) or "both". */
export const choice = makeStore({ mode: "open" });
/** What a screen reader says. */
export const said = makeStore({ text: "" });

const live = new Map();
/** The answers that come for a turn, by their mode: {stage, text, searched, passages, done, total}. */
export function liveOf(turn) {
  if (!live.has(turn)) live.set(turn, makeStore({}));
  return live.get(turn);
}

let changing = 0;
/** Changes a conversation, at once where it is shown. `isNew`: it may not be kept yet. */
export async function change(id, how, isNew = false) {
  const before = shown.get();
  if (before.id === id) shown.set(how);
  changing += 1;
  const now = await changeConversation(id, (kept) => (kept || isNew ? how(kept ?? before) : null));
  changing -= 1;
  if (shown.get().id !== id || changing) return;
  if (now) shown.set(() => now);
  else if (shown.get().turns.length) leave(); // it was deleted in another tab
}

/** Shows a new conversation. */
export function start(more = {}) {
  shown.set(() => ({ ...newConversation(), ...more }));
}

/** As `start`, where the conversation that was shown is no more. */
export function leave() {
  start();
  if (["ask", "answer"].includes(route.get().view)) replace("ask");
}

touched.watch(() => {
  const { id } = touched.get();
  if (id) {
    if (id === shown.get().id) change(id, (same) => same);
    return;
  }
  for (const answering of Object.values(busy.get())) answering.abort(); // they were asked with another key
  const { turns, scope } = shown.get();
  const waits = turns.length && !turns.at(-1).modes.some((mode) => finished(turns.at(-1).answers[mode]));
  if (waits && key.get() && !drafts.get(NEW)) drafts.set(NEW, turns.at(-1).question); // for this key
  if (turns.length) leave();
  else start({ scope });
});

/**
 * Asks in the conversation that is shown: at its end, or in the place of the turn `replaced` and all after it. `again`: the
 * turn whose question this is once more; it is then asked with what came before that turn.
 */
export function ask(question, { replaced = null, again = null } = {}) {
  const { mode } = choice.get();
  const { id, scope } = shown.get();
  const turn = { id: newId(), question, scope, modes: mode === "both" ? ["open", "closed"] : [mode], answers: {}, ...(again ? { again } : {}) };
  change(id, (old) => {
    const at = replaced ? old.turns.findIndex((each) => each.id === replaced) : -1;
    return { ...old, changed: Date.now(), turns: [...(at < 0 ? old.turns : old.turns.slice(0, at)), turn] };
  }, true);
  return answer(turn);
}

export const stop = () => busy.get()[shown.get().id]?.abort();

/** Answers a turn of the conversation that is shown, or what failed or was stopped of it. */
export async function answer(turn) {
  const { id, turns, scope } = shown.get();
  const earlier = turns.slice(0, turns.findIndex((each) => each.id === (turn.again ?? turn.id)));
  const controller = new AbortController();
  busy.set({ [id]: controller });
  const modes = turn.modes.filter((mode) => !finished(turn.answers[mode]));
  await Promise.all(modes.map((mode) => answerIn(mode, turn, { id, earlier, scope }, controller.signal)));
  busy.set((old) => Object.fromEntries(Object.entries(old).filter(([each]) => each !== id)));
}

export const finished = (given) => Boolean(given && !given.stopped && !given.error);

/** The transcript as one mode saw it; where it gave no answer, with the other's. */
function messages(mode, earlier, question) {
  const other = mode === "open" ? "closed" : "open";
  return [...earlier.flatMap((turn) => {
    const given = turn.answers[mode]?.answer || turn.answers[other]?.answer;
    const asked = { role: "user", content: turn.question };
    return given ? [asked, { role: "assistant", content: given }] : [asked];
  }), { role: "user", content: question }];
}

async function answerIn(mode, turn, { id, earlier, scope }, signal) {
  const store = liveOf(turn.id);
  const tell = (more) => store.set((old) => ({ ...old, [mode]: { ...old[mode], ...more } }));
  store.set({ [mode]: { stage: "asked", text: "" } });
  const text = () => store.get()[mode].text;
  let given = null;
  try {
    await ready();
    const { loaded, problem, model, closed } = server.get();
    if (!loaded) throw new ApiError(problem || t("An API key is needed. Enter it, then try again."));
    const own = mode === "open" ? { ...choosing(), where: where(scope) } : {};
    const body = { model: mode === "open" ? model : closed, messages: messages(mode, earlier, turn.question), openbook: { ...own, progress: true } };
    for await (const { choices, openbook, openbook_progress: progress } of chat(body, signal)) {
      if (progress) tell(progress);
      const piece = choices[0]?.delta.content;
      if (piece) tell({ stage: "writing", text: text() + piece });
      if (openbook) given = { ...openbook, searched: store.get()[mode].searched };
    }
    said.set({ text: t("Answered. {sources}", { sources: count(given.citations.length, "{n} source.", "{n} sources.") }) });
  } catch (error) {
    const stopped = error.name === "AbortError";
    given = { answer: text(), stopped, error: stopped ? "" : error.message };
    said.set({ text: stopped ? t("Stopped") : error.message });
  }
  await change(id, (old) => ({ ...old, turns: old.turns.map((each) => (each.id === turn.id ? { ...each, answers: { ...each.answers, [mode]: given } } : each)) }));
  store.set({ [mode]: undefined });
}
