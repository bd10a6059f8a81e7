from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.core.records import PassageSpan
from openbook.knowledge.index.boilerplate import with_content
from openbook.knowledge.ingest.splitter import split
from openbook.parsers import parse_bytes

PROSE = "The harbour office sells tickets for the ferry every day from seven in the morning until the last boat leaves."


def left_out(*passages: str | tuple[str, str], title: str = "", pages: bool = False) -> list[str]:
    """Of the passages of one document those that are not searched; each alone or as (heading, passage), on pages of two."""
    spans, text = [], ""
    for number, each in enumerate(passages):
        heading, passage = ("", each) if isinstance(each, str) else each
        start, text = len(text), f"{text}{passage}\n\n"
        spans.append(PassageSpan(start, len(text), number // 2 + 1 if pages else None, (heading,) if heading else ()))
    holds = with_content(text, title, spans)
    return [text[s.start : s.end - 2] for s, kept in zip(spans, holds, strict=True) if not kept]


def test_a_heading_alone_is_left_out_when_what_follows_is_searched_with_it() -> None:
    for heading in ("# Ferries", "## 2.1. `Ferries` ##", "Ferries\n=======", "=======\nFerries\n======="):
        assert left_out(("Ferries", heading), ("Ferries", PROSE)) == [heading]
    assert left_out("# Ferries\n\n----", PROSE, title="Ferries") == ["# Ferries\n\n----"]
    listed = "- Buying tickets\n- 2. [Lost property](#lost)"
    assert left_out(listed, ("Buying tickets", PROSE), ("Lost property", PROSE)) == [listed]


def test_a_heading_whose_words_stand_nowhere_else_stays() -> None:
    assert left_out(PROSE, ("Closed on 3 May", "# Closed on 3 May")) == []
    assert left_out(("Ferries", "# Ferries"), title="Ferries") == []
    assert left_out("- Buying tickets\n- Dogs", ("Buying tickets", PROSE)) == []
    # Two headings that only stand above each other.
    assert left_out(PROSE, ("Dogs", "# Dogs"), ("Dogs", "# Dogs")) == []


def test_white_space_is_left_out_even_where_all_else_is_boilerplate() -> None:
    assert left_out("Home", "  ") == ["  "]
    assert with_content("", "", []) == []


def test_a_table_of_contents_is_left_out_if_its_entries_stand_in_the_document() -> None:
    contents = "1 Buying tickets ... 3\n1.1 Where tickets are sold ......... 4\n2 Lost property . . . . . iv"
    titles = ("1 Buying tickets", "1.1 Where tickets are sold", "2 Lost property")
    entries = [f"{title}\n\n{PROSE}" for title in titles]
    cut = f"wide as it is ... 2\n{contents}\n3 A title that is too"  # and its titles broken
    assert left_out(contents, *entries) == [contents]
    assert left_out(cut, *entries) == [cut]
    assert left_out(f"{cut} wide: closed.", *entries) == []
    assert left_out(contents, PROSE) == []  # a menu with its prices


def test_what_stands_at_the_edges_of_many_pages_is_left_out() -> None:
    texts = [f"{island}: {PROSE}" for island in ("Kilverry", "Anghos", "Brae", "Oban")]
    feet = [f"Ferry handbook, edition 3\n{page}" for page in range(17, 21)]
    assert left_out(*(part for both in zip(texts, feet, strict=True) for part in both), pages=True) == feet
    assert left_out(texts[0], feet[0], texts[1], feet[1], pages=True) == []
    totals = [f"Total: {number}" for number in (170, 312, 95, 41)]
    assert left_out(*(part for both in zip(texts, totals, strict=True) for part in both), pages=True) == []


@pytest.mark.parametrize(
    "bar",
    [
        "Home | Docs | API | Pricing",
        "Previous\nNext\n* Table of contents",
        ".. toctree::\n   :maxdepth: 2\n\n   islands\n   harbours",
        ".. index::\n   single: ticket\n\n.. _tickets:",
    ],
)
def test_navigation_is_left_out(bar: str) -> None:
    assert left_out(bar, PROSE) == [bar]


def test_a_directive_that_is_cut_is_left_out_whole() -> None:
    parts = [".. toctree::\n\n   islands", "   harbours", "   bridges"]
    assert left_out(PROSE, *parts) == parts


@pytest.mark.parametrize(
    "passage",
    [
        "- [Harbours](https://example.org/harbours)\n- [Islands](https://example.org/islands)",
        "- [Harbours](harbours.md): where boats stop", "Berlin | Rome | Oslo", "Help wanted",
        "Home | 12 Harbour Street | Kilverry", "![The ferry at the pier](ferry.png)",
        ".. _timetable:\n   https://example.org/timetable", "42",
    ],
)  # fmt: skip
def test_what_may_be_an_answer_stays(passage: str) -> None:
    assert left_out(passage, PROSE) == []


LINES = st.sampled_from(
    ["# Ferries", "Ferries", PROSE, "", "Page 3", "Home | Docs", "- [a](b.md)", ".. index:: a", "x ... 3"]
)


@given(st.lists(LINES, max_size=12).map("\n".join), st.integers(10, 200))
def test_every_text_that_shows_something_has_content(text: str, chars: int) -> None:
    content = parse_bytes(f"{text}.".encode(), "a.md")
    spans = split(content, passage_chars=chars)
    holds = with_content(content.text, content.title, spans)
    assert len(holds) == len(spans)
    assert any(holds)
    assert not any(kept for s, kept in zip(spans, holds, strict=True) if not content.text[s.start : s.end].strip())


@pytest.mark.parametrize("line", ["x" + " ." * 99, "[" * 190, ":doc:`", "| - " * 49, "1 2 3 4 " * 24, "   " * 66 + "x"])
def test_lines_made_to_take_long_take_time_linear_in_the_text(line: str) -> None:
    text = f"{line}\n" * 1_000
    spans = split(parse_bytes(text.encode(), "a.md"), passage_chars=450)
    assert len(with_content(text, "", spans)) == len(spans)
