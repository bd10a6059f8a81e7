// Which model answers and what it was trained on; receipts by their digest.

import { get } from "./api.js";
import { lookUp } from "./answer.js";
import { byId, digest, el } from "./dom.js";
import { server } from "./server.js";

const MODES = { "open-book": "answers from documents", "closed-book": "answers from memory", embedder: "finds passages" };

export async function show() {
  byId("about").replaceChildren(el("ul", { class: "rows models" }, ...server.models.map(model)));
  try {
    const { data } = await get(`/v1/models/${encodeURIComponent(server.closed)}/lineage`);
    byId("lineage").replaceChildren(el("ol", { class: "lineage" }, ...data.map(made)));
  } catch (error) {
    byId("lineage").replaceChildren(el("p", { class: "soft" }, error.message));
  }
}

function model({ id, openbook }) {
  const more = [MODES[openbook.mode], openbook.evidence, openbook.context_tokens ? `${openbook.context_tokens.toLocaleString("en")} tokens of context` : "",
    openbook.dimensions ? `${openbook.dimensions} dimensions` : ""];
  return el("li", {}, el("strong", {}, id), el("span", { class: "soft" }, more.filter(Boolean).join(" · ")), el("code", { class: "whole" }, openbook.digest || "no digest: a remote model is claimed, not verified"));
}

function made({ digest: name, names, what, details }, i) {
  return el("li", {},
    el("p", {}, el("strong", {}, i ? "trained from " : ""), el("strong", {}, names[0] ?? what.split(",")[0]), " ", digest(name)),
    el("p", { class: "soft" }, what),
    el("ul", { class: "soft" }, ...details.map((each) => el("li", {}, each))));
}

byId("lookup").addEventListener("submit", (event) => {
  event.preventDefault();
  const id = byId("digest").value.trim();
  if (id) lookUp(id, byId("receipt"));
});
