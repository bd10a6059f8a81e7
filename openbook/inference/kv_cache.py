"""The key/value cache: what a model computed when it read blocks, kept in memory and on disk.

The key of a state holds all that it is a function of: the model, the numeric class and the exact tokens from the beginning
of the prompt. So a kept state stands only for the computation that would give the same bits. The key also holds the access
labels under which the text is seen, so that nobody can tell by the time whether others read a text that they guess. A
state is a copy of what was read, in the model's own form: `forget` deletes the states of purged passages, in every process.

One file for each state, `<key>.state`: magic, length of the header, header (JSON), state. The header holds a digest over
itself with the key, and one over the state. A file that does not agree with them is deleted and computed again. Files
appear and go whole, so that several processes can share a folder. The least recently used go first.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import struct
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from openbook.codec import decode
from openbook.errors import StorageError
from openbook.files import make_folder
from openbook.locks import atomic_file, delete_abandoned, exclusive_lock, shared_lock
from openbook.records import Digest, canonical_json

if TYPE_CHECKING:
    from openbook.config import Settings

_MAGIC = b"OBSTATE2"  # 1 had no tokens
_LENGTH = struct.Struct("<I")
_MAX_HEADER_BYTES = 1 << 20
_NEW = ".new"  # how the name of a state ends until it is whole
_PURGED = (
    "purged"  # the digests of purged passages, one a line, in order, or `ALL`, and random words; only ever appended to
)
_WORD = "#"
_FOLLOWED = "followed"  # how much of another cache's purge list was followed already (`follow`): a copy of that list
ALL = "all"
_WRITING = "writing"  # locked shared by whoever writes a state, exclusively by a purge
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
    """Bounded by `memory_bytes` in this process and `disk_bytes` in `folder`. Safe to use from several threads.

    Nothing here can fail a request: a folder that cannot be read or written is as good as none, and `problem` says why.
    """

    def __init__(self, folder: Path | None = None, *, memory_bytes: int = 256 << 20, disk_bytes: int = 1 << 30) -> None:
        self.folder = folder if disk_bytes > 0 else None
        # The folder even if it is not used now (`disk_bytes` 0): a purge must reach states that an earlier process left there.
        self.root = folder
        self.problem = ""
        self._memory_bytes, self._disk_bytes = memory_bytes, disk_bytes
        self._lock = threading.Lock()
        self._memory: OrderedDict[bytes, tuple[bytes, tuple[Digest, ...]]] = OrderedDict()
        self._used = 0  # bytes in memory
        self._on_disk: int | None = None  # bytes, as far as this process knows; None: not counted yet
        self._uncounted = 0  # of them written since they were counted
        self._mark = 0  # how many bytes of the purge list this process has read

    @classmethod
    def of(cls, settings: Settings) -> KVCache:
        return cls(settings.states_dir, memory_bytes=settings.kv_memory << 20, disk_bytes=settings.kv_disk << 20)

    def purge_mark(self) -> int:
        """Forget what was purged meanwhile. Give the result to each `put` of the request that begins now."""
        purged, end = self._purged_since(self._mark)
        with self._lock:
            self._drop_from_memory(purged)
            self._mark = max(self._mark, end)
            return self._mark

    def get(self, key: bytes) -> bytes | None:
        """The state of that key. A file that is not exactly what was put there is deleted."""
        with self._lock:
            mark = self._mark
            if found := self._memory.get(key):
                self._memory.move_to_end(key)
                return found[0]
        if self.folder is None:
            return None
        path = self._path(key)
        try:
            whole = _read_state(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._trouble(error)
            return None
        if whole is None:
            self.drop(key)
            return None
        with suppress(OSError):
            os.utime(path)
        state, passages = whole
        self._remember(key, state, passages, mark)
        return state

    def put(self, key: bytes, state: bytes, passages: Sequence[Digest], purge_mark: int, tokens: int = 0) -> None:
        """Keep the state of so many tokens, which was read from `passages`, unless one of them was purged since `purge_mark`."""
        unique = tuple(sorted(set(passages)))
        self._remember(key, state, unique, purge_mark)
        if self.folder is None:
            return
        head = _file_head(key, state, unique, tokens)
        size = len(head) + len(state)
        if size > self._disk_bytes:
            return
        path = self._path(key)
        try:
            make_folder(path.parent)
            # A purge first names its passages, then waits until nobody writes, then deletes. So either it meets this file, whole
            # or not, or this process meets their names, whenever either is killed.
            with shared_lock(self.folder / _WRITING) as alive:
                if not alive or _any_purged(unique, self._purged_since(purge_mark)[0]):
                    return
                self._make_room(size)
                # Not yet on the platter: a file that a power cut tore is found out by its digest.
                with atomic_file(path.with_name(f"{secrets.token_hex(8)}{_NEW}"), path, 0o600) as stream:
                    stream.write(head)
                    stream.write(state)
        except OSError as error:
            self._trouble(error)

    def drop(self, key: bytes) -> None:
        with self._lock:
            if found := self._memory.pop(key, None):
                self._used -= len(found[0])
        if self.folder is not None:
            with suppress(OSError):
                self._path(key).unlink()

    def forget(self, passages: Collection[Digest] | None, timeout_s: float = 30.0) -> int:
        """Delete every state that any of `passages` went into (None: every state), and see to it that no process keeps one.

        Files that killed processes left unfinished go too, since nobody knows what they were read from. Returns how many
        files were deleted. Raises StorageError when another process still writes a state after `timeout_s`, OSError when the
        folder cannot be written; then some may be left.
        """
        purged = {ALL} if passages is None else set(passages)
        with self._lock:
            self._drop_from_memory(purged)
        if self.root is None or not purged:
            return 0
        try:
            make_folder(self.root)
        except OSError:
            if not self.root.exists():  # and nobody can make it
                return 0
            raise
        self._announce(self.root, purged)
        with exclusive_lock(self.root / _WRITING, timeout_s) as held:
            if not held:
                raise StorageError(
                    f"Another process has been writing to {self.root} for {timeout_s:g} s. End it, then run this again."
                )
            deleted = 0
            for path in _files_below(self.root):
                # Nobody else is here, so whoever left something unfinished is dead. What a damaged file holds nobody knows.
                header = _header_of(path) if path.suffix == ".state" else None
                unwanted = header is None or _any_purged(header.passages, purged)
                if unwanted and path.suffix in (_NEW, ".state"):
                    path.unlink(missing_ok=True)
                    deleted += 1
            if deleted:  # a process that had read the list may have read one of these files into its memory since
                self._announce(self.root, purged)
            return deleted

    def forget_again(self) -> int:
        """`forget` all that was ever purged: it may have been read again before it was gone. Raises as `forget` does."""
        return self.forget(self._purged_since(0)[0])

    def purge_list(self) -> bytes:
        """The digests of all passages that were ever purged here, one a line, for `follow`. Raises OSError."""
        try:
            return (self.root / _PURGED).read_bytes() if self.root else b""
        except FileNotFoundError:
            return b""

    def follow(self, purge_list: bytes) -> int:
        """`forget` what is new in the `purge_list` of another cache. Returns how many files were deleted.

        That cache may be on another machine, or share this folder: then there is nothing to do. Raises as `forget` does.
        """
        if self.root is None or self.shares(purge_list):
            return 0
        path = self.root / _FOLLOWED
        before = path.read_bytes() if path.exists() else b""
        new = purge_list[len(before) if purge_list.startswith(before) else 0 :]
        purged = _passages_on(new)
        deleted = self.forget(None if ALL in purged else purged)
        with (
            suppress(FileNotFoundError),
            atomic_file(path.with_name(f"{secrets.token_hex(8)}{_NEW}"), path, 0o600) as stream,
        ):
            stream.write(purge_list)
        return deleted

    def shares(self, purge_list: bytes) -> bool:
        """Whether that is, or was, the `purge_list` of this folder. An empty one may be."""
        return self.purge_list().startswith(purge_list)

    def passages(self) -> set[Digest]:
        """All that went into the states on disk. Deletes what killed processes left unfinished."""
        headers = (_header_of(path) for path in self._files())
        return {passage for header in headers if header for passage in header.passages}

    def is_known(self, path: Path) -> bool:
        """Whether it is a state, byte for byte what was written, of the passages that it names. Raises OSError."""
        return path.suffix == ".state" and _read_state(path) is not None

    @property
    def full(self) -> bool:
        """Whether keeping more would cost what was kept before."""
        if self.folder is None or self.problem:
            return True
        return self._on_disk is not None and self._on_disk > self._disk_bytes * _KEEP_SHARE

    def kept(self) -> CacheStats:
        """What is on disk now. Deletes what killed processes left unfinished."""
        files = [(_stat(path)[1], _header_of(path)) for path in self._files()]
        return CacheStats(
            len(files), sum(size for size, _ in files), sum(header.tokens for _, header in files if header)
        )

    def _announce(self, root: Path, passages: Collection[Digest]) -> None:
        """Tell every process, by the list of purged passages, to forget these."""
        with (root / _PURGED).open("a", encoding="ascii") as stream:
            # The random word tells this list from that of another machine on which the same was purged. Each line begins with
            # a line feed of its own, so that one that was cut off spoils none.
            lines = [f"{_WORD}{secrets.token_hex(8)}", *sorted(passages)]
            stream.write("".join(f"\n{line}" for line in lines) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def _remember(self, key: bytes, state: bytes, passages: tuple[Digest, ...], purge_mark: int) -> None:
        """Keep it in memory, unless one of its passages was purged since `purge_mark`."""
        if len(state) > self._memory_bytes:
            return
        with self._lock:
            # Under the lock, so that `purge_mark` in another thread either drops this state or makes the purge visible here.
            if _any_purged(passages, self._purged_since(purge_mark)[0]):
                return
            if old := self._memory.pop(key, None):
                self._used -= len(old[0])
            self._memory[key] = (state, passages)
            self._used += len(state)
            while self._used > self._memory_bytes:
                _, (oldest, _) = self._memory.popitem(last=False)
                self._used -= len(oldest)

    def _drop_from_memory(self, purged: Collection[Digest]) -> None:
        for key in [k for k, (_, passages) in self._memory.items() if _any_purged(passages, purged)]:
            self._used -= len(self._memory.pop(key)[0])

    def _purged_since(self, mark: int) -> tuple[set[Digest], int]:
        """The passages purged after the first `mark` bytes of the list, and how long the list is now."""
        if self.root is None:
            return set(), 0
        content = b""
        with suppress(OSError), (self.root / _PURGED).open("rb") as stream:
            stream.seek(mark)
            content = stream.read()
        whole = content[: content.rfind(b"\n") + 1]
        return _passages_on(whole), mark + len(whole)

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
        for path in _files_below(self.root):
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


def _any_purged(passages: Collection[Digest], purged: Collection[Digest]) -> bool:
    return ALL in purged or not set(passages).isdisjoint(purged)


def _passages_on(purge_list: bytes) -> set[Digest]:
    return {line for line in purge_list.decode("ascii", "replace").split() if not line.startswith(_WORD)}


def _files_below(folder: Path | None) -> Iterator[Path]:
    """Links to folders are not followed, and folders that cannot be read have none."""
    for place, _, names in os.walk(folder) if folder else ():
        yield from (Path(place, name) for name in names)


def _stat(path: Path) -> tuple[float, int]:
    """(when it was used last, its bytes); of a file that is gone (0, 0)."""
    try:
        found = path.lstat()
    except OSError:
        return 0.0, 0
    return found.st_mtime, found.st_size


@dataclass(frozen=True, slots=True)
class _Header:
    """`header`: the digest of the key and this header without it. `state`: that of the state that follows."""

    passages: tuple[Digest, ...]
    state: Digest
    tokens: int
    header: Digest = ""

    def sealed(self, key: bytes) -> _Header:
        open_header = canonical_json(asdict(replace(self, header="")))
        return replace(self, header=hashlib.sha256(key + open_header).hexdigest())


def _file_head(key: bytes, state: bytes, passages: tuple[Digest, ...], tokens: int) -> bytes:
    """All bytes of the file before the state."""
    header = _Header(passages, hashlib.sha256(state).hexdigest(), tokens).sealed(key)
    encoded = canonical_json(asdict(header))
    return _MAGIC + _LENGTH.pack(len(encoded)) + encoded


def _read_state(path: Path) -> tuple[bytes, tuple[Digest, ...]] | None:
    """(state, passages) of a file that is whole and of the key that it is named by. Raises OSError."""
    # Read into memory of our own: what is mapped could change after it was checked.
    with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as stream:
        header = _read_header(stream, path.stem)
        state = stream.read() if header else b""
    return (state, header.passages) if header and hashlib.sha256(state).hexdigest() == header.state else None


def _header_of(path: Path) -> _Header | None:
    with suppress(OSError), path.open("rb") as stream:
        return _read_header(stream, path.stem)
    return None


def _read_header(stream: BinaryIO, key: str) -> _Header | None:
    """The header of a state; None when it is damaged, or of another version or key."""
    with suppress(ValueError, struct.error):
        if stream.read(len(_MAGIC)) == _MAGIC:
            (length,) = _LENGTH.unpack(stream.read(_LENGTH.size))
            header = decode(stream.read(min(length, _MAX_HEADER_BYTES)), _Header, "The header", ValueError)
            return header if header == header.sealed(bytes.fromhex(key)) else None
    return None
