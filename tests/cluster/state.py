"""What a knowledge base holds, so that two of them can be compared; and the workers that make it."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress

from openbook.core.records import Digest, sha256_hex
from openbook.knowledge import KnowledgeBase
from openbook.knowledge.store.schema import FILE_NAME

# All that is the same whenever and wherever the same run is done: nothing that holds a time, and no numbers of identities, which
# are given to known contents first.
TABLES = {
    "documents": "path, content_id, bytes, labels, given_labels, added_in, removed_in",
    "contents": "id, key, code, text, title, media_type, source_chars, metadata, digest",
    "passages": "id, content_id, passage_id, start_char, end_char, page, headings, embedding_key, digest",
    "embeddings": "embedding_key, vector, digest",
    "verdicts": "path, outcome, reason",
    "sources": "folder, rules",
}


def state(base: KnowledgeBase) -> dict[str, list[tuple[object, ...]]]:
    """The rows of each table, in one order."""
    with closing(sqlite3.connect(base.folder / FILE_NAME)) as connection:
        return {
            table: sorted(connection.execute(f"SELECT {columns} FROM {table}"), key=repr)
            for table, columns in TABLES.items()
        }


def state_digest(base: KnowledgeBase) -> Digest:
    return sha256_hex(repr(state(base)).encode("utf-8", "surrogatepass"))


def worker_pids(doing: str = "", actor: str = "Worker") -> list[int]:
    """Of the actors on this machine that run a method whose name begins so, or that are there at all."""
    import psutil  # Ray brings it

    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.name().startswith(f"ray::{actor}.{doing}" if doing else f"ray::{actor}"[:15]):  # no more is kept
                found.append(process.pid)
    return found
