"""One codec: what JSON holds is a record of the stated kind, or an error that names the place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openbook.core.codec import convert, decode
from openbook.core.errors import ReceiptError


@dataclass(frozen=True, slots=True)
class Inner:
    name: str
    size: int | None = None

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 0:
            raise ValueError("size must not be negative")


@dataclass(frozen=True, slots=True)
class Outer:
    inner: Inner
    rest: tuple[Inner, ...] = ()
    by_name: Mapping[str, Inner] = field(default_factory=dict)
    kind: Literal["a", "b"] = "a"
    share: float = 0.0


inners = st.builds(Inner, st.text(), st.none() | st.integers(0, 1 << 62))
outers = st.builds(
    Outer,
    inners,
    st.lists(inners).map(tuple),
    st.dictionaries(st.text(), inners),
    st.sampled_from(["a", "b"]),
    st.floats(allow_nan=False, allow_infinity=False),
)


@given(outers)
@settings(max_examples=40)
def test_written_values_are_read_back(outer: Outer) -> None:
    assert decode(json.dumps(asdict(outer)), Outer, "it", ReceiptError) == outer


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ([], r"it must be an object, not \[\]"),
        ({}, "it lacks the key 'inner'"),
        ({"inner": {"name": 5}}, r"it\.inner\.name must be text, not 5"),
        ({"inner": {"name": "x", "size": True}}, r"it\.inner\.size must be int \| null, not True"),
        ({"inner": {"name": "x", "size": -1}}, r"it\.inner: size must not be negative"),
        ({"inner": {"name": "x"}, "rest": [{"name": "x"}, {"name": "y", "sise": 1}]}, r"it\.rest\[1\] has the unknown key 'sise'. Did you mean 'size'"),
        ({"inner": {"name": "x"}, "by_name": {"k": {"name": "x", "z": 1}}}, r"it\.by_name\.k has the unknown key 'z'"),
        ({"inner": {"name": "x"}, "kind": "c"}, r"it\.kind cannot be 'c'"),
        ({"inner": {"name": "x"}, "\ud800": 1}, "it has a key with half of a character"),
        ({"inner": {"name": "x"}, "share": "1"}, r"it\.share must be a number, not '1'"),
        ([], r"Line 1 of a\.log must be an object"),  # a place that is a phrase ends with a colon
        ({}, r"Line 1 of a\.log lacks the key 'inner'"),
        ({"inner": {"name": 5}}, r"Line 1 of a\.log: inner\.name must be text, not 5"),
        ({"inner": {"name": "x", "z": 1}}, r"Line 1 of a\.log: inner has the unknown key 'z'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_with_its_place(value: Any, sentence: str) -> None:
    with pytest.raises(ReceiptError, match=sentence):
        convert(value, Outer, "Line 1 of a.log" if sentence.startswith("Line") else "it", ReceiptError)


@pytest.mark.parametrize("text", ["", "{", b"\xff", '{"a": 1, "a": 1}', "[" * 100_000, "9" * 5000])
def test_what_is_not_json_is_an_error(text: str | bytes) -> None:
    with pytest.raises(ReceiptError, match="it is not a JSON document"):
        decode(text, Outer, "it", ReceiptError)
