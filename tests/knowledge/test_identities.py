"""A document keeps its identity, and what closes it, whatever its names, its texts and other people's copies are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from openbook.knowledge import KnowledgeBase, RunOptions, Scope, add, purge, remove, sync
from openbook.knowledge.versions import Retention, prune, restore, tag
from openbook.testing import HashEmbedder

HR = RunOptions(labels=frozenset({"hr"}))
SECRET = "The new ship is called Isolde."


@pytest.fixture
def base(tmp_path: Path, embedder: HashEmbedder) -> KnowledgeBase:
    return KnowledgeBase.ensure(tmp_path / "kb", embedder.identity)


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    return tmp_path / "docs"


@pytest.fixture
def texts(base: KnowledgeBase, embedder: HashEmbedder) -> Callable[..., set[str]]:
    """What a search finds as of a version, by somebody who holds these labels."""

    def found(as_of: int | None = None, *labels: str) -> set[str]:
        _, hits = base.search("ship garden", embedder, 50, Scope(as_of, labels=frozenset(labels)))
        return {hit.passage.text for hit in hits}

    return found


def test_a_label_closes_the_versions_of_before_a_rename(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder, texts: Callable[..., set[str]]
) -> None:
    (docs / "a.md").write_text(SECRET)
    sync(base, docs, embedder)
    (docs / "a.md").rename(docs / "z.md")
    assert sync(base, docs, embedder).version == 2
    assert texts(1) == {SECRET}
    assert add(base, [docs / "z.md"], embedder, HR).version == 3
    assert [texts(version) for version in (1, 2, 3, None)] == [set()] * 4
    assert [texts(version, "hr") for version in (1, 2, 3, None)] == [{SECRET}] * 4


def test_a_label_closes_a_rename_over_a_path_that_was_there(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder, texts: Callable[..., set[str]]
) -> None:
    (docs / "a.md").write_text(SECRET)
    (docs / "z.md").write_text("The garden.")
    sync(base, docs, embedder)
    (docs / "a.md").replace(docs / "z.md")
    sync(base, docs, embedder)
    add(base, [docs / "z.md"], embedder, HR)
    assert texts(1) == {"The garden."}
    assert texts(2) == texts(3) == set()


def test_a_label_closes_what_was_renamed_and_edited_in_two_runs(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder, texts: Callable[..., set[str]]
) -> None:
    (docs / "a.md").write_text(SECRET)
    sync(base, docs, embedder)
    (docs / "a.md").rename(docs / "b.md")
    sync(base, docs, embedder)
    (docs / "b.md").write_text(SECRET + " She is green.")
    sync(base, docs, embedder)
    (docs / "b.md").rename(docs / "c.md")
    sync(base, docs, embedder)
    add(base, [docs / "c.md"], embedder, HR)
    assert [texts(version) for version in (1, 2, 3, 4, 5)] == [set()] * 5


def test_a_new_document_at_an_old_name_is_another_document(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder, texts: Callable[..., set[str]]
) -> None:
    (docs / "a.md").write_text(SECRET)
    sync(base, docs, embedder)
    (docs / "a.md").rename(docs / "z.md")
    sync(base, docs, embedder)
    (docs / "a.md").write_text("The garden.")
    sync(base, docs, embedder)
    add(base, [docs / "a.md"], embedder, HR)
    assert texts(1) == {SECRET}  # of z.md, which carries no label
    assert texts() == {SECRET}


def test_a_label_closes_older_versions_when_the_one_that_carried_it_is_pruned(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder, texts: Callable[..., set[str]]
) -> None:
    (docs / "a.md").write_text(SECRET)
    sync(base, docs, embedder)
    tag(base, "first")
    add(base, [docs / "a.md"], embedder, HR)
    remove(base, ["a.md"])
    assert prune(base, Retention(versions=1)).kept == (1, 3)
    assert texts(1) == set()
    assert texts(1, "hr") == {SECRET}


def test_going_back_to_an_old_name_opens_nothing(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder, texts: Callable[..., set[str]]
) -> None:
    (docs / "a.md").write_text(SECRET)
    sync(base, docs, embedder)
    (docs / "a.md").rename(docs / "z.md")
    sync(base, docs, embedder)
    add(base, [docs / "z.md"], embedder, HR)
    restore(base, 1)
    assert base.documents() == [str(docs / "a.md")]
    assert texts() == texts(1) == texts(2) == set()
    (docs / "z.md").rename(docs / "a.md")
    sync(base, docs, embedder)
    assert texts() == set()


def test_a_label_goes_along_when_a_document_leaves_and_comes_back_in_another_synced_folder(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder, texts: Callable[..., set[str]]
) -> None:
    one, other = docs / "one", docs / "other"
    for folder in (one, other):
        folder.mkdir()
        (folder / "stays.md").write_text(f"The garden in {folder.name}.")
    (one / "a.md").write_text(SECRET)
    sync(base, one, embedder)
    sync(base, other, embedder)
    add(base, [one / "a.md"], embedder, HR)
    (one / "a.md").rename(other / "b.md")
    sync(base, one, embedder)
    sync(base, other, embedder)
    assert SECRET not in texts()
    assert SECRET in texts(None, "hr")


def test_a_labelled_copy_hides_no_original(
    base: KnowledgeBase, docs: Path, tmp_path: Path, embedder: HashEmbedder, texts: Callable[..., set[str]]
) -> None:
    copy = tmp_path / "upload" / "copy.md"
    copy.parent.mkdir()
    for path in (docs / "a.md", copy):
        path.write_text(SECRET)
    sync(base, docs, embedder)
    add(base, [copy], embedder, HR)
    (docs / "a.md").rename(docs / "b.md")
    sync(base, docs, embedder)
    assert texts() == {SECRET}
    remove(base, [str(copy)])
    (docs / "b.md").rename(docs / "c.md")
    sync(base, docs, embedder)
    assert texts() == {SECRET}
    assert base.labels() == {}


def test_equal_files_of_two_teams_are_seen_by_each_and_by_nobody_else(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder, texts: Callable[..., set[str]]
) -> None:
    for team in ("hr", "legal"):
        (docs / team).mkdir()
        (docs / team / "vendor.md").write_text(SECRET)
        add(base, [docs / team / "vendor.md"], embedder, RunOptions(labels=frozenset({team})))
    assert [texts(None, *labels) for labels in ((), ("hr",), ("legal",))] == [set(), {SECRET}, {SECRET}]
    (docs / "open.md").write_text(SECRET)
    add(base, [docs / "open.md"], embedder)  # somebody else's, without a label
    assert texts() == {SECRET}


def test_purging_the_newest_name_keeps_what_closes_the_older_ones(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder, texts: Callable[..., set[str]]
) -> None:
    (docs / "a.md").write_text(SECRET)
    sync(base, docs, embedder)
    tag(base, "first")
    (docs / "a.md").rename(docs / "z.md")
    sync(base, docs, embedder)
    (docs / "z.md").write_text("The garden.")
    add(base, [docs / "z.md"], embedder, HR)
    prune(base, Retention(versions=1))
    purge(base, [str(docs / "z.md")])
    assert texts(1) == set()
    assert texts(1, "hr") == {SECRET}
    assert b"z.md" not in (base.folder / "kb.sqlite3").read_bytes()


def test_a_passage_says_which_labels_it_takes_to_see_it(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    def labels(as_of: int | None, *held: str) -> tuple[str, ...]:
        scope = Scope(as_of, labels=frozenset(held))
        (hit,) = base.search("ship", embedder, 1, scope)[1]
        assert base.passage(hit.passage.id, scope) == replace(hit.passage, also_in=())
        return hit.passage.labels

    (docs / "a.md").write_text(SECRET)
    sync(base, docs, embedder)
    assert labels(None) == ()
    add(base, [docs / "a.md"], embedder, RunOptions(labels=frozenset({"hr", "board"})))
    assert labels(None, "hr", "board") == labels(1, "hr", "board") == ("board", "hr")  # also as of when it was open
    (docs / "copy.md").write_text(SECRET)
    add(base, [docs / "copy.md"], embedder, RunOptions(labels=frozenset({"legal"})))
    assert labels(None, "hr", "board", "legal") == ("legal",)
    (docs / "open.md").write_text(SECRET)
    add(base, [docs / "open.md"], embedder)
    assert labels(None, "hr", "board", "legal") == ()
