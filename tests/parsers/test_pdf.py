from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from openbook.parsers.formats.pdf import parse_pdf

from .hostile_pdfs import with_glyph
from .samples import make_pdf, page_texts, titles


def test_pages_and_their_spans() -> None:
    content = parse_pdf(make_pdf([["First page.", "Second line."], [], ["Third page."]]), "a.pdf")
    assert content.text == "First page.\nSecond line.\n\nThird page."
    assert page_texts(content) == ["First page.\nSecond line.", "", "Third page."]
    assert content.source_chars == len(content.text)


def test_headings_from_the_outline() -> None:
    pages = [["Contents", "Scope 2", "1. Scope", "Text."], ["Chapter 2: Winter", "quay rules", "More."]]
    outline = [("Scope", 0), ("Winter quay rules", 1), ("Nowhere", 1)]
    content = parse_pdf(make_pdf(pages, outline=outline), "a.pdf")
    assert titles(content) == [(1, "Scope"), (1, "Winter quay rules")]
    assert content.text[content.headings[1].start :].startswith("Chapter 2: Winter")


@pytest.mark.parametrize(
    ("stated", "title"),
    [
        ("Winter rules", "Winter rules"),
        ("", "First line"),
        ("Microsoft Word - a.doc", "First line"),
        ("x_y", "First line"),
        (r"\376\377\330\000", "First line"),  # UTF-16 that ends inside a character
    ],
)
def test_title(stated: str, title: str) -> None:
    assert parse_pdf(make_pdf([["First line", "more"]], title=stated), "a.pdf").title == title


def test_words_broken_at_a_lines_end_are_joined() -> None:
    # PDFium marks the hyphen itself once it sees the word go on in the next line.
    content = parse_pdf(make_pdf([["The rules of distri-", "bution bind the crew.", "Third line."]]), "a.pdf")
    assert content.text == "The rules of distribution\nbind the crew.\nThird line."


@pytest.mark.parametrize("height", [740, 7400])  # on the page, and outside it
def test_no_text_is_lost_to_characters_of_two_units(height: int) -> None:
    content = parse_pdf(with_glyph("u1F600", f"BT /F 11 Tf 50 {height} Td (\1 \1 \1 and the last word) Tj ET"), "a.pdf")
    assert content.text == "\U0001f600 \U0001f600 \U0001f600 and the last word"


def test_metadata() -> None:
    data = make_pdf([["One."], ["Two."]], title="Rules) /Author (Ada) /ModDate (D:20240131093005+01'00'")
    content = parse_pdf(data, "a.pdf")
    assert content.title == "Rules"
    assert content.metadata == (("author", "Ada"), ("date", "2024-01-31T08:30:05+00:00"))


def test_scanned_pages_among_others_are_counted() -> None:
    content = parse_pdf(make_pdf([["A page that has a text of its own."], None, None]), "a.pdf")
    assert page_texts(content) == ["A page that has a text of its own.", "", ""]
    assert content.metadata == (("pages_needing_ocr", 2),)


def test_threads_do_not_disturb_each_other() -> None:
    data = make_pdf([[f"Page {i}."] for i in range(20)])
    with ThreadPoolExecutor(4) as pool:
        texts = set(pool.map(lambda _: parse_pdf(data, "a.pdf").text, range(16)))
    assert len(texts) == 1
