"""What gives a text away in bytes and rows, and what no scan reaches: for a purge, and for a search that only looks."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Iterator

from openbook.knowledge.base import KnowledgeBase
from openbook.knowledge.byte_search import TELLING, Needles
from openbook.knowledge.store import Connection, Reader, Store
from openbook.records import BeyondReach

_BETWEEN = bytes(16)  # no window of text spans it
_AT_ONCE = 1 << 19  # bytes of the database that are searched together
_QUOTES = (("&quot;", "&#x27;"), ("&#34;", "&#39;"))  # as Python's `html.escape` writes them, and as jinja2 does
_BEYOND_REACH = ("copies by users", "backups", "disk blocks", "other forms", "models")


def needles_of(connection: Connection, paths: Iterable[str], contents: Iterable[int]) -> Needles:
    """What would give documents away: text, names, keys, vectors."""
    needles = Needles()
    for path in paths:
        needles.add_end(path.encode())
    for content in contents:
        key, text = connection.execute("SELECT key, text FROM contents WHERE id = ?", (content,)).fetchone()
        needles.add_end(key.encode())
        for form in forms(text):
            needles.add(form)
        rows = connection.execute(
            "SELECT p.passage_id, p.embedding_key, e.vector FROM passages p LEFT JOIN embeddings e USING (embedding_key) "
            "WHERE p.content_id = ?",
            (content,),
        )
        for passage_id, embedding_key, vector in rows:
            needles.add_end(passage_id.encode())
            needles.add_end(embedding_key)
            needles.add(vector or b"")
    return needles


def forms(text: str) -> set[bytes]:
    """The bytes in which a text may stand in a file: plain, in JSON, in JSON inside JSON, and in HTML or XML."""
    in_json = [_in_json(text, ascii_only) for ascii_only in (True, False)]
    twice = [_in_json(each, ascii_only) for each in in_json for ascii_only in (True, False)]
    in_xml = html.escape(text, quote=False)
    in_html = [in_xml.replace('"', quote).replace("'", apostrophe) for quote, apostrophe in _QUOTES]
    found = {each.encode() for each in (text, *in_json, *twice, in_xml, *in_html)}
    return found | {text.encode("utf-16-le"), in_xml.encode("ascii", "xmlcharrefreplace")}


def _in_json(text: str, ascii_only: bool) -> str:
    return json.dumps(text, ensure_ascii=ascii_only)[1:-1]


# --- the rows ---------------------------------------------------------------------------------------------------------


def drop_what_stays(store: Store, connection: Reader, needles: Needles) -> None:
    """What other documents hold too is theirs: a sentence that two files share, the folder of a path, a vector."""
    for batch in _batches(store, connection):
        values = (forms(row.decode()) if isinstance(of, int) else (row,) for of, row in batch)
        needles.drop_found_in(_BETWEEN.join(form for each in values for form in each))


def find_in_rows(store: Store, connection: Reader, needles: Needles) -> tuple[set[int | str], int, int]:
    """(contents by their id, and other tables by their name, that hold a telling run; how many rows were read; their bytes)."""
    found: set[int | str] = set()
    rows = size = 0
    for batch in _batches(store, connection):
        data = _BETWEEN.join(row for _, row in batch)
        rows, size = rows + len(batch), size + len(data)
        if needles.find(data, TELLING) is not None:
            found.update(of for of, row in batch if needles.find(row, TELLING) is not None)
    return found, rows, size


def _batches(store: Store, connection: Reader) -> Iterator[list[tuple[int | str, bytes]]]:
    """All that the database holds, some rows at a time: (the id of a content, its text), and (the table, all other values)."""
    batch: list[tuple[int | str, bytes]] = []
    size = 0
    for of, row in _rows(store, connection):
        batch.append((of, row))
        size += len(row)
        if size > _AT_ONCE:
            yield batch
            batch, size = [], 0
    yield batch


def _rows(store: Store, connection: Reader) -> Iterator[tuple[int | str, bytes]]:
    others = [table for table in connection.tables() if table != "contents"]
    for columns, table in [("key, code, title, media_type, metadata", "contents"), *(("*", table) for table in others)]:
        for row in store.scan(connection, f"SELECT {columns} FROM {table}"):
            yield table, _BETWEEN.join(value if isinstance(value, bytes) else str(value).encode() for value in row)
    for content, text in store.scan(connection, "SELECT id, text FROM contents"):
        yield content, text.encode()


# --- what is not looked at --------------------------------------------------------------------------------------------


def kind_of(base: KnowledgeBase) -> str:
    """Of its store: `folder`, `PostgreSQL`, or `PostgreSQL and object storage`."""
    return base.store.kind if base.indexes.blobs is None else f"{base.store.kind} and object storage"


def beyond_reach(base: KnowledgeBase, known: Iterable[BeyondReach] = ()) -> tuple[BeyondReach, ...]:
    """What neither a purge nor a scan of this knowledge base reaches. `known`: of which more is known, or which is there besides."""
    reasons = [*_BEYOND_REACH, *base.store.beyond_reach]
    found = {reason: BeyondReach(reason) for reason in reasons}
    if base.indexes.blobs is not None:
        found["object versions"] = BeyondReach("object versions", f"Let these expire under {base.id}/.")
    return tuple((found | {each.reason: each for each in known}).values())
