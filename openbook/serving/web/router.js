// The address after `#` says what is shown, so that each view, document and answer has a link: #/document/PATH?page=3

import { makeStore } from "./store.js";

function parsed() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [view, ...rest] = path.split("/");
  let id = "";
  try {
    id = decodeURIComponent(rest.join("/"));
  } catch {
    // a broken escape names nothing
  }
  return { view: view || "ask", id, query: Object.fromEntries(new URLSearchParams(query ?? "")) };
}

/** {view, id, query}, and `below`: the view that a document covers. */
export const route = makeStore({ ...parsed(), below: null });

window.addEventListener("hashchange", () =>
  route.set((old) => ({ ...parsed(), below: old.view === "document" ? old.below : { view: old.view, id: old.id, query: old.query } })));

/** A link. Empty values of `query` are left out. */
export function href(view, id = "", query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return `#/${view}${id ? `/${encodeURIComponent(id)}` : ""}${given.length ? `?${new URLSearchParams(given)}` : ""}`;
}

export function go(view, id = "", query = {}) {
  location.hash = href(view, id, query);
}

/** As `go`, without a new entry in the browser's history. */
export function replace(view, id = "", query = {}) {
  history.replaceState(null, "", href(view, id, query));
  route.set((old) => ({ ...parsed(), below: old.below }));
}
