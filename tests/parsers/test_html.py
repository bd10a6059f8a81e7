from __future__ import annotations

import pytest

from openbook.core.errors import UnreadableFile
from openbook.parsers.formats.html import parse_html

from .samples import titles


def text_of(body: str) -> str:
    return parse_html(f"<html><body>{body}</body></html>".encode(), "a.html").text


LISTS = "<p>See:</p><ul><li><p>one</p></li><li>two<ol><li>inner</li></ol></li><li></li><li>three</li></ul><p>end</p>"
NUMBERS = (
    "<ol start=2><li>two<ol start='x'><li>inner</ol><li value=7>seven<li value=''>eight</ol>"
    "<ol start=0><li>none<ul><li value=5>bullet</ul><li>one</ol><ol start=-1><li>below</ol><ol reversed><li>last</ol>"
)
DEFINITIONS = "<dl><dt>a</dt><dd>first</dd><dt>b</dt><dt>c</dt><dd>second</dd></dl>"
TABLE = (
    "<table><caption>Fares</caption><thead><tr><th>to<th>adult</tr></thead>"
    "<tr><td>Kilverry<td><p>8.90</p><p>EUR</p></tr><tr><td><td>x</tr><tr><td> <td></tr></table>after"
)
SPANS = (
    "<table><tr><th colspan=3>Fares</th></tr><tr><td rowspan=3>North<td>a<td rowspan=2>x</tr><tr><td>b</tr>"
    "<tr><td colspan=2>c</tr><tr><td>South<td>d</tr></table><table><tr><td>e<td>f</tr></table>"
)
LAYOUT = "<table><tr><td><table><tr><td>menu</td></tr></table></td><td><h1>Title</h1><p>a</p><p>b</p></td></tr></table>"
LONG = "word " * 300
UNSEEN = (
    "<nav>menu</nav><script>x()</script><style>p{}</style><noscript>n</noscript><template>t</template>"
    "<svg><title>s</title><text>s</text></svg><div hidden>h</div><p style='color:red; display: none'>d</p>"
    "<div role=navigation>r</div><select><option>o</select><h2>Head<a class=headerlink>¶</a></h2>"
    "<!-- c --><p>kept</p>"
)
BANNERS = (
    "<ul class='breadcrumbs'><li>Home</li></ul><div class='navheader'>Prev Next</div>"
    "<div class='toctree-wrapper'><ul><li class='toctree-l1'><a href='b.html'>Part</a></li></ul>"
    "<section><h2>Part</h2><p>Text of the part</p></section></div>"
    "<div id='CybotCookiebotDialog'>We use cookies</div><div class='banner cookie-notice'>Accept all</div>"
)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("<p>One\n  two <b>bold</b>, <i>x</i>y.</p><p>Next<br>line</p>", "One two bold, xy.\n\nNext\nline"),
        ("a<br><br>b", "a\n\nb"),
        ("<div>a<div>b</div>c</div>", "a\n\nb\n\nc"),
        ("a&nbsp;&nbsp;b soft&shy;hyphen", "a b softhyphen"),
        (LISTS, "See:\n\n- one\n- two\n  1. inner\n- three\n\nend"),
        (NUMBERS, "2. two\n  1. inner\n7. seven\n8. eight\n\n0. none\n  - bullet\n1. one\n\n-1. below\n\n- last"),
        (DEFINITIONS, "a\n\nfirst\n\nb\nc\n\nsecond"),
        (TABLE, "Fares\nto | adult\nKilverry | 8.90 EUR\n | x\n\nafter"),
        (SPANS, "Fares\nNorth | a | x\nNorth | b | x\nNorth | c\nSouth | d\n\ne | f"),
        (LAYOUT, "menu\n\nTitle\n\na\n\nb"),  # tables that only lay out a page
        (f"<table><tr><td>{LONG}<p>next</p></td></tr></table>", LONG.strip() + "\n\nnext"),
        ("<p>x</p><pre>\n  a\n\n    <b>b</b>  c\n</pre>y", "x\n\n  a\n\n    b  c\n\ny"),
        (UNSEEN, "Head\n\nkept"),
        (BANNERS, "Part\n\nText of the part"),
        ("<p>a</p><footer>imprint</footer>", "a\n\nimprint"),
        ("<main><p>a</p></main><footer>imprint</footer>", "a"),
        ('<a class="skipToContent_x" href="#main">Skip to content</a><p>kept</p>', "kept"),
        ('<a class="skip" href="other.html">a page</a>', "a page"),
        ("<p>cut off <a href='", "cut off"),
        ("just text & more", "just text & more"),
        ("<script>x</script>", ""),
    ],
)
def test_what_a_page_shows(body: str, text: str) -> None:
    assert text_of(body) == text


def test_broken_markup_is_read_as_far_as_it_goes() -> None:
    words = text_of("<p>a <b>b <i>c</b> d</i><li>e</table></div> f<td>g").split()
    assert words == ["a", "b", "c", "d", "-", "e", "f", "g"]


def test_headings_and_title() -> None:
    html = "<html><head><title> A\n page </title></head><h1>One <em>two</em></h1><p>x</p><h3>Three</h3><svg><title>s</title>"
    content = parse_html(html.encode(), "a.html")
    assert content.title == "A page"
    assert titles(content) == [(1, "One two"), (3, "Three")]
    assert parse_html(b"<h2>sub</h2><h1>Main</h1>", "a.html").title == "Main"
    assert parse_html(b"<p>x", "winter-memo.html").title == "winter-memo"


@pytest.mark.parametrize(
    ("declared", "encoding", "text"),
    [
        ('<meta charset="windows-1251">', "cp1251", "Русский текст"),
        ('<meta http-equiv="Content-Type" content="text/html; charset=Shift_JIS">', "shift_jis", "日本語の文書"),
        ('<?xml version="1.0" encoding="koi8-r"?>', "koi8-r", "Русский текст"),
        ('<meta charset="iso-8859-1">', "utf-8", "Русский текст"),  # says one thing and is another
        ('<meta charset="latin1">', "cp1252", "20 € — “so”"),  # means Windows 1252
        ("", "utf-16", "Русский текст"),
        ('<meta charset="no-such-thing">', "utf-8", "Русский текст"),
    ],
)
def test_encodings(declared: str, encoding: str, text: str) -> None:
    assert parse_html(f"{declared}<p>{text}</p>".encode(encoding), "a.html").text == text


def test_what_a_page_says_about_itself() -> None:
    html = (
        '<html lang="en-GB"><head><meta property="article:author" content="https://e.org/ada">'
        '<meta name="DC.creator" content="Ada"><meta name="date" content="2020-01-02">'
        '<meta property="article:published_time" content="2021-02-03T04:05:06Z">'
        '<meta property="article:modified_time" content="2022-03-04"><meta name="robots" content="none">'
        '<meta name="Superseded-By" content="b.html"><meta name="status" content="Archived"></head>x'
    )
    content = parse_html(html.encode(), "a.html")
    declared = (("status", "Archived"), ("superseded_by", "b.html"))
    assert content.metadata == (("author", "Ada"), ("date", "2022-03-04"), ("language", "en-GB"), *declared)
    assert content.source_chars == len(html)


def test_entities_cannot_bring_control_characters_back() -> None:
    text = text_of("<p>a&#x202e;b&#27;c&#0;d&#13;e</p><table><tr><td>f&#x202e;g</table><pre>x&#x202e;y&#27;</pre>")
    assert not {"\u202e", "\x1b", "\0", "\r"} & set(text)


def test_bounds() -> None:
    for span in ("0", "-1", "99999999999", "x", "65534"):
        row = f'<tr><td rowspan="{span}" colspan="{span}">a<td>b</tr>'
        text = text_of(f"<table>{row * 50}</table>")
        assert text.count("b") == 50
        assert len(text) < 50 * 4000 * 50
    with pytest.raises(UnreadableFile, match="more than 100 tables inside one another"):
        text_of("<table><tr><td>" * 100_000)
