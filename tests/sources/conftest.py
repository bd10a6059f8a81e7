from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from openbook.core.records import Verdict
from openbook.sources import Item, KnownItem
from tests.sources.seaweedfs import HOST, seaweedfs


@dataclass
class Fetched:
    """What one run of a source gave."""

    items: dict[str, Item] = field(default_factory=dict)
    read: dict[str, bytes] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)

    @property
    def known(self) -> dict[str, KnownItem]:
        return {name: KnownItem(item.fingerprint, item.kept, Path()) for name, item in self.items.items()}


def fetch(source: Any, known: Mapping[str, KnownItem] | None = None, most: int = 1 << 30) -> Fetched:
    """As the mirror does: an item is read at once, and only if its fingerprint is new. `most`: bytes of one, about."""
    known, fetched = known or {}, Fetched()
    for each in source.items(known):
        if isinstance(each, Verdict):
            assert each.path not in fetched.verdicts
            fetched.verdicts[each.path] = each
            continue
        assert each.name not in fetched.items
        fetched.items[each.name] = each
        if each.name not in known or known[each.name].fingerprint != each.fingerprint or not each.fingerprint:
            data = bytearray()
            for piece in each.read():
                data += piece
                if len(data) > most:
                    break
            fetched.read[each.name] = bytes(data)
    return fetched


@dataclass
class ObjectStore:
    endpoint: str
    filer: str


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """SeaweedFS with the bucket `openbook`. Its keys are in the environment of the whole session."""
    folder = tmp_path_factory.mktemp("object-store")
    with pytest.MonkeyPatch.context() as patch:
        keys = {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "only-for-tests"}
        for name, value in keys.items():
            patch.setenv(name, value)
        with seaweedfs(folder, keys) as ports:
            filer = f"{HOST}:{ports['filer.port']}.{ports['filer.port.grpc']}"
            yield ObjectStore(f"http://{HOST}:{ports['s3.port']}", filer)
