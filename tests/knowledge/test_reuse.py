"""Stored data saves work only for callers who may see a document that has it: timing must not reveal what others have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from openbook.core.errors import TextIsElsewhere
from openbook.knowledge import Report, Scope, add, purge, remove
from openbook.knowledge.ingest.contents import RunOptions
from openbook.parsers.sandbox.pool import ParserPool
from openbook.parsers.sandbox.protocol import Parsed
from openbook.testing import HashEmbedder
from tests.knowledge.conftest import Interrupted, Library

NOBODY, HR = frozenset[str](), frozenset({"hr"})
PARTS = [f"The safe {number} of the harbour office opens. " + "It is old. " * 30 for number in range(3)]
LONG = "\n\n".join(PARTS)
OTHER = LONG.replace("safe", "door")


class Office(Library):
    """Counts the files that are parsed."""

    parsed = 0
    report: Report

    def work(self, name: str, text: str, held: frozenset[str] | None, *labels: str) -> list[int]:
        """What one file costs: files parsed, texts embedded, contents and passages stored. `held`: the caller's labels; None: the owner."""
        office = self

        class CountedParsers(ParserPool):
            def parse_all(self, paths: Iterable[Path]) -> Iterator[tuple[Path, Parsed]]:
                for each in super().parse_all(paths):
                    office.parsed += 1
                    yield each

        before, path = self.counts(), self.write(name, text)
        options = RunOptions(labels=frozenset(labels), held_labels=held, parsers=CountedParsers)
        self.report = add(self.base, [path], self.embedder, options)
        return [after - past for past, after in zip(before, self.counts(), strict=True)]

    def counts(self) -> list[int]:
        counted = "SELECT (SELECT count(*) FROM contents), (SELECT count(*) FROM passages)"
        return [self.parsed, self.embedder.texts_embedded, *self.base.connection.execute(counted).fetchone()]


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path, HashEmbedder())


def test_hidden_documents_save_no_work(office: Office) -> None:
    office.work("hidden.txt", LONG, HR, "hr")
    assert office.work("guess.txt", LONG, NOBODY) == office.work("unknown.txt", OTHER, NOBODY) == [1, 3, 1, 3]
    assert office.work("part.txt", PARTS[0], NOBODY) == [1, 1, 1, 1]  # hr has it, and this caller's own file is another
    assert office.work("again.txt", LONG, NOBODY) == [0, 0, 0, 0]
    assert office.work("hidden.txt", LONG, HR, "hr") == [0, 0, 0, 0]
    (found,) = [hit.passage for hit in office.hits("safe 2", Scope(labels=HR)) if "safe 2" in hit.passage.text]
    assert (found.document, *found.also_in) == (*map(office.path, ("again.txt", "guess.txt", "hidden.txt")),)


def test_documents_seen_before_save_work_until_a_label_closes_them(office: Office) -> None:
    office.work("mine.txt", LONG, NOBODY)
    remove(office.base, [office.path("mine.txt")])
    assert office.work("mine.txt", LONG, NOBODY) == [0, 0, 0, 0]  # an older version shows it
    assert office.work("mine.txt", LONG.replace("safe 1", "chest 1"), NOBODY) == [1, 1, 1, 3]  # one passage changed
    office.work("mine.txt", LONG, None, "hr")
    assert office.work("other.txt", LONG, NOBODY) == [1, 3, 1, 3]


def test_the_owner_reuses_all_vectors_and_learns_of_open_copies(office: Office) -> None:
    office.work("hidden.txt", LONG, None, "hr")
    office.work("guess.txt", LONG, NOBODY)
    assert office.work("copy.txt", LONG, None) == [0, 0, 0, 0]
    assert {*office.report.unlabelled_copies} == {office.path("copy.txt"), office.path("guess.txt")}
    office.work("upload.txt", OTHER, NOBODY)
    assert office.work("closed.txt", OTHER, None, "hr") == [1, 0, 1, 3]  # its own content, which no upload changes
    assert {*office.report.unlabelled_copies} == {office.path("upload.txt")}
    with pytest.raises(TextIsElsewhere):
        purge(office.base, ["hidden.txt"])
    purge(office.base, ["hidden.txt"], copies=True)
    assert office.names() == ["closed.txt", "upload.txt"]
    assert b"The safe 1" not in office.all_bytes()


def test_a_repeated_run_does_no_work_twice(office: Office) -> None:
    office.work("hidden.txt", LONG, HR, "hr")
    with closing(office.reopened()) as other:
        more = [office.write("more.txt", "The pier is long.")]
        office.embedder = Interrupted(lambda: add(other, more, HashEmbedder()))
        assert office.work("guess.txt", LONG, NOBODY)[:2] == [1, 3]


def test_a_hidden_document_takes_as_little_work_as_none(library: Library) -> None:
    for number in range(200):
        library.write(f"{number}.txt", f"Text {number}.")
    library.sync(options=RunOptions(labels=HR))
    steps: list[str] = []  # of SQLite's virtual machine, each with the name that is looked for
    for name in ("warm", "100.txt", "none.txt"):
        cast("Any", library.base.connection).set_progress_handler(lambda now=name: steps.append(now), 1)
        assert not library.base.holds(library.path(name), Scope(1))
    assert steps.count("100.txt") - steps.count("none.txt") < 100
