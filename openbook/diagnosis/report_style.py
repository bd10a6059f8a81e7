"""The style and the one small script of a report. Without the script everything is there, only not sorted and filtered."""

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #60646c; --line: #dcdfe3; --page: #fcfcfd; --card: #ffffff;
--known: #2f7d5b; --fixed_by_retrieval: #5aa873; --not_in_the_knowledge_base: #9aa3ad; --retriever_miss: #d9922e;
--distracted: #d0662f; --reader_gap: #b3425e; --harmed_by_retrieval: #7d4ba0; --failed: #3f444a; --gold: #ffe49a; --cited: #bfdcff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #a3a9b1; --line: #363b42; --page: #16181b;
--card: #1e2125; --known: #4fa883; --fixed_by_retrieval: #7cc795; --not_in_the_knowledge_base: #78818c;
--retriever_miss: #e0a44d; --distracted: #e07f4c; --reader_gap: #d3647f; --harmed_by_retrieval: #a97acb; --failed: #aab0b7;
--gold: #6b5616; --cited: #25476e; } }
* { box-sizing: border-box; }
body { font: 15px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 68rem;
margin: 2.5rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; } h2 { font-size: 1.25rem; margin: 2.6rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; } p { margin: .4rem 0; } .soft { color: var(--soft); }
code { font-size: .85em; word-break: break-all; } h1, h2, pre, li, summary bdi { overflow-wrap: anywhere; }
td { overflow-wrap: break-word; } .keep { white-space: nowrap; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .35rem .7rem .35rem 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--soft); font-size: .85rem; } td.n, th.n { text-align: right; white-space: nowrap; }
svg.bar { display: block; width: 100%; height: 34px; border-radius: 6px; margin: .6rem 0; }
svg.small { height: 12px; border-radius: 3px; margin: .35rem 0 0; min-width: 5rem; }
ul.legend { list-style: none; padding: 0; margin: .4rem 0 1rem; display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; }
.dot { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .45em; }
.advice li { margin: .5rem 0; } .advice b { font-weight: 600; }
.known { fill: var(--known); background: var(--known); } .fixed_by_retrieval { fill: var(--fixed_by_retrieval); background: var(--fixed_by_retrieval); }
.not_in_the_knowledge_base { fill: var(--not_in_the_knowledge_base); background: var(--not_in_the_knowledge_base); }
.retriever_miss { fill: var(--retriever_miss); background: var(--retriever_miss); } .distracted { fill: var(--distracted); background: var(--distracted); }
.reader_gap { fill: var(--reader_gap); background: var(--reader_gap); } .failed { fill: var(--failed); background: var(--failed); }
.harmed_by_retrieval { fill: var(--harmed_by_retrieval); background: var(--harmed_by_retrieval); }
.tools { display: flex; flex-wrap: wrap; gap: .6rem; margin: .8rem 0; } .tools[hidden], .q[hidden] { display: none; }
.tools input, .tools select { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line);
border-radius: 6px; padding: .3rem .5rem; } .tools input { flex: 1 1 14rem; }
.q { background: var(--card); border: 1px solid var(--line); border-radius: 8px; margin: .45rem 0; padding: .5rem .9rem; }
.q > summary { cursor: pointer; list-style: none; display: flex; gap: .7rem; align-items: baseline; }
.q > summary::-webkit-details-marker { display: none; } .q > summary > bdi { flex: 1; }
.badge { font-size: .8rem; color: var(--soft); white-space: nowrap; } .q[open] > summary { font-weight: 600; }
.passage { border-left: 3px solid var(--line); padding: .1rem 0 .1rem .9rem; margin: .7rem 0; }
.passage pre { white-space: pre-wrap; font: inherit; font-size: .92rem; margin: .2rem 0; }
@media (max-width: 40rem) { body { margin: 1.2rem auto; padding: 0 .9rem; } ul.advice { padding-left: 1.1rem; }
.q > summary { flex-wrap: wrap; gap: .2rem .5rem; } .q > summary > bdi { flex: 1 1 80%; } .badge { padding-left: 1.3rem; white-space: normal; }
.q { padding: .5rem .7rem; } .passage { padding-left: .6rem; } .tools select { flex: 1 1 9rem; min-width: 0; }
table.stacked, .stacked tbody, .stacked tr, .stacked td { display: block; } .stacked th { display: none; }
.stacked tr { border-bottom: 1px solid var(--line); padding: .35rem 0; } .stacked td { border: 0; padding: 0; }
.stacked td:empty { display: none; } .stacked td:first-child, .stacked td:last-child { color: var(--soft); font-size: .85rem; } }
mark { color: inherit; border-radius: 3px; background: none; } mark.gold { background: var(--gold); }
mark.cited { background: var(--cited); } mark.gold.cited { background: var(--gold); box-shadow: inset 0 -3px 0 var(--cited); }
"""

SCRIPT = """
for (const tools of document.querySelectorAll(".tools")) {
  const list = tools.nextElementSibling, all = [...list.querySelectorAll(".q")];
  const [text, verdict, tag, order] = tools.elements, count = tools.querySelector("output");
  const keys = {
    verdict: q => q.dataset.place, id: q => q.dataset.id, seconds: q => -Number(q.dataset.seconds),
  };
  function show() {
    const words = text.value.toLowerCase();
    let shown = 0;
    for (const q of all) {
      q.hidden = (verdict.value && q.dataset.verdict !== verdict.value)
        || (tag.value && !JSON.parse(q.dataset.tags).includes(tag.value))
        || (words && !q.textContent.toLowerCase().includes(words));
      shown += !q.hidden;
    }
    count.textContent = shown + " of " + all.length;
  }
  function sort() {
    const key = keys[order.value];
    const sorted = key ? [...all].sort((a, b) => key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0) : all;
    list.append(...sorted);
  }
  tools.hidden = false;
  tools.addEventListener("input", show);
  tools.addEventListener("submit", event => event.preventDefault());
  order.addEventListener("input", sort);
  show();
}
"""
