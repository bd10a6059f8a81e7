"""Rows of an SQL database (SQLAlchemy): SQLite, PostgreSQL, MySQL. A row is a document. Nothing can be written."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from datetime import date
from datetime import time as clock
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import sqlalchemy
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from openbook.core.errors import ConfigError, SourceError, did_you_mean, first_line
from openbook.core.records import Verdict, canonical_json, sha256_hex
from openbook.sources import Item, KnownItem, password

TIMEOUT_S = 45  # without a row
ROWS = 100  # at once
_DRIVERS = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "postgresql": {
        "connect_timeout": TIMEOUT_S,
        "options": f"-c default_transaction_read_only=on -c statement_timeout={TIMEOUT_S}s",
    },
    "mysql": {
        "connect_timeout": TIMEOUT_S,
        "read_timeout": TIMEOUT_S,
        "init_command": "SET SESSION TRANSACTION READ ONLY",
    },
}
_FROM = re.compile(r"\bfrom\s+([\w.\"`]+)", re.IGNORECASE)


class SqlSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`url`: as SQLAlchemy writes it, without a password: that comes from OPENBOOK_SQL_PASSWORD or the keyring.

    `query`: selects the rows. `id`: the column that identifies a row, or several ("year,number"). `text`: the column with
    the text, a file with the suffix `suffix`; without it, the text is all columns. `title`: the column with the title. The
    other columns are metadata. `name`: of the rows in the documents' names; empty: the first table of the query.
    """

    url: str
    query: str
    name: str = ""
    id: str = "id"
    text: str = ""
    title: str = ""
    suffix: str = ".md"

    def __post_init__(self) -> None:
        try:
            address = make_url(self.url)
        except (SQLAlchemyError, ValueError):
            raise ConfigError(
                "The address of a database is not valid: write postgresql://user@host/database."
            ) from None
        if not (address.database and self.id.strip()):
            raise ConfigError(f"{self.url!r} needs the name of a database, and an id: a column that identifies a row.")

    def items(self, known: Mapping[str, KnownItem]) -> Iterator[Item | Verdict]:
        address = make_url(self.url)
        host = address.host or ""
        secret = password("OPENBOOK_SQL_PASSWORD", host, address.username or "")
        first_table = _FROM.search(self.query)
        rows = self.name or (re.sub(r"[\"`]", "", first_table[1]) if first_table else "rows")
        place = f"{host}:{address.port}" if address.port else host
        prefix = f"{address.get_backend_name()}://{place}/{quote(address.database or '')}/{quote(rows, safe='')}/"
        columns, seen = [each.strip() for each in self.id.split(",")], set()
        try:
            with closing(_rows(address, secret, self.query)) as found:
                for row in found:
                    if lacking := next(
                        (each for each in (*columns, self.text, self.title) if each and each not in row), ""
                    ):
                        raise SourceError(
                            f"The query of {self.url} gives no column {lacking!r}.{did_you_mean(lacking, row)}"
                        )
                    key = "/".join(quote(_bytes(row[column]), safe="") for column in columns)
                    if key in seen or not all(key.split("/")):
                        raise SourceError(
                            f"The id ({self.id}) of {self.url} does not identify each row: {f'two have {key!r}' if key in seen else 'one has no value'}. Choose columns that do."
                        )
                    seen.add(key)
                    yield self._item(prefix + key, row)
        except (SQLAlchemyError, OSError) as error:
            said = first_line(getattr(error, "orig", None) or error)
            raise SourceError(
                f"{self.url} cannot be read: {said.replace(secret, '***') if secret else said}."
            ) from None

    def _item(self, name: str, row: Mapping[str, Any]) -> Item:
        labels = {key for key in row if re.sub(r"\W", "_", key.lower()) == "access_labels"}
        for key in labels:  # of bytes nothing is shown, and a row without labels is shown to all
            if isinstance(row[key], bytes | memoryview):
                raise SourceError(f"The column {key!r} of {self.url} holds bytes: CAST it to text in the query.")
        shown: dict[str, str | float | list[str]] = {
            key: [*map(_shown, v)] if isinstance(v, list) else _shown(v) if key in labels else _number_or_text(v)
            for key, v in row.items()
            if key not in {self.text, self.title}
        }
        shown |= {"title": _shown(row[self.title])} if self.title else {}
        metadata = {key: value for key, value in shown.items() if value not in ("", [])}
        body = row[self.text] if self.text else "\n".join(f"- {key}: {_shown(row[key])}" for key in row)
        data = _bytes(body)
        return Item(name, sha256_hex(data + canonical_json(metadata)), lambda: [data], self.suffix, metadata)


def _rows(address: URL, secret: str, query: str) -> Generator[dict[str, Any]]:
    """In a transaction that cannot write."""
    end = time.monotonic() + TIMEOUT_S

    def open_sqlite() -> sqlite3.Connection:
        file = f"file:{quote(str(Path('/', address.database or '')))}?mode=ro"
        connection = sqlite3.connect(file, uri=True, timeout=TIMEOUT_S, check_same_thread=False)
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        connection.set_progress_handler(lambda: time.monotonic() > end, 100_000)
        connection.set_authorizer(lambda action, *_: int(action == sqlite3.SQLITE_ATTACH))  # 1: denied
        return connection

    kind = address.get_backend_name()
    if kind == "sqlite":
        engine = sqlalchemy.create_engine("sqlite://", creator=open_sqlite, poolclass=sqlalchemy.NullPool)
    else:
        target = address.set(drivername=_DRIVERS[kind], password=secret or None)
        engine = sqlalchemy.create_engine(target, connect_args=ARGUMENTS[kind], poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        connection.execution_options(yield_per=ROWS, no_parameters=True)
        with closing(connection.exec_driver_sql(query)) as found:
            keys = list(found.keys())
            if len(set(keys)) < len(keys):
                raise SourceError(f"The query gives two columns of one name ({', '.join(keys)}): rename one with AS.")
            for row in found:
                yield dict(zip(keys, row, strict=True))
                end = time.monotonic() + TIMEOUT_S


def _bytes(value: object) -> bytes:
    return bytes(value) if isinstance(value, bytes | memoryview) else _shown(value).encode()


def _number_or_text(value: object) -> str | float:
    """Numbers as filters compare them; those too large for metadata as text."""
    number = float(value) if isinstance(value, Decimal) else value
    return number if isinstance(number, int | float) and abs(number) < 2**63 else _shown(value)


def _shown(value: object) -> str:
    """Empty for bytes."""
    if value is None or isinstance(value, bytes | memoryview):
        return ""
    if isinstance(value, dict | list):
        text = json.dumps(value, ensure_ascii=False, default=str)
    else:
        text = value.isoformat() if isinstance(value, date | clock) else str(value)
    return text.encode("utf-8", "replace").decode()
