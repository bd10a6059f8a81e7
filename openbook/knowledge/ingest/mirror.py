"""Mirrors: the items of a source, as files of this machine. Only `fetch` adds to them.

    <folder of the knowledge base>/derived/sources/<hash of the address>/
        items.jsonl                      the address, then a line for each item; of one name, the last line holds
        <hash of the name><suffix>       its bytes, and next to them a sidecar with its metadata and labels

An item has its line once its file is whole. So a killed run fetches again only what it was fetching.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import msgspec

from openbook.core.errors import KnowledgeBaseBusy
from openbook.core.files import delete, delete_left_over, is_unfinished, make_folder, replace_file, storage_errors
from openbook.core.locks import delete_abandoned, exclusive_lock
from openbook.core.records import sha256_hex
from openbook.knowledge.byte_search import TELLING, Needles
from openbook.knowledge.store.interface import Connection
from openbook.knowledge.store.names import content_key
from openbook.parsers.metadata import is_sidecar
from openbook.sources import Item, KnownItem, KnownItems
from openbook.sources.registry import is_address, without_revision

_FOLDER = Path("derived", "sources")
_STATE, _LOCK, SIDECAR = "items.jsonl", ".lock", ".meta.json"
_SUFFIX = re.compile(r"\.[a-z0-9]{1,16}")
_PACKED = re.compile(rb"\s*%PDF|\{\\rtf|(?s:.{0,4096})\0")  # text in it cannot be found by its bytes
_ENCODED = frozenset({".eml", ".mbox", ".msg"})


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
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

    def set(self, entry: Entry) -> None:
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
        here = {_STATE, _LOCK, *(f"{each.file}{end}" for each in self.entries.values() for end in ("", SIDECAR))}
        for path in self.folder.iterdir():
            if path.name not in here and not path.is_dir():
                path.unlink(missing_ok=True)

    def purge(
        self, names: Collection[str], is_held: Callable[[Path, str], bool], telling: Needles, traces: Needles
    ) -> None:
        """Delete items of these names, with a telling run, or whose bytes no document holds. Drop from `traces` what the others hold."""
        doomed = set[str]()
        for name, entry in self.entries.items():
            files = [self.folder / f"{entry.file}{end}" for end in ("", SIDECAR) if entry.file]
            data = [msgspec.json.encode(entry), *(path.read_bytes() for path in files if path.exists())]
            is_kept = entry.file and name not in names and is_held(self.folder / entry.file, entry.digest)
            if is_kept and not any(telling.find(each, TELLING) is not None for each in data):
                for each in data:
                    traces.drop_found_in(each)
            else:
                doomed.add(name)
        self.save(doomed)


def _parse_state(folder: Path, data: bytes, address: str) -> tuple[str, dict[str, Entry]]:
    """The address and the entries; a damaged line is an item that will be fetched again."""
    first, *lines = data.split(b"\n")
    with suppress(ValueError, AttributeError):
        address = address or json.loads(first).get("address", "")
    entries: dict[str, Entry] = {}
    decoder = msgspec.json.Decoder(Entry)
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


def file_name(item: Item) -> str:
    if not (suffix := item.suffix.lower()):
        parts = urlsplit(item.name)  # of a file in a repository, the fragment is its path
        suffix = PurePosixPath(parts.fragment or parts.path).suffix.lower()
    return f"{_stem(item.name)}{suffix if _SUFFIX.fullmatch(suffix) else ''}"


def _stem(name: str) -> str:
    return sha256_hex(name.encode("utf-8", "surrogatepass"))[:32]
