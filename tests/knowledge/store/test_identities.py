"""A document keeps its identity and its labels through renames, edits and copies. Most of it is in `test_visibility_laws`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from openbook.knowledge import RunOptions, Scope, purge, sync
from openbook.knowledge.versions import prune, tag
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
    """The texts that a caller with these labels finds as of a version."""
    return {hit.passage.text for hit in library.hits("ship garden", Scope(as_of, labels=frozenset(held)), 50)}


def test_a_rename_without_its_sidecar_keeps_the_label(library: Library) -> None:
    library.write("a.md.meta.toml", 'access_labels = ["hr"]')
    write(library, "a.md", SECRET)
    assert seen(library) == set()
    move(library, "a.md", "z.md")
    assert (seen(library), seen(library, None, "hr")) == (set(), {SECRET})
    (library.docs / "z.md").rename(library.docs / "y.md")
    library.write("y.md", GARDEN)  # another text: no longer recognized
    assert library.sync().taken_over == {library.path("y.md"): ("hr",)}
    assert (seen(library), seen(library, None, "hr")) == (set(), {GARDEN})


def test_a_file_added_into_a_labeled_folder_has_its_labels(library: Library) -> None:
    write(library, "a.md", GARDEN)
    library.sync(options=HR)
    library.write("b.md", SECRET)
    library.add("b.md")
    assert (seen(library), seen(library, None, "hr")) == (set(), {GARDEN, SECRET})
    library.sync()  # the folder itself is open from now on
    assert seen(library) == {GARDEN, SECRET}


def test_a_file_with_an_escaped_name_counts_as_present(library: Library) -> None:
    write(library, "a\\b.md", SECRET)
    library.add("a\\b.md", options=HR)
    write(library, "copy.md", SECRET)
    assert seen(library) == {SECRET}  # a copy is a document of its own
    (shown,) = [path for path in library.base.documents() if "copy" not in path]
    purged = purge(library.base, [shown], copies=True)
    assert shown in purged.still_on_disk
    assert purged.labels == ("hr",)


@pytest.mark.parametrize("new_place_first", [False, True])
def test_a_label_follows_its_document_to_another_synced_folder(library: Library, new_place_first: bool) -> None:
    one, other = (library.docs / name for name in ("one", "other"))
    library.write("one/a.md", SECRET)
    library.write("one/a.md.meta.toml", 'access_labels = ["hr"]')
    for folder in (one, other):
        library.write(f"{folder.name}/stays.md", f"The garden in {folder.name}.")
        sync(library.base, folder, library.embedder)
    (one / "a.md").rename(other / "b.md")
    for folder in (other, one) if new_place_first else (one, other):
        sync(library.base, folder, library.embedder)
        assert SECRET not in seen(library)
    assert SECRET in seen(library, None, "hr")


def test_a_text_with_fewer_labels_is_another_document(library: Library) -> None:
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
    library.write("open/template.md", TEMPLATE)  # another author's
    sync_folder("open")
    assert TEMPLATE in seen(library)
    assert SECRET not in seen(library, version - 1)


def test_purging_the_newest_name_keeps_the_labels_of_older_ones(library: Library) -> None:
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


def test_a_passage_names_the_labels_that_it_needs(library: Library) -> None:
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
