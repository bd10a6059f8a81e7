"""The key/value cache: a model's states after reading blocks, in memory and on disk.

A key covers the model, the numeric class and the exact tokens from the prompt's beginning, so a state replaces only a
computation of the same bits. It also covers the text's access labels, so response times do not reveal what others read. A
state is a copy of the text: a purge deletes all states, in every process (`openbook.core.derived`).

Each state is one file, `<key>.state`: magic, digest of key and all that follows, number of tokens, state. A file that fails
its digest is deleted. Files appear and disappear whole, so processes can share a folder. The least recently used go first.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import struct
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from openbook.core.derived import STATES, DerivedFolder
from openbook.core.files import make_folder
from openbook.core.locks import atomic_file, delete_abandoned
from openbook.core.records import canonical_json

if TYPE_CHECKING:
    from openbook.core.config import Settings

_MAGIC = b"OBSTATE3"
_HEAD = struct.Struct("<8s32sQ")  # magic, digest, tokens
_NEW = ".new"  # suffix until the file is complete
_KEEP_SHARE = 0.9  # of the budget: what an eviction leaves
_COUNT_SHARE = 0.05  # of the budget: written since the last count, this triggers a new one


def root_key(*parts: str) -> bytes:
    """The key before any block. `parts`: model, computation, labels of the texts."""
    return hashlib.sha256(canonical_json(list(parts))).digest()


def next_key(key: bytes, tokens: Sequence[int]) -> bytes:
    """Return the key after one more block. Law: equal keys mean equal blocks from the beginning."""
    block = struct.pack(f"<I{len(tokens)}i", len(tokens), *tokens)
    return hashlib.sha256(key + block).digest()


@dataclass(frozen=True, slots=True)
class CacheStats:
    """The states on disk. `tokens` need not be read again."""

    states: int
    bytes: int
    tokens: int


class KVCache:
    """Bounded by `memory_bytes` in this process and `disk_bytes` in `<derived>/states`. Thread-safe.

    An unusable folder fails no request; see `problem`.
    """

    def __init__(
        self, derived: Path | None = None, *, memory_bytes: int = 256 << 20, disk_bytes: int = 1 << 30
    ) -> None:
        self.derived = None if derived is None else DerivedFolder(derived)
        self.folder = None if derived is None or disk_bytes <= 0 else derived / STATES
        self.problem = ""
        self._memory_bytes, self._disk_bytes = memory_bytes, disk_bytes
        self._lock = threading.Lock()
        self._memory: OrderedDict[bytes, bytes] = OrderedDict()
        self._used = 0  # bytes in memory
        self._mark = ""  # the purge mark that this process has noticed
        self._on_disk: int | None = None  # bytes known to this process; None: not counted yet
        self._uncounted = 0  # bytes written since the last count

    @classmethod
    def of(cls, settings: Settings) -> KVCache:
        return cls(settings.derived_dir, memory_bytes=settings.kv_memory << 20, disk_bytes=settings.kv_disk << 20)

    def purge_mark(self) -> str:
        """Clear memory after a purge. Pass the result to each `put` of the new request."""
        with self._lock:
            if (mark := self._mark_now()) != self._mark:
                self._memory.clear()
                self._used, self._mark = 0, mark
            return mark

    def get(self, key: bytes) -> bytes | None:
        """Return a kept state. A file that fails its digest is deleted."""
        with self._lock:
            mark = self._mark
            if found := self._memory.get(key):
                self._memory.move_to_end(key)
                return found
        if self.folder is None:
            return None
        path = self._path(key)
        try:
            state = _read_state(path, key)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._trouble(error)
            return None
        if state is None:
            self.drop(key)
            return None
        with suppress(OSError):
            os.utime(path)
        self._remember(key, state, mark)
        return state

    def put(self, key: bytes, state: bytes, purge_mark: str, tokens: int = 0) -> None:
        """Keep the state of `tokens` tokens, unless there was a purge since `purge_mark`."""
        self._remember(key, state, purge_mark)
        size = _HEAD.size + len(state)
        if self.derived is None or self.folder is None or size > self._disk_bytes:
            return
        path = self._path(key)
        try:
            # A purge writes the next mark before it lets anyone write again.
            with self.derived.writing() as alive:
                if not alive or purge_mark != self._mark_now():
                    return
                make_folder(path.parent)
                self._make_room(size)
                # Not synced: the digest detects a file torn by a power cut.
                with atomic_file(path.with_name(f"{secrets.token_hex(8)}{_NEW}"), path, 0o600) as stream:
                    stream.write(_HEAD.pack(_MAGIC, _digest(key, tokens, state), tokens))
                    stream.write(state)
        except OSError as error:
            self._trouble(error)

    def drop(self, key: bytes) -> None:
        with self._lock:
            self._used -= len(self._memory.pop(key, b""))
        if self.folder is not None:
            with suppress(OSError):
                self._path(key).unlink()

    @property
    def full(self) -> bool:
        """True if keeping more would evict earlier states."""
        if self.folder is None or self.problem:
            return True
        return self._on_disk is not None and self._on_disk > self._disk_bytes * _KEEP_SHARE

    def kept(self) -> CacheStats:
        files = [(_stat(path)[1], _tokens_of(path)) for path in self._files()]
        return CacheStats(len(files), sum(size for size, _ in files), sum(tokens for _, tokens in files))

    def _mark_now(self) -> str:
        return self.derived.purge_mark() if self.derived else ""

    def _remember(self, key: bytes, state: bytes, purge_mark: str) -> None:
        if len(state) > self._memory_bytes:
            return
        with self._lock:
            # Under the lock: `purge_mark` in another thread either drops this state or makes the purge visible here.
            if purge_mark != self._mark_now():
                return
            self._used += len(state) - len(self._memory.pop(key, b""))
            self._memory[key] = state
            while self._used > self._memory_bytes:
                self._used -= len(self._memory.popitem(last=False)[1])

    def _make_room(self, wanted: int) -> None:
        """Delete the least recently used files if `wanted` more bytes would exceed the budget."""
        self._uncounted += wanted
        recent = self._uncounted <= self._disk_bytes * _COUNT_SHARE
        if recent and self._on_disk is not None and self._on_disk + wanted <= self._disk_bytes:
            self._on_disk += wanted
            return
        files = sorted((*_stat(path), path) for path in self._files())  # others write and delete here too
        total = sum(size for _, size, _ in files)
        if total + wanted > self._disk_bytes:
            for _, size, path in files:
                if total + wanted <= self._disk_bytes * _KEEP_SHARE:
                    break
                path.unlink(missing_ok=True)
                total -= size
        self._on_disk, self._uncounted = total + wanted, 0

    def _files(self) -> Iterator[Path]:
        """The state files. Unfinished files of killed processes are deleted."""
        for place, _, names in os.walk(self.derived.path / STATES) if self.derived else ():
            for path in (Path(place, name) for name in names):
                if path.suffix == ".state":
                    yield path
                elif path.suffix == _NEW:
                    with suppress(OSError):
                        delete_abandoned(path)

    def _path(self, key: bytes) -> Path:
        name = key.hex()
        return (self.folder or Path()) / name[:2] / f"{name}.state"

    def _trouble(self, error: OSError) -> None:
        self.problem = f"{self.folder}: {error.strerror or error}"


def _stat(path: Path) -> tuple[float, int]:
    """(last use, bytes); zeros for a missing file."""
    try:
        found = path.lstat()
    except OSError:
        return 0.0, 0
    return found.st_mtime, found.st_size


def _digest(key: bytes, tokens: int, state: bytes) -> bytes:
    digest = hashlib.sha256(key + struct.pack("<Q", tokens))
    digest.update(state)
    return digest.digest()


def _read_state(path: Path, key: bytes) -> bytes | None:
    """Return None unless the file is whole and belongs to `key`."""
    # Read, not mapped: a mapped file could change after the check.
    with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as stream:
        head, state = stream.read(_HEAD.size), stream.read()
    if len(head) < _HEAD.size:
        return None
    magic, digest, tokens = _HEAD.unpack(head)
    return state if (magic, digest) == (_MAGIC, _digest(key, tokens, state)) else None


def _tokens_of(path: Path) -> int:
    with suppress(OSError, struct.error), path.open("rb") as stream:
        magic, _, tokens = _HEAD.unpack(stream.read(_HEAD.size))
        return int(tokens) if magic == _MAGIC else 0
    return 0
