"""`openbook sync ADDRESS`, as its user sees it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from openbook.cli import documents
from openbook.core.errors import SourceError
from openbook.core.records import Verdict
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
    assert f"Synced from     {SITE}" in sync.ok("status")
    HELD[SITE][0] = item("a.txt", "Another text.")
    assert "1 updated, 1 unchanged" in sync.ok("sync")
    assert f"Still where it is synced from: {SITE}/a.txt" in sync.ok("remove", f"{SITE}/a.txt")
    assert "1 added, 1 unchanged" in sync.ok("sync", SITE)
    assert "1 unchanged, 1 removed" in sync.ok("sync", SITE, "--exclude", "a.txt")
    said = sync.ok("purge", f"{SITE}/b.txt", "--yes")
    assert f"Still at its source, and fetched again by the next sync unless --exclude says not to: {SITE}/b.txt" in said
    assert f"openbook remove {SITE}" in sync.ok("sync", SITE, "--forget")
    assert not list((own_home / "kb/derived/sources").glob("*/*"))
    sync.refused(4, "was not synced", "sync", SITE, "--forget")


@pytest.mark.parametrize("name", ["", "a b?x=1#y", "100%25 of 5%.txt", "say 'no' \"now\".txt", "-n.txt", "[x]*.txt"])
def test_documents_with_odd_addresses_are_found_read_compared_removed_and_purged(sync: Out, name: str) -> None:
    HELD[SITE] = [item(name, "The odd text is here."), item("b.txt", "The second text.")]
    assert "2 added" in sync.ok("sync", SITE)
    found = json.loads(sync.ok("find", "*", "--json"))
    (path,) = (each for each in found if not each.endswith("/b.txt"))
    assert path.isprintable()
    assert "The odd text is here." in sync.ok("read", path)
    assert json.loads(sync.ok("grep", "odd text", "--json"))["matches"][0]["document"] == path
    HELD[SITE] = [item(name, "The odd text went."), item("b.txt", "The second text.")]
    assert "1 updated" in sync.ok("sync", SITE)
    assert json.loads(sync.ok("diff", "1", "2", "--json"))["changed"] == [path]
    assert "removed" in sync.ok("remove", path)
    sync.refused(2, "No document", "read", path)
    assert sync("purge", path, "--yes")[0] == 0


def test_what_cannot_be_synced_is_said(sync: Out) -> None:
    sync.refused(
        4,
        f"is an address. To fetch what is there and keep it up to date: openbook sync {'https://example.org/x'}",
        "add",
        "https://example.org/x",
    )
    sync.refused(4, "No source has the scheme 'faek'", "sync", "faek://x")
    sync.refused(2, "--watch follows folders", "sync", SITE, "--watch")
    sync.refused(2, "'soon' is not a duration such as 90s, 10m or 1h.", "sync", SITE, "--every", "soon")
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


class FailsOnce(list[Item | Verdict | Exception]):
    def __iter__(self) -> Iterator[Item | Verdict | Exception]:
        found = [self[at] for at in range(len(self))]
        self[:] = [each for each in found if not isinstance(each, Exception)]
        return iter(found)


def test_every_syncs_again_until_it_is_interrupted(sync: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "RETRY_S", 0.0)  # for a busy knowledge base, not for a source that is away
    read: list[int] = []

    def reads() -> list[bytes]:
        read.append(1)
        if len(read) == 2:
            HELD[SITE] = FailsOnce([SourceError("It is away."), *HELD[SITE]])
        if len(read) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return [f"Text {len(read)}.".encode()]

    HELD[SITE] = [Item(f"{SITE}/a.txt", "", reads)]
    code, _, stderr = sync("sync", SITE, "--every", "1s")
    assert (code, len(read)) == (0, 4)
    assert "Syncing again in 1 s. Ctrl-C ends it." in stderr
    assert "It is away. The next sync tries again." in " ".join(stderr.split())
