from __future__ import annotations

from pathlib import Path

import pytest

from openbook.core.errors import ConfigError
from openbook.core.records import Content, HeadingMark, PageSpan
from openbook.knowledge import KnowledgeBase
from openbook.knowledge.ingest.sentences import sentence_spans
from openbook.knowledge.ingest.splitter import Sizing, split
from openbook.testing import HashEmbedder
from tests.knowledge.conftest import Library


def content(text: str, *headings: tuple[str, int], pages: tuple[PageSpan, ...] = ()) -> Content:
    marks, at = [], 0
    for title, level in headings:
        at = text.index(title, at)
        marks.append(HeadingMark(at, level, title))
        at += len(title)
    return Content(text, "text/plain", headings=tuple(marks), pages=pages)


def passages(document: Content, passage_chars: int = 100) -> list[str]:
    spans = split(document, passage_chars=passage_chars)
    return [document.text[span.start : span.end].strip() for span in spans]


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text, 0, len(text))]


def test_a_size_without_characters_is_refused() -> None:
    with pytest.raises(ConfigError, match="make no sense"):
        Sizing(0)


def test_the_size_stays_that_of_the_knowledge_base(tmp_path: Path, embedder: HashEmbedder) -> None:
    KnowledgeBase.ensure(tmp_path / "kb", embedder.identity, sizing=Sizing(200)).close()
    library = Library(tmp_path, embedder)
    text = " ".join(f"Sentence number {i} is about harbour {i % 7}." for i in range(100))
    library.write("a.txt", text)
    library.add()
    passages = library.base.passages(library.path("a.txt"))
    assert max(p.end - p.start for p in passages) <= 200
    assert (passages[0].start, passages[-1].end) == (0, len(text))


A, B, C = "a" * 40, "b" * 40, "c" * 60
THREE = "The first sentence is here. The second one is a little longer than that. The third does not fit any more."
ITEMS = [f"- item number {i} of the list" for i in range(9)]
ROWS = [f"| row {i} | with cells |" for i in range(8)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("short", ["short"]),
        ("  \n ", [""]),
        (f"{A}\n\n{B}\n\n{C}\n", [f"{A}\n\n{B}", C]),
        (THREE, [THREE[:72], THREE[73:]]),
        ("word " * 11 + "\n" + "word " * 15, [("word " * 11).strip(), ("word " * 15).strip()]),
        ("word " * 50, [("word " * 20).strip(), ("word " * 20).strip(), ("word " * 10).strip()]),
        ("x" * 250, ["x" * 100, "x" * 100, "x" * 50]),
        ("\n".join(ITEMS), ["\n".join(ITEMS[i : i + 3]) for i in (0, 3, 6)]),
        ("\n".join(ROWS), ["\n".join(ROWS[i : i + 4]) for i in (0, 4)]),
    ],
    ids=["empty", "short", "white", "paragraphs", "sentences", "lines", "spaces", "anywhere", "items", "rows"],
)
def test_where_a_passage_ends(text: str, expected: list[str]) -> None:
    assert passages(content(text)) == expected


def test_a_passage_ends_at_a_sentence_rather_than_a_wrapped_line() -> None:
    text = "One sentence that\nis wrapped over lines. Another one\nis wrapped, and this goes on\nfor longer than fits."
    assert passages(content(text), 80)[0].endswith("over lines.")


@pytest.mark.parametrize("unit", ["e\u0301", "👍🏽", "👩\u200d🚀"])
def test_hard_cuts_keep_characters_whole(unit: str) -> None:
    assert all(passage[0] in {unit[0], "x"} for passage in passages(content("x" + unit * 200)))


@pytest.mark.parametrize(
    ("headings", "parts", "expected"),
    [
        ((("One", 1), ("Two", 1)), [f"One\n\n{C}", f"Two\n\n{C}"], [0, 1]),  # a section begins a passage
        ((("A", 2), ("B", 2), ("C", 2)), ["A\na", "B\nb", "C\nc"], [0]),  # small ones join their siblings
        ((("A", 1), ("B", 2), ("C", 1)), [f"A\n{'a' * 80}", "B\nb", "C\nc"], [0, 1, 2]),  # but not their parents'
    ],
)
def test_sections(headings: tuple[tuple[str, int], ...], parts: list[str], expected: list[int]) -> None:
    found = passages(content("\n\n".join(parts), *headings))
    begun = [part for each in found for part in parts if each.startswith(part)]
    assert begun == [parts[i] for i in expected]


def test_a_bare_heading_stays_with_its_first_section() -> None:
    document = content("Title\n\nSub\n\n" + "A sentence of the body. " * 10, ("Title", 1), ("Sub", 2))
    assert passages(document)[0].startswith("Title\n\nSub\n\nA sentence")


def test_heading_paths() -> None:
    body = "b" * 50
    text = "\n\n".join(f"{title}\n{body}" for title in ("zero", "A", "B", "C", "D"))
    document = content(text, ("A", 1), ("B", 2), ("C", 4), ("D", 2))
    paths = [span.headings for span in split(document, passage_chars=60)]
    assert paths == [(), ("A",), ("A", "B"), ("A", "B", "C"), ("A", "D")]


def test_a_heading_below_the_top_of_its_page_begins_a_passage() -> None:
    text = "One\n\n\n \nTwo\n\nbody"
    document = content(text, ("One", 1), ("Two", 2), pages=(PageSpan(1, 0, 3), PageSpan(2, 5, len(text))))
    assert [(span.start, span.page) for span in split(document, passage_chars=100)] == [(0, 1), (8, 2)]


def test_white_space_belongs_to_the_passage_before() -> None:
    for text, spans in (
        ("x" * 100 + "\n", [(0, 99), (99, 101)]),
        ("a" * 90 + "\n" * 10 + "b" * 20, [(0, 100), (100, 120)]),
    ):
        assert [(span.start, span.end) for span in split(content(text), passage_chars=100)] == spans


@pytest.mark.parametrize(
    "text",
    [
        "x" * 1_000_000, "word " * 200_000, "a\n\n" * 50_000, "." * 1_000_000, "\u0301" * 200_000, "a" + "\n" * 1_000_000,
        "# a\n" * 50_000,
    ],
    ids=["one word", "one line", "paragraphs", "dots", "marks", "newlines", "headings"],
)  # fmt: skip
def test_hostile_texts_take_linear_time(text: str) -> None:
    assert sum(span.end - span.start for span in split(content(text))) == len(text)
    sentence_spans(text, 0, len(text))


@pytest.mark.parametrize(
    "expected",
    [
        ["He left.", '"Why?" she asked.', "Nobody knew!", "(Not even I.)", "So it goes..."],
        ["The answer is no.", "We leave at 5 p.m.", "Bring bread, milk, etc.", "It was in 1990.", "Then I"],
        ["Dr. Zoë Kjærstad and Prof. J. R. Smith met Mr. Teigland.", "Then came another."],
        ["Use e.g. Linux, i.e. the kernel vs. Windows etc. and so on.", "Then came another."],
        ["It costs 3.14 euros, see Fig. 3 and No. 5 on p. 7.", "Then came another."],
        ["The U.S. Government was founded on Jul. 4.", "Then came another."],
        ["As shown (Yao et al., 2022), version 4.1.2 of config.yaml is read.", "Then came another."],
        ["Das ist z.B. in der Straße Nr. 5 so.", "Then came another."],
        ["The early shift checks the quay\nat 04:45 whenever it is cold.", "Do\nnot go by the app."],
    ],
)
def test_where_a_sentence_ends(expected: list[str]) -> None:
    assert sentences(" ".join(expected)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("北京是首都。上海是城市！「はい。」富士山", ["北京是首都。", "上海是城市！", "「はい。」", "富士山"]),
        ("Rules\n=====\n- first item\n  goes on\n- second", ["Rules", "- first item\n  goes on", "- second"]),
        ("1. third\n2) fourth\n\n| a | b |\n|---|---|\n| c | d |", ["1. third", "2) fourth", "| a | b |", "| c | d |"]),
        ("1998. Members sign\n1999. Others do not\n-1. Nobody", ["1998. Members sign", "1999. Others do not", "-1. Nobody"]),
        ("The quay was built in the\n1990. Since then it stands.", ["The quay was built in the\n1990.", "Since then it stands."]),
        ("x | y\nz | w\n\n# Title\ntext here", ["x | y", "z | w", "# Title", "text here"]),
        ("to      adult\nSorrel  6.20\n", ["to      adult", "Sorrel  6.20"]),
        ("1 Introduction\nLarge models are a crucial part of agents\nof it.", ["1 Introduction", "Large models are a crucial part of agents\nof it."]),
        ("16.2.3 Status . . . . . 123\n16.2.4 Version . . . . . 124", ["16.2.3 Status . . . . . 123", "16.2.4 Version . . . . . 124"]),
    ],
)  # fmt: skip
def test_what_stands_alone(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected
