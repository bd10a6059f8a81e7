"""A knowledge base in PostgreSQL does what one in a folder does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from openbook.config import DatabaseUrl, Place
from openbook.testing import StoreSuite
from tests.cluster.conftest import new_database


class TestPostgres(StoreSuite):
    @pytest.fixture(autouse=True)
    def _server(self, postgres_url: str) -> Iterator[None]:
        self.url = postgres_url
        with ExitStack() as self.databases:
            yield

    def make_place(self) -> Place:
        return DatabaseUrl(self.databases.enter_context(new_database(self.url)))
