from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from openbook.errors import ConfigError, KnowledgeBaseInvalid
from openbook.knowledge import KnowledgeBase, add
from openbook.knowledge.sentences import sentence_spans
from openbook.knowledge.splitter import SPLITTER_VERSION, Sizing, split
from openbook.records import Content, HeadingMark, PageSpan
from openbook.testing import HashEmbedder


def content(text: str, *headings: tuple[str, int], pages: tuple[PageSpan, ...] = ()) -> Content:
    marks, at = [], 0
    for title, level in headings:
        at = text.index(title, at)
        marks.append(HeadingMark(at, level, title))
        at += len(title)
    return Content(text, "text/plain", headings=tuple(marks), pages=pages)


def passages(document: Content, passage_chars: int = 100) -> list[str]:
    spans = split(document, passage_chars=passage_chars)
    assert "".join(document.text[span.start : span.end] for span in spans) == document.text
    assert all(span.end - span.start <= passage_chars for span in spans)
    return [document.text[span.start : span.end].strip() for span in spans]


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text, 0, len(text))]


# --- passages ---------------------------------------------------------------------------------------------------------


def test_empty_and_short_texts() -> None:
    assert split(content("")) == []
    assert passages(content("short")) == ["short"]
    assert passages(content("  \n ")) == [""]
    assert SPLITTER_VERSION


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ({"passage_chars": 0}, "passage_chars is 0"),
        ({"passage_chars": 5, "overlap_chars": 5}, "the overlap is 5"),
        ({"overlap_chars": -1}, "the overlap is -1"),
    ],
)
def test_sizes_that_fit_nothing_are_errors(size: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        split(content("x"), **size)


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (10, 6), (10, -1)])
def test_sizes_that_make_no_sense_are_refused(size: int, overlap: int) -> None:
    with pytest.raises(ConfigError, match="make no sense"):
        Sizing(size=size, overlap=overlap)


def test_the_record_of_a_size() -> None:
    assert Sizing.from_json(Sizing(9, 2).to_json()) == Sizing(9, 2)
    of_tokens = '{"overlap": 2, "reader": "b", "size": 9, "tokenizer": "a", "unit": "tokens"}'
    with pytest.raises(ConfigError, match="counted in tokens"):
        Sizing.from_json(of_tokens).split(content("x"))
    for text in ("", "[]", '{"siz": 3}'):
        with pytest.raises(KnowledgeBaseInvalid, match="passage size"):
            Sizing.from_json(text)


def test_the_size_is_that_of_the_knowledge_base_ever_after(tmp_path: Path, embedder: HashEmbedder) -> None:
    text = " ".join(f"Sentence number {i} is about harbour {i % 7}." for i in range(100))
    (tmp_path / "a.txt").write_text(text)
    KnowledgeBase.ensure(tmp_path / "kb", embedder.identity, sizing=Sizing(200, 60)).close()
    base = KnowledgeBase.ensure(tmp_path / "kb", embedder.identity)
    add(base, [tmp_path / "a.txt"], embedder)
    passages = base.passages(str(tmp_path / "a.txt"))
    assert max(p.end - p.start for p in passages) <= 200
    assert any(b.start < a.end for a, b in pairwise(passages))
    assert (passages[0].start, passages[-1].end) == (0, len(text))


def test_paragraphs_are_packed_and_kept_whole() -> None:
    a, b, c = "a" * 40, "b" * 40, "c" * 60
    assert passages(content(f"{a}\n\n{b}\n\n{c}\n")) == [f"{a}\n\n{b}", c]


def test_a_long_paragraph_is_cut_at_a_sentence() -> None:
    text = "The first sentence is here. The second one is a little longer than that. The third does not fit any more."
    assert passages(content(text)) == [text[:72], text[73:]]


def test_wrapped_lines_are_no_better_place_than_sentences() -> None:
    text = "One sentence that\nis wrapped over lines. Another one\nis wrapped, and this goes on\nfor longer than fits."
    assert passages(content(text), 80)[0].endswith("over lines.")


def test_without_sentences_lines_then_spaces_then_anywhere() -> None:
    assert passages(content("word " * 11 + "\n" + "word " * 30))[0] == ("word " * 11).strip()
    assert passages(content("word " * 50))[0] == ("word " * 20).strip()
    assert passages(content("x" * 250)) == ["x" * 100, "x" * 100, "x" * 50]


def test_list_items_and_rows_are_not_cut_apart() -> None:
    text = "\n".join(f"- item number {i} of the list" for i in range(10))
    assert all(passage.startswith("- item") for passage in passages(content(text)))
    table = "\n".join(f"| row {i} | with cells |" for i in range(10))
    assert all(passage.startswith("| row") and passage.endswith("|") for passage in passages(content(table)))


def test_hard_cuts_keep_characters_whole() -> None:
    for unit in ("e\u0301", "👍🏽", "👩\u200d🚀"):
        for passage in passages(content("x" + unit * 200)):
            assert passage[0] in {unit[0], "x"}


def test_sections_begin_passages() -> None:
    body = "b" * 60
    document = content(f"One\n\n{body}\n\nTwo\n\n{body}\n", ("One", 1), ("Two", 1))
    assert passages(document) == [f"One\n\n{body}", f"Two\n\n{body}"]
    assert [span.headings for span in split(document, passage_chars=100)] == [("One",), ("Two",)]


def test_small_sections_join_their_siblings() -> None:
    document = content("A\na\n\nB\nb\n\nC\nc\n", ("A", 2), ("B", 2), ("C", 2))
    assert passages(document) == ["A\na\n\nB\nb\n\nC\nc"]


def test_small_sections_do_not_join_their_parents_siblings() -> None:
    body = "a" * 80
    document = content(f"A\n{body}\n\nB\nb\n\nC\nc\n", ("A", 1), ("B", 2), ("C", 1))
    assert passages(document) == [f"A\n{body}", "B\nb", "C\nc"]


def test_a_bare_heading_stays_with_its_first_section() -> None:
    body = "A sentence of the body. " * 10
    document = content(f"Title\n\nSub\n\n{body}", ("Title", 1), ("Sub", 2))
    assert passages(document)[0].startswith("Title\n\nSub\n\nA sentence")


def test_heading_paths() -> None:
    body = "b" * 50
    document = content(
        f"zero {body}\n\nA\n{body}\n\nB\n{body}\n\nC\n{body}\n\nD\n{body}", ("A", 1), ("B", 2), ("C", 4), ("D", 2)
    )
    assert [span.headings for span in split(document, passage_chars=60)] == [
        (),
        ("A",),
        ("A", "B"),
        ("A", "B", "C"),
        ("A", "D"),
    ]


def test_marks_outside_the_text_and_out_of_order_do_no_harm() -> None:
    marks = (
        HeadingMark(500, 1, "far"),
        HeadingMark(6, 1, "two"),
        HeadingMark(0, 1, "one"),
        HeadingMark(-3, 1, "before"),
    )
    spans = split(Content("one a\ntwo b\n", "text/plain", headings=marks), passage_chars=8)
    assert [span.headings for span in spans] == [("one",), ("two",)]


def test_pages() -> None:
    one, two, three = "a" * 50, "b" * 10, "c" * 50
    text = f"{one}\n\n{two}\n\n{three}"
    pages = (PageSpan(1, 0, 50), PageSpan(2, 52, 62), PageSpan(3, 64, 64), PageSpan(4, 64, 114))
    spans = split(content(text, pages=pages), passage_chars=100)
    # However short the second page is, it does not go with the next, which could not be cited then.
    assert [(span.start, span.page) for span in spans] == [(0, 1), (52, 2), (64, 4)]


def test_a_heading_below_the_top_of_its_page_still_begins_a_passage() -> None:
    text = "One\n\n\n \nTwo\n\nbody"
    document = content(text, ("One", 1), ("Two", 2), pages=(PageSpan(1, 0, 3), PageSpan(2, 5, len(text))))
    assert [(span.start, span.page) for span in split(document, passage_chars=100)] == [(0, 1), (8, 2)]


def test_the_last_passage_is_not_white_space_alone() -> None:
    assert [(span.start, span.end) for span in split(content("x" * 100 + "\n"), passage_chars=100)] == [
        (0, 99),
        (99, 101),
    ]


def test_trailing_white_space_belongs_to_the_passage_before() -> None:
    document = content("a" * 90 + "\n" * 8 + "\n\n" + "b" * 20)
    spans = split(document, passage_chars=100)
    assert [(span.start, span.end) for span in spans] == [(0, 100), (100, 120)]


@pytest.mark.parametrize(
    "text",
    [
        "x" * 10_000_000,
        "word " * 1_000_000,
        "a\n\n" * 500_000,
        "." * 3_000_000,
        "\u0301" * 500_000,
        "a" + "\n" * 2_000_000,
        "# a\n" * 200_000,
    ],
    ids=["one word", "one line", "paragraphs", "dots", "marks", "newlines", "headings"],
)
def test_hostile_texts_take_linear_time(text: str) -> None:
    assert sum(span.end - span.start for span in split(content(text))) == len(text)
    sentence_spans(text[:2_000_000], 0, min(len(text), 2_000_000))


# --- overlap ---------------------------------------------------------------------------------------------------------


def test_overlap_begins_at_a_sentence() -> None:
    text = "The first is here. The second is here. The third is here. The fourth is here. The fifth is here."
    spans = split(content(text), passage_chars=62, overlap_chars=21)
    shown = [text[span.start : span.end].strip() for span in spans]
    assert shown == [
        "The first is here. The second is here.",
        "The second is here. The third is here. The fourth is here.",
        "The fourth is here. The fifth is here.",
    ]
    assert [text[s.start : s.end].strip() for s in split(content(text), passage_chars=62, overlap_chars=10)][1] == (
        "The third is here. The fourth is here."
    )


def test_overlap_stays_in_its_section_and_page() -> None:
    text = "One\n\nA short one. Another.\n\nTwo\n\nMore of it here. And on and on it goes."
    document = content(text, ("One", 1), ("Two", 1))
    starts = [text[span.start :][:3] for span in split(document, passage_chars=60, overlap_chars=30)]
    assert starts == ["One", "Two", "Mor"]
    at = text.index("More")
    paged = content(text, pages=(PageSpan(1, 0, at), PageSpan(2, at, len(text))))
    for span in split(paged, passage_chars=60, overlap_chars=30):
        assert (span.page == 2) == (span.start >= at)


# --- sentences --------------------------------------------------------------------------------------------------------


def test_plain_sentences() -> None:
    assert sentences('He left. "Why?" she asked. Nobody knew!  (Not even I.) So it goes...') == [
        "He left.",
        '"Why?" she asked.',
        "Nobody knew!",
        "(Not even I.)",
        "So it goes...",
    ]


@pytest.mark.parametrize(
    "sentence",
    [
        "Dr. Zoë Kjærstad and Prof. J. R. Smith met Mr. Teigland.",
        "Use e.g. Linux, i.e. the kernel vs. Windows etc. and so on.",
        "It costs 3.14 euros, see Fig. 3 and No. 5 on p. 7.",
        "The U.S. Government was founded on Jul. 4.",
        "As shown (Yao et al., 2022), version 4.1.2 of the file config.yaml is read.",
        "Das ist z.B. in der Straße Nr. 5 so.",
    ],
)
def test_abbreviations_do_not_end_a_sentence(sentence: str) -> None:
    assert sentences(f"{sentence} Then came another.") == [sentence, "Then came another."]


def test_what_does_end_a_sentence() -> None:
    assert sentences("The answer is no. We leave at 5 p.m. Bring bread, milk, etc. It was in 1990. Then I") == [
        "The answer is no.",
        "We leave at 5 p.m.",
        "Bring bread, milk, etc.",
        "It was in 1990.",
        "Then I",
    ]


def test_chinese_and_japanese() -> None:
    assert sentences("北京是首都。上海是城市！「はい。」富士山") == [
        "北京是首都。",
        "上海是城市！",
        "「はい。」",
        "富士山",
    ]


def test_wrapped_paragraphs_are_joined() -> None:
    assert sentences("The early shift checks the quay\nat 04:45 whenever it is cold. Do\nnot go by the app.") == [
        "The early shift checks the quay\nat 04:45 whenever it is cold.",
        "Do\nnot go by the app.",
    ]


def test_items_rows_and_headings_stand_alone() -> None:
    text = (
        "Rules\n=====\n- first item\n  goes on\n- second\n1. third\n2) fourth\n\n| a | b |\n|---|---|\n| c | d |\n\n"
        "x | y\nz | w\n\n# Title\ntext here\n\nto      adult\nSorrel  6.20\n"
    )
    assert sentences(text) == [
        "Rules", "- first item\n  goes on", "- second", "1. third", "2) fourth", "| a | b |", "| c | d |", "x | y",
        "z | w", "# Title", "text here", "to      adult", "Sorrel  6.20",
    ]  # fmt: skip


def test_a_short_line_before_a_capital_is_a_title() -> None:
    assert sentences("1 Introduction\nLarge models are a crucial building block in agents\nthat use them.") == [
        "1 Introduction",
        "Large models are a crucial building block in agents\nthat use them.",
    ]


def test_dotted_lines_are_no_sentences() -> None:
    assert sentences("16.2.3 Status . . . . . . . . 123\n16.2.4 Version . . . . . . . . 124") == [
        "16.2.3 Status . . . . . . . . 123",
        "16.2.4 Version . . . . . . . . 124",
    ]


def test_offsets_are_absolute_and_stay_inside() -> None:
    text = "First one. Second one. Third one."
    assert sentence_spans(text, 6, 25) == [(6, 10), (11, 22), (23, 25)]
    assert sentence_spans(text, 5, 5) == []
