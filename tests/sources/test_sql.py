"""Rows of SQLite and PostgreSQL as documents, and queries that must fail."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from openbook.core.errors import SourceError
from openbook.parsers import parse_bytes
from openbook.sources import Item, sql
from openbook.sources.registry import open_source
from openbook.sources.sql import SqlSource
from openbook.testing.sources import check_source
from tests.cluster.conftest import new_postgres_url as new_postgres_url
from tests.cluster.conftest import postgres_folder as postgres_folder
from tests.cluster.conftest import postgres_url as postgres_url

TABLE = "CREATE TABLE piers (id integer, title text, body text, built date, lights integer)"
ROWS = [(1, "North pier", "It has 42 lights.", "1901-05-01", 42), (2, "South pier", "It has no lights.", None, 0)]
QUERY = "SELECT * FROM piers WHERE title LIKE '%pier' AND body NOT LIKE '10:30 %s :x' ORDER BY id"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.laws)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Callable[..., object]]:
    """(its address, a function that runs a statement)"""
    if request.param == "sqlite":
        path = tmp_path / "a b.db"

        def run(statement: str, *values: object) -> object:
            with sqlite3.connect(path) as connection:
                return connection.execute(statement, values).fetchall()

        url = f"sqlite:///{path}"
    else:
        place = request.getfixturevalue("new_postgres_url")

        def run(statement: str, *values: object) -> object:
            with psycopg.connect(place) as connection:
                found = connection.execute(statement.replace("?", "%s").encode(), values or None)
                return found.fetchall() if found.description else []

        url = place
    run(TABLE)
    for row in ROWS:
        run("INSERT INTO piers VALUES (?, ?, ?, ?, ?)", *row)
    return url, run


def items_of(source: SqlSource) -> list[Item]:
    return [each for each in source.items({}) if isinstance(each, Item)]


def test_a_row_is_a_document(database: tuple[str, Callable[..., object]]) -> None:
    url, _ = database
    north, south = items_of(SqlSource(url, QUERY, text="body", title="title"))
    assert [each.name.rpartition("/piers/")[2] for each in (north, south)] == ["1", "2"]
    assert north.name.startswith(f"{url.partition(':')[0]}://")
    assert b"".join(north.read()) == b"It has 42 lights."
    assert north.metadata == {"id": 1, "title": "North pier", "built": "1901-05-01", "lights": 42}
    assert south.metadata == {"id": 2, "title": "South pier", "lights": 0}
    whole, _ = items_of(SqlSource(url, QUERY, name="all piers"))
    text = parse_bytes(b"".join(whole.read()), "1.md").text
    assert "lights: 42" in text
    assert "body: It has 42 lights." in text
    assert whole.name.endswith("/all%20piers/1")
    assert whole.metadata["title"] == "North pier"


def test_the_laws_of_sources(tmp_path: Path) -> None:
    path = tmp_path / "piers.db"
    with sqlite3.connect(path) as connection:
        connection.execute(TABLE)
        connection.executemany("INSERT INTO piers VALUES (?, ?, ?, ?, ?)", ROWS)

    def change() -> str:
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE piers SET body = 'It has 43 lights.' WHERE id = 1")
        return f"sqlite://{quote(str(path))}/piers/1"

    options = {"query": QUERY, "text": "body"}
    check_source(lambda: open_source(f"sqlite://{path}", options), change, path.unlink, ["secret"])


WRITING = """INSERT INTO piers VALUES (3, 'a', 'b', NULL, 0)
INSERT INTO piers VALUES (3, 'a', 'b', NULL, 0) RETURNING *
UPDATE piers SET lights = 0
DROP TABLE piers
SELECT * FROM piers; DELETE FROM piers
VACUUM INTO 'stolen.db'
ATTACH 'stolen.db' AS other
WITH gone AS (DELETE FROM piers RETURNING *) SELECT * FROM gone
COMMIT; DROP TABLE piers"""


def test_a_query_that_writes_fails(
    database: tuple[str, Callable[..., object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, run = database
    monkeypatch.chdir(tmp_path)
    for query in WRITING.splitlines():
        with pytest.raises(SourceError, match="cannot be read"):
            items_of(SqlSource(url, query))
        assert run("SELECT id, lights FROM piers ORDER BY id") == [(1, 42), (2, 0)], query
        assert not (tmp_path / "stolen.db").exists()


@pytest.mark.laws
def test_a_function_that_writes_fails(new_postgres_url: str) -> None:
    with psycopg.connect(new_postgres_url) as connection:
        connection.execute(TABLE.encode())
        connection.execute(
            b"CREATE FUNCTION add() RETURNS integer LANGUAGE sql AS 'INSERT INTO piers VALUES (3); SELECT 1'"
        )
    for query in (
        "SELECT add() AS id",
        "SELECT set_config('transaction_read_only', 'off', false) AS id, add()",
        "SELECT setval('x', 1) AS id",
    ):
        with pytest.raises(SourceError, match="cannot be read"):
            items_of(SqlSource(new_postgres_url, query))


def test_an_endless_query_ends(database: tuple[str, Callable[..., object]], monkeypatch: pytest.MonkeyPatch) -> None:
    url, _ = database
    monkeypatch.setattr(sql, "TIMEOUT_S", 0.2)
    monkeypatch.setitem(sql.ARGUMENTS, "postgresql", {"options": "-c statement_timeout=200ms"})
    endless = "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) SELECT max(id) AS id FROM n"
    with pytest.raises(SourceError, match=r"interrupted|statement timeout"):
        items_of(SqlSource(url, endless))


@pytest.mark.laws
def test_rows_come_while_the_query_runs(new_postgres_url: str) -> None:
    query = "SELECT i AS id, 1 / (500 - i) AS x FROM generate_series(1, 1000) i"
    listing = SqlSource(new_postgres_url, query).items({})
    assert isinstance(next(listing), Item)
    with pytest.raises(SourceError, match="division by zero"):
        list(listing)


def test_an_id_must_identify_each_row(database: tuple[str, Callable[..., object]]) -> None:
    url, run = database
    run("INSERT INTO piers VALUES (1, 'West pier', 'x', NULL, 7)")
    with pytest.raises(SourceError, match=r"does not identify each row: two have '1'\. Choose columns that do"):
        items_of(SqlSource(url, QUERY))
    assert len(items_of(SqlSource(url, QUERY, id="id, lights"))) == 3
    run("INSERT INTO piers VALUES (NULL, 'East pier', 'x', NULL, 8)")
    with pytest.raises(SourceError, match="one has no value"):
        items_of(SqlSource(url, "SELECT * FROM piers ORDER BY lights DESC LIMIT 2 OFFSET 1"))
    with pytest.raises(SourceError, match=r"gives no column 'boddy'\. Did you mean 'body'\?"):
        items_of(SqlSource(url, QUERY, text="boddy"))
    with pytest.raises(SourceError, match="two columns of one name"):
        items_of(SqlSource(url, "SELECT 1 AS id, 2 AS id"))


def test_hostile_rows(tmp_path: Path) -> None:
    path = tmp_path / "odd.db"
    ids = ["../../etc/passwd", "a\nb", "x\0y", "ü?#%", b"\xff\0", "\u202e"]
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE odd (id, text, access_labels)")
        connection.executemany("INSERT INTO odd VALUES (?, ?, 'board')", [(each, "a\0b") for each in ids])
        connection.execute("INSERT INTO odd VALUES ('big', ?, NULL)", ("x" * 30_000_000,))
        connection.execute("INSERT INTO odd VALUES ('broken', CAST(x'ff41' AS TEXT), NULL)")
        connection.execute("INSERT INTO odd VALUES ('file', x'255044462d', NULL)")
    found = {each.name.rpartition("/odd/")[2]: each for each in items_of(SqlSource(f"sqlite:///{path}", "SELECT * FROM odd", text="text"))}  # fmt: skip
    assert list(found)[:6] == ["..%2F..%2Fetc%2Fpasswd", "a%0Ab", "x%00y", "%C3%BC%3F%23%25", "%FF%00", "%E2%80%AE"]
    assert all(name.isascii() and name.isprintable() for name in found)
    assert found["a%0Ab"].metadata["access_labels"] == "board"
    assert b"".join(found["broken"].read()) == "\ufffdA".encode()
    assert b"".join(found["file"].read()) == b"%PDF-"
    assert sum(map(len, found["big"].read())) == 30_000_000
    for name in ("access_labels", '"Access Labels"'):
        with pytest.raises(SourceError, match="holds bytes: CAST it to text"):
            items_of(SqlSource(f"sqlite:///{path}", f"SELECT id, CAST('board' AS BLOB) AS {name} FROM odd"))


@pytest.mark.laws
def test_lists_and_objects_of_postgresql(new_postgres_url: str) -> None:
    query = """SELECT 1 AS id, ARRAY['a', 'b'] AS tags, '{"a": "\\u00fc"}'::jsonb AS data, 0.10::numeric AS price,
        'NaN'::float AS odd, 1e30::numeric AS large, 7 AS access_labels, now() AS seen"""
    (item,) = items_of(SqlSource(new_postgres_url, query))
    assert item.metadata["tags"] == ["a", "b"]
    assert item.metadata["data"] == '{"a": "ü"}'
    facts = [item.metadata[key] for key in ("price", "odd", "large", "access_labels")]
    assert facts == [0.1, "nan", "1" + "0" * 30, "7"]
    assert "T" in str(item.metadata["seen"])
    assert item.name.endswith("/rows/1")
