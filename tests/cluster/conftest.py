"""Servers on this machine, one of each a session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from openbook.cluster.local_object_store import start_object_store, stop_object_store


@pytest.fixture(scope="session")
def object_store_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An empty bucket. Each test has a prefix of its own in it."""
    folder = tmp_path_factory.mktemp("object-store")
    try:
        yield start_object_store(folder)
    finally:
        stop_object_store(folder)
