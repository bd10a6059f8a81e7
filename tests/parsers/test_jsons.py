from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.parsers.cleaning import clean
from openbook.parsers.jsons import read_json, read_json_lines


def lines(value: object) -> list[str]:
    return read_json(json.dumps(value).encode(), "a.json").text.splitlines()


def test_paths_and_values() -> None:
    stop = {"at": "Quay", "calls": 2, "tags": [{"a": 1}]}
    value = {"name": "Ferry", "route": {"from": "North", "stops": [stop]}, "open": True}
    assert lines(value) == [
        "name: Ferry; open: true",
        "route.from: North",
        "route.stops[0]: at: Quay; calls: 2",
        "route.stops[0].tags[0]: a: 1",
    ]


def test_records_are_lines() -> None:
    value = [{"name": "Ada", "born": 1815}, {"name": "Bob", "born": None}]
    assert lines(value) == ["name: Ada; born: 1815", "name: Bob; born: null"]
    assert lines({"people": value})[0] == "people[0]: name: Ada; born: 1815"
    assert lines([1, "a", False]) == ["1, a, false"]
    deep = [{"name": "Ada", "born": 1815, "work": {"title": ["Notes"]}}]
    assert lines(deep) == ["name: Ada; born: 1815", "[0].work.title: Notes"]


def test_long_text_stands_below_its_path() -> None:
    story = "It was a dark night.\n" + "The ferry left. " * 20
    value = {"story": story, "empty": [], "none": {}}
    assert read_json(json.dumps(value).encode(), "a.json").text == f"empty: none; none: none\nstory:\n{story}\n"


def test_numbers_stay_as_written() -> None:
    digits = "9" * 10_000
    text = '{"a": 1.10, "b": 1e400, "c": -0.0, "d": 12345678901234567890123}'
    assert read_json(text.encode(), "a.json").text == "a: 1.10; b: 1e400; c: -0.0; d: 12345678901234567890123\n"
    assert digits in read_json(f"[{digits}]".encode(), "a.json").text


def test_a_key_that_stands_twice_is_kept_twice() -> None:
    assert read_json(b'{"a": 1, "a": 2}', "a.json").text == "a: 1; a: 2\n"


def test_title_and_metadata() -> None:
    content = read_json(b'{"title": "Fares", "author": "Ada", "date": "5 March 2024", "x": [1]}', "a.json")
    assert content.title == "Fares"
    assert dict(content.metadata) == {"author": "Ada", "date": "2024-03-05"}


@pytest.mark.parametrize("text", ["{broken", "// comment\n{}", '{"a": 1,}', "[" * 200_000])
def test_what_is_not_json_is_plain_text(text: str) -> None:
    content = read_json(text.encode(), "a.json")
    assert (content.text, content.media_type) == (text, "text/plain")


def test_deep_nesting_and_long_keys_do_not_multiply() -> None:
    deep = '{"key": ' * 500 + "1" + "}" * 500
    assert len(read_json(deep.encode(), "a.json").text) < 1_000
    wide = json.dumps({"k" * 100_000: [{"a": {"b": i}} for i in range(2_000)]})
    assert len(read_json(wide.encode(), "a.json").text) < 700_000


def test_json_lines() -> None:
    text = '{"name": "Ada", "born": 1815}\n\nbroken {\n{"a": {"b": [{"c": 1}]}}\n'
    content = read_json_lines(text.encode(), "a.jsonl")
    assert content.text == "name: Ada; born: 1815\nbroken {\na.b[0]: c: 1\n"


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
)


@given(values)
def test_every_value_is_in_the_text(value: Any) -> None:
    text = read_json(json.dumps(value).encode(), "a.json").text
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
        else:
            assert clean(item if isinstance(item, str) else json.dumps(item)) in text
