"""One run that brings the mirror of a source up to date. Only `openbook sync` fetches.

A source is code of others: listing it and reading from it may never return. So its calls run on a thread of their own.
"""

from __future__ import annotations

import hashlib
import json
import math
import queue
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from openbook.core.errors import OpenBookError, SourceError, UnreadableFile, first_line
from openbook.core.files import replace_file, replacing
from openbook.core.records import Verdict, sha256_hex
from openbook.knowledge.ingest.contents import RunOptions
from openbook.knowledge.ingest.discovery import FoundFile, SyncedFolder, leaves_out
from openbook.knowledge.ingest.mirror import SIDECAR, Entry, Mirror, file_name, opened_mirror
from openbook.parsers.files import OVER_FILE_LIMIT, unsupported_reason
from openbook.parsers.metadata import LABEL_KEY, SYSTEM_KEYS, labels_of, normalised
from openbook.sources import Item, KnownItem, Source
from openbook.sources.registry import is_address, open_source

MAX_NAME_CHARS = 1_000
_GATHER_S, _GATHER_BYTES = 1.0, 1 << 20
_CREDENTIALS = re.compile(r"//[^/\s]*@")
_POLL_S = 0.2
_END_S = 2.0


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """For each source `items`; for each item seconds without a byte and in all."""

    items: int = 100_000
    idle_s: float = 60.0
    item_s: float = 600.0


@dataclass(frozen=True, slots=True)
class FetchResult:
    """What is at a source now; `before`: names of the items that were there."""

    found: tuple[FoundFile | Verdict, ...]
    before: frozenset[str]


def fetch(wanted: SyncedFolder, options: RunOptions = RunOptions(), limits: FetchLimits = FetchLimits()) -> FetchResult:
    """Bring the mirror of a source up to date.

    Raises SourceError, and then nothing is gone from the mirror; ConfigError; KnowledgeBaseBusy while another process fetches from it;
    StorageError.
    """
    source = open_source(wanted.address, wanted.options)
    with opened_mirror(wanted.folder, wanted.address) as mirror:
        before = frozenset(mirror.entries)
        return FetchResult(tuple(_Run(mirror, wanted, options, limits).found_at(source)), before)


class _Run:
    def __init__(self, mirror: Mirror, wanted: SyncedFolder, options: RunOptions, limits: FetchLimits) -> None:
        self._mirror, self._wanted, self._options, self._limits = mirror, wanted, options, limits
        self._prefixes = (wanted.prefix, f"{wanted.name}#")  # the second: of a repository
        self._leaves_out = leaves_out(wanted.rules)
        self._caller = _Caller(options.check_cancelled)

    def found_at(self, source: Source) -> list[FoundFile | Verdict]:
        entries, address = self._mirror.entries, self._wanted.address
        found: dict[str, FoundFile | Verdict] = {}
        before, number = len(entries), 0
        with closing(self._listed(source, self._mirror.known())) as listing:
            for number, (item, is_fetched) in enumerate(listing, start=1):
                if number > self._limits.items:
                    raise SourceError(
                        f"{address} lists more than {self._limits.items:,} items. Give a deeper address, or several sources."
                    )
                self._options.progress("items", number, before if number <= before else 0)
                name = item.path if isinstance(item, Verdict) else item.name
                if not is_name(name):
                    reason = f"its name is not an address of 1 to {MAX_NAME_CHARS:,} printable characters"
                    shown = f"{address} {ascii(name)[:200]}"
                    found[shown] = Verdict(shown, "skipped", reason)
                elif isinstance(item, Verdict):
                    found.setdefault(name, Verdict(name, item.outcome, _said(item.reason)))
                elif name not in found:
                    found[name] = self._taken(item, is_fetched=is_fetched)
        self._options.progress("items", number, number)
        files = {name for name, each in found.items() if isinstance(each, FoundFile)}
        failed = {name for name, each in found.items() if isinstance(each, Verdict) and each.outcome == "failed"}
        closed = tuple(f"{name.rstrip('/')}/" for name in failed)
        gone = {name for name in entries.keys() - files - failed if not name.startswith(closed)}
        self._mirror.save(gone if files else ())  # what suddenly lists nothing is more likely broken than empty
        return list(found.values())

    def _listed(self, source: Source, known: Mapping[str, KnownItem]) -> Generator[tuple[Item | Verdict, bool]]:
        """What the source yields, each with whether its file is here. A file is read before the next item is asked for."""

        def part() -> list[tuple[Item | Verdict, bool]]:
            taken, until = [], time.monotonic() + _GATHER_S
            for each in items:
                taken.append((each, isinstance(each, Item) and self._is_fetched(each)))
                if time.monotonic() >= until or (isinstance(each, Item) and not taken[-1][1]):
                    break
            return taken

        items: Iterator[Item | Verdict] = iter(())
        try:
            items = self._call(lambda: iter(source.items(known)))
            while taken := self._call(part):
                yield from taken
        finally:
            self._caller.end(getattr(items, "close", lambda: None))

    def _call(self, work: Callable[[], Any]) -> Any:
        try:
            return self._caller.call(work)
        except OpenBookError:
            raise
        except Exception as error:
            raise SourceError(
                f"{self._wanted.address} could not be listed ({_said(first_line(error))}). Nothing of it was removed. Try again later."
            ) from error

    def _is_fetched(self, item: Item) -> bool:
        old, fingerprint = self._mirror.entries.get(item.name), _utf8(item.fingerprint)
        is_known = old is not None and old.fingerprint == fingerprint != ""
        return old is not None and is_known and old.file == file_name(item) and not old.refused

    def _taken(self, item: Item, *, is_fetched: bool) -> FoundFile | Verdict:
        name = item.name
        old, limit = self._mirror.entries.get(name, Entry(name)), self._options.limits.max_file_bytes
        path = self._mirror.folder / (old.file if is_fetched else file_name(item))
        begin = next((each for each in self._prefixes if name.startswith(each)), f"{name.partition('://')[0]}://")
        if reason := self._leaves_out(name.removeprefix(begin)) or unsupported_reason(path, ocr=bool(self._wanted.ocr)):
            return Verdict(name, "skipped", reason)
        fingerprint, kept, size, digest = _utf8(item.fingerprint), _utf8(item.kept), old.bytes, old.digest
        try:
            sidecar, modified_ns = _facts_of(item)
            if old.refused >= limit and old.fingerprint == fingerprint != "":
                raise _TooLarge(limit)
            if not is_fetched:
                size, digest = self._read(item, path)
        except UnreadableFile as error:
            if isinstance(error, _TooLarge):
                self._mirror.set(msgspec.structs.replace(old, fingerprint=fingerprint, kept=kept, refused=limit))
            return Verdict(name, "failed", str(error))
        side = self._mirror.folder / f"{path.name}{SIDECAR}"
        facts = sha256_hex(sidecar + str(modified_ns).encode())[:16] if sidecar or modified_ns else ""
        if sidecar and (facts != old.facts or not side.exists()):
            replace_file(side, sidecar)
        elif not sidecar and facts != old.facts:
            side.unlink(missing_ok=True)
        modified_ns = modified_ns or (old.modified_ns if digest == old.digest else time.time_ns())
        self._mirror.set(Entry(name, fingerprint, kept, path.name, digest, size, modified_ns, facts))
        return FoundFile(path, size, modified_ns, f"{digest} {facts}", side if sidecar else None, name)

    def _read(self, item: Item, path: Path) -> tuple[int, str]:
        """(bytes, digest) of the item's file, once it is whole. Raises UnreadableFile."""
        limit, size, digest = self._options.limits.max_file_bytes, 0, hashlib.sha256()
        with replacing(path) as stream:
            for piece in self._pieces(item):
                size += len(piece)
                if size > limit:
                    raise _TooLarge(limit)
                digest.update(piece)
                stream.write(piece)
        return size, digest.hexdigest()

    def _pieces(self, item: Item) -> Iterator[bytes]:
        idle_s, item_s = self._limits.idle_s, self._limits.item_s
        parts, at_last = _gathered(item), time.monotonic()
        until = at_last + item_s

        def some() -> Any:
            return self._caller.call(lambda: next(parts, None), min(at_last + idle_s, until) - time.monotonic())

        try:
            while (data := some()) is not None:
                if data:
                    at_last = time.monotonic()
                    yield data
        except _TookTooLong as error:
            raise UnreadableFile(
                f"fetching it took too long: {idle_s:g} s without a byte, or {item_s:g} s in all"
            ) from error
        except UnreadableFile:
            raise
        except Exception as error:
            self._options.check_cancelled()
            raise UnreadableFile(f"it could not be fetched: {_said(first_line(error))}") from error


def _gathered(item: Item) -> Iterator[bytes]:
    """Its bytes, in parts of what arrives within a second or of about a megabyte."""
    data, until = bytearray(), time.monotonic() + _GATHER_S
    for piece in item.read():
        if not isinstance(piece, bytes | bytearray | memoryview):
            raise UnreadableFile(f"its source gave {type(piece).__name__}, not bytes")
        data += piece
        if len(data) >= _GATHER_BYTES or time.monotonic() >= until:
            yield bytes(data)
            data, until = bytearray(), time.monotonic() + _GATHER_S
    yield bytes(data)


class _TooLarge(UnreadableFile):
    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit / 1e6:g}{OVER_FILE_LIMIT}{limit / 1e6:g} MB")


def _facts_of(item: Item) -> tuple[bytes, int]:
    """(sidecar, time of the last change in ns), empty and 0 if unknown. Raises UnreadableFile for what is not a label."""
    said = dict(normalised(item.metadata))
    labels = labels_of(normalised({LABEL_KEY: sorted(item.labels)}) if item.labels else (), tuple(said.items()))
    modified_ns = 0
    with suppress(ValueError, OverflowError):
        moment = datetime.fromisoformat(str(said.get("modified", "")))
        modified_ns = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()) * 10**9
    kept: dict[str, object] = {key: value for key, value in said.items() if key not in SYSTEM_KEYS and key != LABEL_KEY}
    kept |= {LABEL_KEY: sorted(labels)} if labels else {}
    return json.dumps(kept, sort_keys=True).encode() if kept else b"", modified_ns


def is_name(name: object) -> bool:
    if not (isinstance(name, str) and len(name) <= MAX_NAME_CHARS and name.isprintable() and is_address(name)):
        return False
    with suppress(ValueError):  # as of `https://[`
        return bool(urlsplit(name))
    return False


def _utf8(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _said(reason: str) -> str:
    """Another library's or site's words, without what may be credentials."""
    shown = "".join(c if c.isprintable() else " " for c in reason[:300])
    return _CREDENTIALS.sub("//...@", shown).rstrip(". ")


# --- calls that may never return --------------------------------------------------------------------------------------


class _TookTooLong(Exception):
    """A call did not return in time. Its thread is left behind."""


class _Caller:
    """Makes calls one after another, all on the same thread while none takes too long. What `check_cancelled` raises ends the waiting."""

    def __init__(self, check_cancelled: Callable[[], None] = lambda: None) -> None:
        self._check_cancelled = check_cancelled
        self._waiting: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] | None = None

    def call(self, work: Callable[[], Any], timeout_s: float = math.inf) -> Any:
        """What `work` returns or raises. Raises _TookTooLong."""
        until = time.monotonic() + timeout_s
        if self._waiting is None:
            self._waiting = queue.SimpleQueue()
            threading.Thread(target=_work, args=(self._waiting,), name="openbook-fetch", daemon=True).start()
        future: Future[Any] = Future()
        self._waiting.put((future, work))
        while not future.done():
            with suppress(TimeoutError):
                future.exception(min(_POLL_S, max(until - time.monotonic(), 0.0)))
                break
            self._check_cancelled()
            if time.monotonic() >= until:
                self._waiting.put(None)
                self._waiting = None
                raise _TookTooLong
        return future.result()

    def end(self, work: Callable[[], object]) -> None:
        """Call `work` last, and do not wait long for it."""
        if self._waiting is not None:
            future: Future[Any] = Future()
            self._waiting.put((future, work))
            self._waiting.put(None)
            with suppress(TimeoutError):
                future.exception(_END_S)


def _work(waiting: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]) -> None:
    while (each := waiting.get()) is not None:
        future, work = each
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001  raised in the waiting thread
            future.set_exception(error)
