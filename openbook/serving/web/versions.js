// The kept versions: what differs between two of them, and one question at both.

import { chat, get, post } from "./api.js";
import { diffWords } from "./diff.js";
import { plainLine } from "./plain.js";
import { Receipt, Replay } from "./receipt.js";
import { go, href, replace } from "./router.js";
import { chooseBase, loadVersions, server } from "./server.js";
import { useStore } from "./store.js";
import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { baseName, count, folderName, quotation, t, when } from "./words.js";
import { WordDiff } from "./worddiff.js";

const MOST = 100; // entries of each list

/** The address holds what is compared: ?before=3&after=5 */
export function Versions({ query }) {
  const { versions, bases, base } = useStore(server);
  const [problem, setProblem] = useState("");
  const told = (work) => work.then(() => setProblem(""), (error) => setProblem(error.message));
  useEffect(() => void told(loadVersions()), []);
  const newest = versions[0]?.version;
  const after = Number(query.after) || newest;
  const before = Number(query.before) || versions[1]?.version || newest;
  const compare = (change) => replace("versions", "", { before, after, ...change });
  const isCompared = query.before !== undefined;
  return html`<section id="versions" aria-labelledby="versions-title">
    <h2 id="versions-title">${t("Versions")}</h2>
    <p class="soft">${t("Every change of the knowledge base is a version. A question can be asked of any that is kept.")}</p>
    ${bases.length > 1 ? html`<label class="inline">${t("Knowledge base")} <select value=${base} onChange=${(event) => { replace("versions"); told(chooseBase(event.target.value)); }}>
      ${bases.map((each, i) => html`<option value=${i ? each.name : ""}>${each.name}</option>`)}</select></label>` : null}
    ${problem ? html`<p class="bad" role="alert">${problem}</p>` : null}
    ${versions.length > 1 ? html`<${ThenAndNow} key=${base} before=${before} after=${after} versions=${versions} compare=${compare} />
      <h3>${t("All versions")}</h3>` : null}
    <div class="scroll"><table>
      <thead><tr><th scope="col">${t("Version")}</th><th scope="col">${t("From")}</th><th scope="col">${t("Documents")}</th><th scope="col">${t("Compare")}</th><td></td></tr></thead>
      <tbody id="rows">${versions.map((each, i) => html`<${Row} key=${each.version} ...${each} isNewest=${i === 0} before=${before} after=${after} compare=${compare} />`)}</tbody>
    </table></div>
    ${versions.length > 1 ? html`<p class="line"><button type="button" onClick=${() => compare({})}>${t("Show what differs")}</button></p>` : null}
    ${isCompared && versions.length ? html`<${Difference} key=${`${base} ${before} ${after}`} before=${before} after=${after} />` : null}
  </section>`;
}

function Row({ version, created_at: at, documents, tags, isNewest, before, after, compare }) {
  const pick = (name, chosen, words) => html`<label><input type="radio" name=${name} checked=${chosen === version} aria-label=${`${words}: ${t("Version {version}", { version })}`}
    onChange=${() => compare({ [name]: version })} /><span>${words}</span></label>`;
  const ask = () => {
    server.set({ asOf: isNewest ? "" : String(version) });
    go("ask");
  };
  return html`<tr>
    <th scope="row">${version}${tags.map((tag) => html`<span class="tag">${tag}</span>`)}</th>
    <td><time datetime=${at}>${when(at)}</time></td>
    <td>${count(documents, "{n} document", "{n} documents")}</td>
    <td class="picks">${pick("before", before, t("before"))}
      ${pick("after", after, t("after"))}</td>
    <td>${documents ? html`<button type="button" class="quiet go" onClick=${ask}>${t("Ask this one")}</button>` : null}</td>
  </tr>`;
}

// --- what differs ---

function Difference({ before, after }) {
  const { base } = useStore(server);
  const [found, setFound] = useState(null); // the answer of the API, or {problem}
  useEffect(() => void get("/v1/versions/difference", { before, after, knowledge_base: base, limit: MOST }).then(setFound, (error) => setFound({ problem: error.message })), []);
  if (!found) return html`<p class="soft" role="status">${t("Reading…")}</p>`;
  if (found.problem) return html`<p class="bad" role="alert">${found.problem}</p>`;
  const { counts } = found;
  const list = (title, paths, all, Line, version = after) => all ? html`<details class="change" open>
    <summary>${title}: ${count(all, "{n} document", "{n} documents")}</summary>
    <ul class="rows">${paths.map((path) => html`<${Line} key=${path} path=${path} version=${version} before=${before} after=${after} />`)}</ul>
    ${paths.length < all ? html`<p class="soft">${t("{n} more are not shown.", { n: all - paths.length })}</p>` : null}
  </details>` : null;
  const isSame = !Object.values(counts).some(Boolean);
  return html`<div id="difference" aria-live="polite"><h3>${t("From version {before} to {after}", { before, after })}</h3>
    ${isSame ? html`<p class="soft">${t("Nothing differs in what you may see.")}</p>` : null}
    ${list(t("Changed"), found.changed, counts.changed, Changed)}
    ${list(t("Added"), found.added, counts.added, Whole)}
    ${list(t("Removed"), found.removed, counts.removed, Whole, before)}
    ${list(t("Same text, other metadata or labels"), found.metadata_changed, counts.metadata_changed, Whole)}
  </div>`;
}

function Name({ path, version }) {
  const { base } = useStore(server);
  return html`<a class="link" href=${href("document", path, { version, base })} title=${path}><span class="path">${baseName(path)}</span><span class="folder soft">${folderName(path)}</span></a>`;
}

const Whole = (each) => html`<li><${Name} ...${each} /></li>`;

function Changed({ path, before, after }) {
  const { base } = useStore(server);
  const [found, setFound] = useState(null);
  const open = (event) => {
    if (!event.target.open || found) return;
    get("/v1/documents/difference", { path, before, after, knowledge_base: base }).then(setFound, (error) => setFound({ problem: error.message }));
  };
  return html`<li class="changed"><${Name} path=${path} version=${after} />
    <details onToggle=${open}><summary>${t("What changed")}</summary>
      ${found?.problem ? html`<p class="bad">${found.problem}</p>` : null}
      ${found?.pieces ? html`<${WordDiff} pieces=${found.pieces} />` : null}
    </details></li>`;
}

// --- then and now ---

function ThenAndNow({ before, after, versions, compare }) {
  const { base, model } = useStore(server);
  const [question, setQuestion] = useState("");
  const [sides, setSides] = useState(null); // [{version, words, answer, problem}, …]
  const [saved, setSaved] = useState(null); // "" or a problem
  const running = useRef(null);
  useEffect(() => () => running.current?.abort(), []);
  const isBusy = Boolean(sides?.some((side) => !side.answer && !side.problem));
  const set = (at, change) => setSides((old) => old.map((side, i) => (i === at ? { ...side, ...change } : side)));

  const ask = async (event) => {
    event.preventDefault();
    const text = question.trim();
    if (!text || isBusy) return;
    const stop = (running.current = new AbortController());
    setSaved(null);
    setSides([before, after].map((version) => ({ version, words: "" })));
    for (const [at, version] of [before, after].entries()) {
      try {
        const body = { model, messages: [{ role: "user", content: text }], openbook: { knowledge_base: base || undefined, as_of: String(version) } };
        for await (const chunk of chat(body, stop.signal)) {
          const piece = chunk.choices[0]?.delta.content;
          if (piece) setSides((old) => old.map((side, i) => (i === at ? { ...side, words: side.words + piece } : side)));
          if (chunk.openbook) set(at, { answer: chunk.openbook });
        }
      } catch (error) {
        set(at, { problem: error.name === "AbortError" ? t("Stopped before the answer was complete.") : error.message });
      }
    }
  };
  const save = () => post("/v1/questions", { question: question.trim(), knowledge_base: base || undefined }).then(() => setSaved(""), (error) => setSaved(error.message));
  const choice = (name, chosen, label) => html`<label class="inline"><span class="soft">${label}</span>
    <select value=${chosen} onChange=${(event) => compare({ [name]: event.target.value })}>${versions.map((each) => html`<option value=${each.version}>${each.version}</option>`)}</select></label>`;
  const [then, now] = sides ?? [];
  const isDone = then?.answer && now?.answer;
  const isSame = isDone && then.answer.answer === now.answer.answer;
  return html`<div id="then-and-now"><h3>${t("Ask then and now")}</h3>
    <p class="soft">${t("One question at two versions: see whether the answer changed.")}</p>
    <form class="line" onSubmit=${ask}>
      <label class="unseen" for="then-question">${t("Question")}</label>
      <input id="then-question" maxlength="8000" placeholder=${t("Ask a question")} value=${question} onInput=${(event) => setQuestion(event.target.value)} />
      ${choice("before", before, t("Then"))} ${choice("after", after, t("Now"))}
      ${isBusy ? html`<button type="button" onClick=${() => running.current.abort()}>${t("Stop")}</button>` : html`<button type="submit">${t("Ask both")}</button>`}
    </form>
    ${sides ? html`<div class="pair" aria-live="polite">${sides.map((side, i) => html`<${Side} key=${i} ...${side} pieces=${isDone && !isSame ? diffWords(then.answer.answer, now.answer.answer).filter((piece) => piece.kind !== (i ? "removed" : "added")) : null} />`)}</div>` : null}
    ${isDone ? html`<p class="line verdict"><strong class=${isSame ? "good" : "doubtful"}>${isSame ? t("The answer is the same, word for word.") : t("The answer changed.")}</strong>
      <button type="button" class="quiet go" onClick=${save} disabled=${saved === ""}>${saved === "" ? t("Saved under Questions") : t("Ask this after every change")}</button></p>
      ${saved ? html`<p class="bad" role="alert">${saved}</p>` : null}` : null}
  </div>`;
}

function Side({ version, words, answer, problem, pieces }) {
  return html`<article class="answer" aria-label=${t("Version {version}", { version })}>
    <header><h4>${t("Version {version}", { version })}</h4><span class="soft">${answer ? "" : problem ? "" : t("Reading…")}</span></header>
    ${problem ? html`<p class="bad">${problem}</p>` : html`<p class="text">${pieces ? html`<${WordDiff} pieces=${pieces} />` : (answer?.answer ?? words)}</p>`}
    ${answer ? html`${answer.citations.map((each) => html`<p class="soft"><a href=${href("document", each.document, { version, start: each.start, end: each.end })}>${baseName(each.document)}</a>: ${quotation(plainLine(each.document, each.quote))}</p>`)}
      <details class="receipt"><summary>${t("Receipt")}</summary><${Receipt} receipt=${answer.receipt} /><${Replay} id=${answer.receipt.digest} /></details>` : null}
  </article>`;
}
