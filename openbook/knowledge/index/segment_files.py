"""The folder of the derived indexes. No other module opens its files.

`state.json` is written last and names every file with its size, digest and time. A file that does not match counts as absent.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from openbook.core.codec import convert, parse_json
from openbook.core.errors import KnowledgeBaseInvalid
from openbook.core.files import delete, delete_left_over, replace_file, sync_folder
from openbook.core.records import Digest, canonical_json, sha256_hex
from openbook.knowledge.index import segment_builder, words
from openbook.knowledge.index.segment_builder import IndexSource
from openbook.knowledge.index.segments import LAYOUT, Segment, Selection, contents_of, merge

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = 4  # raise it when a segment changes; old ones are then rebuilt
# Nothing else in the folder is ever deleted.
_OURS = re.compile(r"segment-\d+|\.(?:state\.json|checking)\.[0-9a-f-]+|\.checking")
_NUMBER = re.compile(r"segment-(\d+)")
_READ_UP_TO = 256 << 20  # bytes of an index that are compared with their digests on every opening
_MAPPED_FROM = 65_536  # bytes; smaller files are read, which is faster and holds no file open
_TRIES = 3  # if another process switches segments meanwhile


class FileRecord(NamedTuple):
    size: int
    digest: Digest
    written_ns: int


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    name: str
    files: dict[str, FileRecord]


@dataclass(frozen=True, slots=True)
class _State:
    about: list[int | str]
    segments: list[SegmentEntry]


@dataclass(frozen=True, slots=True)
class SavedSegment:
    entry: SegmentEntry
    segment: Segment


def index_folder(folder: Path) -> Path:
    """The folder to write to, below `folder`. Raises KnowledgeBaseInvalid when either is a link."""
    index = folder / "index"
    for each in (folder, index):
        if each.is_symlink():
            raise KnowledgeBaseInvalid(
                f"{each} is a link; OpenBook only writes inside the knowledge base. Delete the link."
            )
    return index


def delete_index(folder: Path) -> None:
    """Delete the index folder. Raises OSError, KnowledgeBaseInvalid when it is a link."""
    delete_left_over(folder)
    delete(index_folder(folder))


def read(folder: Path, source: IndexSource, *, every_byte: bool = False) -> tuple[list[SavedSegment], list[str]]:
    """(whole segments of `source`, problems of others). No content is in two segments.

    Digests of all bytes are checked up to `_READ_UP_TO` bytes or with `every_byte`; otherwise only where a time differs.
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
        return state.read_bytes() if state.is_file() else b""  # a named pipe would wait
    except OSError:
        return b""


def _read(index: Path, source: IndexSource, text: bytes, *, every_byte: bool) -> tuple[list[SavedSegment], list[str]]:
    found: list[SavedSegment] = []
    problems: list[str] = []
    try:
        entries = _entries(text, source) if text else []
    except ValueError as error:
        return [], [f"state.json: {error}"]
    every_byte |= sum(file.size for entry in entries for file in entry.files.values()) <= _READ_UP_TO
    for entry in entries:
        try:
            saved = _open(index / entry.name, entry, source, every_byte=every_byte)
            if np.isin(saved.segment.contents, contents_of(each.segment for each in found)).any():
                raise ValueError("a content is in two segments")
            found.append(saved)
        except (ValueError, OSError, EOFError, KeyError) as error:
            problems.append(f"{entry.name}: {error}")
    return found, problems


def _entries(text: bytes, source: IndexSource) -> list[SegmentEntry]:
    value = parse_json(text, "it", ValueError)
    digest = value.pop("digest", "") if isinstance(value, dict) else ""
    if digest != sha256_hex(canonical_json(value)):
        raise ValueError("its digest does not fit what it says")
    state = convert(value, _State, "it", ValueError)
    if state.about != about(source):
        raise ValueError("it is for another format, knowledge base or embedder")
    if not all(_NUMBER.fullmatch(entry.name) for entry in state.segments):
        raise ValueError("it names a folder that is not a segment")
    return state.segments


def about(source: IndexSource) -> list[int | str]:
    return [FORMAT, source.base_id, source.embedder_digest, source.dimensions, words.version()]


def _open(folder: Path, entry: SegmentEntry, source: IndexSource, *, every_byte: bool) -> SavedSegment:
    if folder.is_symlink():
        raise ValueError("it is a link")
    files: dict[str, FileRecord] = {}
    damaged: list[str] = []
    for name in LAYOUT:
        known, path = entry.files[name], folder / f"{name}.npy"
        status = path.lstat()
        files[name] = known._replace(written_ns=status.st_mtime_ns)
        if (
            not S_ISREG(status.st_mode)  # a named pipe would wait
            or status.st_size != known.size
            or ((every_byte or files[name] != known) and file_digest(path) != known.digest)
        ):
            damaged.append(name)
    if damaged:
        raise ValueError(f"{', '.join(damaged)}: not the bytes that were written")
    segment = _load(folder, files, source.dimensions)
    if not _is_of(segment, source):
        raise ValueError("its passages are not those of the database, which may have been restored from a backup")
    return SavedSegment(SegmentEntry(entry.name, files), segment)


def file_digest(path: Path) -> Digest:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _load(folder: Path, files: Mapping[str, FileRecord], dimensions: int) -> Segment:
    arrays: dict[str, Any] = {}
    for name in LAYOUT:
        mode: Any = "r" if files[name].size >= _MAPPED_FROM else None
        arrays[name] = np.asarray(np.load(folder / f"{name}.npy", mmap_mode=mode, allow_pickle=False))
    segment = Segment(**arrays)
    segment.check(dimensions)
    return segment


def _is_of(segment: Segment, source: IndexSource) -> bool:
    """True if the newest content known to both is the same: a database restored from a backup may give an id a second time."""
    for at in np.argsort(segment.contents)[::-1].tolist():
        saved, content = segment.passage_identities(at), int(segment.contents[at])
        try:
            if saved and segment_builder.stored_identities(source, content).issuperset(saved):
                return True
            found = segment_builder.passage_identities(source, content)
        except sqlite3.DatabaseError:  # a damaged content raises when it is read; the index may still match
            continue
        if found is not None and (found or saved):
            return saved == found
    return True


class SegmentWriter:
    """Writes segments to folders of new numbers, invisible before `switch`. The caller holds the write lock."""

    def __init__(self, folder: Path, source: IndexSource) -> None:
        self._index, self._source = index_folder(folder), source
        self._index.mkdir(parents=True, exist_ok=True)
        numbers = [int(m[1]) for path in self._index.iterdir() if (m := _NUMBER.fullmatch(path.name))]
        self._next = max(numbers, default=0) + 1

    def write(self, parts: Sequence[Selection]) -> SavedSegment:
        folder, files = self._index / f"segment-{self._next}", dict[str, FileRecord]()
        folder.mkdir()
        self._next += 1
        for shapes, blocks in merge(parts):
            with ExitStack() as stack:
                saving = {name: stack.enter_context(_ArrayFile(folder, name, shape)) for name, shape in shapes.items()}
                for block in blocks:
                    for file, array in zip(saving.values(), block, strict=True):
                        file.append(array)
            files.update((name, file.record()) for name, file in saving.items())
        sync_folder(folder)
        return SavedSegment(SegmentEntry(folder.name, files), _load(folder, files, self._source.dimensions))

    def switch(self, saved: Sequence[SavedSegment]) -> None:
        state = asdict(_State(about(self._source), [each.entry for each in saved]))
        sync_folder(self._index)
        replace_file(self._index / "state.json", canonical_json(state | {"digest": sha256_hex(canonical_json(state))}))

    def clean(self, keep: Sequence[SavedSegment]) -> None:
        names = {saved.entry.name for saved in keep}
        for path in [p for p in self._index.iterdir() if _OURS.fullmatch(p.name) and p.name not in names]:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


class _ArrayFile:
    def __init__(self, folder: Path, name: str, shape: tuple[int, ...]) -> None:
        self._path, self._type = folder / f"{name}.npy", LAYOUT[name][0]
        self._sha256, self._stream = hashlib.sha256(), self._path.open("xb")
        shape = tuple(map(int, shape))
        np.lib.format.write_array_header_1_0(self, {"descr": self._type, "fortran_order": False, "shape": shape})

    def append(self, block: NDArray[Any]) -> None:
        self.write(np.ascontiguousarray(block, dtype=np.dtype(self._type)).tobytes())

    def write(self, data: bytes) -> None:
        self._stream.write(data)
        self._sha256.update(data)

    def record(self) -> FileRecord:
        status = self._path.stat()
        return FileRecord(status.st_size, self._sha256.hexdigest(), status.st_mtime_ns)

    def __enter__(self) -> _ArrayFile:
        return self

    def __exit__(self, *error: object) -> None:
        with self._stream:
            self._stream.flush()
            os.fsync(self._stream.fileno())
