"""A new machine of a cluster builds its index from the rows, finds what the others find and follows a purge."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from openbook.core.config import DatabaseUrl
from openbook.knowledge import KnowledgeBase, purge
from openbook.testing import HashEmbedder
from tests.conftest import base_with
from tests.knowledge.conftest import bytes_below, vectors_of

DOCS = {f"{n}.txt": f"Pier {n} has {n + 3} lights. The ferry to island {n} leaves at {n + 6}." for n in range(6)}
QUESTIONS = ("ferry to island 3", "pier with 5 lights", "nothing of this")


def test_new_machine_finds_the_same_and_follows_a_purge(
    new_postgres_url: str, tmp_path: Path, embedder: HashEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = DatabaseUrl(new_postgres_url)
    with closing(base_with(tmp_path, DOCS, embedder, place)) as base:
        monkeypatch.setenv("OPENBOOK_HOME", str(tmp_path / "other-home"))
        with closing(KnowledgeBase.open(place)) as other:
            assert other.folder != base.folder
            found = [[each.search(question, embedder) for question in QUESTIONS] for each in (base, other)]
            assert found[0] == found[1]
            assert (other.folder / "derived" / "index" / "state.json").is_file()
            (vector,) = vectors_of(base, "Pier 3")
            assert vector in bytes_below(other.folder / "derived")
            purge(base, ["3.txt"])
            assert vector not in bytes_below(base.folder / "derived")
            assert all("Pier 3" not in hit.passage.text for hit in other.search(QUESTIONS[0], embedder)[1])
            assert vector not in bytes_below(other.folder / "derived")
