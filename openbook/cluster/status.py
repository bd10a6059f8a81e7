"""Pending work in a cluster: derived indexes, vectors, purges, Ray's nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from openbook.cluster.connection import ray_module
from openbook.knowledge.index.cache import kept_contents
from openbook.knowledge.index.segment_set import SegmentSet
from openbook.knowledge.store import schema

if TYPE_CHECKING:
    from openbook.knowledge import KnowledgeBase

_WITHOUT_VECTOR = (
    "SELECT count(*) FROM passages p LEFT JOIN embeddings e ON e.embedding_key = p.embedding_key "
    "WHERE p.content_id IN (SELECT DISTINCT content_id FROM documents) AND e.embedding_key IS NULL"
)


@dataclass(frozen=True, slots=True)
class BaseStatus:
    """A knowledge base's state and pending work.

    `unindexed`: texts of kept versions in no saved segment; each searching process indexes them itself.
    `without_vectors`: passages found by words only.
    """

    version: int
    documents: int
    passages: int
    unindexed: int
    without_vectors: int
    unfinished: tuple[str, ...]

    @property
    def behind(self) -> tuple[str, ...]:
        """One sentence each."""
        found = []
        if self.unindexed:
            texts = f"{self.unindexed:,} texts are in no saved segment."
            found.append(f"{texts} The next sync, or any other change, saves them.")
        if self.without_vectors:
            found.append(
                f"{self.without_vectors:,} passages have no vector: the knowledge base is damaged. Restore it from a backup, or "
                "change the embedder: openbook reembed OTHER_EMBEDDER"
            )
        found += [f"A {what} was interrupted. Run it again." for what in self.unfinished]
        return tuple(found)


@dataclass(frozen=True, slots=True)
class RayStatus:
    nodes: int
    dead_nodes: int
    cpus: float


def unfinished(meta: Mapping[str, str]) -> tuple[str, ...]:
    """Interrupted commands, as noted in `meta`."""
    of = {"purging": "purge", "purging_elsewhere": "purge", "reembedding": "reembed"}
    return tuple(dict.fromkeys(command for key, command in of.items() if key in meta))


def status_of_base(base: KnowledgeBase) -> BaseStatus:
    with base.snapshot() as connection:
        kept = kept_contents(connection)
        saved = SegmentSet.open(base.indexes.folder, base.indexes.source(connection), np.empty(0, np.int64))
        (without_vectors,) = connection.execute(_WITHOUT_VECTOR).fetchone()
        interrupted = unfinished(schema.meta(connection))
        found = base.status()
    unindexed = len(np.setdiff1d(kept, saved.contents()))
    return BaseStatus(found.version, found.documents, found.passages, unindexed, without_vectors, interrupted)


def status_of_ray() -> RayStatus:
    """For the joined cluster."""
    nodes = ray_module().nodes()
    living = [node for node in nodes if node["Alive"]]
    return RayStatus(len(living), len(nodes) - len(living), sum(node["Resources"].get("CPU", 0.0) for node in living))
