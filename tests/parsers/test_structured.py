"""JSON, notebooks and XML."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.core.errors import UnreadableFile
from openbook.parsers import parse_bytes
from openbook.parsers.characters import clean
from openbook.parsers.formats.structured import parse_json, parse_json_lines, parse_notebook, parse_xml_file

from .samples import refusal, titles


def lines(value: object) -> list[str]:
    return parse_json(json.dumps(value).encode(), "a.json").text.splitlines()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"name": "Ferry", "open": True, "born": None}, ["name: Ferry; open: true; born: null"]),
        ([{"name": "Ada", "born": 1815}, {"name": "Bob"}], ["name: Ada; born: 1815", "name: Bob"]),
        ({"people": [{"name": "Ada"}]}, ["people[0]: name: Ada"]),
        ([1, "a", False], ["1, a, false"]),
        ({"name": "F", "route": {"stops": [{"at": "Quay"}]}}, ["name: F", "route.stops[0]: at: Quay"]),
        ("a", ["a"]),
        ({"story": "one\ntwo", "empty": [], "none": {}}, ["story:", "one", "two", "empty: none", "none: none"]),
    ],
)
def test_paths_and_values(value: object, expected: list[str]) -> None:
    assert lines(value) == expected


def test_numbers_and_keys_stay_as_written_and_lines_that_are_broken_too() -> None:
    text = '{"a": 1.10, "b": 1e400, "c": -0.0, "d": 12345678901234567890123}'
    assert parse_json(text.encode(), "a.json").text == "a: 1.10; b: 1e400; c: -0.0; d: 12345678901234567890123\n"
    text = '{"name": "Ada", "born": 1815}\n\nbroken {\n{}\n{"a": {"b": [{"c": 1}]}}\n'
    assert parse_json_lines(text.encode(), "a.jsonl").text == "name: Ada; born: 1815\nbroken {\na.b[0]: c: 1\n"


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize("data", [b"{}", b" [ ]\n"])
def test_an_empty_value_is_no_text(name: str, data: bytes) -> None:
    assert refusal(data, name) == "holds no text"


def test_title_and_metadata() -> None:
    content = parse_json(b'{"title": "Fares", "author": "Ada", "date": "5 March 2024", "x": [1]}', "a.json")
    assert content.title == "Fares"
    assert dict(content.metadata) == {"author": "Ada", "date": "2024-03-05"}


def test_deep_nesting_and_long_keys_do_not_multiply() -> None:
    deep = '{"key": ' * 500 + "1" + "}" * 500
    assert len(parse_json(deep.encode(), "a.json").text) < 1_000
    wide = json.dumps({"k" * 100_000: [{"a": {"b": i}} for i in range(2_000)]})
    assert len(parse_json(wide.encode(), "a.json").text) < 700_000


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
)


@given(values)
def test_every_value_is_in_the_text(value: Any) -> None:
    text = parse_json(json.dumps(value).encode(), "a.json").text
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict | list):
            waiting += item.values() if isinstance(item, dict) else item
        else:
            assert clean(item if isinstance(item, str) else json.dumps(item)) in text


OUTPUTS = [
    {"output_type": "stream", "text": ["9\n"]},
    {"output_type": "display_data", "data": {"image/png": "aGVsbG8=" * 1000, "text/plain": "<Figure size 640x480>"}},
    {"output_type": "execute_result", "data": {"text/html": "<b>x</b>", "text/plain": ["a  b\n", "1  2"]}},
    {"output_type": "error", "ename": "KeyError", "evalue": "'x'", "traceback": ["\u001b[31mlong"]},
]
BOOK: dict[str, Any] = {
    "metadata": {"language_info": {"name": "python"}},
    "cells": [
        {"cell_type": "markdown", "source": ["# Ferry fares\n", "\n", "Nine euros."]},
        {"cell_type": "code", "source": "# no heading\nprint(9)", "outputs": OUTPUTS},
        {"cell_type": "markdown", "source": "## Later"},
        {"cell_type": "code", "source": "'''\n```\n'''", "outputs": []},
        {"cell_type": "code", "source": "", "outputs": []},
    ],
}


def test_cells_in_order_with_headings_and_outputs() -> None:
    content = parse_notebook(json.dumps(BOOK).encode(), "a.ipynb")
    assert content.text == (
        "# Ferry fares\n\nNine euros.\n\n```python\n# no heading\nprint(9)\n```\n\n```\n9\n```\n\n```\na  b\n1  2\n```\n\n"
        "```\nKeyError: 'x'\n```\n\n## Later\n\n````python\n'''\n```\n'''\n````\n"
    )
    assert titles(content) == [(1, "Ferry fares"), (2, "Later")]
    assert content.title == "Ferry fares"
    assert dict(content.metadata) == {"programming_language": "python"}


def test_outputs_are_kept_where_the_code_was_cleared() -> None:
    cell = {"cell_type": "code", "source": [], "outputs": OUTPUTS[:1]}
    assert parse_notebook(json.dumps({"cells": [cell]}).encode(), "a.ipynb").text == "```\n9\n```\n"


@pytest.mark.parametrize("data", [b"{}", b"[]", b"{", b'{"cells": 3}', b'{"worksheets": []}'])
def test_what_is_no_notebook(data: bytes) -> None:
    with pytest.raises(UnreadableFile, match="notebook"):
        parse_notebook(data, "a.ipynb")


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
    content = parse_xml_file(CATALOG.encode("latin-1"), "a.xml")
    assert content.text.split("\n\n") == [
        "id: bk101; author: Zo\xeb; price: 44.95",
        "id: bk102; author: Bob & Co; price: 5.95",
        "limit: 23; unit: kg",
        "on: yes",
    ]
    assert dict(content.metadata)["language"] == "en"


def test_documents_have_headings_and_no_attributes() -> None:
    content = parse_xml_file(ARTICLE.encode(), "a.xml")
    assert content.title == "Ferries"
    assert titles(content) == [(1, "Ferries"), (1, "Fares"), (2, "Children")]
    assert "Nine euros each." in content.text
    assert "Age | Fare\n\n0 | free" in content.text
    assert "s1" not in content.text
    assert dict(content.metadata) == {"language": "de"}


def test_html_inside_a_feed_is_read_as_such() -> None:
    text = "<rss><channel><item><title>News</title><description>&lt;p&gt;Nine &lt;b&gt;euros&lt;/b&gt;.&lt;/p&gt;</description></item></channel></rss>"
    assert "Nine euros." in parse_xml_file(text.encode(), "a.rss").text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(
            ("a.json", text)
            for text in ("{broken", "// comment\n{}", '{"a": 1,}', "[" * 200_000, '{"//": "one", "//": "two"}')
        ),
        *(("a.xml", text) for text in ("<a>unclosed", "<a><b></a>", "no xml", "<a>&undefined;</a>")),
    ],
)
def test_what_is_not_well_formed_is_plain_text(name: str, text: str) -> None:
    content = parse_bytes(text.encode(), name)
    assert (content.text, content.media_type) == (text, "text/plain")


names = st.sampled_from(["a", "p", "title", "row", "item"])
trees = st.recursive(
    st.text(st.characters(categories=("L", "N")), min_size=1, max_size=8),
    lambda inner: st.builds(
        lambda name, parts: f"<{name}>{' '.join(parts)}</{name}>", names, st.lists(inner, min_size=1, max_size=4)
    ),
)


@given(trees)
def test_every_word_is_in_the_text(tree: str) -> None:
    content = parse_xml_file(f"<root>{tree}</root>".encode(), "a.xml")
    for word in re.sub(r"<[^<>]*>", " ", tree).split():
        assert word in content.text
