from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.answers.ask import ask
from openbook.answers.prompts import open_book_prompt
from openbook.answers.retrieval import Corpus, Options
from openbook.core.records import Passage, PassageSpan
from openbook.knowledge import KnowledgeBase, RunOptions, Scope
from openbook.knowledge.cite.windows import WINDOW_CHARS, in_windows, partition
from openbook.knowledge.index.scope import UNLABELLED
from openbook.knowledge.ingest.splitter import Sizing
from openbook.knowledge.store.integrity import PassageRow
from openbook.knowledge.store.interface import Damage
from openbook.proofs.replay import knowledge_base_of, replay
from openbook.testing import echo_model
from tests.knowledge.conftest import Library

PATHS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=3).map(tuple)
SPANS = st.lists(st.tuples(st.integers(1, 500), st.sampled_from([1, 2]), PATHS), min_size=1, max_size=40)
HANDBOOK = """# Handbook

Rules for all who work here, ashore and at sea.

## Expenses

Your line manager approves claims up to 750 euros. {filler}

Anything above goes to the head of finance. {filler}

## Leave

A full-time employee has 28 days of leave. {filler}
""".replace("{filler}", "Forms lie in the office. " * 12)


def spans(parts: list[tuple[int, int, tuple[str, ...]]]) -> list[PassageSpan]:
    found, at = [], 0
    for length, page, headings in parts:
        found.append(PassageSpan(at, at + length, page, headings))
        at += length
    return found


@given(SPANS, st.integers(1, 2_000))
def test_windows_are_runs_of_passages_that_cover_all_of_them(
    parts: list[tuple[int, int, tuple[str, ...]]], limit: int
) -> None:
    passages = spans(parts)
    windows = partition(passages, limit)
    assert [number for window in windows for number in window] == list(range(len(passages)))
    for window in windows:
        inside = passages[window.start : window.stop]
        assert len({passage.page for passage in inside}) == 1
        assert len(inside) == 1 or inside[-1].end - inside[0].start <= limit
    section = [PassageSpan(each.start, each.end, 1, ("a",)) for each in passages]
    assert partition(section, passages[-1].end) == [range(len(section))]  # one that fits is not cut
    assert in_windows([]) == []


def test_fewer_windows_are_the_first_of_more(library: Library) -> None:
    library.write("handbook.md", HANDBOOK)
    library.write("more.md", HANDBOOK.replace("the", "a") * 3)
    library.sync()
    question = HANDBOOK.split(".")[1]
    hits = library.base.search(question, library.embedder, 40, windows=True)[1]
    assert len(hits) > 3
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    for limit in (1, 3):
        assert library.base.search(question, library.embedder, limit, windows=True)[1] == hits[:limit]


@pytest.fixture
def library(library: Library) -> Library:
    small = KnowledgeBase.ensure(library.docs.parent / "small", library.embedder.identity, sizing=Sizing(300))
    library.base = small
    library.write("handbook.md", HANDBOOK)
    library.write("other.md", "# Boats\n\nBoats are blue.")
    library.add()
    return library


def windows_of(library: Library, question: str, limit: int = 9, scope: Scope = UNLABELLED) -> list[Passage]:
    return [hit.passage for hit in library.base.search(question, library.embedder, limit, scope, windows=True)[1]]


def test_a_window_is_the_section_around_a_hit(library: Library) -> None:
    question = "Who approves claims up to 750 euros?"
    windows, passage = windows_of(library, question, 3), library.hits(question)[0].passage
    window = windows[0]
    assert window.text == (library.base.text(window.document) or "")[window.start : window.end]
    assert window.start <= passage.start
    assert passage.end <= window.end
    assert "head of finance" in window.text
    assert len(window.text) <= WINDOW_CHARS
    assert len({each.id for each in windows}) == len(windows)


def test_a_window_is_the_same_for_every_question_and_found_by_its_id(library: Library) -> None:
    asked = ("Who approves claims?", "Where does anything above go?", "How many days of leave?", "blue boats")
    seen = {window for question in asked for window in windows_of(library, question)}
    documents = {window.document for window in seen}
    lengths = (len(library.base.text(document) or "") for document in documents)
    assert sum(window.end - window.start for window in seen) == sum(lengths)
    for window in seen:
        assert library.base.passage(window.id, UNLABELLED) == window
    assert library.base.passage(f"{min(window.id for window in seen)}0", UNLABELLED) is None


def test_a_window_needs_the_labels_of_its_document(library: Library) -> None:
    open_to_all = windows_of(library, "claims")
    library.add("handbook.md", options=RunOptions(labels=frozenset({"staff"})))
    assert {Path(window.document).name for window in windows_of(library, "claims")} == {"other.md"}
    closed = windows_of(library, "claims", scope=Scope(labels=frozenset({"staff"})))
    assert [window.id for window in closed] == [window.id for window in open_to_all]
    long = next(window for window in closed if window.parts)
    assert long.labels == ("staff",)
    assert library.base.passage(long.id, UNLABELLED) is None


def test_a_window_that_begins_inside_a_table_is_read_with_its_header(library: Library) -> None:
    rows = "\n".join(f"| Port {number} | {number} euros | {number + 1} euros |" for number in range(90))
    table = f"# Fares\n\n| Harbour | single | return |\n|---|---|---|\n{rows}\n\nDogs travel free.\n"
    library.write("fares.md", table)
    library.sync()
    found = next(window for window in windows_of(library, "Port 77") if "Port 77 " in window.text)
    assert found.header.startswith("| Harbour | single | return |")
    assert "Harbour" not in found.text
    assert library.base.passage(found.id, UNLABELLED) == found
    assert found.header in open_book_prompt("How much?", [found]).passages[0]
    assert found in in_windows(library.base.passages(found.document))
    answer = ask("Port 77", echo_model(), Corpus(library.base, library.embedder), Options(min_similarity=-1.0))
    assert any("+" in reference.id for reference in answer.receipt.passages)
    assert replay(answer.receipt, echo_model(), knowledge_base_of(answer.receipt, [library.base])).identical


@pytest.mark.parametrize("lost", [{"start": None}, {"end": None}, {"end": "4"}, {}])
def test_a_passage_without_place_or_text_is_damage(lost: dict[str, Any]) -> None:
    row = PassageRow(1, 1, "p", 0, 4, None, "[]", b"key", 0)._replace(**lost)
    text: Any = "text" if lost else None
    with pytest.raises(Damage, match="not what was stored"):
        row.text_in("title", text)
