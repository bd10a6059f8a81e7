"""A document keeps its identity, and what closes it, whatever its names, its texts and other people's copies are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from openbook.knowledge import KnowledgeBase, RunOptions, Scope, add, purge, remove, sync
from openbook.knowledge.versions import Retention, prune, restore, tag
from openbook.testing import HashEmbedder

SECRET = "The new ship is called Isolde."
GARDEN = "The garden."


@dataclass(frozen=True)
class Docs:
    """A synced folder. Each method makes a version."""

    base: KnowledgeBase
    folder: Path
    embedder: HashEmbedder

    def write(self, **texts: str) -> None:
        """Files of these names, without their ending."""
        for name, text in texts.items():
            (self.folder / f"{name}.md").write_text(text)
        self.sync()

    def move(self, old: str, new: str) -> None:
        (self.folder / f"{old}.md").replace(self.folder / f"{new}.md")
        self.sync()

    def sync(self) -> None:
        sync(self.base, self.folder, self.embedder)

    def label(self, name: str, *labels: str) -> None:
        add(self.base, [self.folder / f"{name}.md"], self.embedder, RunOptions(labels=frozenset(labels)))

    def seen(self, as_of: int | None = None, *held: str) -> set[str]:
        """The texts that somebody who holds these labels finds as of a version."""
        _, hits = self.base.search("ship garden", self.embedder, 50, Scope(as_of, labels=frozenset(held)))
        return {hit.passage.text for hit in hits}


@pytest.fixture
def docs(tmp_path: Path, embedder: HashEmbedder) -> Docs:
    (tmp_path / "docs").mkdir()
    return Docs(KnowledgeBase.ensure(tmp_path / "kb", embedder.identity), tmp_path / "docs", embedder)


def test_a_label_closes_older_versions_when_the_one_that_carried_it_is_pruned(docs: Docs) -> None:
    docs.write(a=SECRET)
    tag(docs.base, "first")
    docs.label("a", "hr")
    remove(docs.base, ["a.md"])
    assert prune(docs.base, Retention(versions=1)).kept == (1, 3)
    assert docs.seen(1) == set()
    assert docs.seen(1, "hr") == {SECRET}


def test_going_back_to_an_old_name_opens_nothing(docs: Docs) -> None:
    docs.write(a=SECRET)
    docs.move("a", "z")
    docs.label("z", "hr")
    restore(docs.base, 1)
    assert docs.base.documents() == [str(docs.folder / "a.md")]
    assert docs.seen() == docs.seen(1) == docs.seen(2) == set()
    docs.move("z", "a")
    assert docs.seen() == set()


@pytest.mark.parametrize("new_place_first", [False, True])
def test_a_label_goes_along_to_another_synced_folder(docs: Docs, new_place_first: bool) -> None:
    folders = [replace(docs, folder=docs.folder / name) for name in ("one", "other")]
    for each in folders:
        each.folder.mkdir()
        each.write(stays=f"The garden in {each.folder.name}.")
    one, other = folders
    one.write(a=SECRET)
    one.label("a", "hr")
    (one.folder / "a.md").rename(other.folder / "b.md")
    for each in (other, one) if new_place_first else (one, other):
        each.sync()
        assert SECRET not in docs.seen()
    assert SECRET in docs.seen(None, "hr")


def test_what_carries_fewer_labels_is_another_document(docs: Docs) -> None:
    closed, open_ = (replace(docs, folder=docs.folder / name) for name in ("closed", "open"))
    for each in (closed, open_):
        each.folder.mkdir()
        each.write(stays=f"The garden in {each.folder.name}.")
    hr = RunOptions(labels=frozenset({"hr"}))
    closed.write(a=SECRET)
    closed.write(a="Template of a contract.")
    version = docs.base.version
    sync(docs.base, closed.folder, docs.embedder, options=hr)
    (closed.folder / "a.md").unlink()
    sync(docs.base, closed.folder, docs.embedder, options=hr)
    open_.write(template="Template of a contract.")  # somebody else's
    assert "Template of a contract." in docs.seen()
    assert SECRET not in docs.seen(version - 1)


def test_purging_the_newest_name_keeps_what_closes_the_older_ones(docs: Docs) -> None:
    docs.write(a=SECRET)
    tag(docs.base, "first")
    docs.move("a", "z")
    docs.write(z=GARDEN)
    docs.label("z", "hr")
    prune(docs.base, Retention(versions=1))
    purge(docs.base, [str(docs.folder / "z.md")])
    assert docs.seen(1) == set()
    assert docs.seen(1, "hr") == {SECRET}
    assert b"z.md" not in (docs.base.folder / "kb.sqlite3").read_bytes()


def test_a_passage_says_which_labels_it_takes_to_see_it(docs: Docs) -> None:
    def labels(as_of: int | None, *held: str) -> tuple[str, ...]:
        scope = Scope(as_of, labels=frozenset(held))
        (hit,) = docs.base.search("ship", docs.embedder, 1, scope)[1]
        assert docs.base.passage(hit.passage.id, scope) == replace(hit.passage, also_in=())
        return hit.passage.labels

    docs.write(a=SECRET)
    assert labels(None) == ()
    docs.label("a", "hr", "board")
    assert labels(None, "hr", "board") == labels(1, "hr", "board") == ("board", "hr")  # also as of when it was open
    for name in ("copy", "open"):
        (docs.folder / f"{name}.md").write_text(SECRET)
    docs.label("copy", "legal")
    assert labels(None, "hr", "board", "legal") == ("legal",)
    docs.label("open")
    assert labels(None, "hr", "board", "legal") == ()
