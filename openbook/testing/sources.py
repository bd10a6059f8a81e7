"""A source in memory or in a folder, and the conformance check for sources."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import TestCase

import msgspec

from openbook.core.errors import SourceError
from openbook.core.records import Verdict, sha256_hex
from openbook.knowledge.ingest.fetch import is_name
from openbook.sources import Item, KnownItem, Source

FAKE = "openbook.testing.sources:FakeSource"  # for `openbook.sources.registry.SCHEMES`
HELD: dict[str, list[Item | Verdict | Exception]] = {}
"""What is at an address of this process: each is yielded, or raised."""


class FakeSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `HELD` has at `fake://NAME`, or the files in FOLDER at `fake:///FOLDER`.

    `pause_s`: before each file is read. `log`: a file that gets a line for each file read.
    """

    url: str
    pause_s: float = 0.0
    log: str = ""

    def items(self, known: Mapping[str, KnownItem]) -> Iterator[Item | Verdict]:
        if self.url in HELD:
            for each in HELD[self.url]:
                if isinstance(each, Exception):
                    raise each
                yield each
            return
        folder = Path(self.url.partition("://")[2])
        if not folder.is_dir():
            raise SourceError(f"{self.url} is not there. Name a folder: fake:///FOLDER")
        for path in sorted(folder.iterdir()):
            name = f"{self.url.rstrip('/')}/{path.name}"
            yield Item(name, sha256_hex(path.read_bytes()), partial(self._read, path), metadata={"author": "Fake"})

    def _read(self, path: Path) -> Iterator[bytes]:
        time.sleep(self.pause_s)
        if self.log:
            with Path(self.log).open("a", encoding="utf-8") as log:
                log.write(f"{path.name}\n")
        yield path.read_bytes()


def check_source(
    make: Callable[[], Source], change: Callable[[], str], spoil: Callable[[], object], secrets: Sequence[str] = ()
) -> None:
    """Check that a source does as `openbook.sources.Source` says. Raises AssertionError.

    `make` returns it, with one item at least; `change` changes an item and returns its name; after `spoil` it cannot be listed. None of
    `secrets`, the credentials, may be seen.
    """
    with TemporaryDirectory() as place:
        first = _listed(make(), {}, Path(place))
        assert first, "It lists no item."
        again = _listed(make(), _known(first, Path(place)), Path(place))
        assert _fingerprints(again) == _fingerprints(first), "Nothing has changed, but a fingerprint has."
        changed = change()
        third = _listed(make(), _known(again, Path(place)), Path(place))
        assert third[changed].fingerprint != first[changed].fingerprint or not first[changed].fingerprint, (
            f"{changed} has changed, but its fingerprint has not."
        )
        others = {name: each for name, each in _fingerprints(third).items() if name != changed}
        assert others.items() <= _fingerprints(first).items(), "An item that has not changed has a new fingerprint."
        spoil()
        with TestCase().assertRaises(SourceError) as refused:
            _listed(make(), _known(third, Path(place)), Path(place))
    shown = f"{refused.exception} {first} {third} {make()!r}"
    assert not [each for each in secrets if each in shown], "It shows a credential."


def _listed(source: Source, known: Mapping[str, KnownItem], folder: Path) -> dict[str, Item]:
    """The items by name; those with a new fingerprint are read, as a mirror reads them."""
    found: dict[str, Item] = {}
    for item in source.items(known):
        if isinstance(item, Item):
            assert is_name(item.name), f"{item.name!r} is not a name for an item."
            assert item.name not in found, f"{item.name} is listed twice."
            before = known.get(item.name)
            if before is None or not item.fingerprint or before.fingerprint != item.fingerprint:
                _file(item.name, folder).write_bytes(b"".join(item.read()))
            found[item.name] = item
    return found


def _known(items: Mapping[str, Item], folder: Path) -> dict[str, KnownItem]:
    return {name: KnownItem(each.fingerprint, each.kept, _file(name, folder)) for name, each in items.items()}


def _file(name: str, folder: Path) -> Path:
    return folder / sha256_hex(name.encode())


def _fingerprints(items: Mapping[str, Item]) -> dict[str, str]:
    return {name: each.fingerprint for name, each in items.items()}
