"""Purge documents from everything that this machine keeps.

Derived folders are deleted whole; uploaded PDFs unless a version of the knowledge base holds them; runs and diagnoses if
they hold a trace. Afterwards every file of the home and the
knowledge base was scanned and holds no trace, or the report lists it as out of reach.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from openbook import __version__
from openbook.core.config import Settings
from openbook.core.derived import UPLOADS, DerivedFolder
from openbook.core.errors import KnowledgeBaseBusy, StorageError
from openbook.core.files import check_deletable, delete, delete_left_over, is_unfinished, storage_errors
from openbook.core.locks import delete_abandoned, is_held
from openbook.core.records import Digest, sha256_hex
from openbook.knowledge import KnowledgeBase
from openbook.knowledge.byte_search import Needles
from openbook.knowledge.erasure import PurgeResult, finish_purge, kind_of, purge, purge_is_unfinished
from openbook.knowledge.store.schema import FILE_NAME
from openbook.knowledge.store.version_rows import now
from openbook.knowledge.store.write_lock import clear_unlocked
from openbook.models import ModelStore
from openbook.models.lineage import Membership, models_trained_on
from openbook.models.runs import CHECKPOINTS, DOCUMENTS
from openbook.models.store import clear_leftovers
from openbook.proofs.absence import OutOfReach, look_at, look_at_all, path_digest, roots, unheld, unreached_paths, walk
from openbook.proofs.signatures import DeletedCounts, PurgeProof, ScannedFiles


@dataclass(frozen=True, slots=True)
class PurgedEverywhere:
    """`texts`: digests of the documents' texts. `carried`: models that learned from them and cannot forget, and models
    for which this is unknown (`found` is None).
    """

    purged: PurgeResult
    texts: tuple[Digest, ...]
    deleted: DeletedCounts
    carried: tuple[Membership, ...]
    scanned: tuple[ScannedFiles, ...]
    out_of_reach: tuple[OutOfReach, ...]

    @property
    def files(self) -> int:
        return sum(each.files for each in self.scanned)

    @property
    def bytes(self) -> int:
        return sum(each.bytes for each in self.scanned)

    @property
    def unreached(self) -> dict[str, int]:
        return dict(sorted(Counter(each.reason for each in self.out_of_reach).items()))

    @property
    def not_clean(self) -> list[OutOfReach]:
        """Paths out of reach that may hold a trace. Weights do not count: see `carried`."""
        return [each for each in self.out_of_reach if each.reason != "weights"]

    @property
    def proved(self) -> bool:
        return not self.not_clean


def purge_everywhere(
    base: KnowledgeBase,
    documents: Sequence[str],
    settings: Settings,
    *,
    copies: bool = False,
    lock_timeout_s: float = 30.0,
) -> PurgedEverywhere:
    """`knowledge.purge`, extended to everything derived elsewhere. `proved` of the result says whether all is gone.

    A refused purge has deleted nothing. Run a killed purge again: documents leave the knowledge base last, because they
    tell what to look for. If they are already gone, `finish_purge_everywhere` does the rest.

    Raises as `purge` does, and KnowledgeBaseBusy during a diagnosis, a training run or --docs.
    """
    counts: dict[str, int] = {}
    digests: set[Digest] = set()
    carried: list[Membership] = []
    scanned: list[ScannedFiles] = []
    out_of_reach: list[OutOfReach] = []

    def elsewhere(needles: Needles, texts: list[str]) -> None:
        carried.extend(models_trained_on(ModelStore(settings.models_dir), texts))
        digests.update(sha256_hex(text.encode()) for text in texts)
        counts.update(_delete_elsewhere(settings, needles))

    def afterwards(needles: Needles) -> None:
        derived.change_mark()
        _delete_unheld(base, settings.derived_dir / UPLOADS)
        found, unreached = look_at_all(roots(settings), base.folder, needles)
        scanned.extend(found)
        out_of_reach.extend(unreached)
        for _ in walk(base.folder, set(), out_of_reach):
            pass  # counts nothing: reports links in the folder, whose files are already scanned

    # Until the scan is done, no other process writes to the derived folder, or keeps what it computes meanwhile.
    with _purging(settings, lock_timeout_s) as derived:
        purged = purge(
            base, documents, copies=copies, lock_timeout_s=lock_timeout_s, elsewhere=elsewhere, afterwards=afterwards
        )
    here = [ScannedFiles("knowledge base", purged.files, purged.bytes)]
    deleted = DeletedCounts(documents=len(purged.documents), passages=purged.passages, **counts)
    scanned.sort(key=lambda each: each.place)
    return PurgedEverywhere(
        purged, tuple(sorted(digests)), deleted, tuple(carried), (*here, *scanned), tuple(out_of_reach)
    )


def proof_of(done: PurgedEverywhere, base: KnowledgeBase) -> PurgeProof:
    """The proof to show to others: digests and counts, no names, no text."""
    return PurgeProof(
        openbook_version=__version__,
        time=now(),
        knowledge_base=base.id,
        knowledge_base_version=done.purged.version,
        paths=tuple(sorted(map(path_digest, done.purged.documents))),
        texts=done.texts,
        deleted=done.deleted,
        scanned=done.scanned,
        out_of_reach=unreached_paths(done.out_of_reach),
        models_that_learned_it=tuple(sorted(each.model for each in done.carried if each.found)),
        store=kind_of(base),
        beyond_reach=done.purged.beyond_reach,
    )


def finish_purge_everywhere(base: KnowledgeBase, settings: Settings, *, lock_timeout_s: float = 30.0) -> bool:
    """Finish a purge that was killed after the documents left all versions. False if there was none."""
    if not purge_is_unfinished(base):
        return False
    with _purging(settings, lock_timeout_s) as derived:
        for each in _derived(settings):
            delete(each)
        _delete_unheld(base, settings.derived_dir / UPLOADS)
        _clear_unfinished(settings)
        derived.change_mark()
        finish_purge(base)
    return True


def clear_remnants(base: KnowledgeBase, settings: Settings, *, lock_timeout_s: float = 30.0) -> dict[str, int]:
    """Delete what interrupted runs left and no version refers to. Returns counts by kind."""
    cleared = {"unfinished file": _clear_unfinished(settings), "text": base.clear(lock_timeout_s)}
    return {**cleared, "kept upload": _delete_unheld(base, settings.derived_dir / UPLOADS / base.id)}


def _delete_unheld(base: KnowledgeBase, uploads: Path) -> int:
    """Delete PDFs that no version of `base` holds, so also those of other knowledge bases: a packed file hides its text."""
    doomed = unheld(base, uploads)
    for path in doomed:
        with storage_errors(f"delete {path}"):
            path.unlink(missing_ok=True)
    return len(doomed)


@contextmanager
def _purging(settings: Settings, lock_timeout_s: float) -> Iterator[DerivedFolder]:
    derived = DerivedFolder(settings.derived_dir)
    with storage_errors(f"purge {derived.path}"), derived.purging(lock_timeout_s):
        yield derived


def _derived(settings: Settings) -> list[Path]:
    contents = DerivedFolder(settings.derived_dir).contents()
    return [each for each in contents if each.name != UPLOADS]


def _delete_elsewhere(settings: Settings, needles: Needles) -> dict[str, int]:
    """Delete derived data, and runs and diagnoses that hold a trace. Returns fields of `DeletedCounts`.

    If it raises, as a rule nothing is deleted.
    """
    for lock in (*settings.runs_dir.glob("*/.*lock"), *settings.diagnoses_dir.glob("*/.*lock")):
        if is_held(lock):
            raise KnowledgeBaseBusy(
                f"Another process works in {lock.parent} and may hold the text of these documents. Wait for it, or end it, "
                "then purge again. Nothing is deleted yet."
            )
    derived = _derived(settings)
    names = Counter(path.name if path.suffix != ".state" else ".state" for each in derived for path in each.rglob("*"))
    runs = [path for run in sorted(settings.runs_dir.glob("*/")) if _holds(path := run / DOCUMENTS, needles)]
    diagnoses = [path for path in sorted(settings.diagnoses_dir.glob("[!.]*/")) if _holds(path, needles)]
    # A run cannot continue without its documents, and its checkpoints have learned from them.
    checkpoints = [folder for path in runs if (folder := path.parent / CHECKPOINTS).exists()]
    doomed = [*derived, *runs, *checkpoints, *diagnoses]
    for path in (*doomed, settings.derived_dir / UPLOADS):
        with storage_errors(f"delete {path}"):
            check_deletable(path)
    for path in doomed:
        with storage_errors(f"delete {path}"):
            delete(path)
    return {
        "caches": names[FILE_NAME],
        "states": names[".state"],
        "runs": len(runs),
        "diagnoses": len(diagnoses),
        "unfinished": _clear_unfinished(settings),
    }


def _holds(path: Path, needles: Needles) -> bool:
    beyond: list[OutOfReach] = []
    for file in walk(path, set(), beyond) if path.is_dir() else [path]:
        looked_at = look_at(file, "", needles)
        beyond += [looked_at] if isinstance(looked_at, OutOfReach) else []
    for each in beyond:
        if each.reason == "unreadable":
            raise StorageError(f"Cannot look through {each.path}: {each.advice} Nothing is deleted yet.")
    return any(each.reason == "traces" for each in beyond)


def _clear_unfinished(settings: Settings) -> int:
    """Delete files that killed processes left half written or half deleted. Returns the number of half-written ones.

    Writers hold their folder's lock, so a free lock means no writer.
    """
    clear_leftovers(settings.models_dir)
    cleared = 0
    with storage_errors(f"delete what killed processes left in {settings.home}"):
        others = (settings.home, settings.home / "cache", settings.derived_dir, settings.diagnoses_dir)
        for parent in (*others, *settings.runs_dir.glob("*")):
            delete_left_over(parent)
        folders = {root.resolve() for root in roots(settings)}
        for root in (each for each in folders if folders.isdisjoint(each.parents)):
            cleared += sum(delete_abandoned(path) for path in root.rglob(".*") if is_unfinished(path))
        cleared += clear_unlocked(settings.uploads_dir)  # an upload is only there while it is read
        cleared += clear_unlocked(settings.runs_dir, ".*")
    return cleared
