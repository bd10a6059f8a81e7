"""A knowledge base in a folder keeps the laws of every store. Names of places and documents."""

from __future__ import annotations

from pathlib import Path

import pytest

from openbook.core.config import DatabaseUrl, Place
from openbook.core.errors import ConfigError, KnowledgeError
from openbook.knowledge.store.names import resolve
from openbook.knowledge.store.sqlite import store_of
from tests.conformance.stores import StoreSuite


class TestFolder(StoreSuite):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder, self.made = tmp_path, 0

    def make_place(self) -> Place:
        self.made += 1
        return self.folder / f"kb{self.made}"


def test_an_unknown_database_is_named_without_its_password() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'postgresql'") as raised:
        store_of(DatabaseUrl("postgresq://user:canary@host/name"))
    assert "canary" not in str(raised.value)
    assert "user@host" in str(raised.value)


def test_a_document_is_named_by_path_folder_or_the_end_of_one_path() -> None:
    paths = ["/x/a.txt", "/x/deep/a.txt", "/x/deep/b.txt"]
    for name, meant in (("/x/a.txt", paths[:1]), ("/x/deep/", paths[1:]), ("b.txt", paths[2:])):
        assert resolve(paths, name) == meant
    refused = (("a.txt", "2 documents end in"), ("bb.txt", r"Did you mean 'b\.txt'"), (" \n", "The name .* is empty"))
    for name, says in refused:
        with pytest.raises(KnowledgeError, match=says):
            resolve(paths, name)
