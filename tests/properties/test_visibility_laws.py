"""Who sees what: whatever several callers upload, rename, edit, label, copy, remove, restore, prune and purge, each sees a text
exactly if they may see some document that holds it, in every version."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openbook.knowledge import KnowledgeBase, RunOptions, Scope, add, purge, remove, sync
from openbook.knowledge.index.scope import condition
from openbook.knowledge.versions import history, prune, restore, tag
from openbook.testing import HashEmbedder

LABELS = ("hr", "legal")
HOLDERS = [frozenset[str](), frozenset({"hr"}), frozenset({"legal"}), frozenset(LABELS)]
NAMES = ("a.md", "b.md", "sub/c.md", "sub/d.md")
KEEP = ("keep.md", "sub/keep.md")  # a folder without any file is not synced
CALLERS = st.sampled_from(("anna", "ben"))
SEQUENCES, SEQUENCES_OF_ALL = 140, 20_000


@dataclass(eq=False)
class Document:
    """The model of one: the labels that it carries now, and by version where it was, its text, and its labels then.

    `is_loose`: a restore brought it to a path where another file is. It may be closed to more than its labels say, and labels that it
    gets later need not close what it was before.
    """

    labels: set[str] = field(default_factory=set)
    states: dict[int, tuple[str, str, frozenset[str]]] = field(default_factory=dict)
    is_loose: bool = False

    @property
    def last_text(self) -> str:
        return self.states[max(self.states)][1] if self.states else ""

    def closed_by(self, version: int) -> frozenset[str]:
        return self.states[version][2] if self.is_loose else frozenset(self.labels)


@dataclass
class Model:
    """`at`: the document that is at a path, or was there last. `now`: the texts by path."""

    at: dict[str, Document] = field(default_factory=dict)
    now: dict[str, str] = field(default_factory=dict)
    documents: set[Document] = field(default_factory=set)

    def put(self, path: str, text: str, labels: Iterable[str] = ()) -> None:
        known = self.at.get(path)
        if known is None or any(self.at[other] is known for other in self.now if other != path):
            self.at[path] = Document(set(known.labels) if known else set(), is_loose=known is not None)
            if known:
                known.is_loose = True
        self.at[path].labels |= set(labels)
        self.now[path] = text

    def sync(self, disk: dict[str, str], synced: str) -> None:
        gone = [path for path in self.now if path.startswith(synced) and path not in disk]
        came = {path: text for path, text in disk.items() if self.now.get(path) != text}
        left_before = [path for path in self.at if path.startswith(synced) and path not in {*self.now, *disk}]
        texts = {path: self.now.get(path) or self.at[path].last_text for path in (*left_before, *gone)}
        lost = [self.at[path].labels for path in gone if texts[path] not in came.values()]
        for path in gone:
            del self.now[path]
        for path, text in came.items():
            old = next((each for each in reversed(texts) if texts[each] == text and each in self.at), None)
            if old is None:
                self.put(path, text, set().union(*lost) if path not in self.now else ())
            elif old in gone or path not in self.at:
                before = self.at.get(path, Document())
                self.at[path], self.now[path] = self.at.pop(old), text
                self.at[path].labels |= before.labels
            else:
                self.put(path, text, self.at[old].labels)
                self.at[old].is_loose = self.at[path].is_loose = True

    def restore(self, version: int) -> None:
        states = [(document, *document.states[version]) for document in self.documents if version in document.states]
        self.now = {path: text for _, path, text, _ in states}
        for document, path, _, _ in states:
            before = self.at.get(path, document)
            document.labels |= before.labels
            if before is not document:
                document.is_loose = before.is_loose = True
            self.at[path] = document

    def purge(self, path: str) -> None:
        texts = {text for each in self.documents for where, text, _ in each.states.values() if where == path}
        for each in list(self.documents):
            kept = {v: state for v, state in each.states.items() if state[0] != path and state[1] not in texts}
            if kept != each.states:
                each.is_loose, each.states = True, kept
        self.now = {where: text for where, text in self.now.items() if where != path and text not in texts}
        self._forget(lambda each: not each.states)

    def prune(self, kept: set[int]) -> None:
        for each in self.documents:
            each.states = {version: state for version, state in each.states.items() if version in kept}
        self._forget(lambda each: not each.states and not each.labels)

    def _forget(self, is_forgotten: Callable[[Document], bool]) -> None:
        forgotten = {each for each in self.documents if is_forgotten(each)}
        self.documents -= forgotten
        paths = {path for path, each in self.at.items() if each in forgotten}
        for path in paths:
            del self.at[path]
        for each in self.documents:  # what was at the path before may be found there again
            for path in paths & {path for path, _, _ in each.states.values()}:
                self.at[path], each.is_loose = each, True

    def commit(self, version: int) -> None:
        for path, text in self.now.items():
            document = self.at[path]
            document.states[version] = path, text, frozenset(document.labels)
            self.documents.add(document)

    def check(self, version: int, held: frozenset[str], seen: set[str]) -> None:
        there = [each for each in self.documents if version in each.states]
        may = {each.states[version][1] for each in there if each.closed_by(version) <= held}
        must = {each.states[version][1] for each in there if not each.is_loose and each.labels <= held}
        assert must <= seen <= may, (version, held, seen, must, may)


WHICH = st.integers(0, 11)  # one of those that are there
NAME = st.sampled_from(NAMES)
STEPS = st.one_of(
    st.tuples(st.just("write"), NAME),
    st.tuples(st.just("rename"), WHICH, NAME, st.booleans()),
    st.tuples(st.just("delete"), WHICH),
    st.tuples(st.just("label"), WHICH, st.sampled_from(LABELS)),
    st.tuples(st.just("sync_again")),
    st.tuples(st.just("remove"), WHICH),
    st.tuples(st.just("upload"), CALLERS, NAME, WHICH, st.frozensets(st.sampled_from(LABELS))),
    st.tuples(st.just("restore"), WHICH),
    st.tuples(st.just("tag"), WHICH),
    st.tuples(st.just("prune"), st.integers(1, 3)),
    st.tuples(st.just("purge"), WHICH),
)


@pytest.mark.laws
@settings(max_examples=SEQUENCES if settings().derandomize else SEQUENCES_OF_ALL)
@given(st.lists(STEPS, min_size=4, max_size=16))
def test_a_text_is_seen_by_who_may_see_a_document_that_holds_it(
    tmp_path_factory: pytest.TempPathFactory, sequence: list[tuple[Any, ...]]
) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path_factory.getbasetemp()) as folder:
        check(Path(folder), sequence)


RESTORED = [("rename", 0, "b.md", False), ("write", "b.md"), ("restore", 2), ("sync_again",)]
EVERY_STEP = [
    ("write", "sub/c.md"), ("label", 1, "hr"), ("rename", 1, "sub/d.md", True), ("upload", "anna", "a.md", 3, frozenset({"legal"})),
    ("upload", "ben", "a.md", 2, frozenset()), ("tag", 3), ("delete", 0), ("remove", 0), ("sync_again",), ("restore", 4), ("purge", 1), ("prune", 2),
]  # fmt: skip


@pytest.mark.parametrize(
    "sequence",
    [
        EVERY_STEP,
        [("label", 0, "hr"), *RESTORED],
        [*RESTORED, ("label", 0, "hr")],
        [("tag", 2), ("label", 0, "hr"), ("remove", 0), ("prune", 1)],  # the version that carried the label is gone
        [("rename", 0, "d.md", False), ("label", 0, "hr"), ("restore", 2), ("rename", 0, "a.md", False)],
        [("label", 0, "hr"), ("rename", 0, "b.md", True), ("sync_again",)],
    ],
)
def test_visibility_after_each_kind_of_step(tmp_path: Path, sequence: list[tuple[Any, ...]]) -> None:
    check(tmp_path, sequence)


def check(folder: Path, sequence: list[tuple[Any, ...]]) -> None:
    world = World(folder)
    for name, *arguments in sequence:
        getattr(world, name)(*arguments)
        world.model.commit(world.base.version)
    base, newest = world.base, world.base.version
    with base.snapshot() as connection:
        for version, held in product((each.version for each in history(base)), HOLDERS):
            scope = Scope(None if version == newest else version, labels=held)
            shown = condition(scope, version)  # what a search as of an older version goes by
            sql = f"SELECT c.text FROM documents d JOIN contents c ON c.id = d.content_id WHERE {shown.sql}"
            seen = {text for (text,) in connection.execute(sql, shown.values)}
            if version == newest:
                assert seen == {hit.passage.text for hit in base.search("text", world.embedder, 100, scope)[1]}
            world.model.check(version, held, seen)
    world.base.close()


class World:
    """A knowledge base, a synced folder with one inside it, folders of callers, and the model of all this. Each step is a method."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.docs = folder, folder / "docs"
        self.embedder, self.model, self.texts = HashEmbedder(), Model(), list[str]()
        self.base = KnowledgeBase.ensure(folder / "kb", self.embedder.identity)
        (self.docs / "sub").mkdir(parents=True)
        for name in (*KEEP, "a.md"):
            self.put(self.docs / name)
        for place in (self.docs / "sub", self.docs):
            self.sync_again(place)
            self.model.commit(self.base.version)

    @property
    def files(self) -> list[Path]:
        return sorted({*self.docs.rglob("*.md")} - {self.docs / name for name in KEEP})

    @property
    def live(self) -> list[str]:
        return sorted({*self.base.documents()} - {str(self.docs / name) for name in KEEP})

    def put(self, path: Path) -> None:
        self.texts.append(f"Text number {len(self.texts)}.")
        path.write_text(self.texts[-1])

    def sync_again(self, place: Path | None = None) -> None:
        place = place or self.docs
        sync(self.base, place, self.embedder)
        self.model.sync({str(path): path.read_text() for path in sorted(place.rglob("*.md"))}, f"{place}/")

    def write(self, name: str) -> None:
        self.put(self.docs / name)
        self.sync_again()

    def rename(self, which: int, name: str, edit: bool) -> None:
        new = self.docs / name
        old = self.files[which % len(self.files)] if self.files else new
        if old != new and not (edit and new.exists()):
            old.replace(new)
            if edit:
                self.put(new)
            self.sync_again()

    def delete(self, which: int) -> None:
        if self.files:
            self.files[which % len(self.files)].unlink()
            self.sync_again()

    def label(self, which: int, label: str) -> None:
        if self.files:
            self.add(self.files[which % len(self.files)], frozenset({label}), None)

    def add(self, path: Path, labels: frozenset[str], held: frozenset[str] | None) -> None:
        add(self.base, [path], self.embedder, RunOptions(labels=labels, held_labels=held))
        self.model.put(str(path), path.read_text(), labels)

    def upload(self, caller: str, name: str, which: int, labels: frozenset[str]) -> None:
        path = self.folder / caller / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(self.texts[which % len(self.texts)])
        self.add(path, labels, labels)

    def remove(self, which: int) -> None:
        if self.live:
            gone = self.live[which % len(self.live)]
            remove(self.base, [gone])
            del self.model.now[gone]

    def restore(self, which: int) -> None:
        version = self.version(which)
        restore(self.base, version)
        self.model.restore(version)

    def version(self, which: int) -> int:
        kept = sorted(each.version for each in history(self.base))
        return kept[which % len(kept)]

    def tag(self, which: int) -> None:
        tag(self.base, f"v{self.version(which)}", self.version(which))

    def prune(self, keep: int) -> None:
        self.model.prune({*prune(self.base, keep).kept})

    def purge(self, which: int) -> None:
        if self.live:
            gone = self.live[which % len(self.live)]
            Path(gone).unlink(missing_ok=True)
            purge(self.base, [gone], copies=True)
            self.model.purge(gone)
