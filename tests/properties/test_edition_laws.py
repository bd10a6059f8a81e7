"""Editions: a function of what was found and of the documents that may be seen, in whatever order they come."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from openbook.knowledge.cite.editions import NOT_IN_FORCE, DocumentInfo, editions, find_editions
from openbook.records import Hit, Passage

PATHS = (
    "archive/leave-2023.md", "archive/leave.md", "policies/leave.md", "leave-v1.md", "leave-v2.md", "travel.md", "archived/travel.md",
    "pep-0241.rst", "pep-0314.rst",
)  # fmt: skip
METADATA = st.dictionaries(
    st.sampled_from(["status", "superseded_by", "replaced_by", "supersedes", "replaces", "valid_until", "pep", "number"]),
    st.sampled_from(["2025-01-01", "1", "draft", "archived", "final", "leave-v2.md", "leave.md", "314", "241, 314", "travel.md"]),
    max_size=3,
)  # fmt: skip
HEADS = st.dictionaries(st.sampled_from(PATHS), METADATA, min_size=1).map(
    lambda found: {path: DocumentInfo(path, "", tuple(sorted(said.items()))) for path, said in found.items()}
)
HITS = st.lists(st.tuples(st.sampled_from(PATHS), st.sampled_from([(), ("leave-v2.md",), ("travel.md",)]))).map(
    lambda found: [
        Hit(Passage(f"p{i}", path, "", 0, 5, None, (), "Leave", also), 1.0, 1, 1, 0.5)
        for i, (path, also) in enumerate(found)
    ]
)
QUESTIONS = st.sampled_from(["How many days of leave?", "What was it in 2023?", "By PEP 241?"])


def holders(hit: Hit) -> set[str]:
    return {hit.passage.document, *hit.passage.also_in}


@given(QUESTIONS, HITS, HEADS, st.randoms())
def test_the_order_of_the_documents_changes_nothing(
    question: str, hits: list[Hit], heads: dict[str, DocumentInfo], random: Random
) -> None:
    shuffled = list(heads.items())
    random.shuffle(shuffled)
    assert editions(question, hits, dict(shuffled)) == editions(question, hits, heads)


@given(QUESTIONS, HITS, HEADS)
def test_every_hit_stays_once_and_what_is_not_replaced_stays_in_its_place(
    question: str, hits: list[Hit], heads: dict[str, DocumentInfo]
) -> None:
    found = editions(question, hits, heads)
    assert sorted(hit.passage.id for hit in found.hits) == sorted(hit.passage.id for hit in hits)
    assert [hit for hit in found.hits if hit in found.current] == list(found.current)
    read = {path for hit in found.current for path in holders(hit)}
    for hit in set(hits) - set(found.current):  # something newer is read in its place
        assert all({*found.marks[path].newer} & read for path in holders(hit))
    involved = found.left_out | {path for old in found.left_out for path in found.marks[old].newer}
    for before, after in zip(hits, found.hits, strict=True):
        if not holders(before) & involved:
            assert after == before


@given(HEADS)
def test_what_took_the_place_is_visible_and_in_force(heads: dict[str, DocumentInfo]) -> None:
    marks = find_editions(heads)
    assert marks.keys() <= heads.keys()
    for path, mark in marks.items():
        assert {*mark.newer} <= heads.keys() - {path}
        for newer in mark.newer:
            assert not marks.get(newer, mark._replace(newer=())).newer
            assert not NOT_IN_FORCE & {*heads[newer].declared("status")}


@given(QUESTIONS, HITS, HEADS, HEADS)
def test_documents_that_were_not_found_do_not_count(
    question: str, hits: list[Hit], heads: dict[str, DocumentInfo], others: dict[str, DocumentInfo]
) -> None:
    found = {path for hit in hits for path in holders(hit)}
    hidden = {path: head for path, head in others.items() if path not in found}
    assert editions(question, hits, {**heads, **hidden}) == editions(question, hits, heads)


@given(st.integers(2, 9), st.sampled_from(["superseded_by", "replaces"]))
def test_a_circle_gives_no_mark(size: int, key: str) -> None:
    heads = [DocumentInfo(f"{i}.md", "", ((key, f"{(i + 1) % size}.md"),)) for i in range(size)]
    assert find_editions({head.path: head for head in heads}) == {}


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_any_text_can_be_declared(path: str, name: str, title: str) -> None:
    head = DocumentInfo(path, title, (("replaces", name), ("status", name), ("superseded_by", name)))
    assert find_editions({path: head, "b.md": DocumentInfo("b.md", name, ())}).keys() <= {path, "b.md"}
