// Words of the interface, addresses, lists of documents, differences, and conversations as files.

import assert from "node:assert/strict";
import { test } from "node:test";
import "./page.js";

const { contents, facets, matching, sorted } = await import("../web/catalogue.js");
const { key } = await import("../web/api.js");
const { imported, transcript } = await import("../web/conversations.js");
const { loadQuestions, standing } = await import("../web/standing.js");
const { diffWords } = await import("../web/diff.js");
const { href, route } = await import("../web/router.js");
const { where } = await import("../web/server.js");
const { Remedy } = await import("../web/upload.js");
const { baseName, count, folderName, size, speak, t, timely } = await import("../web/words.js");

const document = (i, more = {}) => ({
  path: `/srv/books/part-${i % 4}/file-${i}.txt`, folder: `/srv/books/part-${i % 4}`, name: `file-${i}.txt`, words: `file-${i}.txt\ntitle ${i}`, isUploaded: false,
  type: i % 2 ? "txt" : "md", bytes: 1000 + i, pages: null, passages: 3, labels: i % 10 === 7 ? ["board"] : [], metadata: i % 10 === 3 ? { author: "Mara" } : {},
  created_at: `20${10 + (i % 10)}-05-05T12:00:00+00:00`, ...more,
});
const MANY = Array.from({ length: 200 }, (_, i) => document(i));

test("documents are found by their words and filters", () => {
  const found = (q, query = {}) => matching(MANY, q, query).length;
  assert.equal(found("FILE-19"), 11);
  assert.equal(found("title file-7.txt"), 1);
  assert.equal(found("", { type: "md" }), 100);
  assert.equal(found("", { type: "md", from: "2014-01-01", to: "2014-12-31" }), 20);
  assert.equal(found("", { label: "board" }), 20);
  assert.equal(found("", { label: "board", type: "md" }), 0);
  assert.equal(found("", { field: "author" }), 20);
  assert.equal(found("", { field: "author", value: "Mara" }), 20);
  assert.equal(found("", { field: "constructor" }), 0);
  assert.equal(sorted(MANY, "-size")[0].bytes, 1199);
  assert.equal(sorted(MANY, "-name")[0], MANY.at(-1));
});

test("a field may have any name, and each value of a list is one", () => {
  const odd = [document(1, { metadata: { constructor: "acme", tags: ["rigging", "port"] } }), document(2, { metadata: { tags: ["port"], title: "shown anyway" } })];
  assert.deepEqual({ ...facets(odd).fields }, { constructor: ["acme"], tags: ["port", "rigging"] });
  assert.equal(matching(odd, "", { field: "constructor", value: "acme" }).length, 1);
  assert.deepEqual(matching(odd, "", { field: "tags", value: "rigging" }), [odd[0]]);
});

test("folders that hold one folder alone are folded away", () => {
  const top = contents(MANY, "");
  assert.deepEqual([top.at, top.folders.map((each) => [each.name, each.count])], ["/srv/books", [0, 1, 2, 3].map((i) => [`part-${i}`, 50])]);
  const one = contents(MANY, "/srv/books/part-2");
  assert.deepEqual([one.inside.length, one.folders, one.crumbs], [50, [], [{ name: "part-2", path: "/srv/books/part-2" }]]);
});

test("documents from addresses lie in folders that have names", () => {
  const paths = ["fake://site/docs/", "fake://site/docs/a b?x=1#y", "fake://site/docs/100% of 'x' \"y\".txt", "/srv/a.txt"];
  const held = paths.map((path) => document(0, { path, name: baseName(path), folder: path.slice(0, path.lastIndexOf("/")) }));
  assert.deepEqual(held.slice(0, 3).map((each) => each.name), ["docs/", "a b?x=1#y", "100% of 'x' \"y\".txt"]);
  const top = contents(held, "");
  const site = contents(held, top.folders.find((each) => each.path.startsWith("fake:")).path);
  assert.equal(site.inside.length, 3);
  assert.ok([...top.crumbs, ...site.crumbs, ...top.folders].every((each) => each.name.trim()));
});

test("standing questions of a key are not shown to the next", async () => {
  key.set("one");
  globalThis.fetch = async () => ({ ok: true, json: async () => ({ data: [{ question: "When?", changes: [{ at: "2026-01-01" }] }] }) });
  await loadQuestions();
  assert.deepEqual([standing.get().data.length, standing.get().unseen], [1, 1]);
  key.set("two");
  globalThis.fetch = async () => ({ ok: false, status: 503, json: async () => ({ error: { message: "Busy." } }) });
  await loadQuestions();
  assert.deepEqual([standing.get().data, standing.get().unseen, standing.get().problem], [null, 0, "Busy."]);
  key.set("");
});

test("words are translated, counted and replaced once", async () => {
  assert.equal(t("Page {page}", { page: "{page} <b>" }), "Page {page} <b>");
  assert.deepEqual([0, 1, 1200].map((n) => count(n, "{n} file", "{n} files")), ["0 files", "1 file", "1,200 files"]);
  assert.deepEqual([999, 1500, 23_456_789].map(size), ["999 B", "1.5 kB", "23 MB"]);
  assert.deepEqual(["/a/b.txt", "https://x/y/", "fake://site/docs/a b?x=1#y"].map(baseName), ["b.txt", "y/", "a b?x=1#y"]);
  assert.deepEqual(["/srv/a/b/c.txt", `/kb/uploads/${"0".repeat(32)}/local/a.txt`].map(folderName), ["…/a/b", "Uploads"]);
  assert.equal(timely("soon"), "soon");
  assert.match(timely("2026-03-14T00:00:00Z"), /^Mar 14, 2026$/);
  globalThis.fetch = async () => ({ json: async () => ({ "{n} file": "{n} fichier", "{n} files": "{n} fichiers" }) });
  await speak("fr");
  assert.deepEqual([0, 2].map((n) => count(n, "{n} file", "{n} files")), ["0 fichier", "2 fichiers"]);
  await speak("en");
});

test("addresses hold what is shown, and no name in them is special", () => {
  assert.equal(href("document", "/a b/c?.txt", { page: 3, base: "", start: null }), "#/document/%2Fa%20b%2Fc%3F.txt?page=3");
  assert.deepEqual(route.get(), { view: "ask", id: "", query: {}, below: null });
  assert.equal(where({ path: "/it's" }), "path = '/it''s'");
  assert.equal(where({ folder: "/a/" }), "path >= '/a/' and path < '/a0'");
  assert.equal(where(null), undefined);
});

test("a difference names words, and changes with only space between them are one", () => {
  const shown = (a, b) => diffWords(a, b).map(({ kind, text }) => ({ same: "", removed: "-", added: "+" })[kind] + text);
  assert.deepEqual(shown("opened on 14 March 2026.", "opened on 2 April 2026."), ["opened on ", "-14 March", "+2 April", " 2026."]);
  assert.deepEqual(shown("costs 4.50 crowns", "costs 4.75 crowns"), ["costs ", "-4.50", "+4.75", " crowns"]);
  assert.deepEqual(shown("", "new"), ["+new"]);
  for (const [a, b] of [["a b c a b", "b a c b a x"], ["one", ""], ["x ".repeat(3000), "y"]]) {
    const kept = (kind) => diffWords(a, b).filter((each) => each.kind !== kind).map((each) => each.text).join("");
    assert.deepEqual([kept("added"), kept("removed")], [a, b]);
  }
});

test("a remedy's command can be copied", () => {
  const commands = (text) => Remedy({ text }).props.children.filter((each) => each?.type).map((each) => each.props.text);
  assert.deepEqual(commands("To have this read from now on: '/my books/bin/python' -m pip install 'openbook[ocr]'."), ["'/my books/bin/python' -m pip install 'openbook[ocr]'"]);
  assert.deepEqual(commands("Nothing helps."), []);
});

test("a conversation goes to a file and comes back, and a wrong line is named", () => {
  const citation = { document: "bridge.txt", page: null, start: 0, end: 3, quote: "The", also_in: [], passage_id: "p" };
  const turns = [
    { question: "When?", answers: { open: { answer: "In May.", declined: false, citations: [citation], receipt: { digest: "d" } } } },
    { question: "And who\nopened it?", answers: {} },
  ];
  const text = transcript({ turns });
  assert.deepEqual(text.trim().split("\n").map((line) => JSON.parse(line).role), [undefined, "user", "assistant", "user"]);
  const made = imported(text, "bridge.jsonl");
  assert.equal(made.title, "bridge");
  assert.equal(made.turns[0].answers.open.citations[0].quote, "The");
  assert.equal(transcript(made), text);
  const lines = text.trim().split("\n");
  for (const [line, wrong, told] of [
    [1, '{"format": "other 1"}', /begins with/],
    [3, lines[1], /the role assistant/],
    [3, "{", /not JSON/],
    [2, '{"role": "user", "content": " "}', /the question is empty/],
    [2, '{"role": "user", "content": "a", "x": 1}', /x is not known/],
  ]) {
    const bad = lines.with ? lines.with(line - 1, wrong) : Object.assign([...lines], { [line - 1]: wrong });
    assert.throws(() => imported(bad.join("\n"), "bridge.jsonl"), (error) => error.message.startsWith(`Line ${line}:`) && told.test(error.message));
  }
});
