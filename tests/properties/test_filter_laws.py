from __future__ import annotations

import fnmatch
import operator
import unicodedata
from typing import Any

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from openbook.core.errors import QuestionError
from openbook.knowledge.index.filter_parser import parse_filter
from openbook.parsers.metadata import normalised, rounded
from tests.knowledge.index.test_filter_parser import row

KEYS = ["a", "b", "date", "größe", "c"]
WORDS = [
    "pdf", "PDF", "Äpfel", "äPFEL", "ß", "σς", "İı", "a'b", 'a"b', "[x]", "a*b", "2025", "2025-01", "8", "", "日本",
]  # fmt: skip
DATES = "2024 2025 2025-01 2025-01-31 2025-01-31T10:00:00+00:00 2025-02-01T00:00:00 2024-12-31T23:30".split()
TEXTS = st.one_of(
    st.sampled_from(WORDS + DATES), st.text(max_size=6), st.lists(st.sampled_from(WORDS), max_size=3).map(" ".join)
)
NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.integers(2023, 2026),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.1, 0.1 + 0.2, 1e17, 2.0**53, 2**53 + 1]),
)
ORDERS = {"=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
STORED = st.dictionaries(
    st.sampled_from(KEYS[:-1]), st.one_of(TEXTS, NUMBERS, st.booleans(), st.lists(TEXTS, max_size=3)), max_size=4
)


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def spelled(value: str | float) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return quoted(value) if isinstance(value, str) else repr(value)


VALUES = st.one_of(TEXTS.map(spelled), NUMBERS.map(spelled), st.sampled_from(DATES))
ORDERED = st.tuples(st.sampled_from(KEYS), st.sampled_from(sorted(ORDERS)), VALUES).map(" ".join)
PATTERNS = st.lists(st.one_of(st.sampled_from(["*", "?", "[", "]", "^"]), TEXTS), min_size=1, max_size=4).map("".join)
TERMS = st.one_of(
    ORDERED,
    ORDERED,
    st.tuples(st.sampled_from(KEYS), st.sampled_from(["= true", "!= false", "= false", "exists"])).map(" ".join),
    st.tuples(st.sampled_from(KEYS), st.sampled_from(["contains", "matches"]), PATTERNS.map(quoted)).map(" ".join),
    st.tuples(st.sampled_from(KEYS), st.lists(VALUES, min_size=1, max_size=3)).map(
        lambda pair: f"{pair[0]} in ({', '.join(pair[1])})"
    ),
    st.sampled_from(KEYS).map("exists {}".format),
)
FILTERS = st.recursive(
    TERMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(" and ".join),
        st.tuples(inner, inner).map(" or ".join),
        inner.map("not {}".format),
        inner.map("({})".format),
        inner.map("not ({})".format),
    ),
    max_leaves=6,
)


PLAIN = st.one_of(TEXTS.filter(lambda text: text[:1] not in "012"), NUMBERS, st.booleans())


@given(PLAIN, st.sampled_from(sorted(ORDERS)), PLAIN)
@example(10**17, "!=", 1e17)
@example(9007199254740993, "<", 9007199254740993.0)
@example(9007199254740993, "=", 9007199254740993)
@example(9007199254740992, "=", 9007199254740993)
@example(10**18, "!=", 10**18 + 1)
@example(-(2**63), "=", -(2**63))
@example(2**63 - 1, "<", 99999999999999999999)
@example(0.1 + 0.2, "=", 0.30000000000000004)
@example(0, "=", -0.0)
@settings(max_examples=300)
def test_values_of_one_kind_compare_as_in_python_and_others_never(
    stored: str | float, order: str, asked: str | float
) -> None:
    kept: Any = dict(normalised({"a": stored})).get("a")
    assume(kept is not None)
    kinds = [bool if isinstance(v, bool) else str if isinstance(v, str) else float for v in (kept, asked)]
    try:
        found = row(f"a {order} {spelled(asked)}", {"a": stored})
    except QuestionError:  # true and false have no order
        return
    value = rounded(asked) if isinstance(asked, float) else asked
    value = unicodedata.normalize("NFC", value) if isinstance(value, str) else value
    assert found == (kinds[0] == kinds[1] and ORDERS[order](kept, value))


SIGNS = st.text("aAßÄä*?[]^-\\%_", min_size=1, max_size=5)


@given(SIGNS, st.one_of(SIGNS, st.lists(SIGNS, max_size=2)), st.sampled_from(["contains", "matches"]), st.booleans())
@settings(max_examples=400)
def test_a_pattern_is_found_in_itself_and_matches_like_a_glob(
    pattern: str, stored: str | list[str], word: str, same: bool
) -> None:
    said: dict[str, object] = {"a": pattern if same else stored}
    kept = dict(normalised(said)).get("a", "")
    found = row(f"a {word} {quoted(pattern)}", said)
    if word == "matches" and not same:
        items = (kept,) if isinstance(kept, str) else kept
        globbed = unicodedata.normalize("NFC", pattern).replace("[", "[[]")
        assert found == any(fnmatch.fnmatchcase(str(item), globbed) for item in items)  # type: ignore[union-attr]
    if same and kept:
        assert found


@given(FILTERS, FILTERS, STORED)
@settings(max_examples=200)
def test_not_and_or_mean_what_they_say(one: str, other: str, said: dict[str, object]) -> None:
    try:
        a, b = row(one, said), row(other, said)
    except QuestionError:
        return
    assert row(f"not ({one})", said) != a
    assert row(f"({one}) and ({other})", said) == (a and b)
    assert row(f"({one}) or ({other})", said) == (a or b)


@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(
    ["a", "=", "!=", "<=", "'x'", '"', "'", "(", ")", ",", "and", "or", "not", "in", "contains", "exists", "2025-01-01",
     "1.5", "true", "-", ";", "\x00", "\ud800", "--", "::", "."]
), max_size=12).map(" ".join)))  # fmt: skip
@settings(max_examples=400)
def test_any_text_is_a_filter_that_runs_or_an_error_of_one_line(text: str) -> None:
    complaint = ""
    try:
        asked = parse_filter(text)
    except QuestionError as error:
        complaint = str(error)
    if complaint:
        assert "at character" in complaint
        assert complaint.isprintable()
    else:
        assert row(text, {}) in (True, False)
        assert asked.keys
