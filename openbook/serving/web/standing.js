// The standing questions of this key, and how many of their answers changed.

import { get, key } from "./api.js";
import { makeStore, useStore } from "./store.js";
import { html } from "./vendor/preact.js";
import { count, t } from "./words.js";

const SEEN = "openbook-seen-changes"; // the time of the newest change that was looked at

/** `data`: as the API gives it to the key `of`. `unseen`: how many questions changed since the view was last open. */
export const standing = makeStore({ of: "", data: null, problem: "", unseen: 0 });

export async function loadQuestions() {
  const of = key.get();
  if (of !== standing.get().of) standing.set({ of, data: null, unseen: 0 });
  try {
    const { data } = await get("/v1/questions");
    if (of !== key.get()) return;
    const seen = localStorage.getItem(SEEN) ?? "";
    standing.set({ data, problem: "", unseen: data.filter((each) => each.changes[0]?.at > seen).length });
  } catch (error) {
    standing.set({ problem: error.message });
  }
}

/** What came was looked at. */
export function seen() {
  const newest = (standing.get().data ?? []).map((each) => each.changes[0]?.at ?? "").sort().at(-1);
  if (newest) localStorage.setItem(SEEN, newest);
  standing.set({ unseen: 0 });
}

/** The number of changed answers next to the view's name. */
export function Unseen() {
  const { unseen } = useStore(standing);
  return unseen ? html`<span class="unseen-changes" title=${count(unseen, "{n} answer changed", "{n} answers changed")}>${unseen}<span class="unseen"> ${t("changed")}</span></span>` : null;
}
