"""`openbook sync ADDRESS`, as its user sees it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from openbook.cli import display, documents
from openbook.core.errors import SourceError
from openbook.knowledge.ingest import discovery
from openbook.sources import Item, registry
from openbook.testing.sources import FAKE, HELD
from tests.cli.conftest import Out

SITE = "fake://site//docs"  # as a path it would lose a slash


@pytest.fixture
def sync(fakes: None, monkeypatch: pytest.MonkeyPatch, out: Out, tmp_path: Path) -> Iterator[Out]:
    monkeypatch.setitem(registry.SCHEMES, "fake", FAKE)
    HELD[SITE] = [item("a.txt", "The first text."), item("b.txt", "The second text.")]
    yield out
    HELD.clear()


def item(name: str, text: str) -> Item:
    return Item(f"{SITE}/{name}", text, lambda: [text.encode()])


def test_a_source_is_synced_renewed_shown_and_forgotten(sync: Out, own_home: Path) -> None:
    assert "2 added" in sync.ok("sync", SITE)
    assert f"Synced from {SITE}" in " ".join(sync.ok("status").split())
    HELD[SITE][0] = item("a.txt", "Another text.")
    assert "1 updated, 1 unchanged" in sync.ok("sync")
    assert f"Still at its source: {SITE}/a.txt" in sync.ok("remove", f"{SITE}/a.txt")
    assert "1 added, 1 unchanged" in sync.ok("sync", SITE)
    assert "1 unchanged, 1 removed" in sync.ok("sync", SITE, "--exclude", "a.txt")
    said = sync.ok("purge", f"{SITE}/b.txt", "--yes")
    assert f"Still at its source, and fetched again by the next sync unless --exclude says not to: {SITE}/b.txt" in said
    assert f"openbook remove {SITE}" in sync.ok("sync", SITE, "--forget")
    assert not list((own_home / "kb/derived/sources").glob("*/*"))
    sync.refused(4, "was not synced", "sync", SITE, "--forget")


def test_documents_with_odd_addresses_are_found_read_compared_removed_and_purged(sync: Out) -> None:
    names = ["", "a b?x=1#y", "100%25 of 5%.txt", "say 'no' \"now\".txt", "-n.txt", "[x]*.txt"]
    HELD[SITE] = [item(name, f"The odd text {number} is here.") for number, name in enumerate(names)]
    assert "6 added" in sync.ok("sync", SITE)
    paths = [match["document"] for match in sync.json("grep", "odd text")["matches"]]
    assert sorted(sync.json("find", "*")) == sorted(paths)
    assert len(set(filter(str.isprintable, paths))) == len(names)
    for path in paths:
        assert "The odd text" in sync.ok("read", path)
    HELD[SITE] = [item(name, f"The odd text {number} went.") for number, name in enumerate(names)]
    assert "6 updated" in sync.ok("sync", SITE)
    assert sorted(sync.json("diff", "1", "2")["changed"]) == sorted(paths)
    for path in sorted(paths, reverse=True):  # the shortest names all others too
        assert "1 removed" in sync.ok("remove", path)
    sync.refused(2, "No document", "read", paths[0])
    assert "6 documents and" in sync.ok("purge", *paths, "--yes")


def test_sync_refuses_with_a_reason(sync: Out) -> None:
    HELD[SITE].append(SourceError("fake://site//docs is away. Try later."))
    sync.refused(4, "is away", "sync", SITE)


def test_sources_toml_alone_makes_a_knowledge_base(sync: Out, tmp_path: Path) -> None:
    (tmp_path / "kb").mkdir()
    file = tmp_path / "kb" / "sources.toml"
    file.write_text(f'[[sources]]\nurl = "{SITE}"\nexclude = ["b.txt"]\n')
    assert "1 added, 1 skipped" in sync.ok("sync", "--kb", tmp_path / "kb")
    sync.refused(4, "Delete its entry there first", "sync", SITE, "--forget", "--kb", tmp_path / "kb")
    file.write_text("[[sources]]\nurl = 'fake://x'\npause = 1.0\n")
    sync.refused(2, "has the unknown option 'pause'. Did you mean 'pause_s'", "sync", "--kb", tmp_path / "kb")


def test_one_of_several_that_fails_ends_with_4_and_a_failed_item_with_8(sync: Out, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "c.txt").write_text("The third text.")
    sync.ok("sync", docs)
    sync.ok("sync", SITE)
    HELD[SITE] = [ValueError("a bug")]
    code, _, stderr = sync("sync")
    assert (code, "1 of 2 could not be synced" in " ".join(stderr.split())) == (4, True)

    def cut() -> Iterator[bytes]:
        raise OSError("the line is cut")

    HELD[SITE] = [item("a.txt", "The first text."), Item(f"{SITE}/b.txt", "2", cut)]
    assert sync("sync", SITE)[0] == 8
    sync.ok("sync", SITE, "--lenient")


def test_every_syncs_again_until_it_is_interrupted(sync: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that is away is tried again at the next sync."""
    clock, read = itertools.count(step=10), list[int]()
    monkeypatch.setattr(documents, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    monkeypatch.setattr(discovery, "folder_changes", lambda _: itertools.repeat(0))

    def reads() -> list[bytes]:
        read.append(1)
        if len(read) == 2:
            HELD[SITE].insert(0, SourceError("It is away."))
        if len(read) == 4:
            raise KeyboardInterrupt
        return [f"Text {len(read)}.".encode()]

    def note(text: str, style: str = "") -> None:
        said.append(text)
        if "It is away" in text:
            del HELD[SITE][0]

    said = list[str]()
    monkeypatch.setattr(display, "note", note)
    HELD[SITE] = [Item(f"{SITE}/a.txt", "", reads)]
    assert sync("sync", SITE, "--every", "5s")[0] == 0
    assert said[0] == "Syncing again in 5 s. Ctrl-C ends it."
    assert [each for each in said if "It is away" in each] == ["It is away. The next sync tries again."]
    assert len(read) == 4
