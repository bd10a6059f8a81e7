from __future__ import annotations

import pytest

from openbook.errors import UnreadableFile
from openbook.parsers.html import parse_html


def text_of(body: str) -> str:
    return parse_html(f"<html><body>{body}</body></html>".encode(), "a.html").text


def test_blocks_lines_and_white_space() -> None:
    assert text_of("<p>One\n  two <b>bold</b>, <i>x</i>y.</p><p>Next<br>line</p>") == "One two bold, xy.\n\nNext\nline"
    assert text_of("a<br><br>b") == "a\n\nb"
    assert text_of("<div>a<div>b</div>c</div>") == "a\n\nb\n\nc"
    assert text_of("a&nbsp;&nbsp;b soft&shy;hyphen") == "a b softhyphen"


def test_lists() -> None:
    html = "<p>See:</p><ul><li><p>one</p></li><li>two<ol><li>inner</li></ol></li><li></li><li>three</li></ul><p>end</p>"
    assert text_of(html) == "See:\n\n- one\n- two\n  1. inner\n- three\n\nend"


def test_definition_lists() -> None:
    assert (
        text_of("<dl><dt>a</dt><dd>first</dd><dt>b</dt><dt>c</dt><dd>second</dd></dl>")
        == "a\n\nfirst\n\nb\nc\n\nsecond"
    )


def test_tables_are_rows() -> None:
    html = (
        "<table><caption>Fares</caption><thead><tr><th>to<th>adult</tr></thead>"
        "<tr><td>Kilverry<td><p>8.90</p><p>EUR</p></tr><tr><td><td>x</tr><tr><td> <td></tr></table>after"
    )
    assert text_of(html) == "Fares\nto | adult\nKilverry | 8.90 EUR\n | x\n\nafter"


def test_tables_that_only_lay_out_are_blocks() -> None:
    page = (
        "<table><tr><td><table><tr><td>menu</td></tr></table></td><td><h1>Title</h1><p>a</p><p>b</p></td></tr></table>"
    )
    assert text_of(page) == "menu\n\nTitle\n\na\n\nb"
    long = "word " * 300
    assert text_of(f"<table><tr><td>{long}<p>next</p></td></tr></table>").endswith("word\n\nnext")


def test_pre_is_verbatim() -> None:
    assert text_of("<p>x</p><pre>\n  a\n\n    <b>b</b>  c\n</pre>y") == "x\n\n  a\n\n    b  c\n\ny"


def test_what_no_reader_sees_is_dropped() -> None:
    html = (
        "<nav>menu</nav><script>x()</script><style>p{}</style><noscript>n</noscript><template>t</template>"
        "<svg><title>s</title><text>s</text></svg><div hidden>h</div><p style='color:red; display: none'>d</p>"
        "<div role=navigation>r</div><select><option>o</select><h2>Head<a class=headerlink>¶</a></h2>"
        "<!-- c --><p>kept</p>"
    )
    assert text_of(html) == "Head\n\nkept"


def test_navigation_and_banners_that_are_no_nav_elements_are_dropped() -> None:
    html = (
        "<ul class='breadcrumbs'><li>Home</li></ul><div class='navheader'>Prev Next</div>"
        "<div class='toctree-wrapper'><ul><li class='toctree-l1'><a href='b.html'>Part</a></li></ul>"
        "<section><h2>Part</h2><p>Text of the part</p></section></div>"
        "<div id='CybotCookiebotDialog'>We use cookies</div><div class='banner cookie-notice'>Accept all</div>"
    )
    assert text_of(html) == "Part\n\nText of the part"


def test_a_footer_is_dropped_only_beside_a_main_part() -> None:
    assert text_of("<p>a</p><footer>imprint</footer>") == "a\n\nimprint"
    assert text_of("<main><p>a</p></main><footer>imprint</footer>") == "a"


def test_headings_and_title() -> None:
    head = "<html><head><title> A\n page </title></head>"
    html = f"{head}<body><h1>One <em>two</em></h1><p>x</p><h3>Three</h3><p>y</p></body>"
    content = parse_html(html.encode(), "a.html")
    assert content.title == "A page"
    assert [(mark.level, mark.title) for mark in content.headings] == [(1, "One two"), (3, "Three")]
    assert [content.text[mark.start :].split("\n")[0] for mark in content.headings] == ["One two", "Three"]


def test_title_falls_back_to_heading_then_name() -> None:
    assert parse_html(b"<h2>sub</h2><h1>Main</h1>", "a.html").title == "Main"
    assert parse_html(b"<p>x", "winter-memo.html").title == "winter-memo"


@pytest.mark.parametrize(
    ("declared", "encoding"),
    [
        ('<meta charset="windows-1251">', "cp1251"),
        ('<meta http-equiv="Content-Type" content="text/html; charset=Shift_JIS">', "shift_jis"),
        ('<?xml version="1.0" encoding="koi8-r"?>', "koi8-r"),
        ('<meta charset="iso-8859-1">', "utf-8"),  # says one thing and is another
        ("", "utf-16"),
        ('<meta charset="no-such-thing">', "utf-8"),
    ],
)
def test_encodings(declared: str, encoding: str) -> None:
    text = "日本語の文書" if encoding == "shift_jis" else "Русский текст"
    assert parse_html(f"{declared}<p>{text}</p>".encode(encoding), "a.html").text == text


def test_latin1_means_windows_1252() -> None:
    assert parse_html('<meta charset="latin1"><p>20 € — “so”</p>'.encode("cp1252"), "a.html").text == "20 € — “so”"


def test_xhtml() -> None:
    html = '<?xml version="1.0"?><!DOCTYPE html><html xmlns="http://www.w3.org/1999/xhtml"><body><p>a<br/>b</p></body></html>'
    assert parse_html(html.encode(), "a.xhtml").text == "a\nb"


def test_entities_cannot_bring_control_characters_back() -> None:
    assert text_of("<p>a&#x202e;b&#27;c&#0;d&#13;e</p><table><tr><td>f&#x202e;g</table>").isprintable() is False
    assert "\u202e" not in text_of("<p>a&#x202e;b</p><table><tr><td>f&#x202e;g</table><pre>x&#x202e;y</pre>")
    assert "\x1b" not in text_of("<p>a&#27;b</p><pre>&#27;x</pre>")


@pytest.mark.parametrize("tag", ["div", "b", "ul><li", "blockquote", "p><font"])
def test_deep_nesting(tag: str) -> None:
    text = text_of(f"<{tag}>" * 100_000 + "deep" + "<p>after</p>")
    assert text.split() == ["deep", "after"] or text.split() == ["-", "deep", "after"]


def test_entity_bomb_and_external_entities_expand_to_nothing() -> None:
    bomb = (
        '<!DOCTYPE html [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">'
        '<!ENTITY c SYSTEM "file:///etc/passwd">]><html><body><p>x &b; &c; y</p></body></html>'
    )
    text = parse_html(bomb.encode(), "a.xhtml").text
    assert "aaaaaaaaaa" * 2 not in text.split("]>")[-1]
    assert "root:" not in text


def test_broken_markup_is_read_as_far_as_it_goes() -> None:
    assert text_of("<p>a <b>b <i>c</b> d</i><li>e</table></div> f<td>g").split() == [
        "a",
        "b",
        "c",
        "d",
        "-",
        "e",
        "f",
        "g",
    ]
    assert parse_html(b"<p>cut off <a href='", "a.html").text == "cut off"
    assert parse_html(b"just text & more", "a.html").text == "just text & more"


def test_no_text_at_all() -> None:
    assert text_of("<script>x</script>") == ""
    with pytest.raises(UnreadableFile):
        parse_html(bytes(1000), "a.html")


def test_what_a_page_says_about_itself() -> None:
    html = (
        '<html lang="en-GB"><head><meta name="author" content="Ada"><meta name="date" content="2020-01-02">'
        '<meta property="article:published_time" content="2021-02-03T04:05:06Z">'
        '<meta property="article:modified_time" content="2022-03-04"><meta name="robots" content="none"></head>x'
    )
    content = parse_html(html.encode(), "a.html")
    assert content.metadata == (("author", "Ada"), ("date", "2022-03-04"), ("language", "en-GB"))
    assert content.source_chars == len(html)


def test_an_address_is_no_author() -> None:
    html = '<meta property="article:author" content="https://e.org/ada"><meta name="DC.creator" content="Grace"><p>x'
    assert parse_html(html.encode(), "a.html").metadata == (("author", "Grace"),)


def test_closed_elements_of_xhtml_swallow_nothing() -> None:
    html = '<?xml version="1.0"?><html><head><title/><script src="a"/></head><body><a id="x"/><p>kept</p><br/></body></html>'
    assert parse_html(html.encode(), "a.xhtml").text == "kept"


def test_links_that_skip_the_menu_are_dropped() -> None:
    assert text_of('<a class="skipToContent_x" href="#main">Skip to content</a><p>kept</p>') == "kept"
    assert text_of('<a class="skip" href="other.html">a page</a>') == "a page"


def test_cells_over_several_rows_are_repeated() -> None:
    html = (
        "<table><tr><th colspan=3>Fares</th></tr><tr><td rowspan=3>North<td>a<td rowspan=2>x</tr><tr><td>b</tr>"
        "<tr><td colspan=2>c</tr><tr><td>South<td>d</tr></table><table><tr><td>e<td>f</tr></table>"
    )
    assert text_of(html) == "Fares\nNorth | a | x\nNorth | b | x\nNorth | c\nSouth | d\n\ne | f"


@pytest.mark.parametrize("span", ["0", "-1", "99999999999", "x", "65534"])
def test_wild_spans(span: str) -> None:
    row = f'<tr><td rowspan="{span}" colspan="{span}">a<td>b</tr>'
    text = text_of(f"<table>{row * 50}</table>")
    assert text.count("b") == 50
    assert len(text) < 50 * 4000 * 50


def test_tables_inside_one_another_have_a_bound() -> None:
    with pytest.raises(UnreadableFile, match="more than 100 tables inside one another"):
        text_of("<table><tr><td>" * 100_000)
