"""Both derived indexes, with the version they reflect: opened when they fit, brought up to date or rebuilt when not.

`index/state.json` is the watermark: it is written last, so what it says is whole. Anything that does not fit it, or
cannot be read, is rebuilt from the truth.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from openbook.errors import KnowledgeBaseInvalid
from openbook.knowledge import schema
from openbook.knowledge.bm25 import Bm25Index
from openbook.knowledge.vectors import VectorIndex, empty_vectors

_OURS = re.compile(r"(?:bm25|vectors)-\d+|\.vectors-\d+\.\d+")  # nothing else in the folder is ever deleted
FORMAT = 1  # raise it when what is indexed changes: old indexes are then rebuilt


class _State(TypedDict):
    format: int
    knowledge_base: str
    version: int
    passages: int
    bm25: str
    vectors: str


@dataclass(frozen=True, slots=True)
class Indexes:
    version: int
    bm25: Bm25Index
    vectors: VectorIndex

    @classmethod
    def open(cls, folder: Path, base_id: str, version: int, dimensions: int) -> Indexes | None:
        """The saved indexes, if they are whole and reflect exactly `version`."""
        found = cls.open_newest(folder, base_id, version, dimensions)
        return found if found is not None and found.version == version else None

    @classmethod
    def open_newest(cls, folder: Path, base_id: str, version: int, dimensions: int) -> Indexes | None:
        """The saved indexes, if they are whole and reflect `version` or an older one."""
        state = _read_state(folder)
        if state is None or state["knowledge_base"] != base_id or state["version"] > version:
            return None
        try:
            bm25 = Bm25Index.load(folder / "index" / state["bm25"])
            vectors = VectorIndex.load(folder / "index" / state["vectors"], dimensions)
        except (ValueError, OSError, EOFError):
            return None
        whole = len(bm25) == len(vectors) == state["passages"]
        return cls(state["version"], bm25, vectors) if whole else None

    @classmethod
    def in_memory(cls, connection: sqlite3.Connection, version: int, dimensions: int) -> Indexes:
        """Built from the truth and kept nowhere."""
        passages = _passages_of(connection, _live(connection, version))
        bm25 = Bm25Index.build(None, _texts(connection, passages))
        return cls(version, bm25, empty_vectors(dimensions).updated((), _vectors(connection, passages, dimensions)))

    @classmethod
    def refresh(
        cls, folder: Path, base_id: str, connection: sqlite3.Connection, version: int, dimensions: int
    ) -> Indexes:
        """Save indexes that reflect `version` beside the older ones, then switch to them. Needs the write lock."""
        current = cls.open_newest(folder, base_id, version, dimensions)
        if current is not None and current.version == version:
            return current
        before = set[int]() if current is None else _live(connection, current.version)
        vectors = empty_vectors(dimensions) if current is None else current.vectors
        live = _live(connection, version)
        added, removed = _passages_of(connection, live - before), _passages_of(connection, before - live)
        index = folder / "index"
        if index.is_symlink():
            raise KnowledgeBaseInvalid(
                f"{index} is a link; OpenBook only writes inside the knowledge base. Delete the link."
            )
        names = _State(
            format=FORMAT,
            knowledge_base=base_id,
            version=version,
            passages=0,
            bm25=f"bm25-{version}",
            vectors=f"vectors-{version}",
        )
        for name in (names["bm25"], names["vectors"]):  # what a killed run left
            shutil.rmtree(index / name, ignore_errors=True)
        (index / names["bm25"]).mkdir(parents=True)
        passages = _passages_of(connection, live)
        bm25 = Bm25Index.build(index / names["bm25"], _texts(connection, passages))
        vectors = vectors.updated(removed, _vectors(connection, added, dimensions))
        vectors.save(index / names["vectors"])
        names["passages"] = len(vectors)
        _write_state(folder, names)
        for other in index.iterdir():  # readers that have an older one open keep it
            ours = _OURS.fullmatch(other.name) is not None and not other.is_symlink()
            if ours and other.name not in (names["bm25"], names["vectors"]):
                shutil.rmtree(other, ignore_errors=True)
        return cls(version, bm25, vectors)


def _live(connection: sqlite3.Connection, version: int) -> set[int]:
    rows = connection.execute(
        f"SELECT DISTINCT d.content_id FROM documents d WHERE {schema.LIVE}", {"version": version}
    )
    return {content for (content,) in rows}


def _passages_of(connection: sqlite3.Connection, contents: set[int]) -> list[int]:
    found: list[int] = []
    for content in sorted(contents):
        found += [
            p for (p,) in connection.execute("SELECT id FROM passages WHERE content_id = ? ORDER BY id", (content,))
        ]
    return found


def _texts(connection: sqlite3.Connection, passages: Sequence[int]) -> Iterator[tuple[int, str, str]]:
    sql = (
        "SELECT substr(c.text, p.start_char + 1, p.end_char - p.start_char), c.title, p.headings "
        "FROM passages p JOIN contents c ON c.id = p.content_id WHERE p.id = ?"
    )
    for passage in passages:
        text, title, headings = connection.execute(sql, (passage,)).fetchone()
        yield passage, text, " ".join([title, *schema.headings(headings)])


def _vectors(connection: sqlite3.Connection, passages: Sequence[int], dimensions: int) -> Iterator[tuple[int, bytes]]:
    sql = "SELECT e.vector FROM passages p JOIN embeddings e ON e.embedding_key = p.embedding_key WHERE p.id = ?"
    for passage in passages:
        row = connection.execute(sql, (passage,)).fetchone()
        if row is None or len(row[0]) != 2 * dimensions:
            raise sqlite3.DatabaseError(f"passage {passage} has no vector of {dimensions} numbers")
        yield passage, row[0]


def _read_state(folder: Path) -> _State | None:
    try:
        state = json.loads((folder / "index" / "state.json").read_text(encoding="utf-8"))
        state = _State(**{key: state[key] for key in _State.__required_keys__})  # type: ignore[typeddict-item]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    texts = all(isinstance(state[key], str) and "/" not in state[key] for key in ("bm25", "vectors", "knowledge_base"))
    numbers = all(isinstance(state[key], int) for key in ("version", "passages"))
    return state if texts and numbers and state["format"] == FORMAT else None


def _write_state(folder: Path, state: _State) -> None:
    path = folder / "index" / "state.json"
    temporary = path.with_name(f".state.{os.getpid()}")
    temporary.write_text(json.dumps(state), encoding="utf-8")
    temporary.replace(path)
