"""Search this machine for a text, in every file that a purge looks at.

Each file was scanned and holds no trace, or the report lists it as out of reach.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from openbook import __version__
from openbook.core.config import Settings
from openbook.core.derived import UPLOADS
from openbook.core.errors import KnowledgeError, QuestionError
from openbook.core.files import is_unfinished
from openbook.core.locks import is_held
from openbook.core.records import BeyondReach, Digest, sha256_hex
from openbook.knowledge import KnowledgeBase
from openbook.knowledge.byte_search import TELLING, Needles
from openbook.knowledge.cite.pictures import kept_name
from openbook.knowledge.erasure import beyond_reach, find_in_rows, forms, kind_of
from openbook.knowledge.ingest import mirror
from openbook.knowledge.store import schema
from openbook.knowledge.store.version_rows import now
from openbook.proofs.receipts import LOG_FILE
from openbook.proofs.signatures import AbsenceProof, ScannedFiles, UnreachedPaths

_WEIGHTS = frozenset({".gguf", ".safetensors", ".onnx"})

Reason: TypeAlias = Literal["traces", "in use", "unreadable", "link", "weights"]


@dataclass(frozen=True, slots=True)
class OutOfReach:
    """A file or folder that may hold a trace. `advice`: what it is, and what to do."""

    reason: Reason
    path: Path
    advice: str


def look_for(base: KnowledgeBase, text: str, settings: Settings) -> tuple[list[str], list[OutOfReach], AbsenceProof]:
    """Return (places of the text; paths not looked at; the proof if both are empty).

    Looks for runs of 48 bytes, or all of a shorter text, in every form that a purge looks for. The text is never
    written to disk. Raises QuestionError if it is too short.
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
        unheld_items = list(mirror.unheld(base.folder, mirror.holder(connection)))
    scanned, unreached = look_at_all({base.folder: "knowledge base", **roots(settings)}, base.folder, needles)
    places += [f"{each.path}: {each.advice}" for each in unreached if each.reason == "traces"]
    beyond = [each for each in unreached if each.reason != "traces"]
    packed = "no version holds this uploaded PDF, and no text can be found in a packed file: delete it."
    beyond += [OutOfReach("unreadable", each, packed) for each in unheld(base, settings.derived_dir / UPLOADS)]
    of_source = "no version holds what was fetched here, and no text can be found in a packed file: exclude it, or sync --forget its source."
    beyond += [OutOfReach("unreadable", each, of_source) for each in unheld_items]
    proof = AbsenceProof(
        openbook_version=__version__,
        time=began,
        knowledge_base=base.id,
        knowledge_base_version=version,
        store=kind_of(base),
        text=sha256_hex(text.encode()),
        scanned=(ScannedFiles("rows", rows, row_bytes), *scanned),
        out_of_reach=unreached_paths(beyond),
        beyond_reach=beyond_reach(base, [BeyondReach("numbers")]),
    )
    return places, [each for each in beyond if each.reason != "weights"], proof


def check_absent(places: Sequence[str], not_clean: Sequence[OutOfReach]) -> None:
    """Raise KnowledgeError unless nothing was found and all was looked at."""
    if places:
        raise KnowledgeError(f"The text was found. Places: {len(places):,}.")
    if not_clean:
        raise KnowledgeError(f"This is not proved. Paths that could not be looked at: {len(not_clean):,}.")


def unreached_paths(out_of_reach: Iterable[OutOfReach]) -> tuple[UnreachedPaths, ...]:
    unreached: dict[str, list[Digest]] = {}
    for each in out_of_reach:
        unreached.setdefault(each.reason, []).append(path_digest(str(each.path)))
    return tuple(UnreachedPaths(reason, tuple(sorted(unreached[reason]))) for reason in sorted(unreached))


def path_digest(path: str) -> Digest:
    return sha256_hex(path.encode("utf-8", "surrogateescape"))


def unheld(base: KnowledgeBase, folder: Path) -> list[Path]:
    """The kept files below `folder` of contents that no version of `base` holds."""
    found = sorted(folder.rglob("*.pdf"))  # before the contents, which come first: not what is kept meanwhile
    held = {kept_name(key) for key in base.content_keys("application/pdf")}
    return [path for path in found if path.name not in held]


# --- every file -------------------------------------------------------------------------------------------------------


def roots(settings: Settings) -> dict[Path, str]:
    """The folders outside the knowledge base to scan, by name."""
    derived, runs, diagnoses = settings.derived_dir, settings.runs_dir, settings.diagnoses_dir
    others = {derived: "derived", runs: "runs", diagnoses: "diagnoses", settings.models_dir: "models"}
    return {settings.home: "home", **others, settings.uploads_dir: "uploads"}


def look_at_all(
    folders: Mapping[Path, str], base_folder: Path, needles: Needles
) -> tuple[list[ScannedFiles], list[OutOfReach]]:
    """Return (clean files by folder, files with traces or out of reach) below `folders`.

    A file counts for the deepest of its folders. `base_folder` is skipped unless it is one of `folders`.
    """
    scanned, beyond = [], list[OutOfReach]()
    for root, name in folders.items():
        sizes: list[int] = []
        for path in walk(root, {base_folder, *folders} - {root}, beyond):
            looked_at = look_at(path, name, needles)
            if isinstance(looked_at, int):
                sizes.append(looked_at)
            elif looked_at is not None:
                beyond.append(looked_at)
        scanned.append(ScannedFiles(name, len(sizes), sum(sizes)))
    return scanned, beyond


def walk(root: Path, left_out: set[Path], out_of_reach: list[OutOfReach]) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            out_of_reach.append(_unreadable(Path(error.filename), error))

    for folder, names, files in os.walk(root, onerror=unreadable):
        here = Path(folder)
        names[:] = sorted(name for name in names if here / name not in left_out)
        for name in names:
            if (here / name).is_symlink():
                advice = (
                    "it leads to a folder elsewhere, which was not looked at. Look there yourself, or delete the link."
                )
                out_of_reach.append(OutOfReach("link", here / name, advice))
        yield from (here / name for name in sorted(files))


def look_at(path: Path, place: str, needles: Needles) -> int | OutOfReach | None:
    """Bytes scanned, or why the file is out of reach; None if it is not a regular file."""
    writing = "another process is writing it. When that is done, look at it, or delete it."
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a named pipe or a socket keeps no bytes
            return None
        if path.suffix in _WEIGHTS and place in ("models", "runs"):
            advice = "it holds a model's numbers, in which no text can be found. Whether it has learned from them is reported apart."
            return OutOfReach("weights", path, advice)
        if is_unfinished(path):
            return OutOfReach("in use", path, writing)
        if path.name.endswith(".lock") and place not in ("home", "models") and is_held(path):
            return OutOfReach("in use", path.parent, writing)
        at, size = needles.find_in(path, TELLING)
    except FileNotFoundError:
        return None
    except OSError as error:
        return _unreadable(path, error)
    if at is None:
        return size
    return OutOfReach("traces", path, f"a trace is in it, from byte {at} on. {_advice(path, place)}")


def _unreadable(path: Path, error: OSError) -> OutOfReach:
    return OutOfReach("unreadable", path, f"it cannot be read: {error.strerror or error}. Look at it yourself.")


def _advice(path: Path, place: str) -> str:
    if path.name == LOG_FILE:
        return "It is a log of receipts, which can only grow: delete it, or keep what it tells of them."
    if place == "knowledge base":
        return "It is of this knowledge base: purge the documents with this text."
    for folder in path.parents if place != "derived" else ():
        if (folder / schema.FILE_NAME).exists():
            return f"It belongs to another knowledge base: purge them there too: openbook purge DOCUMENT --kb {folder}"
    if path.parent.name == "questions" and place == "home":
        return "It holds standing questions: remove the question that has this text (openbook questions remove ID)."
    if "derived" in path.parts:
        return "It can be made again: delete it."
    if place == "runs":
        return "It is of a training run: delete the run's folder."
    if place == "diagnoses":
        return "Delete the diagnosis's folder."
    return "No purge deletes this file: look at it, then delete it or move it elsewhere."
