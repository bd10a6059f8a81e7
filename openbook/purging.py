"""Purging documents from wherever this machine has them: the knowledge base, caches, states of models, runs, diagnoses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from openbook.inference.states import States
from openbook.knowledge import KnowledgeBase
from openbook.knowledge.cached import drop, holding
from openbook.knowledge.forgetting import Purged, finish_purge, interrupted, passage_digests, purge, texts_of
from openbook.models import ModelStore
from openbook.models.durable import check_deletable, delete_folder, delete_left_over, storage_errors
from openbook.models.lineage import Learned, carrying
from openbook.records import Digest
from openbook.runs import documents_holding

_OPINIONS = "opinions-"  # of the names of files with what a judge said of a diagnosis's answers
_NUMBERS = "diagnosis.json"
_MOST_NUMBERS_BYTES = 1 << 27  # some 500,000 questions of two models; what is larger is not looked through


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


@dataclass(frozen=True, slots=True)
class _Derived:
    """What stands elsewhere. `passages` whose states go; None: all states."""

    passages: set[Digest] | None
    caches: list[Path]
    documents: list[Path]
    diagnoses: list[Path]
    carried: list[Learned]


def purge_everywhere(
    base: KnowledgeBase, documents: Sequence[str], places: Places, *, copies: bool = False, lock_timeout_s: float = 30.0
) -> PurgedEverywhere:
    """`knowledge.purge`, and the same for what was derived elsewhere.

    One that is refused has deleted nothing. One that is killed goes on when it is run again: the documents leave the knowledge
    base last, because they tell what is to be looked for elsewhere. After that, `finish` does the rest.

    Raises as `purge` does, StorageError.
    """
    derived: list[_Derived] = []
    states = 0

    def elsewhere() -> None:
        nonlocal states
        found = _derived(base, documents, places)
        derived.append(found)
        states = _delete(found, places)

    try:
        purged = purge(base, documents, copies=copies, lock_timeout_s=lock_timeout_s, elsewhere=elsewhere)
    finally:
        for each in derived:  # what was read of them in between
            states += _forget(each, places)
    (found,) = derived
    dropped = len(found.caches) + len(found.documents)
    return PurgedEverywhere(purged, dropped, states, len(found.diagnoses), tuple(found.carried))


def finish(base: KnowledgeBase, places: Places, *, lock_timeout_s: float = 30.0) -> bool:
    """Do what a purge that was killed after the documents had left all versions left to do; whether there was one.

    Raises KnowledgeBaseBusy, StorageError.
    """
    if not interrupted(base):
        return False
    with storage_errors(f"delete what models computed of purged documents in {places.states.folder}"):
        places.states.forget_again()
    return finish_purge(base, lock_timeout_s=lock_timeout_s)


def _derived(base: KnowledgeBase, documents: Sequence[str], places: Places) -> _Derived:
    """Look for it, and whether it can be deleted. Raises StorageError."""
    texts = texts_of(base, documents)
    caches = holding(places.cache, base, documents)
    found = _Derived(
        # The knowledge bases of --docs may have been split otherwise; then nothing says which states are of these texts.
        passages=None if caches else passage_digests(base, documents),
        caches=caches,
        documents=documents_holding(places.runs, texts),
        diagnoses=diagnoses_showing(places.diagnoses, texts),
        carried=carrying(places.store, texts),
    )
    for path in (*found.caches, *found.documents, *found.diagnoses):
        with storage_errors(f"delete {path}"):
            check_deletable(path)
    return found


def _delete(found: _Derived, places: Places) -> int:
    """Delete it: states first, because the caches tell which those are. How many states. Raises StorageError."""
    states = _forget(found, places)
    with storage_errors(f"delete knowledge bases in {places.cache}"):
        drop(places.cache, found.caches)
    for path in found.documents:
        with storage_errors(f"delete the documents in {path}"):
            path.unlink(missing_ok=True)
    with storage_errors(f"delete diagnoses in {places.diagnoses}"):
        for folder in found.diagnoses:
            delete_folder(folder)
        delete_left_over(places.diagnoses)
    return states


def _forget(found: _Derived, places: Places) -> int:
    with storage_errors(f"delete what models computed of these documents in {places.states.folder}"):
        return places.states.forget(found.passages)


def diagnoses_showing(folder: Path, texts: Sequence[str]) -> list[Path]:
    """The diagnoses (their folders) in `folder` that show a passage of one of the texts, or cannot be read.

    One with probes is among them: their answers may come from any passage, and they do not say from which. What a judge said is
    of answers in the observations beside it.
    """
    found = []
    for place in sorted(folder.glob("[!.]*")):
        files = [path for path in place.glob("*.jsonl") if not path.name.startswith(_OPINIONS)]
        if _holds_probes(place / _NUMBERS) or any(_shows(path, texts) for path in files):
            found.append(place)
    return found


def _holds_probes(path: Path) -> bool:
    """Whether the numbers of a diagnosis (docs/formats/diagnosis.md) hold those of probes, with their answers."""
    try:
        if path.stat().st_size > _MOST_NUMBERS_BYTES:
            return True
        return any(model.get("probes") for model in json.loads(path.read_bytes())["models"])
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return True


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
