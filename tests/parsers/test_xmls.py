from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.errors import UnreadableFile
from openbook.parsers.xmls import read_xml

CATALOG = """<?xml version="1.0" encoding="ISO-8859-1"?>
<catalog xml:lang="en"><!-- no text -->
  <book id="bk101"><author>Zo\xeb</author><price>44.95</price></book>
  <book id="bk102"><author>Bob &amp; Co</author><price>5.95</price></book>
  <limit unit="kg">23</limit><flag on="yes"/>
</catalog>"""

ARTICLE = """<article xml:lang="de"><front><article-title>Ferries</article-title><author>Ada</author></front><body>
<sec id="s1"><title>Fares</title><p class="x">Nine <b>euros</b> each.</p>
<sec><title>Children</title><p>Free.</p></sec></sec>
<table><tr><th>Age</th><th>Fare</th></tr><tr><td>0</td><td>free</td></tr></table></body></article>"""


def test_records_are_lines() -> None:
    content = read_xml(CATALOG.encode("latin-1"), "a.xml")
    assert content.text.splitlines() == [
        "id: bk101; author: Zo\xeb; price: 44.95",
        "id: bk102; author: Bob & Co; price: 5.95",
        "limit: 23 (unit: kg)",
        "flag: on: yes",
    ]
    assert dict(content.metadata) == {"language": "en"}  # no book's author is that of the catalogue


def test_documents_have_headings_and_no_attributes() -> None:
    content = read_xml(ARTICLE.encode(), "a.xml")
    assert content.title == "Ferries"
    assert [(mark.level, mark.title) for mark in content.headings] == [(1, "Ferries"), (1, "Fares"), (2, "Children")]
    assert "Nine euros each." in content.text
    assert "Age | Fare\n0 | free" in content.text
    assert "s1" not in content.text
    for mark in content.headings:
        assert content.text[mark.start :].startswith(mark.title)
    assert dict(content.metadata) == {"language": "de", "author": "Ada"}


def test_html_inside_a_feed_is_read_as_such() -> None:
    text = "<rss><channel><item><title>News</title><description>&lt;p&gt;Nine &lt;b&gt;euros&lt;/b&gt;.&lt;/p&gt;&lt;p&gt;Each.&lt;/p&gt;</description></item></channel></rss>"
    assert read_xml(text.encode(), "a.rss").text == "News\n\nNine euros.\n\nEach.\n"


@pytest.mark.parametrize("text", ["<a>unclosed", "<a><b></a>", "no xml", "<a>&undefined;</a>"])
def test_what_is_not_well_formed_is_plain_text(text: str) -> None:
    content = read_xml(text.encode(), "a.xml")
    assert (content.text, content.media_type) == (text, "text/plain")


def bomb() -> str:
    names = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10))
    return f'<!DOCTYPE a [<!ENTITY a0 "ha">{names}]><a>&a9;</a>'


def test_entities_that_grow_are_refused() -> None:
    with pytest.raises(UnreadableFile, match="declares XML entities that grow without end"):
        read_xml(bomb().encode(), "a.xml")


def test_an_entity_of_the_document_itself_is_text() -> None:
    assert read_xml(b'<!DOCTYPE a [<!ENTITY f "ferry">]><a>The &f; leaves</a>', "a.xml").text == "a: The ferry leaves\n"


def test_external_entities_are_not_fetched(tmp_path_factory: pytest.TempPathFactory) -> None:
    secret = tmp_path_factory.mktemp("x") / "secret"
    secret.write_text("the secret")
    text = f'<!DOCTYPE a [<!ENTITY s SYSTEM "{secret.as_uri()}">]><a>before &s; after</a>'
    assert "the secret" not in read_xml(text.encode(), "a.xml").text


def test_deep_nesting() -> None:
    for depth in (100, 250, 100_000):
        text = "<a>" * depth + "nine euros" + "</a>" * depth
        assert "nine euros" in read_xml(text.encode(), "a.xml").text


names = st.sampled_from(["a", "p", "title", "row", "item"])
trees = st.recursive(
    st.text(st.characters(categories=("L", "N")), min_size=1, max_size=8),
    lambda inner: st.builds(
        lambda name, parts: f"<{name}>{' '.join(parts)}</{name}>", names, st.lists(inner, min_size=1, max_size=4)
    ),
)


@given(trees)
def test_every_word_is_in_the_text(tree: str) -> None:
    content = read_xml(f"<root>{tree}</root>".encode(), "a.xml")
    for word in re.sub(r"<[^<>]*>", " ", tree).split():
        assert word in content.text
