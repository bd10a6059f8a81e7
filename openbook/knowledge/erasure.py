"""Purging: a document leaves every version, index and file, which a scan of all bytes proves. `openbook.proofs.purge` does the rest."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from openbook.core.errors import KnowledgeError, TextIsElsewhere
from openbook.core.records import BeyondReach
from openbook.knowledge.base import KnowledgeBase
from openbook.knowledge.byte_search import TELLING, Needles
from openbook.knowledge.index import segment_files
from openbook.knowledge.ingest.mirror import holder, mirrored_files, mirrors, opened_mirror
from openbook.knowledge.store import schema
from openbook.knowledge.store.identities import identities, purge_identities
from openbook.knowledge.store.interface import Connection, Reader, Rows, Store, Writer
from openbook.knowledge.store.names import path_displayed, resolve
from openbook.knowledge.store.schema import NEXT_TABLE
from openbook.knowledge.store.version_rows import add_version
from openbook.knowledge.store.write_lock import LOCK_TIMEOUT_S
from openbook.knowledge.synced_folders import SOURCES_FILE
from openbook.sources.registry import is_address

_BETWEEN = bytes(16)  # no window of text spans it
_AT_ONCE = 1 << 19  # bytes of the database that are searched together
_QUOTES = (("&quot;", "&#x27;"), ("&#34;", "&#39;"))  # as Python's `html.escape` writes them, and as jinja2 does
_BEYOND_REACH = ("copies by users", "backups", "disk blocks", "other forms", "models")


@dataclass(frozen=True, slots=True)
class PurgeResult:
    """The proof of a purge: `files` and `bytes` were scanned without finding text, name, vector or key of the documents.

    `documents` are in no version. `partly_kept` shared a purged text and keep others. `still_on_disk`: existing files of these paths, and
    addresses still at their source, which the next run over them adds again, without `labels`, those given directly. `beyond_reach`: what no purge of this kind of store reaches.
    """

    version: int
    documents: tuple[str, ...]
    partly_kept: tuple[str, ...]
    passages: int
    files: int
    bytes: int
    still_on_disk: tuple[str, ...]
    labels: tuple[str, ...]
    beyond_reach: tuple[BeyondReach, ...]


def purge(
    base: KnowledgeBase,
    documents: Sequence[str],
    *,
    copies: bool = False,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
    elsewhere: Callable[[Needles, list[str]], None] = lambda needles, texts: None,
    afterwards: Callable[[Needles], None] = lambda needles: None,
) -> PurgeResult:
    """Delete documents (paths, or folders for all below) from all versions, then scan every remaining byte.

    `copies`: delete the same text from other documents too, in all versions; their other texts stay. `elsewhere` deletes derived data before the
    rows that identify it are gone: if it raises, no row is deleted. `afterwards` looks for traces outside of the knowledge base. `finish_purge`
    completes an interrupted purge.

    Raises KnowledgeError when a document is in no version or the scan finds something. Before any deletion: TextIsElsewhere for a copy (without
    `copies`), KnowledgeBaseBusy while a reader keeps old pages.
    """
    with ExitStack() as stack:
        held = [stack.enter_context(opened_mirror(each, timeout_s=lock_timeout_s)) for each in mirrors(base.folder)]
        connection = stack.enter_context(base.writing(lock_timeout_s))
        segment_files.index_folder(base.indexes.folder)  # raises if it is a link, before anything is deleted
        base.store.wait_for_readers(connection, lock_timeout_s)
        paths = set(resolve_in_all_versions(base, documents))
        contents = _contents_held_by(connection, paths)
        sql = "SELECT path, removed_in IS NULL FROM documents WHERE content_id IN"
        holders = _for_ids(connection, sql, contents).fetchall()
        others = {path for path, _ in holders} - paths
        if others and not copies:
            raise TextIsElsewhere(
                f"The same text is also in {', '.join(sorted(others)[:3])}. To purge every copy of it: openbook purge DOCUMENT --copies"
            )
        traces, telling = _traces(connection, paths | others, contents), _traces(connection, (), contents)
        (passages,) = _for_ids(connection, "SELECT count(*) FROM passages WHERE content_id IN", contents).fetchone()
        given = {each.path: each.given_labels for each in identities(connection)}
        texts = [text for (text,) in _for_ids(connection, "SELECT text FROM contents WHERE id IN", contents)]
        there = paths | {path for path, is_live in holders if is_live}
        still_there = set(mirrored_files(base.folder, there))
        connection.durable(True)
        with schema.transaction(connection):
            version = _delete(connection, paths, others, contents)
            _drop_what_stays(base.store, connection, traces, telling)
            for mirror in held:
                mirror.purge(paths | others, holder(connection), telling, traces)
            if (file := base.folder / SOURCES_FILE).exists():
                traces.drop_found_in(file.read_bytes())  # what its owner wrote
            elsewhere(traces, texts)
        partly_kept = others & {path for (path,) in connection.execute("SELECT DISTINCT path FROM documents")}
        known = base.forget(connection, lock_timeout_s)
        files, scanned = _scan(base.folder, traces)
        afterwards(traces)
        # Only now: a purge that is killed before this has proved nothing.
        schema.remember(connection, purging=None, purging_elsewhere=None)
    still_there |= {path for path in there if not is_address(path) and os.path.lexists(path_displayed(path))}
    still_on_disk = tuple(sorted(still_there))
    labels = {label for path in still_on_disk for label in given.get(path, ())}
    return PurgeResult(
        version=version,
        documents=tuple(sorted(paths | others - partly_kept)),
        partly_kept=tuple(sorted(partly_kept)),
        passages=passages,
        files=files,
        bytes=scanned,
        still_on_disk=still_on_disk,
        labels=tuple(sorted(labels)),
        beyond_reach=beyond_reach(base, known),
    )


def resolve_in_all_versions(base: KnowledgeBase, documents: Sequence[str]) -> list[str]:
    """The paths in any kept version that `documents` mean. Raises KnowledgeError."""
    known = {p for (p,) in base.connection.execute("SELECT DISTINCT path FROM documents")}
    known.update(each.path for each in identities(base.connection))
    paths = sorted(known)
    return sorted({path for each in documents for path in resolve(paths, each, base.connection)})


def purge_is_unfinished(base: KnowledgeBase) -> bool:
    """True if a purge is active or was interrupted after it deleted rows."""
    return not {"purging", "purging_elsewhere"}.isdisjoint(schema.meta(base.connection))


def finish_purge(base: KnowledgeBase) -> None:
    """Finish an interrupted purge, after everything elsewhere is deleted: this forgets that there was something to delete."""
    with base.writing() as connection:
        schema.remember(connection, purging_elsewhere=None)


def _for_ids(connection: Connection, sql: str, ids: Iterable[int]) -> Rows:
    return connection.execute(f"{sql} {schema.IDS}", {"ids": json.dumps(sorted(ids))})


def _contents_held_by(connection: Connection, paths: Iterable[str]) -> set[int]:
    """Every content that these paths ever had, and all with the same text."""
    held = "SELECT content_id FROM documents WHERE path IN (SELECT value FROM json_each(?))"
    sql = f"SELECT id FROM contents WHERE text IN (SELECT text FROM contents WHERE id IN ({held}))"
    rows = connection.execute(sql, (json.dumps(sorted(paths)),))
    return {content for (content,) in rows}


def _delete(connection: Writer, paths: Set[str], others: Set[str], contents: Iterable[int]) -> int:
    """Delete all of `paths`, and the `contents` of `others`. Returns the new version."""
    with connection.changing(paths | others):
        version = schema.newest_version(connection) + 1
        for path in sorted(paths):
            connection.execute("DELETE FROM documents WHERE path = ?", (path,))
            connection.execute("DELETE FROM verdicts WHERE path = ?", (path,))
        connection.executemany("DELETE FROM documents WHERE content_id = ?", [(c,) for c in sorted(contents)])
        purge_identities(connection, paths | others)
        connection.execute(f"DROP TABLE IF EXISTS {NEXT_TABLE}")
        schema.drop_contents(connection, schema.unused_contents(connection))
        # If this process is killed, the next writer finishes the work here, and the next purge finishes it elsewhere. Runs that have read one of
        # these texts must not store it any more.
        schema.remember(connection, purging="", purging_elsewhere="", purged_in=str(version))
        add_version(connection, version, f"{len(paths | others)} purged")
    return version


# --- the proof --------------------------------------------------------------------------------------------------------


def _traces(connection: Connection, paths: Iterable[str], contents: Iterable[int]) -> Needles:
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


def _drop_what_stays(store: Store, connection: Reader, *needles: Needles) -> None:
    """Forget traces shared with other documents: a sentence, a folder, a vector."""
    for batch in _batches(store, connection):
        values = (forms(row.decode()) if isinstance(of, int) else (row,) for of, row in batch)
        data = _BETWEEN.join(form for each in values for form in each)
        for each in needles:
            each.drop_found_in(data)


def find_in_rows(store: Store, connection: Reader, needles: Needles) -> tuple[list[str], int, int]:
    """(paths of kept documents and tables that hold a telling run, rows read, bytes read)."""
    found: set[int | str] = set()
    rows = size = 0
    for batch in _batches(store, connection):
        data = _BETWEEN.join(row for _, row in batch)
        rows, size = rows + len(batch), size + len(data)
        if needles.find(data, TELLING) is not None:
            found.update(of for of, row in batch if needles.find(row, TELLING) is not None)
    holders = connection.execute("SELECT DISTINCT path, content_id FROM documents ORDER BY path").fetchall()
    documents = [path for path, content in holders if content in found]
    tables = {each if isinstance(each, str) else "contents" for each in found - {content for _, content in holders}}
    return [*dict.fromkeys(documents), *(f"the table {each}" for each in sorted(tables))], rows, size


def _batches(store: Store, connection: Reader) -> Iterator[list[tuple[int | str, bytes]]]:
    """The whole database in batches of (id of a content, its text) and (table, other values)."""
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


def forms(text: str) -> set[bytes]:
    """The byte forms of a text in files: plain, UTF-16, JSON, JSON inside JSON, HTML, XML."""
    found, in_xml = {text}, html.escape(text, quote=False)
    for _ in range(2):
        found |= {json.dumps(each, ensure_ascii=ascii_only)[1:-1] for each in found for ascii_only in (True, False)}
    found |= {in_xml, *(in_xml.replace('"', quote).replace("'", apostrophe) for quote, apostrophe in _QUOTES)}
    return {*map(str.encode, found), text.encode("utf-16-le"), in_xml.encode("ascii", "xmlcharrefreplace")}


def _scan(folder: Path, needles: Needles) -> tuple[int, int]:
    files = scanned = 0
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        at, size = needles.find_in(path)
        if at is not None:
            raise KnowledgeError(
                f"The documents are purged, but bytes of them are in {path}, from byte {at} on. If it is not a file of the "
                "knowledge base, move it elsewhere or delete it. If it is one and another program uses it, end that program; "
                "the next add or sync then cleans up once more."
            )
        files, scanned = files + 1, scanned + size
    return files, scanned


def kind_of(base: KnowledgeBase) -> str:
    return "PostgreSQL" if base.store.is_shared else "folder"


def beyond_reach(base: KnowledgeBase, known: Iterable[BeyondReach] = ()) -> tuple[BeyondReach, ...]:
    """Places that neither a purge nor a scan reaches. `known` adds entries, or replaces those of the same reason."""
    found = {reason: BeyondReach(reason) for reason in (*_BEYOND_REACH, *base.store.beyond_reach)}
    if bucket := schema.meta(base.connection).get("blobs"):  # in which an older OpenBook shared its index
        found["object versions"] = BeyondReach("object versions", f"Delete {bucket.partition('?')[0]}/{base.id}/.")
    return tuple((found | {each.reason: each for each in known}).values())
