"""Sources of a knowledge base in PostgreSQL are mirrored in the home folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from openbook.core.config import DatabaseUrl, load_settings
from openbook.knowledge import KnowledgeBase, remove
from openbook.knowledge.ingest.mirror import mirror_folder
from openbook.knowledge.synced_folders import all_to_sync, to_sync
from openbook.knowledge.updates import sync_folders
from openbook.proofs.purge import purge_everywhere
from openbook.sources import Item, registry
from openbook.testing import HashEmbedder
from openbook.testing.sources import FAKE, HELD

SITE = "fake://site"


@pytest.mark.laws
def test_they_are_synced_removed_and_purged(
    new_postgres_url: str, own_home: Path, embedder: HashEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.SCHEMES, "fake", FAKE)
    texts = {"a": "The ferry leaves at nine, and at ten on Sundays.", "b": "The bridge is closed."}
    monkeypatch.setitem(HELD, SITE, [Item(f"{SITE}/{n}", t, lambda t=t: [t.encode()]) for n, t in texts.items()])  # type: ignore[misc]
    base = KnowledgeBase.ensure(DatabaseUrl(new_postgres_url), embedder.identity)
    sync_folders(base, [to_sync(base, SITE)], embedder)
    assert base.documents() == [f"{SITE}/a", f"{SITE}/b"]
    assert own_home in mirror_folder(base.folder, SITE).parents
    done = purge_everywhere(base, [f"{SITE}/a"], load_settings())
    assert (done.proved, done.purged.still_on_disk) == (True, (f"{SITE}/a",))
    assert len(remove(base, [SITE]).verdicts) == 1
    sync_folders(base, all_to_sync(base), embedder)
    assert base.documents() == [f"{SITE}/a", f"{SITE}/b"]
    base.close()
