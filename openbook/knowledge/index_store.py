"""The folder of the derived indexes: which segments are whole, what is written, what is deleted.

`state.json` is written last and names every file with its size, digest and time. A file that does not fit counts as absent.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from openbook.codec import convert, parse_json
from openbook.errors import KnowledgeBaseInvalid, StorageError
from openbook.files import replace_file, sync_folder
from openbook.knowledge import index_builder, segments, words
from openbook.knowledge.index_builder import Source
from openbook.knowledge.segments import FileRecord, Segment, Selection
from openbook.records import canonical_json, sha256_hex

FORMAT = 3  # raise it when a segment holds something else than before: old ones are then made anew
# Nothing else in the folder is ever deleted. The last two are of format 1.
_OURS = re.compile(r"segment-\d+|\.state\.json\.[0-9a-f-]+|(?:bm25|vectors)-\d+|\.(?:vectors-\d+|state)\.\d+")
_NUMBER = re.compile(r"segment-(\d+)")
_READ_UP_TO = 256 << 20  # bytes of an index that are compared with their digests whenever it is opened
_TRIES = 3  # when another process switches to new segments while this one opens the old ones


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    files: dict[str, FileRecord]


@dataclass(frozen=True, slots=True)
class _State:
    about: list[int | str]
    segments: list[_Entry]


@dataclass(frozen=True, slots=True)
class SavedSegment:
    name: str
    files: dict[str, FileRecord]
    segment: Segment


def index_folder(folder: Path) -> Path:
    """The folder to write to. Raises KnowledgeBaseInvalid when it is a link."""
    index = folder / "index"
    if index.is_symlink():
        raise KnowledgeBaseInvalid(
            f"{index} is a link; OpenBook only writes inside the knowledge base. Delete the link."
        )
    return index


def read(folder: Path, source: Source, *, every_byte: bool = False) -> tuple[list[SavedSegment], list[str]]:
    """(the whole segments of `source`, what is wrong with the others).

    Every byte is compared with its digest. In an index of more than `_READ_UP_TO` bytes this is done only where a time differs,
    unless `every_byte` is asked for.
    """
    for _ in range(_TRIES):
        text = _state_text(folder)
        found, problems = _read(folder / "index", source, text, every_byte=every_byte)
        if not problems or _state_text(folder) == text:
            break
    return found, problems


def _state_text(folder: Path) -> bytes:
    state = folder / "index" / "state.json"
    try:
        return state.read_bytes() if state.is_file() else b""  # a named pipe would wait for ever
    except OSError:
        return b""


def _read(index: Path, source: Source, text: bytes, *, every_byte: bool) -> tuple[list[SavedSegment], list[str]]:
    found: list[SavedSegment] = []
    problems: list[str] = []
    try:
        entries = _entries(text, source) if text else []
    except ValueError as error:
        return [], [f"state.json: {error}"]
    every_byte |= sum(size for entry in entries for size, _, _ in entry.files.values()) <= _READ_UP_TO
    for entry in entries:
        try:
            found.append(_open(index / entry.name, entry, source, every_byte=every_byte))
        except (ValueError, OSError, EOFError, KeyError) as error:
            problems.append(f"{entry.name}: {error}")
    return found, problems


def _entries(text: bytes, source: Source) -> list[_Entry]:
    value = parse_json(text, "it", ValueError)
    digest = value.pop("digest", "") if isinstance(value, dict) else ""
    if digest != sha256_hex(canonical_json(value)):
        raise ValueError("it was changed")
    state = convert(value, _State, "it", ValueError)
    if state.about != _about(source):
        raise ValueError("it is of another format, knowledge base or embedder")
    if not all(_NUMBER.fullmatch(entry.name) for entry in state.segments):
        raise ValueError("it names other folders")
    return state.segments


def _about(source: Source) -> list[int | str]:
    return [FORMAT, source.base_id, source.embedder_digest, source.dimensions, words.version()]


def _open(folder: Path, entry: _Entry, source: Source, *, every_byte: bool) -> SavedSegment:
    if folder.is_symlink():
        raise ValueError("it is a link")
    times = {name: (folder / f"{name}.npy").stat().st_mtime_ns for name in entry.files}
    suspect = every_byte or any(times[name] != written for name, (_, _, written) in entry.files.items())
    if suspect and (damaged := segments.damaged_files(folder, entry.files)):
        raise ValueError(f"{', '.join(damaged)}: not the bytes that were written")
    segment = segments.load(folder, entry.files, source.dimensions)
    if not _is_of(segment, source):
        raise ValueError("it is of another past of this knowledge base")
    files = {name: (size, digest, times[name]) for name, (size, digest, _) in entry.files.items()}
    return SavedSegment(entry.name, files, segment)


def _is_of(segment: Segment, source: Source) -> bool:
    """Whether the newest content that both know is the same.

    A database that was restored from a backup may give an id a second time. Then the newest contents differ, for ids ascend.
    """
    for at in np.argsort(segment.contents)[::-1]:
        rows = slice(int(segment.starts[at]), int(segment.starts[at + 1]))
        try:
            found = index_builder.identities(source, int(segment.contents[at]))
        except sqlite3.DatabaseError:  # reading that content will say so; the index is still of it
            continue
        if found is None or (not found and rows.start == rows.stop):
            continue
        return segment.identities(rows) == found
    return True


# --- writing ----------------------------------------------------------------------------------------------------------


class Writer:
    """Writes segments to folders of new numbers; nobody sees them before `switch`. The caller holds the write lock."""

    def __init__(self, folder: Path, source: Source) -> None:
        self._index, self._source = index_folder(folder), source
        self._index.mkdir(parents=True, exist_ok=True)
        numbers = [int(m[1]) for path in self._index.iterdir() if (m := _NUMBER.fullmatch(path.name))]
        self._next = max(numbers, default=0) + 1

    def write(self, parts: Sequence[Selection]) -> SavedSegment:
        name = f"segment-{self._next}"
        self._next += 1
        files = segments.merge(self._index / name, parts)
        return SavedSegment(name, files, segments.load(self._index / name, files, self._source.dimensions))

    def switch(self, saved: Sequence[SavedSegment]) -> None:
        """Make `saved` what the folder holds, in one step."""
        state = asdict(_State(_about(self._source), [_Entry(each.name, each.files) for each in saved]))
        sync_folder(self._index)
        replace_file(self._index / "state.json", canonical_json(state | {"digest": sha256_hex(canonical_json(state))}))

    def clean(self, keep: Sequence[SavedSegment], *, strict: bool) -> None:
        """Delete what is ours and not in `keep`; readers that have it open keep it. Raises StorageError if `strict`."""
        for path in leftovers(self._index, keep):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
            if strict and path.exists():
                raise StorageError(f"Cannot delete {path}. Close the programs that use it, then run this again.")


def leftovers(index: Path, keep: Sequence[SavedSegment]) -> Iterator[Path]:
    """What OpenBook wrote into the folder and `keep` does not name."""
    names = {saved.name for saved in keep}
    if index.is_dir():
        yield from (p for p in sorted(index.iterdir()) if _OURS.fullmatch(p.name) and p.name not in names)
