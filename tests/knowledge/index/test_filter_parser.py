from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest

from openbook.core.errors import QuestionError
from openbook.knowledge.index.filter_parser import parse_filter as parse
from openbook.parsers.metadata import normalised, to_json

DOCUMENT = {
    "type": "pdf",
    "path": "docs/guide/Über uns [1].md",
    "title": "The Äpfel report",
    "date": "2025-01-31T10:00:00+00:00",
    "year": 2025,
    "size": 8.5,
    "code": "8",
    "draft": False,
    "tags": ["Red Apples", "pears"],
    "said": 'say "so"',
}


def row(text: str, metadata: dict[str, object]) -> bool:
    return stored(text, to_json(normalised(metadata)))


def stored(text: str, metadata: str) -> bool:
    asked = parse(text)
    with closing(sqlite3.connect(":memory:")) as connection:
        sql = f"SELECT count(*) FROM (SELECT :document AS metadata) d WHERE {asked.sql}"
        return bool(connection.execute(sql, {"document": metadata, **asked.values}).fetchone()[0])


@pytest.mark.parametrize(
    "text",
    [
        "type = 'pdf'", 'TYPE = "pdf"', "type != 'md'", "type in ('md', 'pdf')", "type < 'q' and type >= 'pdf'",
        "year >= 2025 and year < 2026.5", "size = 8.5 or size = 1", "size > -1e3", "draft = false and draft != true",
        "exists title and tags exists and not exists author", "title contains 'äpfel'", "title contains 'REPORT'", 'said = "say ""so"""',
        "tags contains 'red apples'", "tags matches 'pea*'", "path matches 'docs/*.md' and path matches '*[1]??d'",
        "not (type = 'md' or year = 1)", "type = 'md' or type = 'pdf' and year = 2025", "NOT missing != 1 AND Exists Title",
    ],
)  # fmt: skip
def test_true_of_the_document(text: str) -> None:
    assert row(text, dict(DOCUMENT))


@pytest.mark.parametrize(
    "text",
    [
        "type = 'PDF'", "title matches 'the*'", "path matches 'docs/*.MD'",  # as it is written
        "missing = 1", "missing != 1", "missing in (1, 'a')", "missing contains 'a'", "missing < 2025-01-01",
        "code = 8", "code != 8", "year = '2025'", "draft = 0", "year = true", "year contains '20'",  # no conversion
        "tags = 'pears'", "tags contains 'pear'",  # a whole item
        "(type = 'md' or type = 'pdf') and year = 1", "not (type = 'pdf')",
    ],
)  # fmt: skip
def test_false_of_the_document(text: str) -> None:
    assert not row(text, dict(DOCUMENT))


@pytest.mark.parametrize(
    ("date", "true", "false"),
    [
        (
            "2025-01-31T10:00:00+00:00",
            ("= 2025-01-31", "= 2025-01", "= 2025", ">= 2025-01-31", "<= 2025-01-31", "> 2024", "< 2025-02-01",
             ">= 2025-01-31T10:00", "= 2025-01-31T11:00+01:00", "= 2025-01-31T10:00:00Z", "in (2024, 2025-01)"),
            ("> 2025-01-31", "< 2025", "!= 2025-01", "> 2025-01-31T10:00:00", "= '2025-01-31'", "> 2025.0"),
        ),
        ("2025", ("= 2025-06-30", ">= 2025-12", "<= 2025-01-01", "= 2025"), ("> 2025-01-01", "!= 2025-06", "< 2025-12")),
        ("soon", ("= 'soon'", "!= 'later'"), ("= 2025", "!= 2025", "> 2000-01-01", "< 2030-01")),
        ("2025-13 or so", ("contains '2025'",), ("= 2025", ">= 2025-01-01", "!= 2025-01")),
    ],
)  # fmt: skip
def test_dates(date: str, true: tuple[str, ...], false: tuple[str, ...]) -> None:
    for rest in true:
        assert row(f"date {rest}", {"date": date}), rest
    for rest in false:
        assert not row(f"date {rest}", {"date": date}), rest


def test_a_year_is_still_a_number() -> None:
    assert row("n = 2025", {"n": 2025})
    assert row("n = 2025", {"n": "2025-03-01"})
    assert not row("n = 2025-01", {"n": 2025})


def test_keys_are_written_as_they_are_stored() -> None:
    assert row("Last-Updated = 'x' and größe = 1", {"last updated": "x", "GRÖSSE": 1, "Größe ": 1})
    assert parse("b = 1 or not (A = 1 and b exists) or c in (1, 2)").keys == ("a", "b", "c")


def test_precedence() -> None:
    for text in ("a = 1 or b = 1 and not c = 1", "a = 1 or (b = 1 and (not c = 1))"):
        assert parse(text) == parse("a = 1 or (b = 1 and (not (c = 1)))")
    assert parse("(a = 1 or b = 1) and c = 1") != parse("a = 1 or b = 1 and c = 1")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected a key at character 1"), ("   ", "expected a key"),
        ("type", "expected a comparison .* after 'type' at character 5"),
        ("type = pdf", r"expected a value \(a text needs quotes: 'pdf'\) after 'type =' at character 8"),
        ("a = 1 b = 2", "expected 'and', 'or' or the end after 'a = 1' at character 7"),
        ("(a = 1", r"expected 'and', 'or' or '\)'"), ("a = 1)", "expected 'and', 'or' or the end"),
        ("a in 1", r"expected '\('"), ("a in ()", "expected a value"), ("a in (1 2)", r"expected ',' or '\)'"),
        ("a = 'x", "the quote ' is not closed at character 5"), ("a > true", "no order"),
        ("a contains 5", "expected a text in quotes"), ("a matches ''", "not empty"),
        ("not", "expected a key after 'not'"), ("'a' = 1", "expected a key"), ("_ = 1", "expected a key"),
        ("a = = 1", "expected a value after 'a ='"), ("a = 2025-02-30", "not in the calendar"),
        ("a = 2025-00", "not in the calendar"), ("a = 0000-01-01", "not in the calendar"),
        ("a = 12ab", "neither a number nor a date"), ("a = 2025-01-3T", "neither a number nor a date"),
        ("a = 1e999", "too large"), ("a = " + "9" * 400, "too large"),
        ("a = '" + "x" * 1001 + "'", "1,001 characters"), ("x" * 4001, "4,001 characters"),
        ("a = 1 -- b", "neither a number nor a date"), ("a = $b", r"'\$' cannot stand there"),
        ("date >= ", r"expected a value after 'date >=' at character 8\. It says: date >= \(example: date >= "),
    ],
)  # fmt: skip
def test_errors_show_the_place(text: str, words: str) -> None:
    with pytest.raises(QuestionError, match=words) as caught:
        parse(text)
    assert str(caught.value).startswith("Filter: ")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "value",
    [
        "'; DROP TABLE documents; --", "' OR 1=1 --", '" OR ""="', "x') OR 1=1 OR ('", ":where_0", "?1", "$.type", "%", "_", "*",
        "[a-z]", "\\", "\u2019", "𝕏 日本 ﷽", "ﬁ", "e\u0301", "a\tb",
    ],
)  # fmt: skip
def test_values_stay_values(value: str) -> None:
    quoted = "'" + value.replace("'", "''") + "'"
    asked = parse(f"t = {quoted} or t contains {quoted} or t matches {quoted}")
    assert value not in asked.sql or value in ("_", "*", ":where_0")
    assert len(asked.values) >= 4
    assert not row(f"t = {quoted}", {"t": "something else"})
    assert row(f"t contains {quoted}", {"t": f"before {value} after"}) == ("\t" not in value)


@pytest.mark.parametrize(
    "key",
    ['"a"', "a.b", "a[0]", "$", "$.a", "a'", 'a"', "a\\", "a;b", "a--b", "a b", "a/*b*/", "a\x00", "\ud800", "#", "*"],
)
def test_keys_cannot_reach_into_the_path(key: str) -> None:
    try:
        parameters = parse(f"{key} = 1").values
    except QuestionError:
        return
    assert parameters["where_0"] in ('$."a"', '$."a_b"')


@pytest.mark.parametrize("character", ["\x00", "\x1b", "\x7f", "\x85", "\ud800"])
def test_control_characters_and_half_characters_are_refused(character: str) -> None:
    with pytest.raises(QuestionError, match="cannot stand in a filter at character 6") as caught:
        parse(f"a = '{character}'")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("text", ["(" * 10_000, "not " * 900 + "a = 1", "((a=1) or " * 300])
def test_nesting_is_bounded(text: str) -> None:
    with pytest.raises(QuestionError, match=r"nested more than 100|too many"):
        parse(text)


def test_the_deepest_and_the_longest_that_are_allowed_run() -> None:
    assert row("not (" * 49 + "a = 2" + ")" * 49, {"a": 1})
    assert row("not " * 98 + "a = 1", {"a": 1})
    assert row(" or ".join(["d = 2024"] * 255 + ["d = 2025"]), {"d": "2025-01-01"})
    assert row(f"a in ({', '.join(map(str, range(256)))})", {"a": 255})
    with pytest.raises(QuestionError, match="more than 256 terms"):
        parse(f"a in ({', '.join(map(str, range(257)))})")


def test_ambiguous_patterns_take_no_time_and_the_longest_one_matches_in_any_case() -> None:
    for pattern in ("*a" * 400 + "b", "?*" * 400 + "b", "*" * 900 + "b"):
        assert not row(f"t matches '{pattern}'", {"t": "a" * 1000})
    assert row(f"t contains '{'𐐨' * 900}'", {"t": "𐐀" * 900})


def test_rows_with_other_json_are_not_found() -> None:
    asked = "a = 1 or a contains 'x' or a >= 2025-01 or a matches '*' or a = true"
    for value in ({"a": None}, {"a": {"b": 1}}, {"a": [1, None, {"x": 1}]}, {"b": 1}, {"a": ""}):
        assert stored(asked, json.dumps(value)) == (value == {"a": ""})  # an empty text matches *
