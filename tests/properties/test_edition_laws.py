"""Editions: a function of what was found and of the documents that may be seen, in whatever order they come."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from openbook.core.records import Hit, Passage
from openbook.knowledge.cite.editions import NOT_IN_FORCE, DocumentInfo, editions, find_editions

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
def test_a_hit_is_left_out_only_for_a_newer_one_and_the_others_stay_in_their_places(
    question: str, hits: list[Hit], heads: dict[str, DocumentInfo]
) -> None:
    among = {path for hit in hits for path in holders(hit)}
    found = editions(question, hits, {path: head for path, head in heads.items() if path in among})
    read = {path for hit in found.current for path in holders(hit)}
    gone = [hit for hit in hits if hit not in found.current]
    assert len(found.current) + len(gone) == len(hits)
    assert all({*found.marks[path].newer} & read for hit in gone for path in holders(hit))
    involved = found.left_out.union(*(found.marks[old].newer for old in found.left_out))

    def others(several: Iterable[Hit]) -> list[Hit]:
        return [hit for hit in several if not holders(hit) & involved]

    assert others(found.current) == others(hits)


@given(HEADS)
def test_what_took_the_place_is_visible_and_in_force(heads: dict[str, DocumentInfo]) -> None:
    marks = find_editions(heads)
    assert marks.keys() <= heads.keys()
    for path, mark in marks.items():
        assert {*mark.newer} <= heads.keys() - {path}
        for newer in mark.newer:
            assert not marks.get(newer, mark._replace(newer=())).newer
            assert not NOT_IN_FORCE & {*heads[newer].declared("status")}


@given(st.integers(2, 9), st.sampled_from(["superseded_by", "replaces"]))
def test_a_circle_gives_no_mark(size: int, key: str) -> None:
    heads = [DocumentInfo(f"{i}.md", "", ((key, f"{(i + 1) % size}.md"),)) for i in range(size)]
    assert find_editions({head.path: head for head in heads}) == {}


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_any_text_can_be_declared(path: str, name: str, title: str) -> None:
    head = DocumentInfo(path, title, (("replaces", name), ("status", name), ("superseded_by", name)))
    assert find_editions({path: head, "b.md": DocumentInfo("b.md", name, ())}).keys() <= {path, "b.md"}
