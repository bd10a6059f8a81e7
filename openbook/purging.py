"""Purging documents from wherever this machine has them: the knowledge base, caches, states of models, stopped runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from openbook.inference.states import States
from openbook.knowledge import KnowledgeBase
from openbook.knowledge.cached import drop_holding
from openbook.knowledge.forgetting import Purged, passage_digests, purge, texts_of
from openbook.models import ModelStore
from openbook.models.durable import storage_errors
from openbook.models.lineage import Learned, carrying
from openbook.runs import drop_documents


@dataclass(frozen=True, slots=True)
class Places:
    """Where traces of documents may be besides the knowledge base."""

    cache: Path
    runs: Path
    states: States
    store: ModelStore


@dataclass(frozen=True, slots=True)
class PurgedEverywhere:
    """`caches` and `states` that were deleted. `carried`: models that have learned from the documents, and cannot forget."""

    purged: Purged
    caches: int
    states: int
    carried: tuple[Learned, ...]


def purge_everywhere(
    base: KnowledgeBase, documents: Sequence[str], places: Places, *, copies: bool = False, lock_timeout_s: float = 30.0
) -> PurgedEverywhere:
    """`knowledge.purge`, and the same for what was derived elsewhere. Raises as `purge` does, StorageError."""
    dropped = drop_holding(places.cache, base, documents)
    doing = f"delete what models computed of these documents in {places.states.folder}"
    with storage_errors(doing):
        # The knowledge bases of --docs may have been split otherwise; then nothing says which states are of these texts.
        computed = None if dropped else passage_digests(base, documents)
        forgotten = places.states.forget(computed)
    texts = texts_of(base, documents)
    carried = carrying(places.store, texts)
    dropped += drop_documents(places.runs, texts)
    purged = purge(base, documents, copies=copies, lock_timeout_s=lock_timeout_s)
    with storage_errors(doing):
        forgotten += places.states.forget(computed)  # what was read of them in between
    return PurgedEverywhere(purged, dropped, forgotten, tuple(carried))
