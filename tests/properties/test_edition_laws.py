"""Editions: a function of what was found and of the documents that may be seen, in whatever order they come."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from openbook.knowledge.editions import editions
from openbook.knowledge.imprint import DocumentHead, imprint
from openbook.records import Hit, Passage

PATHS = (
    "archive/leave-2023.md", "policies/leave.md", "policies/leave-2025.md", "leave-v1.md", "leave-v2.md", "travel_old.md",
    "travel.md", "pep-0241.rst", "pep-0314.rst", "news/2021-03-02-leave.md",
)  # fmt: skip
LINES = st.sampled_from([
    "", "> **Archived.**", "Version 3", "This page has been replaced by leave-v2.md.", "Replaces: travel_old.md",
    "Status: draft", "Status: current", "Both versions are supported.", "Valid from 1 March 2025.",
])  # fmt: skip
METADATA = st.dictionaries(
    st.sampled_from(["date", "version", "status", "superseded_by", "replaces", "pep", "country"]),
    st.sampled_from(["2023-01-01", "2025-01-01", "1", "2", "draft", "archived", "leave-v2.md", "314", "travel.md"]),
    max_size=3,
)
HEADS = st.dictionaries(
    st.sampled_from(PATHS),
    st.builds(lambda lines, meta: ("\n\n".join(lines), tuple(sorted(meta.items()))), st.lists(LINES, max_size=2), METADATA),
    min_size=1,
).map(lambda found: {path: DocumentHead(path, "", meta, text) for path, (text, meta) in found.items()})  # fmt: skip
HITS = st.lists(st.tuples(st.sampled_from(PATHS), st.sampled_from(["28 days of leave", "24 days of leave", "trains"])))
QUESTIONS = st.sampled_from(["How many days of leave?", "What was it in 2023?", "trains"])


def hits_of(places: list[tuple[str, str]]) -> list[Hit]:
    return [
        Hit(Passage(f"p{i}", path, "", 0, len(text), None, (), text), 1.0, 1, 1, 0.5)
        for i, (path, text) in enumerate(places)
    ]


@given(QUESTIONS, HITS, HEADS, st.randoms())
def test_the_order_of_the_documents_changes_nothing(
    question: str, places: list[tuple[str, str]], heads: dict[str, DocumentHead], random: Random
) -> None:
    found = editions(question, hits_of(places), heads)
    shuffled = list(heads.items())
    random.shuffle(shuffled)
    assert editions(question, hits_of(places), dict(shuffled)) == found


@given(QUESTIONS, HITS, HEADS)
def test_every_hit_stays_once_and_what_has_no_newer_one_stays_in_its_place(
    question: str, places: list[tuple[str, str]], heads: dict[str, DocumentHead]
) -> None:
    hits = hits_of(places)
    found = editions(question, hits, heads)
    assert sorted(hit.passage.id for hit in found.hits) == sorted(hit.passage.id for hit in hits)
    assert [hit for hit in found.hits if hit in found.current] == list(found.current)
    for hit in set(hits) - set(found.current):  # something newer is read in its place
        assert {*found.marks[hit.passage.document].newer} & {each.passage.document for each in found.current}
    involved = {path for path, mark in found.marks.items() if mark.newer}
    involved |= {path for mark in found.marks.values() for path in mark.newer}
    for before, after in zip(hits, found.hits, strict=True):
        if before.passage.document not in involved:
            assert after == before


@given(QUESTIONS, HITS, HEADS)
def test_what_took_the_place_is_in_force_and_marks_do_not_depend_on_the_hits(
    question: str, places: list[tuple[str, str]], heads: dict[str, DocumentHead]
) -> None:
    marks = editions(question, hits_of(places), heads).marks
    assert marks == editions("", [], heads).marks
    assert marks.keys() <= heads.keys()
    for path, mark in marks.items():
        assert {*mark.newer} <= heads.keys() - {path}  # no mark names a document that was not given
        assert not any(newer in marks and path in marks[newer].newer for newer in mark.newer)
        assert mark.newer or imprint(heads[path]).status  # evidence: another document, or its own word


@given(st.text(max_size=300), st.text(max_size=40))
def test_any_text_has_an_imprint(text: str, name: str) -> None:
    head = DocumentHead(name, name, (("status", text[:40]), ("version", text[:40])), text)
    assert imprint(head) == imprint(head)
