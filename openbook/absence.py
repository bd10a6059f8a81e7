"""Whether a text is anywhere on this machine: all that a purge scans is looked at, and nothing is changed."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

from openbook import __version__
from openbook.deletion import OutOfReach, PurgeTargets, look_at_all, unreached_paths
from openbook.errors import KnowledgeError, QuestionError
from openbook.knowledge import KnowledgeBase, schema
from openbook.knowledge.base import now
from openbook.knowledge.byte_search import TELLING, Needles
from openbook.knowledge.erasure import beyond_reach, find_in_rows, forms, kind_of
from openbook.records import BeyondReach, sha256_hex
from openbook.signatures import AbsenceProof, ScannedFiles


def look_for(base: KnowledgeBase, text: str, targets: PurgeTargets) -> tuple[list[str], list[OutOfReach], AbsenceProof]:
    """(where a text is, documents of any kept version first; what could not be looked at; what can be shown if it is nowhere).

    Looks for runs of 48 bytes of it, or for all of a shorter one, in every form that a purge looks for. The text is written
    nowhere. Raises QuestionError when it is too short, StorageError.
    """
    needles, sought = Needles(), text.strip()
    for form in forms(sought):
        needles.add(form)
    if needles.find(sought.encode(), TELLING) is None:
        raise QuestionError(
            f"A text like this, of {len(sought.encode())} bytes, cannot be looked for. Give one of at least 16 bytes, three of them different."
        )
    began, store = now(), base.store
    with store.errors(), closing(store.connect(all_rows=True)) as connection, store.snapshot(connection):
        store.check_tables(connection, base.id)
        version = schema.newest_version(connection)
        places, rows, row_bytes = find_in_rows(store, connection, needles)
    scanned, unreached = look_at_all({base.folder: "knowledge base", **targets.roots}, base.folder, targets, needles)
    places += [f"{each.path}: {each.advice}" for _, each in unreached if each.reason == "traces"]
    beyond = [each for _, each in unreached if each.reason != "traces"]
    objects: list[int] = []
    if (blobs := base.indexes.blobs) is not None:
        with tempfile.TemporaryDirectory() as folder:
            for each in list(blobs.list(f"{base.id}/")):
                with suppress(KeyError):  # deleted meanwhile
                    blobs.fetch(each.key, copy := Path(folder, "object"))
                    objects.append(each.size)
                    if needles.find_in(copy, TELLING)[0] is not None:
                        places.append(f"{each.key} in {blobs.url}")
    in_objects = ScannedFiles("object storage", len(objects), sum(objects))
    proof = AbsenceProof(
        openbook_version=__version__,
        time=began,
        knowledge_base=base.id,
        knowledge_base_version=version,
        store=kind_of(base),
        text=sha256_hex(text.encode()),
        scanned=(ScannedFiles("rows", rows, row_bytes), *scanned, in_objects),
        out_of_reach=unreached_paths(beyond),
        beyond_reach=beyond_reach(base, [BeyondReach("numbers")]),
    )
    return places, [each for each in beyond if each.reason != "weights"], proof


def check_absent(places: Sequence[str], not_clean: Sequence[OutOfReach]) -> None:
    """Raises KnowledgeError for a text that was found somewhere, or may be where nothing could be looked at."""
    if places:
        raise KnowledgeError(f"The text was found. Places: {len(places):,}.")
    if not_clean:
        raise KnowledgeError(f"This is not proved. Paths that could not be looked at: {len(not_clean):,}.")
