from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.answer import Options, ask
from openbook.inference import FrozenModel
from openbook.inference.frozen import Cancelled, never
from openbook.knowledge import KnowledgeBase, RunOptions, Scope, add
from openbook.knowledge.passages import WINDOW_CHARS, in_windows, joined, partition
from openbook.knowledge.splitter import Sizing
from openbook.prompts import open_book_prompt
from openbook.records import Completion, Decoding, PassageSpan, Prompt
from openbook.replay import knowledge_base_of, replay
from openbook.testing import EchoEngine, HashEmbedder, echo_model

PATHS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=3).map(tuple)
SPANS = st.lists(st.tuples(st.integers(1, 500), st.sampled_from([1, 2]), PATHS), min_size=1, max_size=40)
HANDBOOK = """# Handbook

Rules for everybody who works here, ashore and at sea.

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


@given(SPANS)
def test_a_section_that_fits_is_not_cut(parts: list[tuple[int, int, tuple[str, ...]]]) -> None:
    passages = spans(parts)
    whole = sum(length for length, _, _ in parts)
    same = [PassageSpan(each.start, each.end, 1, ("a",)) for each in passages]
    assert partition(same, whole) == [range(len(same))]


@pytest.fixture
def base(tmp_path: Path, embedder: HashEmbedder) -> KnowledgeBase:
    (tmp_path / "handbook.md").write_text(HANDBOOK)
    (tmp_path / "other.md").write_text("# Boats\n\nBoats are blue.")
    base = KnowledgeBase.ensure(tmp_path / "kb", embedder.identity, sizing=Sizing(size=300))
    add(base, [tmp_path / "handbook.md", tmp_path / "other.md"], embedder, RunOptions())
    return base


def test_what_is_read_is_the_section_around_what_was_found(base: KnowledgeBase, embedder: HashEmbedder) -> None:
    _, found = base.search("Who approves claims up to 750 euros?", embedder, 1)
    _, windows = base.search("Who approves claims up to 750 euros?", embedder, 3, windows=True)
    window, passage = windows[0].passage, found[0].passage
    text = base.text(window.document)
    assert text is not None
    assert window.text == text[window.start : window.end]
    assert window.start <= passage.start
    assert passage.end <= window.end
    assert "head of finance" in window.text
    assert len(window.text) <= WINDOW_CHARS
    assert len({hit.passage.id for hit in windows}) == len(windows)


def test_a_window_is_the_same_for_every_question_and_found_by_its_id(
    base: KnowledgeBase, embedder: HashEmbedder
) -> None:
    asked = ("Who approves claims?", "Where does anything above go?", "How many days of leave?", "blue boats")
    seen = {hit.passage for question in asked for hit in base.search(question, embedder, 9, windows=True)[1]}
    documents = {window.document for window in seen}
    assert sum(window.end - window.start for window in seen) == sum(len(base.text(d) or "") for d in documents)
    for window in seen:
        assert base.passage(window.id, Scope()) == window
    assert base.passage(f"{min(window.id for window in seen)}0", Scope()) is None


def test_a_window_is_seen_through_labels_alone(base: KnowledgeBase, embedder: HashEmbedder, tmp_path: Path) -> None:
    open_to_all = base.search("claims", embedder, 9, windows=True)[1]
    add(base, [tmp_path / "handbook.md"], embedder, RunOptions(labels=frozenset({"staff"})))
    assert {Path(hit.passage.document).name for hit in base.search("claims", embedder, 9, windows=True)[1]} == {
        "other.md"
    }
    staff = Scope(labels=frozenset({"staff"}))
    closed = base.search("claims", embedder, 9, staff, windows=True)[1]
    assert [hit.passage.id for hit in closed] == [hit.passage.id for hit in open_to_all]
    long = next(hit.passage for hit in closed if hit.passage.parts)
    assert long.labels == ("staff",)
    assert base.passage(long.id, Scope()) is None


def test_an_answer_from_windows_is_replayed(base: KnowledgeBase, embedder: HashEmbedder) -> None:
    answer = ask("Who approves claims?", echo_model(), base, embedder, Options(min_similarity=-1.0))
    assert any("+" in reference.id for reference in answer.receipt.passages)
    assert replay(answer.receipt, echo_model(), knowledge_base_of(answer.receipt, [base])).identical


def test_what_was_computed_of_a_window_names_all_its_passages(base: KnowledgeBase, embedder: HashEmbedder) -> None:
    asked: list[tuple[tuple[str, ...], ...]] = []

    class Noting(EchoEngine):
        def generate(
            self, prompt: Prompt, decoding: Decoding, cancelled: Cancelled = never
        ) -> Generator[str, None, Completion]:
            asked.append(prompt.origins)
            return (yield from super().generate(prompt, decoding, cancelled))

    ask("Who approves claims?", FrozenModel(Noting()), base, embedder, Options(min_similarity=-1.0))
    stored = {p.digest for document in base.documents() for p in base.passages(document)}
    assert {digest for origin in asked[0] for digest in origin} == stored


def test_windows_of_overlapping_passages_say_nothing_twice(tmp_path: Path, embedder: HashEmbedder) -> None:
    (tmp_path / "handbook.md").write_text(HANDBOOK)
    base = KnowledgeBase.ensure(tmp_path / "overlapping", embedder.identity, sizing=Sizing(size=300, overlap=100))
    add(base, [tmp_path / "handbook.md"], embedder, RunOptions())
    (document,) = base.documents()
    passages, text = base.passages(document), base.text(document)
    assert text is not None
    for run in partition(passages):
        window = joined(passages[run.start : run.stop])
        assert window.text == text[window.start : window.end]


def test_a_window_that_begins_inside_a_table_is_read_with_its_header(tmp_path: Path, embedder: HashEmbedder) -> None:
    rows = "\n".join(f"| Port {number} | {number} euros | {number + 1} euros |" for number in range(90))
    (tmp_path / "fares.md").write_text(
        f"# Fares\n\n| Harbour | single | return |\n|---|---|---|\n{rows}\n\nDogs travel free.\n"
    )
    base = KnowledgeBase.ensure(tmp_path / "kb", embedder.identity, sizing=Sizing(size=300))
    add(base, [tmp_path / "fares.md"], embedder, RunOptions())
    found = next(
        h.passage for h in base.search("Port 77", embedder, 9, windows=True)[1] if "Port 77 " in h.passage.text
    )
    assert found.header.startswith("| Harbour | single | return |")
    assert "Harbour" not in found.text
    assert base.passage(found.id, Scope()) == found
    assert found.header in open_book_prompt("How much?", [found]).passages[0]
    assert found in in_windows(base.passages(found.document))
    answer = ask("Port 77", echo_model(), base, embedder, Options(min_similarity=-1.0))
    assert replay(answer.receipt, echo_model(), base).identical


def test_a_document_without_passages_has_no_windows() -> None:
    assert in_windows([]) == []
