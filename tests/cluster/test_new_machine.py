"""A new machine of a cluster builds its index from the rows and finds what the others find."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from openbook.knowledge import KnowledgeBase, purge
from openbook.knowledge.store.schema import FILE_NAME
from openbook.knowledge.store.sqlite import SqliteStore
from openbook.testing import HashEmbedder
from tests.conftest import base_with
from tests.knowledge.conftest import bytes_below, vectors_of

DOCS = {f"{n}.txt": f"Pier {n} has {n + 3} lights. The ferry to island {n} leaves at {n + 6}." for n in range(6)}
QUESTIONS = ("ferry to island 3", "pier with 5 lights", "nothing of this")


def test_it_finds_the_same_from_an_index_of_its_own_and_follows_a_purge(
    tmp_path: Path, embedder: HashEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder stands for the database; the other machine's folder links to its rows alone."""
    monkeypatch.setattr(SqliteStore, "is_shared", True)
    with closing(base_with(tmp_path, DOCS, embedder)) as base:
        machine = tmp_path / "machine"
        machine.mkdir()
        (machine / FILE_NAME).symlink_to(base.folder / FILE_NAME)
        with closing(KnowledgeBase.open(machine)) as other:
            assert [other.search(each, embedder) for each in QUESTIONS] == [
                base.search(each, embedder) for each in QUESTIONS
            ]
            assert (machine / "derived" / "index" / "state.json").is_file()
            (vector,) = vectors_of(base, "Pier 3")
            assert vector in bytes_below(machine / "derived")
            purge(base, ["3.txt"])
            assert all("Pier 3" not in hit.passage.text for hit in other.search(QUESTIONS[0], embedder)[1])
            assert vector not in bytes_below(machine / "derived")
