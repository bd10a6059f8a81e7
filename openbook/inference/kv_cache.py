"""The key/value cache: what a model computed when it read blocks, kept in memory and on disk.

The key of a state holds all that it is a function of: the model, the numeric class and the exact tokens from the beginning
of the prompt. So a kept state stands only for the computation that would give the same bits. The key also holds the access
labels under which the text is seen, so that nobody can tell by the time whether others read a text that they guess. A
state is a copy of what was read, in the model's own form: a purge deletes all states, in every process (`openbook.derived`).

One file for each state, `<key>.state`: magic, digest, number of tokens, state. A file whose digest over the key and all that follows
does not match is deleted and computed again. Files appear and go whole, so that several processes can share a folder. The
least recently used go first.
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

from openbook.derived import STATES, DerivedFolder
from openbook.files import make_folder
from openbook.locks import atomic_file, delete_abandoned
from openbook.records import canonical_json

if TYPE_CHECKING:
    from openbook.config import Settings

_MAGIC = b"OBSTATE3"
_HEAD = struct.Struct("<8s32sQ")  # magic, digest, tokens
_NEW = ".new"  # how the name of a state ends until it is whole
_KEEP_SHARE = 0.9  # of the budget: when it is exceeded, files are deleted until so much is left
_COUNT_SHARE = 0.05  # of the budget: when a process has written so much, it counts again, since others write too


def root_key(*parts: str) -> bytes:
    """The key before any block: it names the model, how it computes, and the labels under which its texts are seen."""
    return hashlib.sha256(canonical_json(list(parts))).digest()


def next_key(key: bytes, tokens: Sequence[int]) -> bytes:
    """The key after a further block. Law: equal keys mean equal blocks from the beginning on."""
    block = struct.pack(f"<I{len(tokens)}i", len(tokens), *tokens)
    return hashlib.sha256(key + block).digest()


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What a folder of states holds: files, bytes, and tokens that need not be read again."""

    states: int
    bytes: int
    tokens: int


class KVCache:
    """Bounded by `memory_bytes` in this process and `disk_bytes` in `<derived>/states`. Safe to use from several threads.

    Nothing here can fail a request: a folder that cannot be read or written is as good as none, and `problem` says why.
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
        self._on_disk: int | None = None  # bytes, as far as this process knows; None: not counted yet
        self._uncounted = 0  # of them written since they were counted

    @classmethod
    def of(cls, settings: Settings) -> KVCache:
        return cls(settings.derived_dir, memory_bytes=settings.kv_memory << 20, disk_bytes=settings.kv_disk << 20)

    def purge_mark(self) -> str:
        """Forget all that is in memory if there was a purge. Give the result to each `put` of the request that begins now."""
        with self._lock:
            if (mark := self._mark_now()) != self._mark:
                self._memory.clear()
                self._used, self._mark = 0, mark
            return mark

    def get(self, key: bytes) -> bytes | None:
        """The state of that key. A file that is not exactly what was put there is deleted."""
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
        """Keep the state of so many tokens, unless there was a purge since `purge_mark`."""
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
                # Not yet on the platter: a file that a power cut tore is found out by its digest.
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
        """Whether keeping more would cost what was kept before."""
        if self.folder is None or self.problem:
            return True
        return self._on_disk is not None and self._on_disk > self._disk_bytes * _KEEP_SHARE

    def kept(self) -> CacheStats:
        """What is on disk now. Deletes what killed processes left unfinished."""
        files = [(_stat(path)[1], _tokens_of(path)) for path in self._files()]
        return CacheStats(len(files), sum(size for size, _ in files), sum(tokens for _, tokens in files))

    def _mark_now(self) -> str:
        return self.derived.purge_mark() if self.derived else ""

    def _remember(self, key: bytes, state: bytes, purge_mark: str) -> None:
        """Keep it in memory, unless there was a purge since `purge_mark`."""
        if len(state) > self._memory_bytes:
            return
        with self._lock:
            # Under the lock, so that `purge_mark` in another thread either drops this state or makes the purge visible here.
            if purge_mark != self._mark_now():
                return
            self._used += len(state) - len(self._memory.pop(key, b""))
            self._memory[key] = state
            while self._used > self._memory_bytes:
                self._used -= len(self._memory.popitem(last=False)[1])

    def _make_room(self, wanted: int) -> None:
        """Delete the least recently used files, if `wanted` bytes more would exceed the budget."""
        self._uncounted += wanted
        recent = self._uncounted <= self._disk_bytes * _COUNT_SHARE
        if recent and self._on_disk is not None and self._on_disk + wanted <= self._disk_bytes:
            self._on_disk += wanted
            return
        files = sorted((*_stat(path), path) for path in self._files())  # others write and delete here too: count again
        total = sum(size for _, size, _ in files)
        if total + wanted > self._disk_bytes:
            for _, size, path in files:
                if total + wanted <= self._disk_bytes * _KEEP_SHARE:
                    break
                path.unlink(missing_ok=True)
                total -= size
        self._on_disk, self._uncounted = total + wanted, 0

    def _files(self) -> Iterator[Path]:
        """The files of states. Left-overs of processes that were killed are deleted on the way."""
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
    """(when it was used last, its bytes); of a file that is gone (0, 0)."""
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
    """The state in a file that is whole and of that key. Raises OSError."""
    # Read into memory of our own: what is mapped could change after it was checked.
    with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as stream:
        head, state = stream.read(_HEAD.size), stream.read()
    if len(head) < _HEAD.size:
        return None
    magic, digest, tokens = _HEAD.unpack(head)
    return state if (magic, digest) == (_MAGIC, _digest(key, tokens, state)) else None


def _tokens_of(path: Path) -> int:
    """As the head of a state says; 0 where it cannot be read."""
    with suppress(OSError, struct.error), path.open("rb") as stream:
        magic, _, tokens = _HEAD.unpack(stream.read(_HEAD.size))
        return int(tokens) if magic == _MAGIC else 0
    return 0
