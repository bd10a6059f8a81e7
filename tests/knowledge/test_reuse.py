"""What is stored saves work only for those who may see a document that has it, so that time does not tell what others have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from openbook.errors import TextIsElsewhere
from openbook.knowledge import Report, Scope, add, purge, remove
from openbook.knowledge.ingest import RunOptions
from openbook.knowledge.pictures import page_picture
from openbook.parsers.sandbox import Parsed, ParserPool
from openbook.testing import HashEmbedder
from tests.knowledge.conftest import Interrupted, Library
from tests.parsers.samples import make_pdf

NOBODY, HR = frozenset[str](), frozenset({"hr"})
PARTS = [
    f"The safe {number} of the harbour office opens with {number * 7341}. " + "It is old. " * 30 for number in range(3)
]
LONG = "\n\n".join(PARTS)
OTHER = LONG.replace("safe", "door")


class Office(Library):
    """Counts the files that are parsed."""

    parsed = 0
    report: Report

    def work(
        self,
        name: str,
        text: str | bytes,
        held: frozenset[str] | None,
        *labels: str,
        embedder: HashEmbedder | None = None,
    ) -> list[int]:
        """What one added file costs: files parsed, texts embedded, contents and passages stored. `held`: the caller's labels; None: the owner."""
        office = self

        class CountedParsers(ParserPool):
            def parse_all(self, paths: Iterable[Path]) -> Iterator[tuple[Path, Parsed]]:
                for each in super().parse_all(paths):
                    office.parsed += 1
                    yield each

        self.embedder = embedder or self.embedder
        before, path = self.counts(), self.write(name, text)
        options = RunOptions(labels=frozenset(labels), held_labels=held, parsers=CountedParsers)
        self.report = add(self.base, [path], self.embedder, options)
        return [after - past for past, after in zip(before, self.counts(), strict=True)]

    def counts(self) -> list[int]:
        tables = ("contents", "passages")
        rows = [self.base.connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables]
        return [self.parsed, self.embedder.texts_embedded, *rows]


@pytest.fixture
def office(tmp_path: Path, embedder: HashEmbedder) -> Office:
    return Office(tmp_path, embedder)


def test_what_a_caller_may_not_see_saves_it_no_work(office: Office) -> None:
    whole = office.work("hidden.txt", LONG, HR, "hr")
    assert whole == [1, 3, 1, 3]
    assert office.work("guess.txt", LONG, NOBODY) == office.work("unknown.txt", OTHER, NOBODY) == whole
    assert office.work("part.txt", PARTS[0], NOBODY) == [1, 1, 1, 1]  # hr has it, and this caller's own file is another
    assert office.work("again.txt", LONG, NOBODY) == [0, 0, 0, 0]
    assert office.work("hidden.txt", LONG, HR, "hr") == [0, 0, 0, 0]
    (hit,) = [hit for hit in office.hits("safe 2 opens", Scope(labels=HR)) if "safe 2" in hit.passage.text]
    names = {Path(path).name for path in (hit.passage.document, *hit.passage.also_in)}
    assert names == {"hidden.txt", "guess.txt", "again.txt"}


def test_what_a_caller_saw_before_saves_it_work_until_a_label_closes_it(office: Office) -> None:
    office.work("mine.txt", LONG, NOBODY)
    remove(office.base, [office.path("mine.txt")])
    assert office.work("mine.txt", LONG, NOBODY) == [0, 0, 0, 0]  # an older version shows it
    assert office.work("mine.txt", LONG.replace("1. It", "2. It"), NOBODY) == [1, 1, 1, 3]  # one passage changed
    office.work("mine.txt", LONG, None, "hr")
    assert office.work("other.txt", LONG, NOBODY) == [1, 3, 1, 3]


def test_the_owner_reuses_all_work_and_is_told_of_open_copies(office: Office) -> None:
    office.work("hidden.txt", LONG, None, "hr")
    office.work("guess.txt", LONG, NOBODY)
    assert office.work("copy.txt", LONG, None) == [0, 0, 0, 0]
    assert {*office.report.open_copies} == {office.path("copy.txt"), office.path("guess.txt")}
    office.work("upload.txt", OTHER, NOBODY)
    assert office.work("closed.txt", OTHER, None, "hr") == [0, 0, 0, 0]
    assert {*office.report.open_copies} == {office.path("upload.txt")}
    with pytest.raises(TextIsElsewhere):
        purge(office.base, ["hidden.txt"])
    purge(office.base, ["hidden.txt"], copies=True)
    assert office.names() == ["closed.txt", "upload.txt"]
    assert b"The safe 1" not in office.all_bytes()


def test_a_run_that_begins_again_does_no_work_twice(office: Office) -> None:
    office.work("hidden.txt", LONG, HR, "hr")
    other, path = office.reopened(), office.write("more.txt", "The pier is long.")
    embedder = Interrupted(lambda: add(other, [path], HashEmbedder()))
    parsed, *_ = office.work("guess.txt", LONG, NOBODY, embedder=embedder)
    assert (parsed, embedder.texts_embedded) == (1, 3)
    other.close()


def test_a_page_is_shown_of_a_file_whose_text_was_stored_for_another(office: Office) -> None:
    ship = make_pdf([["The ship has two masts."]])
    office.work("theirs.pdf", ship, HR, "hr")
    assert office.work("ours.pdf", ship, None) == [0, 0, 0, 0]
    origin = office.base.content(office.path("ours.pdf"))
    assert origin is not None
    assert page_picture(office.path("ours.pdf"), origin, 1).startswith(b"\x89PNG")
