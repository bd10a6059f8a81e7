from __future__ import annotations

import sqlite3

from hypothesis import example, given, settings
from hypothesis import strategies as st

from openbook.errors import QuestionError
from openbook.knowledge.where import parse
from openbook.parsers.metadata import normalised, to_json
from openbook.records import MetadataValue

KEYS = ["a", "b", "date", "größe", "c"]
WORDS = [
    "pdf",
    "PDF",
    "Äpfel",
    "äPFEL",
    "ß",
    "σς",
    "İı",
    "a'b",
    'a"b',
    "[x]",
    "a*b",
    "2025",
    "2025-01",
    "8",
    "",
    "日本",
]
DATES = [
    "2024",
    "2025",
    "2025-01",
    "2025-01-31",
    "2025-01-31T10:00:00+00:00",
    "2025-02-01T00:00:00",
    "2024-12-31T23:30",
]
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
ORDERS = ["=", "!=", "<", "<=", ">", ">="]
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
ORDERED = st.tuples(st.sampled_from(KEYS), st.sampled_from(ORDERS), VALUES).map(" ".join)
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


def selected(text: str, kept: dict[str, MetadataValue]) -> bool:
    condition, parameters = parse(text).sql()
    connection = sqlite3.connect(":memory:")
    try:
        statement = f"SELECT count(*) FROM (SELECT :document AS metadata) d WHERE {condition}"
        document = to_json(tuple(sorted(kept.items())))
        return bool(connection.execute(statement, {"document": document, **parameters}).fetchone()[0])
    finally:
        connection.close()


@given(FILTERS, STORED)
@example("a != 1e17", {"a": 10**17})
@example("a < 9007199254740993.0", {"a": 9007199254740993})
@settings(deadline=None, max_examples=400)
def test_sql_selects_exactly_what_the_filter_means(text: str, said: dict[str, object]) -> None:
    kept = dict(normalised(said))
    try:
        where = parse(text)
    except QuestionError:
        return
    assert selected(text, kept) == where.matches(kept)


@given(st.sampled_from([*DATES, "2025-1", "2025-01-x"]), st.sampled_from([*DATES, "2025.0"]), st.sampled_from(ORDERS))
@settings(deadline=None, max_examples=300)
def test_dates_compare_alike(stored: str, asked: str, order: str) -> None:
    kept = dict(normalised({"date": stored}))
    assert selected(f"date {order} {asked}", kept) == parse(f"date {order} {asked}").matches(kept)


SIGNS = st.text("aAßÄä*?[]^-\\%_", min_size=1, max_size=5)


@given(SIGNS, st.one_of(SIGNS, st.lists(SIGNS, max_size=2)), st.sampled_from(["contains", "matches"]), st.booleans())
@settings(deadline=None, max_examples=400)
def test_patterns_match_alike(pattern: str, stored: str | list[str], word: str, same: bool) -> None:
    kept = dict(normalised({"a": pattern if same else stored}))
    text = f"a {word} {quoted(pattern)}"
    assert selected(text, kept) == parse(text).matches(kept)
    assert not same or parse(text).matches(kept)  # a text contains itself, and matches itself


@given(FILTERS, STORED)
@settings(deadline=None)
def test_not_turns_every_filter_round(text: str, said: dict[str, object]) -> None:
    kept = dict(normalised(said))
    try:
        where, other = parse(text), parse(f"not ({text})")
    except QuestionError:
        return
    assert where.matches(kept) != other.matches(kept)
    assert selected(text, kept) != selected(f"not ({text})", kept)


@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(
    ["a", "=", "!=", "<=", "'x'", '"', "'", "(", ")", ",", "and", "or", "not", "in", "contains", "exists", "2025-01-01",
     "1.5", "true", "-", ";", "\x00", "\ud800", "--", "::", "."]
), max_size=12).map(" ".join)))  # fmt: skip
@settings(deadline=None, max_examples=400)
def test_any_text_is_a_filter_that_runs_or_an_error_of_one_line(text: str) -> None:
    complaint = ""
    try:
        where = parse(text)
    except QuestionError as error:
        complaint = str(error)
    if complaint:
        assert "at character" in complaint
        assert complaint.isprintable()
    else:
        assert selected(text, {}) == where.matches({})
        assert where.keys()
