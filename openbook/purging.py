"""Purging documents from wherever this machine has them: the knowledge base, caches, states of models, runs, diagnoses."""

from __future__ import annotations

import json
import shutil
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

_OPINIONS = "opinions-"  # of the names of files with what a judge said of a diagnosis's answers


@dataclass(frozen=True, slots=True)
class Places:
    """Where traces of documents may be besides the knowledge base."""

    cache: Path
    runs: Path
    diagnoses: Path
    states: States
    store: ModelStore


@dataclass(frozen=True, slots=True)
class PurgedEverywhere:
    """`caches`, `states` and `diagnoses` that were deleted. `carried`: models that have learned from the documents, and cannot forget."""

    purged: Purged
    caches: int
    states: int
    diagnoses: int
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
    diagnoses = drop_diagnoses(places.diagnoses, texts)
    purged = purge(base, documents, copies=copies, lock_timeout_s=lock_timeout_s)
    with storage_errors(doing):
        forgotten += places.states.forget(computed)  # what was read of them in between
    return PurgedEverywhere(purged, dropped, forgotten, diagnoses, tuple(carried))


def drop_diagnoses(folder: Path, texts: Sequence[str]) -> int:
    """Delete the diagnoses in `folder` that show a passage of one of the texts, or cannot be read. How many.

    One with probes is deleted too: their answers may come from any passage, and they do not say from which. What a judge said is
    of answers in the observations beside it. Raises StorageError.
    """
    dropped = 0
    for place in sorted(folder.iterdir()) if folder.is_dir() else []:
        files = [path for path in place.glob("*.jsonl") if not path.name.startswith(_OPINIONS)]
        if any(_shows(path, texts) for path in files):
            with storage_errors(f"delete the diagnosis in {place}"):
                shutil.rmtree(place)
            dropped += 1
    return dropped


def _shows(path: Path, texts: Sequence[str]) -> bool:
    """Whether a file of observations (docs/formats/diagnosis.md) holds a passage of one of the texts."""
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream):
                passages = json.loads(line)["passages"] if number and line.endswith(b"\n") else ()
                if any(passage["text"] in text for passage in passages for text in texts):
                    return True
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return True
    return False
