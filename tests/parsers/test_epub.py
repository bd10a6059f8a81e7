from __future__ import annotations

import contextlib

import pytest

from openbook.errors import UnreadableFile
from openbook.parsers.epub import parse_epub

from .samples import damaged, packed

CONTAINER = '<container xmlns="c"><rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
METADATA = (
    "<dc:title>Winter rules</dc:title><dc:creator>Ada</dc:creator><dc:creator>Grace</dc:creator><dc:language>en</dc:language>"
    '<dc:date>2019</dc:date><meta property="dcterms:modified">2024-05-06T07:08:09Z</meta>'
)


def page(body: str, title: str = "") -> str:
    head = f"<title>{title}</title>" if title else "<title/>"
    return (
        '<?xml version="1.0"?><!DOCTYPE html><html xmlns="http://www.w3.org/1999/xhtml">'
        f'<head>{head}<script src="x.js"/></head><body>{body}</body></html>'
    )


def book(
    chapters: dict[str, str], *, metadata: str = METADATA, items: str = "", more: dict[str, str] | None = None
) -> bytes:
    manifest = "".join(
        f'<item id="{i}" href="{name}" media-type="application/xhtml+xml"/>' for i, name in enumerate(chapters)
    )
    spine = "".join(f'<itemref idref="{i}"/>' for i in range(len(chapters)))
    opf = (
        f'<package xmlns="o" xmlns:dc="d"><metadata>{metadata}</metadata><manifest>{manifest}{items}</manifest>'
        f"<spine>{spine}</spine></package>"
    )
    members = {"mimetype": "application/epub+zip", "META-INF/container.xml": CONTAINER, "OEBPS/book.opf": opf}
    members |= {f"OEBPS/{name}": text for name, text in chapters.items()}
    return packed(members | (more or {}))


def refusal(data: bytes) -> str:
    with pytest.raises(UnreadableFile) as caught:
        parse_epub(data, "a.epub")
    return str(caught.value)


def test_chapters_in_reading_order() -> None:
    chapters = {
        "z.xhtml": page("<h1>One</h1><p>a<a id='x'/>b</p>", "ignored"),
        "empty.xhtml": page(""),
        "text/a.xhtml": page("<h2>Two</h2><p>c</p>"),
    }
    content = parse_epub(book(chapters), "a.epub")
    assert content.text == "One\n\nab\n\nTwo\n\nc"
    assert [(content.text[mark.start :][:3], mark.level, mark.title) for mark in content.headings] == [
        ("One", 1, "One"),
        ("Two", 2, "Two"),
    ]
    assert content.title == "Winter rules"
    assert content.metadata == (("author", ("Ada", "Grace")), ("date", "2024-05-06T07:08:09+00:00"), ("language", "en"))
    assert content.source_chars == len("ignoredOneabTwoc")


def test_chapters_without_a_heading_get_the_one_of_the_table_of_contents() -> None:
    nav = page('<nav><a href="a.xhtml">The sea</a><a href="b.xhtml#s">Named</a><a href="c.xhtml">Third</a></nav>')
    ncx = (
        '<ncx xmlns="n"><navMap><navPoint><navLabel><text>Older</text></navLabel><content src="d.xhtml"/></navPoint>'
        "</navMap></ncx>"
    )
    items = (
        '<item id="n" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>'
        '<item id="x" href="toc.ncx" media-type="application/x-dtbncx+xml"/>'
    )
    chapters = {
        "a.xhtml": page("<p>Waves.</p>"),
        "b.xhtml": page("<h1>Named</h1>"),
        "c.xhtml": page("<p>Third</p><p>x</p>"),
        "d.xhtml": page("<p>y</p>"),
    }
    content = parse_epub(book(chapters, items=items, more={"OEBPS/nav.xhtml": nav, "OEBPS/toc.ncx": ncx}), "a.epub")
    assert content.text == "The sea\n\nWaves.\n\nNamed\n\nThird\n\nx\n\nOlder\n\ny"
    assert [mark.title for mark in content.headings] == ["The sea", "Named", "Older"]


def test_the_table_of_contents_itself_and_strange_references_are_left_out() -> None:
    data = book(
        {"a.xhtml": page("<p>x</p>"), "../../etc/passwd": "<p>y</p>", "gone.xhtml": page("")},
        items='<item id="n" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>',
        more={"OEBPS/nav.xhtml": page("<p>contents</p>")},
    )
    assert parse_epub(data, "a.epub").text == "x"


def test_named_entities_are_known_without_a_document_type() -> None:
    assert parse_epub(book({"a.xhtml": page("<p>a&nbsp;b &mdash; c</p>")}), "a.epub").text == "a b — c"


def test_title_falls_back_to_heading_then_name() -> None:
    assert parse_epub(book({"a.xhtml": page("<h1>One</h1>")}, metadata=""), "memo.epub").title == "One"
    assert parse_epub(book({"a.xhtml": page("<p>x</p>")}, metadata=""), "memo.epub").title == "memo"


def test_locked_chapters_are_refused_and_locked_fonts_are_not() -> None:
    def locked(uri: str) -> dict[str, str]:
        return {"META-INF/encryption.xml": f'<e><EncryptedData><CipherReference URI="{uri}"/></EncryptedData></e>'}

    chapters = {"a.xhtml": page("<p>x</p>")}
    assert refusal(book(chapters, more=locked("OEBPS/a.xhtml"))) == "locked by its publisher (DRM)"
    assert parse_epub(book(chapters, more=locked("OEBPS/font.otf")), "a.epub").text == "x"


def test_refusals() -> None:
    assert refusal(b"text") == "not an EPUB book"
    assert refusal(packed({"x": ""})) == "not an EPUB book"
    assert refusal(packed({"META-INF/container.xml": "<x"})) == "a damaged EPUB book"
    assert refusal(packed({"META-INF/container.xml": CONTAINER})) == "a damaged EPUB book"


def test_damaged_books_are_text_or_a_reason() -> None:
    for data in damaged(book({"a.xhtml": page("<p>Some text.</p>")}), 13):
        with contextlib.suppress(UnreadableFile):
            parse_epub(data, "a.epub")
