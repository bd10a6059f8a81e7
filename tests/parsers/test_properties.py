"""Whatever the bytes are, a parser gives orderly text or a reason; and no word of a well-formed file is lost."""

from __future__ import annotations

import contextlib
import csv
import json
import re
from io import StringIO
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from openbook.core.errors import UnreadableFile
from openbook.parsers import SUFFIXES, parse_bytes
from openbook.parsers.characters import clean


def is_read_or_refused(data: bytes, name: str) -> None:
    with contextlib.suppress(UnreadableFile):
        content = parse_bytes(data, name)
        assert clean(content.text) == content.text
        assert all(0 <= mark.start < len(content.text) for mark in content.headings)
        assert list(content.headings) == sorted(content.headings, key=lambda mark: mark.start)


@given(st.binary(max_size=200), st.sampled_from(sorted(SUFFIXES)))
@settings(max_examples=200)
def test_any_bytes(data: bytes, suffix: str) -> None:
    for body in (data, b"PK\x03\x04" + data, b"From: a@b\n\n" + data, b"---\n" + data + b"\n---\n"):
        is_read_or_refused(body, f"a{suffix}")


@given(st.recursive(st.none() | st.booleans() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.sampled_from("cell_type source outputs data text text/plain output_type metadata cells".split()),
    inner | st.sampled_from(["code", "markdown", "error"]), max_size=4), max_leaves=20))  # fmt: skip
def test_notebooks_of_any_shape(value: object) -> None:
    for book in (value, {"cells": value}, {"cells": [value], "metadata": value}):
        is_read_or_refused(json.dumps(book).encode(), "a.ipynb")


KINDS = "text/plain text/html multipart/mixed;boundary=a message/rfc822 multipart/alternative;boundary=a".split()


@given(st.binary(max_size=300), st.sampled_from(KINDS))
def test_messages_with_any_body(body: bytes, kind: str) -> None:
    head = f"From: a@b\nMIME-Version: 1.0\nContent-Type: {kind}\n\n--a\n".encode()
    is_read_or_refused(head + body + b"\n--a\n\n" + body + b"\n--a--\n", "a.eml")


TOKENS = ["{", "}", "\\", "'", "*", "e9", "\\par ", "\\u8 ", "\\bin3 ", "\\f9", "x", "\\cell "]


@given(st.lists(st.sampled_from(TOKENS)))
def test_any_rich_text(tokens: list[str]) -> None:
    is_read_or_refused(f"{{\\rtf1 {''.join(tokens)}".encode(), "a.rtf")


words = st.text(st.characters(categories=("L", "N", "P", "Zs"), exclude_characters='"'), min_size=1, max_size=8)


@given(st.lists(st.lists(words, min_size=3, max_size=3), min_size=1, max_size=8))
def test_no_cell_is_lost(rows: list[list[str]]) -> None:
    out = StringIO()
    csv.writer(out).writerows([["first", "second", "third"], *rows])
    text = parse_bytes(out.getvalue().encode(), "a.csv").text
    assert all(" ".join(cell.split()) in text for row in rows for cell in row)


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
)


@given(values)
def test_every_value_of_json_is_in_the_text(value: Any) -> None:
    text = parse_bytes(json.dumps({"all": value}).encode(), "a.json").text
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict | list):
            waiting += item.values() if isinstance(item, dict) else item
        else:
            assert clean(item if isinstance(item, str) else json.dumps(item)) in text


names = st.sampled_from(["a", "p", "title", "row", "item"])
trees = st.recursive(
    st.text(st.characters(categories=("L", "N")), min_size=1, max_size=8),
    lambda inner: st.builds(
        lambda name, parts: f"<{name}>{' '.join(parts)}</{name}>", names, st.lists(inner, min_size=1, max_size=4)
    ),
)


@given(trees)
def test_every_word_of_xml_is_in_the_text(tree: str) -> None:
    text = parse_bytes(f"<root>{tree}</root>".encode(), "a.xml").text
    assert all(word in text for word in re.sub(r"<[^<>]*>", " ", tree).split())
