// Documents as elements: by their kind, with what is cited marked, and with nothing that runs or loads.

import assert from "node:assert/strict";
import { test } from "node:test";
import { elements, marked, pieces, span, words } from "./page.js";

const { nodesOf } = await import("../web/document-text.js");
const { markdown } = await import("../web/markdown.js");
const { flat, lined, plain, plainLine } = await import("../web/plain.js");
const { Origin, pieceOf, spansOf } = await import("../web/reader.js");
const { snippet } = await import("../web/sources.js");
const { html } = await import("../web/vendor/preact.js");

const KINDS = { md: "text/markdown", rst: "text/x-rst", csv: "text/csv", html: "text/html", py: "text/x-source", txt: "text/plain", pdf: "application/pdf" };
const shown = (kind, text, spans = [], more = {}) =>
  nodesOf({ start: 0, text, pages: [], headings: [], ...more }, spans, KINDS[kind], false, true, null);

const MARKDOWN = `# Lights

> The *green* light
> means **go &amp; pass**, says [the rule](http://127.0.0.1:9/rule "x").

- one \`lamp\`
  burns
- two 🚢 ships

| lamp | colour |
| --- | --- |
| port | red |

\`\`\`
keep 35
\`\`\`
`;
const RST = `Backup
======

Copies are **kept** in \`\`cellar2\`\`, see \`the plan <http://127.0.0.1:9/plan>\`_::

    daily = 35

.. note::
   Ring *4620* first.

* one tape
* two tapes

.. list-table::

   * - Port
     - Ostrevik
`;
const SHEET = "name: Ada Lovelace; born: 1815\nname: Emmy Noether; born: 1882";
const HTML = "Fares\n\nValid now.\n\nTo | Adult\nKell | 9.80";
const FARES = { headings: [{ start: 0, level: 1, title: "Fares" }] };

for (const [kind, text, cited, path, seen = cited, more = {}] of [
  ["md", MARKDOWN, "green* light\n> means **go &amp; pass**, says [the", /^blockquote p strong mark$/, "green light means go & pass, says the"],
  ["md", MARKDOWN, "lamp`\n  burns\n- two 🚢 ships", /^ul.list li span code mark$/, "lamp burnstwo 🚢 ships"],
  ["md", MARKDOWN, "red", /table tbody tr td mark$/],
  ["md", MARKDOWN, "keep 35", /^pre code mark$/],
  ["rst", RST, "kept** in ``cellar2``, see `the plan", /^p a mark$/, "kept in cellar2, see the plan"],
  ["rst", RST, "daily = 35", /^pre code mark$/],
  ["rst", RST, "Ring *4620", /^div.aside p em mark$/, "Ring 4620"],
  ["rst", RST, "two tapes", /^ul.list li p mark$/],
  ["rst", RST, "Ostrevik", /table tbody tr td p mark$/],
  ["csv", SHEET, "1815", /table tbody tr td mark$/],
  ["html", HTML, "9.80", /table tbody tr td mark$/, "9.80", FARES],
  ["html", HTML, "Fares", /^p.heading.level-1\[heading\] mark$/, "Fares", FARES],
  ["py", "import re\n\n\ndef lamp():\n    return 'red'\n", "def lamp():\n    return", /^pre.code.numbered code span mark$/, "def lamp():    return"],
  ["txt", "One.\n\n- two\n- three", "three", /^p.item mark$/],
]) {
  test(`${kind} is shown by its kind with ${JSON.stringify(cited)} marked`, () => {
    const found = marked(shown(kind, text, [span(text, cited)], more));
    assert.equal(found.map((each) => each.text).join("").replace(/\s+/g, " "), seen.replace(/\s+/g, " "));
    assert.ok(found.some((each) => path.test(each.path)), found.map((each) => each.path).join("\n"));
  });
}

test("pages begin where they begin, and lines of a PDF are joined to paragraphs", () => {
  const text = "A line that is long enough to be full\nand ends.\n\nAnother page.";
  const found = pieces(shown("pdf", text, [], { pages: [{ page: 1, start: 0 }, { page: 2, start: text.indexOf("Another") }] }));
  assert.deepEqual(found.map((each) => each.text), ["Page 1", "A line that is long enough to be full\nand ends.", "Page 2", "Another page."]);
});

const HOSTILE = "The lighthouse <script>alert('canary')</script> shines <img src=http://127.0.0.1:9/x onerror=alert(1)> "
  + "![x](http://127.0.0.1:9/y) [link](javascript:alert(2)) <style>*{display:none}</style> [data](data:text/html,x) "
  + "<a href=http://127.0.0.1:9/z>here</a> `a <javascript:alert(3)>`_ <javascript:alert(4)> 40 miles far.";
const ALLOWED = /^(?:a|aside|blockquote|br|button|code|del|div|em|h3|hr|li|mark|ol|p|pre|span|strong|table|tbody|td|th|thead|tr|ul)$/;

test("no text becomes markup", () => {
  for (const kind of Object.keys(KINDS)) {
    for (const text of [HOSTILE, `# ${HOSTILE}`, `> - ${HOSTILE}`, `| ${HOSTILE} |\n| --- |\n| ${HOSTILE} |`, `.. image:: ${HOSTILE}`, `.. raw:: html\n\n   ${HOSTILE}`]) {
      const nodes = shown(kind, text, [span(text, "40 miles far.")]);
      if (!text.startsWith(".. image")) assert.equal(marked(nodes).map((each) => each.text).join(""), "40 miles far.");
      for (const { type, props } of elements(nodes)) {
        assert.match(type, ALLOWED);
        assert.ok(!Object.keys(props).some((name) => /^on|dangerously|^src/i.test(name) && type !== "button"), Object.keys(props).join());
        if (type === "a") assert.match(props.href, /^(?:https?|mailto):/);
        if (type === "a") assert.match(props.rel, /noreferrer/);
      }
      assert.ok(words(nodes).includes("alert('canary')"));
    }
  }
});

test("deep, long and foreign texts are shown whole", () => {
  const deep = `${"> ".repeat(5000)}deep\n\n${"- ".repeat(5000)}deep\n\n${"*a".repeat(4000)}${"_a_".repeat(3000)}${"[".repeat(3000)}`;
  for (const kind of ["md", "rst", "txt", "csv"]) {
    for (const text of [deep, "word".repeat(250_000), "שלום עולם, the lighthouse\n\nשלום"]) {
      const at = Math.min(20_000, text.length - 6);
      assert.ok(marked(shown(kind, text, [[at, at + 5]])).length);
    }
  }
});

test("numbers of sources come after their sentences", () => {
  const text = "🚢 **The bridge was opened**.\n\n- It has *four lanes*.\n- A ticket costs [4 crowns](https://a.example/x).\n\n`Kell` & Lund.";
  const ends = ["opened**.", "lanes*.", "/x).", "Lund."].map((each) => Array.from(text.slice(0, text.indexOf(each) + each.length)).length);
  const nodes = markdown(text, [], ends.map((end, i) => [end, html`<button>${`[${i}]`}</button>`]));
  assert.deepEqual(nodes.filter(Boolean).map(words), ["🚢 The bridge was opened.[0]", "It has four lanes.[1]A ticket costs 4 crowns.[2]", "Kell & Lund.[3]"]);
  assert.equal(pieces(nodes).find((each) => / a$/.test(each.path)).text, "4 crowns");
});

test("a source is shown in plain words", () => {
  const tail = "The backup copies are kept in cellar2, see the plan.";
  const ways = {
    "b.md": "## Copies & tapes\n\n- One *tape* a day.\n- Two a week.\n\nThe *backup* copies are **kept** in `cellar2`, see [the plan](https://127.0.0.1:9/plan).\n\n```\ndaily = 35\n```\n",
    "b.rst": "Copies & tapes\n==============\n\n- One *tape* a day.\n- Two a week.\n\nThe *backup* copies are **kept** in ``cellar2``, see `the plan <https://127.0.0.1:9/plan>`_.\n\n.. code::\n\n   daily = 35\n",
  };
  for (const [name, text] of Object.entries(ways)) {
    assert.equal(plainLine(name, text), `Copies & tapes · One tape a day. · Two a week. · ${tail} · daily = 35`);
    const start = text.indexOf("The *backup*");
    const { before, quote, after } = plain(name, text, start, text.indexOf("\n\n", start));
    assert.equal(flat(quote).trim(), tail);
    assert.ok(lined(before).includes("One tape a day.\n"));
    assert.ok(after.includes("daily = 35"));
  }
  assert.deepEqual(plain("b.txt", "*a* 🚢 b", 4, 5), { before: "*a* ", quote: "🚢", after: " b" });
});

test("a long passage shows the whole quote with a little around it", () => {
  const quote = `The mast of the ship Kell ${"is made of old oak and ".repeat(10)}weighs nine tonnes.`;
  const { nodes, isWhole } = snippet({ before: "Before it came words. ".repeat(20), quote, after: " After it came words.".repeat(20) }, (text) => text);
  assert.equal(nodes[1], quote);
  assert.equal(isWhole, false);
  assert.ok(nodes[0].startsWith("… ") && nodes[2].endsWith(" …"));
  assert.ok(nodes[0].length > 80 && nodes[0].length < 120 && nodes[2].length > 80 && nodes[2].length < 120);
});

test("spans are read in order and apart, and pieces end where a block ends", () => {
  assert.deepEqual(spansOf({ spans: "40-60,0-5,50-70,9-8,x-2" }), [[0, 5], [40, 70]]);
  assert.deepEqual(spansOf({ start: "3", end: "9" }), [[3, 9]]);
  const text = "cut off\n\nA whole block 🚢 here.\n\nAnother\n\ncut";
  const found = pieceOf({ text, start: 100, end: 100 + Array.from(text).length, total: 1000, pages: [] }, [115, 116], "head tail");
  assert.equal(found.text, "A whole block 🚢 here.\n\nAnother\n\n");
  assert.equal(found.start, 109);
  assert.equal(found.end, 109 + Array.from(found.text).length);
});

test("a document's origin is a link only to web pages, which learn nothing of this one", () => {
  for (const of of ["https://example.org/docs/?a=1&b='\"#<b>", "javascript:alert(1)", "fake://site/docs", `https://a.example/${"x".repeat(300)}`]) {
    const links = elements(Origin({ of })).filter(({ type }) => type === "a");
    assert.deepEqual(links.map(({ props }) => [props.href, /noreferrer/.test(props.rel)]), of.startsWith("https:") ? [[of, true]] : []);
    assert.equal(words(Origin({ of })), of.length > 200 ? `${of.slice(0, 200)}…` : of);
  }
});
