"""Stores by place: a folder or the URL of a database."""

from __future__ import annotations

import pkgutil
from pathlib import Path

from openbook.core.config import Place
from openbook.core.errors import ConfigError, did_you_mean, needs_extra
from openbook.knowledge.store.interface import Store

# Databases by the scheme of their URL. Their clients are in the extra `cluster`.
_DATABASES = {
    "postgresql": "openbook.cluster.postgres:PostgresStore",
    "postgres": "openbook.cluster.postgres:PostgresStore",
}


def store_of(place: Place) -> Store:
    """The store of a folder or a URL, unopened. Raises ConfigError for an unknown URL or a missing client."""
    if isinstance(place, Path):
        from openbook.knowledge.store.sqlite import SqliteStore

        return SqliteStore(place)
    if place.scheme not in _DATABASES:
        raise ConfigError(
            f"{place} is not a place for a knowledge base: {place.scheme!r} is not a database that OpenBook knows."
            f"{did_you_mean(place.scheme, _DATABASES)} Give a folder, or a URL such as postgresql://host/name."
        )
    with needs_extra(str(place), "cluster"):
        found: Store = pkgutil.resolve_name(_DATABASES[place.scheme])(place)
    return found
