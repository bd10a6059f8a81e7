"""Whether a text is anywhere on this machine: all that a purge scans is looked at, and nothing is changed."""

from __future__ import annotations

import json
import tempfile
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from openbook import __version__
from openbook.deletion import OutOfReach, PurgeTargets, look_at_all, unreached_paths
from openbook.errors import QuestionError
from openbook.knowledge import KnowledgeBase, schema
from openbook.knowledge.base import now
from openbook.knowledge.byte_search import TELLING, WINDOW, Needles
from openbook.knowledge.store import Connection
from openbook.knowledge.traces import beyond_reach, find_in_rows, forms, kind_of
from openbook.records import BeyondReach, Digest, sha256_hex
from openbook.signatures import AbsenceProof, ScannedFiles


@dataclass(frozen=True, slots=True)
class AbsenceResult:
    """What a search for a text found. `places`: where a trace is, paths of documents of any kept version first.

    `out_of_reach`: files and folders that were not looked at. `text`: the digest of the text; `time`: when the search began.
    """

    text: Digest
    time: str
    version: int
    places: tuple[str, ...]
    scanned: tuple[ScannedFiles, ...]
    out_of_reach: tuple[OutOfReach, ...]
    beyond_reach: tuple[BeyondReach, ...]

    @property
    def not_clean(self) -> list[OutOfReach]:
        """What is out of reach and may hold a trace."""
        return [each for each in self.out_of_reach if each.reason != "weights"]


def look_for(base: KnowledgeBase, text: str, targets: PurgeTargets) -> AbsenceResult:
    """Look for runs of 48 bytes of a text, or for all of a shorter one, in every form that a purge looks for.

    The text is written nowhere. Raises QuestionError when it is too short, StorageError.
    """
    needles, sought = Needles(), text.strip()
    needles.add(sought.encode())
    if not needles:
        raise QuestionError(
            f"The text has {len(sought.encode())} bytes. A scan finds texts of at least {WINDOW} bytes, of at least three "
            "different ones: give more of it."
        )
    for form in forms(sought):
        needles.add(form)
    began, store = now(), base.store
    with store.errors(), closing(store.connect()) as connection, store.snapshot(connection):
        store.check_tables(connection, base.id)
        store.show_all_rows(connection)
        version = schema.newest_version(connection)
        found, rows, row_bytes = find_in_rows(store, connection, needles)
        places = _documents_and_tables(connection, found)
    scanned, unreached = look_at_all({base.folder: "knowledge base", **targets.roots}, set(), targets, needles)
    objects, more = _look_at_objects(base, needles)
    traces = [f"{each.path}: {each.advice}" for _, each in unreached if each.reason == "traces"]
    return AbsenceResult(
        sha256_hex(text.encode()),
        began,
        version,
        (*places, *traces, *more),
        (ScannedFiles("rows", rows, row_bytes), *scanned, *objects),
        tuple(each for _, each in unreached if each.reason != "traces"),
        beyond_reach(base, [BeyondReach("numbers")]),
    )


def _documents_and_tables(connection: Connection, found: set[int | str]) -> list[str]:
    contents = json.dumps(sorted(each for each in found if isinstance(each, int)))
    sql = f"SELECT DISTINCT path, content_id FROM documents WHERE content_id IN {schema.IDS}"
    holders = connection.execute(sql, {"ids": contents}).fetchall()
    tables = {each if isinstance(each, str) else "contents" for each in found - {content for _, content in holders}}
    return [*sorted({path for path, _ in holders}), *(f"the table {each}" for each in sorted(tables))]


def _look_at_objects(base: KnowledgeBase, needles: Needles) -> tuple[list[ScannedFiles], list[str]]:
    """(what holds no trace, the objects that do) in the storage that machines share."""
    if (blobs := base.indexes.blobs) is None:
        return [], []
    objects = size = 0
    found = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "object")
        for each in list(blobs.list(f"{base.id}/")):
            with suppress(KeyError):  # deleted meanwhile
                blobs.fetch(each.key, copy)
                if needles.find_in(copy, TELLING)[0] is not None:
                    found.append(f"{each.key} in {blobs.url}")
                objects, size = objects + 1, size + each.size
    return [ScannedFiles("object storage", objects, size)], found


def proof_of_absence(result: AbsenceResult, base: KnowledgeBase) -> AbsenceProof:
    """What can be shown to others, when no trace was found: digests and counts, no name and no text."""
    return AbsenceProof(
        openbook_version=__version__,
        time=result.time,
        knowledge_base=base.id,
        knowledge_base_version=result.version,
        store=kind_of(base),
        text=result.text,
        scanned=result.scanned,
        out_of_reach=unreached_paths(result.out_of_reach),
        beyond_reach=result.beyond_reach,
    )
