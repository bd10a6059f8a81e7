from __future__ import annotations

import os
from datetime import date, datetime, time, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openbook.core.errors import UnreadableFile
from openbook.core.records import Metadata
from openbook.parsers.metadata import (
    from_json,
    is_sidecar,
    key_name,
    labels_of,
    merged,
    normalised,
    read_sidecar,
    sidecar_of,
    system_metadata,
    to_json,
)

ZONES = [timezone(timedelta(hours=hours)) for hours in (-11, 0, 2)]
RAW = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.dates(), st.datetimes(),
        st.datetimes(timezones=st.sampled_from(ZONES)), st.binary(max_size=4),
        st.sampled_from(["2025-1-1", "D:20240105", "13-Jun-2000", "2025-W01-1", "20250101T101010Z", "2025"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=2)),
    max_leaves=5,
)  # fmt: skip
SAID = st.dictionaries(
    st.one_of(st.text(max_size=8), st.sampled_from(["Date", "last updated", "Tags"])), RAW, max_size=6
)


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@given(SAID.filter(lambda said: all(key_name(key) != "access_labels" for key in said)))
@settings(max_examples=50)
def test_normalised_twice_is_once_and_survives_json(said: dict[str, object]) -> None:
    kept = normalised(said)
    assert normalised(dict(kept)) == kept
    assert from_json(to_json(kept)) == kept
    for key, value in kept:
        assert key.isidentifier()
        assert key == key_name(key)
        assert isinstance(value, str | int | float | bool | tuple)


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        ("Last-Updated ", "last_updated"), ("dc:Title", "dc_title"), ("Größe", "grösse"), ("2nd", "n2nd"),
        ("\x00$.\"'", ""), ("x" * 1000, "x" * 64),
    ],
)  # fmt: skip
def test_keys(raw: str, key: str) -> None:
    assert key_name(raw) == key


def test_values() -> None:
    said: dict[str, object] = {
        "t": " a\x00b\nc ", "half": "x\ud800", "tags": ["A", 3, True, date(2025, 1, 2), None], "n": 0.1 + 0.2,
        "none": None, "empty": " \n", "nested": {"a": 1}, "raw": b"x", "nan": float("nan"), "huge": 10**30,
        "long": "x" * 2000,
    }  # fmt: skip
    kept = {"t": "a b c", "half": "x\ufffd", "tags": ("A", "3", "true", "2025-01-02"), "n": 0.3, "long": "x" * 1000}
    assert dict(normalised(said)) == kept


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (date(2025, 1, 2), "2025-01-02"), (time(1, 2), "01:02:00"), (2025, "2025"), ("2025-01", "2025-01"),
        (datetime(2025, 1, 2, 3, 4, 5, 6), "2025-01-02T03:04:05"),  # noqa: DTZ001  a file may name no zone
        (datetime(2025, 1, 1, 0, 30, tzinfo=timezone(timedelta(hours=2))), "2024-12-31T22:30:00+00:00"),
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=2))), "0001-01-01T00:00:00+00:00"),
        ("20250102", "2025-01-02"), ("2025-01-02T03:04:05Z", "2025-01-02T03:04:05+00:00"),
        ("2025-01-02 03:04", "2025-01-02T03:04:00"), ("D:20240105103000+01'00'", "2024-01-05T09:30:00+00:00"),
        ("D:20240105103000Z", "2024-01-05T10:30:00+00:00"), ("D:20240105", "2024-01-05"),
        ("13-Jun-2000", "2000-06-13"), ("Mon, 20 Nov 1995 19:12:08 -0500", "1995-11-21T00:12:08+00:00"),
        ("March 5, 2024", "2024-03-05"), ("some day", "some day"),
    ],
)  # fmt: skip
def test_dates_become_iso(raw: object, text: str) -> None:
    assert normalised({"Date": raw}) == (("date", text),)


def test_only_keys_of_dates_hold_dates() -> None:
    assert normalised({"version": "20250102", "n": 2025}) == (("n", 2025), ("version", "20250102"))
    assert normalised({"publication-date": "20250102"}) == (("publication_date", "2025-01-02"),)


def test_at_most_so_many_keys() -> None:
    said: dict[str, object] = {f"k{i}": i for i in range(100)}
    assert len(normalised(said)) == 64
    assert ("access_labels", ("hr",)) in normalised({**said, "access_labels": ["hr"]})  # never left out


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"a": {"b": 1}}, "'a' must be a text"), ({"a": [["x"]]}, "'a' must be a list of texts"),
        ({"a": "x" * 1001}, "'a' has 1001 characters"), ({"a": ["x" * 1001]}, "'a' has 1001 characters"),
        ({"a": ["x"] * 65}, "65 items"), ({"a": float("inf")}, "not a finite number"), ({"a": 2**63}, "too large"), ({"a": 1e301}, "too large"),
        ({"A": 1, "a ": 2}, "'a' appears twice"), ({"access_labels": ["hr"], "Access-Labels": []}, "appears twice"),
        ({"$": 1}, "is not a key"), ({f"k{i}": i for i in range(100)}, "more than 64 keys"),
    ],
)  # fmt: skip
def test_strict_refuses(said: dict[str, object], words: str) -> None:
    with pytest.raises(UnreadableFile, match=words):
        normalised(said, strict=True)
    if "access_labels" in said:
        with pytest.raises(UnreadableFile, match=words):
            normalised(said)
    else:
        normalised(said)


def test_the_sidecar_wins_over_the_file_and_facts_over_both() -> None:
    system = system_metadata("docs/a.PDF", 10, 1_700_000_000_000_000_000)
    assert dict(system) == {
        "path": "docs/a.PDF", "name": "a.PDF", "type": "pdf", "bytes": 10, "modified": "2023-11-14T22:13:20+00:00",
    }  # fmt: skip
    file: Metadata = (("author", "Ann"), ("path", "/etc/passwd"), ("status", "draft"))
    found = merged(system, file, (("status", "final"), ("type", "exe")))
    assert found == tuple(sorted({**dict(system), "author": "Ann", "status": "final"}.items()))
    assert "modified" not in dict(system_metadata("a", 1, 10**30))  # a date that is in no calendar


@given(st.lists(st.lists(st.sampled_from("abc")), max_size=3), st.sampled_from(["access_labels", "Access-Labels"]))
def test_what_any_part_asks_for_no_other_takes_away(parts: list[list[str]], key: str) -> None:
    assert labels_of(*(normalised({key: part}) for part in parts)) == {label for part in parts for label in part}


def test_labels_are_words() -> None:
    assert normalised({"Access labels": ["hr", "a.b:c-d_1", "hr"]}) == (("access_labels", ("a.b:c-d_1", "hr")),)
    assert normalised({"access_labels": "hr"}) == (("access_labels", ("hr",)),)
    with pytest.raises(UnreadableFile, match="'HR' is not an access label"):
        labels_of((("access_labels", ("HR",)),))  # of what was never checked


@pytest.mark.parametrize("bad", ["HR", "h r", "", "-x", "x" * 65, "hr\n", 5, True, ["ok", "No"], {"a": 1}, [["hr"]]])
def test_labels_that_are_none_are_always_an_error(bad: object) -> None:
    for strict in (False, True):
        for key in ("access_labels", "Access labels"):
            with pytest.raises(UnreadableFile, match="is not an access label"):
                normalised({key: bad}, strict=strict)


def test_where_it_stands(tmp_path: Path) -> None:
    assert all(map(is_sidecar, ["report.pdf.meta.toml", "report.pdf.meta.json"]))
    assert not any(map(is_sidecar, ["meta.toml", ".meta.toml", "a.toml", "a.meta.yaml", "a.meta.toml.txt"]))
    document = write(tmp_path, "a.md", "x")
    assert sidecar_of(document) is None
    toml = write(tmp_path, "a.md.meta.toml", "")
    assert sidecar_of(document) == toml
    write(tmp_path, "a.md.meta.json", "{}")
    with pytest.raises(UnreadableFile, match="two sidecars"):
        sidecar_of(document)


def test_toml_and_json(tmp_path: Path) -> None:
    toml = write(
        tmp_path, "a.meta.toml", 'Status = "final"\ndate = 2025-01-02T03:04:05Z\naccess_labels = ["hr"]\nn = 1.5\n'
    )
    assert read_sidecar(toml) == (
        ("access_labels", ("hr",)), ("date", "2025-01-02T03:04:05+00:00"), ("n", 1.5), ("status", "final"),
    )  # fmt: skip
    json_file = write(tmp_path, "a.meta.json", b'\xef\xbb\xbf{"Status": "final", "tags": ["a", "b"], "none": null}')
    assert read_sidecar(json_file) == (("status", "final"), ("tags", ("a", "b")))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.meta.toml", "x = ", "a.meta.toml is not valid TOML"),
        ("a.meta.json", "{", "is not valid JSON"),
        ("a.meta.json", "[1]", "must hold one object"),
        ("a.meta.json", '{"a": 1, "a": 2}', "duplicate key 'a'"),
        ("a.meta.json", '{"a": NaN}', "'a' is not a finite number"),
        ("a.meta.json", '{"a": ' + "9" * 5000 + "}", "is not valid JSON"),
        ("a.meta.json", "[" * 50_000, "nested too deeply"),
        ("a.meta.toml", "a = " + "[" * 50_000, "nested too deeply"),
        ("a.meta.json", b"\xff\xfe", "is not valid JSON"),
        ("a.meta.json", " " * 64_001, "0.1 MB, over the limit of 0.064 MB"),
        ("a.meta.toml", "[author]\nname = 'x'", "'author' must be a text"),
        ("a.meta.toml", "path = '/etc/passwd'", "'path' is a fact of the file"),
        ("a.meta.toml", "access_labels = ['Not OK']", "'Not OK' is not an access label: a label is 1 to 64 of"),
    ],
)
def test_what_is_wrong_with_a_sidecar_is_said(tmp_path: Path, name: str, text: str | bytes, words: str) -> None:
    with pytest.raises(UnreadableFile, match=words) as caught:
        read_sidecar(write(tmp_path, name, text))
    assert str(caught.value).startswith("its sidecar a.meta.")
    assert len(str(caught.value)) < 300


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_sidecar_that_is_no_file(tmp_path: Path) -> None:
    link, folder, pipe = (tmp_path / f"{name}.md.meta.toml" for name in ("link", "folder", "pipe"))
    link.symlink_to(write(tmp_path, "secret.toml", "password = 'x'"))
    assert sidecar_of(tmp_path / "link.md") == link  # not left out: it may have been meant to hold labels
    folder.mkdir()
    os.mkfifo(pipe)
    for path, reason in (
        (link, "a link, not a file"), (folder, "a folder, not a file"), (pipe, "a named pipe, not a file"),
        (tmp_path / "absent.meta.toml", "does not exist"),
    ):  # fmt: skip
        with pytest.raises(UnreadableFile) as caught:
            read_sidecar(path)
        assert str(caught.value) == f"its sidecar {path.name}: {reason}"
