"""Mirrors: the items of a source, as files of this machine that a sync takes in. Only `openbook sync` fetches.

    <folder of the knowledge base>/derived/sources/<hash of the address>/
        items.jsonl                      the address, then a line for each item; of one name, the last line holds
        <hash of the name><suffix>       its bytes, and next to them a sidecar with its metadata and labels

An item has its line once its file is whole. So a killed run fetches again only what it was fetching.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import msgspec

from openbook.core.codec import convert
from openbook.core.errors import (
    ConfigError,
    KnowledgeBaseBusy,
    OpenBookError,
    QuestionError,
    SourceError,
    UnreadableFile,
    first_line,
)
from openbook.core.files import (
    delete,
    delete_left_over,
    is_unfinished,
    make_folder,
    replace_file,
    replacing,
    storage_errors,
)
from openbook.core.locks import delete_abandoned, exclusive_lock
from openbook.core.records import Verdict, sha256_hex
from openbook.knowledge.byte_search import TELLING, Needles
from openbook.knowledge.index.scope import checked_labels
from openbook.knowledge.ingest.calls import Caller, TookTooLong
from openbook.knowledge.ingest.contents import RunOptions
from openbook.knowledge.ingest.discovery import FoundFile, Rules, SyncedFolder, leaves_out
from openbook.knowledge.store.interface import Connection
from openbook.knowledge.store.names import content_key, resolve
from openbook.parsers.files import OVER_FILE_LIMIT, unsupported_reason
from openbook.parsers.metadata import LABEL_KEY, SYSTEM_KEYS, is_sidecar, labels_of, normalised
from openbook.sources import Item, KnownItem, KnownItems, Source
from openbook.sources.registry import COMMON, is_address, open_source, without_revision

SOURCES_FILE = "sources.toml"  # in the folder of a knowledge base
MAX_NAME_CHARS = 1_000
_FOLDER = Path("derived", "sources")
_STATE, _LOCK, _SIDECAR = "items.jsonl", ".lock", ".meta.json"
_SUFFIX = re.compile(r"\.[a-z0-9]{1,16}")
_PACKED = re.compile(rb"\s*%PDF|\{\\rtf|(?s:.{0,4096})\0")  # text in it cannot be found by its bytes
_ENCODED = frozenset({".eml", ".mbox", ".msg"})
_GATHER_S, _GATHER_BYTES = 1.0, 1 << 20
_CREDENTIALS = re.compile(r"//[^/\s]*@")


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """For each source `items`; for each item seconds without a byte and in all."""

    items: int = 100_000
    idle_s: float = 60.0
    item_s: float = 600.0


class _Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of an item. `file` is empty if it has none. `refused`: the limit in bytes that it was over. `facts`: a digest of its sidecar."""

    name: str
    fingerprint: str = ""
    kept: str = ""
    file: str = ""
    digest: str = ""
    bytes: int = 0
    modified_ns: int = 0
    facts: str = ""
    refused: int = 0


@dataclass(frozen=True, slots=True)
class FetchResult:
    """What is at a source now; `before`: names of the items that were there."""

    found: tuple[FoundFile | Verdict, ...]
    before: frozenset[str]


def mirror_folder(base_folder: Path, address: str) -> Path:
    return base_folder / _FOLDER / sha256_hex(without_revision(address).encode("utf-8", "surrogateescape"))[:16]


def mirrors(base_folder: Path) -> list[Path]:
    return sorted(state.parent for state in (base_folder / _FOLDER).glob(f"*/{_STATE}"))


def mirrored_files(base_folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """The files of those of the documents `names` that were fetched."""
    stems = {_stem(name): name for name in names if is_address(name)}
    files = sorted((base_folder / _FOLDER).glob("*/*"), reverse=True) if stems else []
    found = {stems.get(path.stem): path for path in files if not is_sidecar(path.name)}
    return {name: path for name, path in found.items() if name is not None}


def declared_sources(base_folder: Path, ocr: str = "") -> list[SyncedFolder]:
    """The sources in `sources.toml` of a knowledge base. Raises ConfigError."""
    import tomllib

    file = base_folder / SOURCES_FILE
    try:
        said = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read as TOML: {error}.") from error
    found: dict[Path, SyncedFolder] = {}
    for number, table in enumerate(convert(said, _SourcesFile, str(file), ConfigError).sources, start=1):
        common = {key: table.pop(key) for key in ("url", *COMMON) if key in table}
        given = convert(common, _Declared, f"{file}: source {number}", ConfigError)
        try:
            open_source(given.url, table)  # fetches nothing; checks the options
            labels = checked_labels(given.labels)
        except (ConfigError, SourceError, QuestionError) as error:
            raise ConfigError(f"{file}: {error}") from error
        if (folder := mirror_folder(base_folder, given.url)) in found:
            raise ConfigError(f"{file} has {without_revision(given.url)} twice. Keep one of them.")
        rules = Rules(given.include, given.exclude)
        found[folder] = SyncedFolder(folder, rules, labels, ocr, given.url, table)
    return list(found.values())


@dataclass(frozen=True, slots=True)
class _SourcesFile:
    sources: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class _Declared:
    url: str
    labels: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


def named(connection: Connection, paths: Sequence[str], name: str) -> list[str]:
    """The documents among `paths` that `name` means: all from the source of that address, or as `resolve` says."""
    sql = "SELECT DISTINCT path FROM documents WHERE json_extract(metadata, '$.source') = ?"
    rows = connection.execute(sql, (without_revision(name),)) if is_address(name) else ()
    return sorted({path for (path,) in rows if is_address(path)}.intersection(paths)) or resolve(paths, name)


def fetch(wanted: SyncedFolder, options: RunOptions = RunOptions(), limits: FetchLimits = FetchLimits()) -> FetchResult:
    """Bring the mirror of a source up to date.

    Raises SourceError, and then nothing is gone from the mirror; ConfigError; KnowledgeBaseBusy while another process fetches from it;
    StorageError.
    """
    source = open_source(wanted.address, wanted.options)
    with opened_mirror(wanted.folder, wanted.address) as mirror:
        before = frozenset(mirror.entries)
        return FetchResult(tuple(_Run(mirror, wanted, options, limits).found_at(source)), before)


def forget_mirror(folder: Path, address: str) -> bool:
    """Delete what was fetched. False if nothing was."""
    if not folder.exists():
        return False
    with opened_mirror(folder, address):
        delete(folder)
    return True


@contextmanager
def opened_mirror(folder: Path, address: str = "", timeout_s: float = 0.0) -> Iterator[Mirror]:
    """Hold a mirror. Raises KnowledgeBaseBusy after the timeout, StorageError."""
    with storage_errors(f"keep what is fetched in {folder}"):
        make_folder(folder)
        with exclusive_lock(folder / _LOCK, timeout_s) as held:
            if not held:
                what = address or f"a source into {folder}"
                raise KnowledgeBaseBusy(f"Another process fetches {what}. Wait for it, or end it, then run this again.")
            delete_left_over(folder.parent)
            with os.scandir(folder) as entries:
                for each in list(entries):
                    if each.is_dir():  # of a killed run; its git may still write
                        delete(Path(each))
                    elif each.name.startswith(".") and is_unfinished(Path(each)):
                        delete_abandoned(Path(each))
            mirror = Mirror(folder, address)
            try:
                yield mirror
            finally:
                mirror.close()


class Mirror:
    """The files and lines of one source. `entries`: by name. Only `opened_mirror` makes one. Methods raise OSError."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder, self._state = folder, folder / _STATE
        data = self._state.read_bytes() if self._state.exists() else b""
        self.address, self.entries = _parse_state(folder, data, address)
        if not data.endswith(b"\n"):  # new, or its writer was killed
            self.save()
        self._lines = self._state.open("ab")

    def close(self) -> None:
        self._lines.close()

    def known(self) -> KnownItems:
        found = KnownItems()
        found.scratch = self.folder
        for name, each in self.entries.items():
            if each.file:
                found[name] = KnownItem(each.fingerprint, each.kept, self.folder / each.file)
        return found

    def set(self, entry: _Entry) -> None:
        if self.entries.get(entry.name) == entry:
            return
        self.entries[entry.name] = entry
        self._lines.write(msgspec.json.encode(entry) + b"\n")
        self._lines.flush()

    def save(self, without: Collection[str] = ()) -> None:
        """Write the lines of the entries, except `without`, and delete files of no entry."""
        self.entries = {name: each for name, each in self.entries.items() if name not in without}
        lines = [json.dumps({"address": self.address}).encode(), *map(msgspec.json.encode, self.entries.values())]
        replace_file(self._state, b"\n".join(lines) + b"\n")
        here = {_STATE, _LOCK, *(f"{each.file}{end}" for each in self.entries.values() for end in ("", _SIDECAR))}
        for path in self.folder.iterdir():
            if path.name not in here and not path.is_dir():
                path.unlink(missing_ok=True)

    def purge(
        self, names: Collection[str], is_held: Callable[[Path, str], bool], telling: Needles, traces: Needles
    ) -> None:
        """Delete items of these names, with a telling run, or whose bytes no document holds. Drop from `traces` what the others hold."""
        doomed = set[str]()
        for name, entry in self.entries.items():
            files = [
                path for end in ("", _SIDECAR) if entry.file and (path := self.folder / f"{entry.file}{end}").exists()
            ]
            data = [msgspec.json.encode(entry), *(path.read_bytes() for path in files)]
            is_kept = entry.file and name not in names and is_held(self.folder / entry.file, entry.digest)
            if is_kept and not any(telling.find(each, TELLING) is not None for each in data):
                for each in data:
                    traces.drop_found_in(each)
            else:
                doomed.add(name)
        self.save(doomed)


def _parse_state(folder: Path, data: bytes, address: str) -> tuple[str, dict[str, _Entry]]:
    """The address and the entries; a damaged line is an item that will be fetched again."""
    first, *lines = data.split(b"\n")
    with suppress(ValueError, AttributeError):
        address = address or json.loads(first).get("address", "")
    entries: dict[str, _Entry] = {}
    decoder = msgspec.json.Decoder(_Entry)
    for line in lines:
        with suppress(msgspec.DecodeError):
            entry = decoder.decode(line)
            entries[entry.name] = entry
    sizes = {"": 0}
    with os.scandir(folder) as files:
        for each in files:
            with suppress(OSError):
                sizes[each.name] = each.stat().st_size
    return address, {name: each for name, each in entries.items() if sizes.get(each.file) == each.bytes}


def unheld(base_folder: Path, is_held: Callable[[Path, str], bool]) -> Iterator[Path]:
    """Mirrored files whose bytes no document holds, and in which a text cannot be found by its bytes."""
    for folder in mirrors(base_folder):
        _, entries = _parse_state(folder, (folder / _STATE).read_bytes(), "")
        held = {each.file for each in entries.values() if each.file and is_held(folder / each.file, each.digest)}
        for path in sorted(folder.rglob("*")):
            is_other = path.name in held or path.name == _STATE or is_sidecar(path.name) or not path.is_file()
            if not is_other and _is_packed(path):
                yield path


def holder(connection: Connection) -> Callable[[Path, str], bool]:
    """A function that tells from a file and its digest whether a stored content was read from it."""
    rows = connection.execute("SELECT key, code FROM contents").fetchall()
    keys, codes = {key for key, _ in rows}, {code for _, code in rows}
    return lambda path, digest: any(content_key(path, digest, code) in keys for code in codes)


def _is_packed(path: Path) -> bool:
    try:
        data = path.read_bytes()
        data.decode()
    except UnicodeDecodeError:
        return True
    return path.suffix in _ENCODED or _PACKED.match(data) is not None


# --- one run ----------------------------------------------------------------------------------------------------------


class _Run:
    def __init__(self, mirror: Mirror, wanted: SyncedFolder, options: RunOptions, limits: FetchLimits) -> None:
        self._mirror, self._wanted, self._options, self._limits = mirror, wanted, options, limits
        self._prefixes = (wanted.prefix, f"{wanted.name}#")  # the second: of a repository
        self._leaves_out = leaves_out(wanted.rules)
        self._caller = Caller(options.check_cancelled)

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
        return old is not None and is_known and old.file == _file_of(item) and not old.refused

    def _taken(self, item: Item, *, is_fetched: bool) -> FoundFile | Verdict:
        name = item.name
        old, limit = self._mirror.entries.get(name, _Entry(name)), self._options.limits.max_file_bytes
        path = self._mirror.folder / (old.file if is_fetched else _file_of(item))
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
        side = self._mirror.folder / f"{path.name}{_SIDECAR}"
        facts = sha256_hex(sidecar + str(modified_ns).encode())[:16] if sidecar or modified_ns else ""
        if sidecar and (facts != old.facts or not side.exists()):
            replace_file(side, sidecar)
        elif not sidecar and facts != old.facts:
            side.unlink(missing_ok=True)
        modified_ns = modified_ns or (old.modified_ns if digest == old.digest else time.time_ns())
        self._mirror.set(_Entry(name, fingerprint, kept, path.name, digest, size, modified_ns, facts))
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
        except TookTooLong as error:
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


def _file_of(item: Item) -> str:
    """The name of its file in the mirror."""
    if not (suffix := item.suffix.lower()):
        parts = urlsplit(item.name)  # of a file in a repository, the fragment is its path
        suffix = PurePosixPath(parts.fragment or parts.path).suffix.lower()
    return f"{_stem(item.name)}{suffix if _SUFFIX.fullmatch(suffix) else ''}"


def _stem(name: str) -> str:
    return sha256_hex(name.encode("utf-8", "surrogatepass"))[:32]


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
