from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.diagnosis.reading_back import record_of


@dataclass(frozen=True, slots=True)
class Inner:
    word: str
    share: float | None = None


@dataclass(frozen=True, slots=True)
class Outer:
    kind: Literal["one", "other"]
    number: int
    sure: bool
    parts: tuple[Inner, ...]
    by_name: Mapping[str, Inner]
    best: Inner | None = None


INNER = st.builds(Inner, st.text(max_size=5), st.none() | st.floats(0, 1))
OUTER = st.builds(
    Outer,
    st.sampled_from(["one", "other"]),
    st.integers(),
    st.booleans(),
    st.lists(INNER, max_size=3).map(tuple),
    st.dictionaries(st.text(max_size=5), INNER, max_size=3),
    st.none() | INNER,
)
GOOD = asdict(Outer("one", 1, True, (Inner("a", 0.5),), {"b": Inner("b")}, None))


@given(OUTER)
def test_what_was_written_comes_back(outer: Outer) -> None:
    assert record_of(Outer, json.loads(json.dumps(asdict(outer)))) == outer


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kind": "third"}, "Outer.kind cannot be 'third'"),
        ({"number": "1"}, "Outer.number cannot be '1'"),
        ({"number": True}, "Outer.number cannot be True"),
        ({"sure": 1}, "Outer.sure cannot be 1"),
        ({"parts": {"a": 1}}, "Outer.parts cannot be"),
        ({"parts": [{"word": 3}]}, "Inner.word cannot be 3"),
        ({"by_name": [1]}, "Outer.by_name cannot be"),
        ({"best": 4}, "no Inner: 4"),
        ({"more": 4}, "no field 'more'"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        record_of(Outer, json.loads(json.dumps(GOOD)) | change)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match="Outer needs 'kind'"):
        record_of(Outer, {key: value for key, value in GOOD.items() if key != "kind"})
    assert record_of(Inner, {"word": "a"}) == Inner("a")
    assert record_of(Inner, {"word": "a", "share": 1}) == Inner("a", 1.0)
