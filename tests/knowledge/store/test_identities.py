"""A document keeps its identity, and what closes it, whatever its names, its texts and other people's copies are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from openbook.knowledge import RunOptions, Scope, purge, remove, sync
from openbook.knowledge.versions import prune, restore, tag
from tests.knowledge.conftest import Library

SECRET = "The new ship is called Isolde."
GARDEN = "The garden."
TEMPLATE = "Template of a contract."
HR = RunOptions(labels=frozenset({"hr"}))


def write(library: Library, name: str, text: str) -> None:
    library.write(name, text)
    library.sync()


def move(library: Library, old: str, new: str) -> None:
    (library.docs / old).replace(library.docs / new)
    library.sync()


def seen(library: Library, as_of: int | None = None, *held: str) -> set[str]:
    """The texts that somebody who holds these labels finds as of a version."""
    return {hit.passage.text for hit in library.hits("ship garden", Scope(as_of, labels=frozenset(held)), 50)}


def test_a_label_closes_older_versions_when_the_one_that_carried_it_is_pruned(library: Library) -> None:
    write(library, "a.md", SECRET)
    tag(library.base, "first")
    library.add("a.md", options=HR)
    remove(library.base, ["a.md"])
    assert prune(library.base, 1).kept == (1, 3)
    assert seen(library, 1) == set()
    assert seen(library, 1, "hr") == {SECRET}


def test_going_back_to_an_old_name_opens_nothing(library: Library) -> None:
    write(library, "a.md", SECRET)
    move(library, "a.md", "z.md")
    library.add("z.md", options=HR)
    restore(library.base, 1)
    assert library.names() == ["a.md"]
    assert seen(library) == seen(library, 1) == seen(library, 2) == set()
    move(library, "z.md", "a.md")
    assert seen(library) == set()


def test_a_rename_that_leaves_the_sidecar_behind_opens_nothing_even_with_an_edit(library: Library) -> None:
    library.write("a.md.meta.toml", 'access_labels = ["hr"]')
    write(library, "a.md", SECRET)
    assert seen(library) == set()
    move(library, "a.md", "z.md")
    assert (seen(library), seen(library, None, "hr")) == (set(), {SECRET})
    (library.docs / "z.md").rename(library.docs / "y.md")
    library.write("y.md", GARDEN)  # another text, so nobody can tell
    assert library.sync().taken_over == {library.path("y.md"): ("hr",)}
    assert (seen(library), seen(library, None, "hr")) == (set(), {GARDEN})


@pytest.mark.parametrize("added_first", [False, True])
def test_what_takes_over_labels_stays_closed_until_it_is_opened(library: Library, added_first: bool) -> None:
    write(library, "a.md", SECRET)
    library.add("a.md", options=HR)
    write(library, "open.md", "The garden of the ship.")
    (library.docs / "a.md").rename(library.docs / "b.md")
    library.write("b.md", GARDEN)
    if added_first:  # before a sync has seen that the other is gone
        library.add("b.md")
    for _ in range(2):
        library.sync()
        assert seen(library) == {"The garden of the ship."}
    library.add("b.md", options=RunOptions(unlabel=HR.labels))
    library.sync()
    assert seen(library) == {"The garden of the ship.", GARDEN}


@pytest.mark.parametrize("closed_first", [False, True])
def test_a_restore_to_an_older_name_loses_no_label(library: Library, closed_first: bool) -> None:
    write(library, "a.md", SECRET)
    if closed_first:
        library.add("a.md", options=HR)
    move(library, "a.md", "b.md")
    write(library, "b.md", GARDEN)
    renamed = library.base.version
    restore(library.base, renamed - 2)
    library.sync()
    if not closed_first:
        assert seen(library) == {GARDEN}
        library.add("b.md", options=HR)
    assert seen(library) == seen(library, renamed) == seen(library, 1) == set()
    assert seen(library, None, "hr") == {GARDEN}


def test_what_is_added_into_a_folder_that_is_synced_with_labels_carries_them(library: Library) -> None:
    write(library, "a.md", GARDEN)
    library.sync(options=HR)
    library.write("b.md", SECRET)
    library.add("b.md")
    assert (seen(library), seen(library, None, "hr")) == (set(), {GARDEN, SECRET})
    library.sync()  # the folder itself is open from now on
    assert seen(library) == {GARDEN, SECRET}


def test_a_name_that_is_not_shown_as_it_is_counts_as_there(library: Library) -> None:
    write(library, "a\\b.md", SECRET)
    library.add("a\\b.md", options=HR)
    write(library, "copy.md", SECRET)
    assert seen(library) == {SECRET}  # a copy is a document of its own
    (shown,) = [path for path in library.base.documents() if "copy" not in path]
    purged = purge(library.base, [shown], copies=True)
    assert shown in purged.still_on_disk
    assert purged.labels == ("hr",)


@pytest.mark.parametrize("new_place_first", [False, True])
@pytest.mark.parametrize("given_by", ["name", "sidecar"])
def test_a_label_goes_along_to_another_synced_folder(library: Library, new_place_first: bool, given_by: str) -> None:
    one, other = (library.docs / name for name in ("one", "other"))
    library.write("one/a.md", SECRET)
    if given_by == "sidecar":
        library.write("one/a.md.meta.toml", 'access_labels = ["hr"]')
    for folder in (one, other):
        library.write(f"{folder.name}/stays.md", f"The garden in {folder.name}.")
        sync(library.base, folder, library.embedder)
    if given_by == "name":
        library.add("one/a.md", options=HR)
    (one / "a.md").rename(other / "b.md")
    for folder in (other, one) if new_place_first else (one, other):
        sync(library.base, folder, library.embedder)
        assert SECRET not in seen(library)
    assert SECRET in seen(library, None, "hr")


def test_what_carries_fewer_labels_is_another_document(library: Library) -> None:
    def sync_folder(name: str, *labels: str) -> None:
        options = RunOptions(labels=frozenset(labels))
        sync(library.base, library.docs / name, library.embedder, options=options)

    for name in ("closed", "open"):
        library.write(f"{name}/stays.md", f"The garden in {name}.")
        sync_folder(name)
    for text in (SECRET, TEMPLATE):
        library.write("closed/a.md", text)
        sync_folder("closed")
    version = library.base.version
    sync_folder("closed", "hr")
    (library.docs / "closed" / "a.md").unlink()
    sync_folder("closed", "hr")
    library.write("open/template.md", TEMPLATE)  # somebody else's
    sync_folder("open")
    assert TEMPLATE in seen(library)
    assert SECRET not in seen(library, version - 1)


def test_purging_the_newest_name_keeps_what_closes_the_older_ones(library: Library) -> None:
    write(library, "a.md", SECRET)
    tag(library.base, "first")
    move(library, "a.md", "z.md")
    write(library, "z.md", GARDEN)
    library.add("z.md", options=HR)
    prune(library.base, 1)
    purge(library.base, [library.path("z.md")])
    assert seen(library, 1) == set()
    assert seen(library, 1, "hr") == {SECRET}
    assert b"z.md" not in (library.base.folder / "kb.sqlite3").read_bytes()


def test_a_passage_says_which_labels_it_takes_to_see_it(library: Library) -> None:
    def labels(as_of: int | None, *held: str) -> tuple[str, ...]:
        scope = Scope(as_of, labels=frozenset(held))
        (hit,) = library.hits("ship", scope, 1)
        assert library.base.passage(hit.passage.id, scope) == replace(hit.passage, also_in=())
        return hit.passage.labels

    write(library, "a.md", SECRET)
    assert labels(None) == ()
    library.add("a.md", options=RunOptions(labels=frozenset({"hr", "board"})))
    assert labels(None, "hr", "board") == labels(1, "hr", "board") == ("board", "hr")  # also as of when it was open
    for name in ("copy", "open"):
        library.write(f"{name}.md", SECRET)
    library.add("copy.md", options=RunOptions(labels=frozenset({"legal"})))
    assert labels(None, "hr", "board", "legal") == ("legal",)
    library.add("open.md")
    assert labels(None, "hr", "board", "legal") == ()
