from __future__ import annotations

import pytest

from openbook.parsers.formats.epub import parse_epub

from .samples import book, chapter, titles

NAV = '<item id="n" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>'
ONE = {"a.xhtml": chapter("<p>x</p>")}


def locked(uri: str) -> dict[str, str]:
    return {"META-INF/encryption.xml": f'<e><EncryptedData><CipherReference URI="{uri}"/></EncryptedData></e>'}


def test_chapters_in_reading_order() -> None:
    chapters = {
        "z.xhtml": chapter("<h1>One</h1><p>a<a id='x'/>b</p>", "ignored"),
        "empty.xhtml": chapter(""),
        "text/a.xhtml": chapter("<h2>Two</h2><p>c</p>"),
    }
    content = parse_epub(book(chapters), "a.epub")
    assert content.text == "One\n\nab\n\nTwo\n\nc"
    assert titles(content) == [(1, "One"), (2, "Two")]
    assert content.title == "Winter rules"
    assert content.metadata == (("author", ("Ada", "Grace")), ("date", "2024-05-06T07:08:09+00:00"), ("language", "en"))
    assert content.source_chars == len("ignoredOneabTwoc")


def test_chapters_without_a_heading_get_the_one_of_the_table_of_contents() -> None:
    nav = chapter('<nav><a href="a.xhtml">The sea</a><a href="b.xhtml#s">Named</a><a href="c.xhtml">Third</a></nav>')
    ncx = (
        '<ncx xmlns="n"><navMap><navPoint><navLabel><text>Older</text></navLabel><content src="d.xhtml"/></navPoint>'
        "</navMap></ncx>"
    )
    chapters = {
        "a.xhtml": chapter("<p>Waves.</p>"),
        "b.xhtml": chapter("<h1>Named</h1>"),
        "c.xhtml": chapter("<p>Third</p><p>x</p>"),
        "d.xhtml": chapter("<p>y</p>"),
    }
    items = NAV + '<item id="x" href="toc.ncx" media-type="application/x-dtbncx+xml"/>'
    content = parse_epub(book(chapters, items=items, more={"OEBPS/nav.xhtml": nav, "OEBPS/toc.ncx": ncx}), "a.epub")
    assert content.text == "The sea\n\nWaves.\n\nNamed\n\nThird\n\nx\n\nOlder\n\ny"
    assert [mark.title for mark in content.headings] == ["The sea", "Named", "Older"]


@pytest.mark.parametrize(
    ("data", "text", "title"),
    [
        # The table of contents itself, and references that lead nowhere, are left out.
        (
            book(
                {**ONE, "../../etc/passwd": "<p>y</p>", "gone.xhtml": chapter("")},
                items=NAV, more={"OEBPS/nav.xhtml": chapter("<p>contents</p>")},
            ),
            "x", "Winter rules",
        ),
        (book({"a.xhtml": chapter("<p>a&nbsp;b &mdash; c</p>")}), "a b — c", "Winter rules"),
        (book({"a.xhtml": chapter("<h1>One</h1>")}, metadata=""), "One", "One"),
        (book(ONE, metadata=""), "x", "memo"),
        (book(ONE, more=locked("OEBPS/font.otf")), "x", "Winter rules"),  # fonts are often scrambled
    ],
)  # fmt: skip
def test_text_and_title(data: bytes, text: str, title: str) -> None:
    content = parse_epub(data, "memo.epub")
    assert (content.text, content.title) == (text, title)
