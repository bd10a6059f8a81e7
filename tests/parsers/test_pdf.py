from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from openbook.errors import UnreadableFile
from openbook.parsers.pdf import parse_pdf

from .samples import make_pdf, make_scan

FIXTURES = Path(__file__).parent / "fixtures"


def refusal(data: bytes) -> str:
    with pytest.raises(UnreadableFile) as caught:
        parse_pdf(data, "a.pdf")
    return str(caught.value)


def test_pages_and_their_spans() -> None:
    content = parse_pdf(make_pdf([["First page.", "Second line."], [], ["Third page."]]), "a.pdf")
    assert content.text == "First page.\nSecond line.\n\nThird page."
    assert [content.text[page.start : page.end] for page in content.pages] == [
        "First page.\nSecond line.",
        "",
        "Third page.",
    ]
    assert [page.number for page in content.pages] == [1, 2, 3]


def test_headings_from_the_outline() -> None:
    pages = [["Contents", "Scope 2", "1. Scope", "Text."], ["Chapter 2: Winter", "quay rules", "More."]]
    outline = [("Scope", 0), ("Winter quay rules", 1), ("Nowhere", 1)]
    content = parse_pdf(make_pdf(pages, outline=outline), "a.pdf")
    assert [(mark.level, mark.title) for mark in content.headings] == [(1, "Scope"), (1, "Winter quay rules")]
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


def test_a_pdf_without_text_needs_ocr() -> None:
    assert refusal(make_pdf([[], []])) == "no text, only images: needs OCR"


@pytest.mark.parametrize("name", ["encrypted-rc4.pdf", "encrypted-aes256.pdf"])
def test_encrypted(name: str) -> None:
    assert refusal((FIXTURES / name).read_bytes()) == "encrypted with a password"


@pytest.mark.parametrize(
    "data", [b"%PDF-1.7\n", b"%PDF-1.4\n" + b"\x00\xff" * 5000, b"plain text", b"%PDF-1.4\n<html></html>"]
)
def test_corrupt(data: bytes) -> None:
    assert refusal(data) == "not a readable PDF"


def test_any_truncation_is_text_or_a_reason() -> None:
    data = make_pdf([["First page."], ["Second page."]], outline=[("First", 0)])
    for length in range(0, len(data), 23):
        with contextlib.suppress(UnreadableFile):
            assert "page" in parse_pdf(data[:length], "a.pdf").text


def test_any_flipped_byte_is_text_or_a_reason() -> None:
    data = make_pdf([["First page."], ["Second page."]], outline=[("First", 0)])
    for at in range(0, len(data), 17):
        with contextlib.suppress(UnreadableFile):
            parse_pdf(data[:at] + b"\xff" + data[at + 1 :], "a.pdf")


def test_threads_do_not_disturb_each_other() -> None:
    data = make_pdf([[f"Page {i}."] for i in range(20)])
    with ThreadPoolExecutor(4) as pool:
        texts = set(pool.map(lambda _: parse_pdf(data, "a.pdf").text, range(16)))
    assert len(texts) == 1


def test_metadata_and_count_of_characters() -> None:
    data = make_pdf([["One."], ["Two."]], title="Rules) /Author (Ada) /ModDate (D:20240131093005+01'00'")
    content = parse_pdf(data, "a.pdf")
    assert content.title == "Rules"
    assert content.metadata == (("author", "Ada"), ("date", "2024-01-31T08:30:05+00:00"))
    assert content.source_chars == len(content.text)


def test_scanned_pages_among_others_are_counted() -> None:
    content = parse_pdf(make_scan(["A page that has a text of its own.", None, None]), "a.pdf")
    assert content.text == "A page that has a text of its own."
    assert content.metadata == (("pages_needing_ocr", 2),)
    assert [page.number for page in content.pages] == [1, 2, 3]
    assert refusal(make_scan([None, None])) == "no text, only images: needs OCR"
