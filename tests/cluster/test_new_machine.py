"""A new machine of a cluster builds its index from the rows and finds what the others find."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from openbook.core.config import DatabaseUrl
from openbook.knowledge import KnowledgeBase, purge
from openbook.knowledge.store.schema import FILE_NAME
from openbook.knowledge.store.sqlite import SqliteStore
from openbook.testing import HashEmbedder
from tests.conftest import base_with
from tests.knowledge.conftest import bytes_below, vectors_of

DOCS = {f"{n}.txt": f"Pier {n} has {n + 3} lights. The ferry to island {n} leaves at {n + 6}." for n in range(6)}
QUESTIONS = ("ferry to island 3", "pier with 5 lights", "nothing of this")


def check_finds_the_same_and_follows_a_purge(base: KnowledgeBase, other: KnowledgeBase, embedder: HashEmbedder) -> None:
    assert [other.search(each, embedder) for each in QUESTIONS] == [base.search(each, embedder) for each in QUESTIONS]
    assert (other.folder / "derived" / "index" / "state.json").is_file()
    (vector,) = vectors_of(base, "Pier 3")
    assert vector in bytes_below(other.folder / "derived")
    purge(base, ["3.txt"])
    assert vector not in bytes_below(base.folder / "derived")
    assert all("Pier 3" not in hit.passage.text for hit in other.search(QUESTIONS[0], embedder)[1])
    assert vector not in bytes_below(other.folder / "derived")


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
            check_finds_the_same_and_follows_a_purge(base, other, embedder)


def test_so_it_is_in_postgresql(
    new_postgres_url: str, tmp_path: Path, embedder: HashEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = DatabaseUrl(new_postgres_url)
    with closing(base_with(tmp_path, DOCS, embedder, place)) as base:
        monkeypatch.setenv("OPENBOOK_HOME", str(tmp_path / "other-home"))
        with closing(KnowledgeBase.open(place)) as other:
            assert other.folder != base.folder
            check_finds_the_same_and_follows_a_purge(base, other, embedder)
