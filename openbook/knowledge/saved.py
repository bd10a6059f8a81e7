"""The folder of the derived indexes: which segments are whole, what is written, what is deleted.

`state.json` is written last and names every file with its size and digest. Whatever does not fit it is as good as absent.
"""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openbook.errors import KnowledgeBaseInvalid, StorageError
from openbook.files import replace_file, sync_folder
from openbook.knowledge import facts, segments, words
from openbook.knowledge.facts import Source
from openbook.knowledge.segments import FileFacts, Kept, Segment
from openbook.records import canonical_json, sha256_hex

FORMAT = 3  # raise it when a segment holds something else than before: old ones are then made anew
# Nothing else in the folder is ever deleted. The last two are of format 1.
_OURS = re.compile(r"segment-\d+|\.state\.json\.[0-9a-f-]+|(?:bm25|vectors)-\d+|\.(?:vectors-\d+|state)\.\d+")
_NUMBER = re.compile(r"segment-(\d+)")
_READ_UP_TO = 256 << 20  # bytes of an index that are compared with their digests whenever it is opened
_TRIES = 3  # when another process switches to new segments while this one opens the old ones


@dataclass(frozen=True, slots=True)
class Saved:
    """A whole segment. `stamps`: when each of its files was written, in nanoseconds; they say that it is still that."""

    name: str
    files: dict[str, FileFacts]
    stamps: dict[str, int]
    segment: Segment


@dataclass(frozen=True, slots=True)
class Opened:
    """`complete`: everything that the state names is whole and has the time stamps that it names."""

    saved: tuple[Saved, ...]
    problems: tuple[str, ...]
    restamped: bool = False

    @property
    def complete(self) -> bool:
        return not self.problems and not self.restamped


def index_folder(folder: Path) -> Path:
    """The folder to write to. Raises KnowledgeBaseInvalid when it is a link."""
    index = folder / "index"
    if index.is_symlink():
        raise KnowledgeBaseInvalid(
            f"{index} is a link; OpenBook only writes inside the knowledge base. Delete the link."
        )
    return index


def read(folder: Path, source: Source, *, every_byte: bool = False) -> Opened:
    """The whole segments of `source`. Every byte is compared with its digest; in an index of more than `_READ_UP_TO` only
    where a time stamp differs, unless `every_byte` is asked for.
    """
    opened = Opened((), ())
    for _ in range(_TRIES):
        text = _state_text(folder)
        opened = _read(folder, source, text, every_byte=every_byte)
        if not opened.problems or _state_text(folder) == text:
            break
    return opened


def _state_text(folder: Path) -> bytes:
    state = folder / "index" / "state.json"
    try:
        return state.read_bytes() if state.is_file() else b""  # a named pipe would wait for ever
    except OSError:
        return b""


def _read(folder: Path, source: Source, text: bytes, *, every_byte: bool) -> Opened:
    try:
        state = _parsed(text, source)
        every_byte |= sum(int(file[0]) for entry in state for file in entry["files"].values()) <= _READ_UP_TO
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return Opened((), (f"state.json: {error}",) if text else ())
    found: list[Saved] = []
    problems: list[str] = []
    restamped = False
    for entry in state:
        name = entry["name"]
        try:
            each, exact = _open(folder / "index" / name, entry, source, every_byte=every_byte)
        except (ValueError, OSError, EOFError, KeyError, TypeError) as error:
            problems.append(f"{name}: {error}")
            continue
        found.append(each)
        restamped = restamped or not exact
    return Opened(tuple(found), tuple(problems), restamped)


def _parsed(text: bytes, source: Source) -> list[dict[str, Any]]:
    state = json.loads(text)
    digest = state.pop("digest")
    if digest != sha256_hex(canonical_json(state)):
        raise ValueError("it was changed")
    if state.pop("about") != _about(source):
        raise ValueError("it is of another format, knowledge base or embedder")
    entries: list[dict[str, Any]] = state["segments"]
    if not all(_NUMBER.fullmatch(entry["name"]) for entry in entries):
        raise ValueError("it names other folders")
    return entries


def _about(source: Source) -> list[object]:
    return [FORMAT, source.base_id, source.embedder_digest, source.dimensions, words.version()]


def _open(folder: Path, entry: dict[str, Any], source: Source, *, every_byte: bool) -> tuple[Saved, bool]:
    files = {name: (int(size), str(digest)) for name, (size, digest, _) in entry["files"].items()}
    if folder.is_symlink():
        raise ValueError("it is a link")
    stamps = {name: (folder / f"{name}.npy").stat().st_mtime_ns for name in files}
    exact = all(stamps[name] == entry["files"][name][2] for name in files)
    if (every_byte or not exact) and (damaged := segments.damaged_files(folder, files)):
        raise ValueError(f"{', '.join(damaged)}: not the bytes that were written")
    segment = segments.load(folder, files, source.dimensions)
    if not _is_of(segment, source):
        raise ValueError("it is of another past of this knowledge base")
    return Saved(entry["name"], files, stamps, segment), exact


def _is_of(segment: Segment, source: Source) -> bool:
    """Whether the newest content that both know is the same.

    A database put back from a backup may give an id a second time. Then the newest contents differ, for ids ascend.
    """
    for at in np.argsort(segment.contents)[::-1]:
        rows = slice(int(segment.starts[at]), int(segment.starts[at + 1]))
        try:
            found = facts.identities(source, int(segment.contents[at]))
        except sqlite3.DatabaseError:  # whoever reads that content will be told; the index is of it all the same
            continue
        if found is None or (not found and rows.start == rows.stop):
            continue
        here = zip(segment.passages[rows], segment.keys[rows], segment.variants[rows], strict=True)
        return [(int(p), int(k), int(v)) for p, k, v in here] == found
    return True


# --- writing ----------------------------------------------------------------------------------------------------------


class Writer:
    """Writes segments to folders of new numbers; nobody sees them before `switch`. The caller holds the write lock."""

    def __init__(self, folder: Path, source: Source) -> None:
        self._index, self._source = index_folder(folder), source
        self._index.mkdir(parents=True, exist_ok=True)
        numbers = [int(m[1]) for path in self._index.iterdir() if (m := _NUMBER.fullmatch(path.name))]
        self._next = max(numbers, default=0) + 1

    def write(self, parts: Sequence[Kept]) -> Saved:
        name = f"segment-{self._next}"
        self._next += 1
        files = segments.write(self._index / name, parts)
        stamps = {each: (self._index / name / f"{each}.npy").stat().st_mtime_ns for each in files}
        return Saved(name, files, stamps, segments.load(self._index / name, files, self._source.dimensions))

    def switch(self, saved: Sequence[Saved]) -> None:
        """Make `saved` what the folder holds, in one step."""
        entries = [
            {"name": s.name, "files": {n: [*facts_, s.stamps[n]] for n, facts_ in sorted(s.files.items())}}
            for s in saved
        ]
        state: dict[str, object] = {"about": _about(self._source), "segments": entries}
        sync_folder(self._index)
        signed = state | {"digest": sha256_hex(canonical_json(state))}
        replace_file(self._index / "state.json", canonical_json(signed))

    def clean(self, keep: Sequence[Saved], *, strict: bool) -> None:
        """Delete what is ours and not in `keep`; readers that have it open keep it. Raises StorageError if `strict`."""
        for path in leftovers(self._index, keep):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
            if strict and path.exists():
                raise StorageError(f"Cannot delete {path}. Close the programs that use it, then run this again.")


def leftovers(index: Path, keep: Sequence[Saved]) -> Iterator[Path]:
    """What OpenBook wrote into the folder and `keep` does not name."""
    names = {saved.name for saved in keep}
    if index.is_dir():
        yield from (p for p in sorted(index.iterdir()) if _OURS.fullmatch(p.name) and p.name not in names)
