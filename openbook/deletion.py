"""Purging documents from wherever this machine has them: the knowledge base, caches, states of models, runs, diagnoses.

Afterwards every file below the folders in `PurgeTargets.roots` is looked at: it is deleted, or it was scanned and holds no trace
of the documents, or it is in the report as out of reach.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from openbook import __version__
from openbook.config import Settings
from openbook.diagnoses import OBSERVATIONS, PROBES, diagnoses_showing
from openbook.errors import KnowledgeBaseBusy
from openbook.files import (
    check_deletable,
    delete_folder,
    delete_left_over,
    is_unfinished,
    last_line_feed,
    storage_errors,
)
from openbook.inference.kv_cache import KVCache
from openbook.knowledge import KnowledgeBase
from openbook.knowledge.base import now
from openbook.knowledge.byte_search import TELLING, Needles
from openbook.knowledge.docs_cache import caches_holding, delete_caches
from openbook.knowledge.erasure import (
    PurgeResult,
    finish_purge,
    in_no_version,
    kind_of,
    purge,
    purge_is_unfinished,
    texts_of,
)
from openbook.knowledge.schema import FILE_NAME
from openbook.knowledge.write_lock import clear_unlocked
from openbook.locks import delete_abandoned, is_held
from openbook.models import ModelStore
from openbook.models.lineage import Membership, models_trained_on
from openbook.models.store import INCOMING, clear_leftovers
from openbook.receipts import LOG_FILE
from openbook.records import Digest, sha256_hex
from openbook.runs import CHECKPOINTS, LOCK, documents_holding
from openbook.signatures import DeletedCounts, PurgeProof, ScannedFiles, UnreachedPaths

_WEIGHTS = frozenset({".gguf", ".safetensors", ".onnx"})

Reason: TypeAlias = Literal["traces", "in use", "unreadable", "unknown", "link", "weights"]


@dataclass(frozen=True, slots=True)
class PurgeTargets:
    """Where traces of documents may be besides the knowledge base."""

    settings: Settings
    states: KVCache
    store: ModelStore

    @classmethod
    def of(cls, settings: Settings) -> PurgeTargets:
        return cls(settings, KVCache.of(settings), ModelStore(settings.models_dir))

    @property
    def roots(self) -> dict[Path, str]:
        """The folders whose every file is looked at, and what each is called."""
        at = self.settings
        states = {} if self.states.root is None else {self.states.root: "states"}
        others = {at.cache_dir: "cache", at.runs_dir: "runs", at.diagnoses_dir: "diagnoses"}
        return {at.home: "home", **states, **others, self.store.root: "models", at.uploads_dir: "uploads"}


@dataclass(frozen=True, slots=True)
class OutOfReach:
    """A file or folder that is neither deleted nor known to hold no trace. `advice`: what it is, and what to do."""

    reason: Reason
    path: Path
    advice: str


@dataclass(frozen=True, slots=True)
class PurgedEverywhere:
    """`texts`: digests of the documents' texts. `carried`: models that learned from them and cannot forget, and models of which
    nobody knows whether they did (`found` is None).
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
        """How many files and folders are out of reach, by the reason."""
        return dict(sorted(Counter(each.reason for each in self.out_of_reach).items()))

    @property
    def not_clean(self) -> list[OutOfReach]:
        """What is out of reach and may hold a trace. Weights do not count: `carried` says what a model learned."""
        return [each for each in self.out_of_reach if each.reason != "weights"]

    @property
    def proved(self) -> bool:
        return not self.not_clean


@dataclass(slots=True)
class _Derived:
    """What was derived from the documents. `passages`: those whose states are deleted; None: all states are.

    `run_documents`: the files that training runs learn from. `states` and `unfinished` count what is deleted so far.
    """

    texts: list[str]
    passages: set[Digest] | None
    caches: list[Path]
    run_documents: list[Path]
    diagnoses: list[Path]
    carried: list[Membership]
    states: int = 0
    unfinished: int = 0
    scanned: dict[str, ScannedFiles] = field(default_factory=dict)
    out_of_reach: list[OutOfReach] = field(default_factory=list)


def purge_everywhere(
    base: KnowledgeBase,
    documents: Sequence[str],
    targets: PurgeTargets,
    *,
    copies: bool = False,
    lock_timeout_s: float = 30.0,
) -> PurgedEverywhere:
    """`knowledge.purge`, and the same for what was derived elsewhere. `proved` in the result says whether nothing is left.

    One that is refused has deleted nothing. One that is killed goes on when it is run again: the documents leave the knowledge
    base last, because they tell what is to be looked for elsewhere. After that, `finish_purge_everywhere` does the rest.

    Raises as `purge` does, StorageError, KnowledgeBaseBusy while a diagnosis, a training run or --docs is under way.
    """
    derived: list[_Derived] = []

    def elsewhere() -> None:
        found = _find_derived(base, documents, targets)
        derived.append(found)
        _delete_derived(found, targets, lock_timeout_s)

    def afterwards(needles: Needles) -> None:
        _forget_states(derived[0], targets, lock_timeout_s)  # what models read of them in between
        _look_at_all(derived[0], targets, base.folder, needles)

    try:
        purged = purge(
            base, documents, copies=copies, lock_timeout_s=lock_timeout_s, elsewhere=elsewhere, afterwards=afterwards
        )
    except BaseException:
        # A model may have read them again meanwhile. If they are gone from the knowledge base, nobody would look for that later.
        for each in derived:
            _forget_states(each, targets, lock_timeout_s)
        raise
    (found,) = derived
    deleted = DeletedCounts(
        documents=len(purged.documents),
        passages=purged.passages,
        caches=len(found.caches),
        runs=len(found.run_documents),
        states=found.states,
        diagnoses=len(found.diagnoses),
        unfinished=found.unfinished,
    )
    here = [ScannedFiles("knowledge base", purged.files, purged.bytes)]
    if purged.objects:
        here.append(ScannedFiles("object storage", purged.objects, purged.object_bytes))
    return PurgedEverywhere(
        purged,
        tuple(sorted({sha256_hex(text.encode()) for text in found.texts})),
        deleted,
        tuple(found.carried),
        (*here, *(found.scanned[root_name] for root_name in sorted(found.scanned))),
        tuple(found.out_of_reach),
    )


def proof_of(done: PurgedEverywhere, base: KnowledgeBase) -> PurgeProof:
    """What can be shown to others: digests and counts, no name and no text."""
    return PurgeProof(
        openbook_version=__version__,
        time=now(),
        knowledge_base=base.id,
        knowledge_base_version=done.purged.version,
        paths=tuple(sorted(map(_path_digest, done.purged.documents))),
        texts=done.texts,
        deleted=done.deleted,
        scanned=done.scanned,
        out_of_reach=unreached_paths(done.out_of_reach),
        models_that_learned_it=tuple(sorted(each.model for each in done.carried if each.found)),
        store=kind_of(base),
        beyond_reach=done.purged.beyond_reach,
    )


def unreached_paths(out_of_reach: Iterable[OutOfReach]) -> tuple[UnreachedPaths, ...]:
    """As a proof names them: by digests."""
    unreached: dict[str, list[Digest]] = {}
    for each in out_of_reach:
        unreached.setdefault(each.reason, []).append(_path_digest(str(each.path)))
    return tuple(UnreachedPaths(reason, tuple(sorted(unreached[reason]))) for reason in sorted(unreached))


def _path_digest(path: str) -> Digest:
    return sha256_hex(path.encode("utf-8", "surrogateescape"))


def finish_purge_everywhere(base: KnowledgeBase, targets: PurgeTargets) -> bool:
    """Finish a purge that was killed when the documents were gone from all versions already. Returns whether there was one.

    Raises KnowledgeBaseBusy, StorageError.
    """
    if not purge_is_unfinished(base):
        return False
    with storage_errors(f"delete what models computed of purged documents in {targets.states.folder}"):
        targets.states.forget_again()
    _clear_unfinished(targets)
    finish_purge(base)
    return True


def clear_remnants(base: KnowledgeBase, targets: PurgeTargets, *, lock_timeout_s: float = 30.0) -> dict[str, int]:
    """Delete what interrupted runs left and no version refers to: how many of each, by a noun. Raises KnowledgeBaseBusy, StorageError."""
    cleared = {"unfinished file": _clear_unfinished(targets), "text": base.clear(lock_timeout_s)}
    with storage_errors(f"delete what models computed in {targets.states.folder}"):
        states = targets.states.forget(in_no_version(base, targets.states.passages()), lock_timeout_s)
    return {**cleared, "computed state": states}


# --- what was derived -------------------------------------------------------------------------------------------------


def _find_derived(base: KnowledgeBase, documents: Sequence[str], targets: PurgeTargets) -> _Derived:
    """Look for what was derived, and check that it can be deleted. Raises KnowledgeBaseBusy, StorageError."""
    at = targets.settings
    for lock in (*at.runs_dir.glob(f"*/{LOCK}"), *at.diagnoses_dir.glob("*/*.lock")):
        if is_held(lock):
            raise KnowledgeBaseBusy(
                f"Another process works in {lock.parent} and may hold the text of these documents. Wait for it, or end it, "
                "then purge again. Nothing is deleted yet."
            )
    texts, passages = texts_of(base, documents)
    caches = caches_holding(at.cache_dir, base, documents)
    # Passages that no version has any more may have been theirs, in a version that was pruned.
    passages |= in_no_version(base, targets.states.passages())
    found = _Derived(
        texts=texts,
        # The knowledge bases of --docs may have been split otherwise; then nothing says which states are of these texts.
        passages=None if caches else passages,
        caches=caches,
        run_documents=documents_holding(at.runs_dir, texts),
        diagnoses=diagnoses_showing(at.diagnoses_dir, texts),
        carried=models_trained_on(targets.store, texts),
    )
    checkpoints = [folder for path in found.run_documents if (folder := path.parent / CHECKPOINTS).exists()]
    for path in (*found.caches, *found.run_documents, *checkpoints, *found.diagnoses):
        with storage_errors(f"delete {path}"):
            check_deletable(path)
    return found


def _delete_derived(found: _Derived, targets: PurgeTargets, lock_timeout_s: float) -> None:
    """Delete what was found: states first, because the caches tell which those are. Raises StorageError."""
    _forget_states(found, targets, lock_timeout_s)
    with storage_errors(f"delete knowledge bases in {targets.settings.cache_dir}"):
        delete_caches(targets.settings.cache_dir, found.caches)
    for path in found.run_documents:  # without them the run cannot go on, and its checkpoints have learned from them
        with storage_errors(f"delete the documents in {path}"):
            if (path.parent / CHECKPOINTS).is_dir():
                delete_folder(path.parent / CHECKPOINTS)
            path.unlink(missing_ok=True)
    with storage_errors(f"delete diagnoses in {targets.settings.diagnoses_dir}"):
        for folder in found.diagnoses:
            delete_folder(folder)
    found.unfinished += _clear_unfinished(targets)


def _forget_states(found: _Derived, targets: PurgeTargets, lock_timeout_s: float) -> None:
    with storage_errors(f"delete what models computed of these documents in {targets.states.folder}"):
        found.states += targets.states.forget(found.passages, lock_timeout_s)


def _clear_unfinished(targets: PurgeTargets) -> int:
    """Delete what killed processes left half written or half deleted. Returns how many files and folders they were writing.

    A process that writes in a folder holds its lock, so nobody writes where it is free. `_look_at_all` reports what a
    living process is writing. Raises StorageError.
    """
    clear_leftovers(targets.store.root)
    at, cleared = targets.settings, 0
    with storage_errors(f"delete what killed processes left in {at.home}"):
        for parent in (at.cache_dir / "docs", at.diagnoses_dir, *at.runs_dir.glob("*")):
            delete_left_over(parent)
        roots = {root.resolve() for root in targets.roots}
        for root in (each for each in roots if roots.isdisjoint(each.parents)):
            cleared += sum(delete_abandoned(path) for path in root.rglob(".*") if is_unfinished(path))
        cleared += clear_unlocked(at.uploads_dir)  # an upload is there only while it is read
        cleared += clear_unlocked(at.runs_dir, ".*")
        for name in (OBSERVATIONS, PROBES):
            cleared += sum(map(_cut_off, at.diagnoses_dir.glob(f"*/{name}*.jsonl")))
    return cleared


def _cut_off(path: Path) -> bool:
    """Cut off what follows the last line feed: a part of a line, left by a killed process. Returns whether there was any."""
    with path.open("r+b") as stream:
        end = stream.seek(0, os.SEEK_END)
        whole = last_line_feed(stream, end) + 1
        if whole != end:
            stream.truncate(whole)
        return whole != end


# --- every file that is left ------------------------------------------------------------------------------------------


def _look_at_all(found: _Derived, targets: PurgeTargets, base_folder: Path, needles: Needles) -> None:
    """Every file but those of the knowledge base, which were scanned: scanned now, deleted, or out of reach."""
    at = targets.settings
    scanned, unreached = look_at_all(targets.roots, base_folder, targets, needles)
    found.scanned.update((each.place, each) for each in scanned)
    depths = {at.cache_dir: 2, at.diagnoses_dir: 1}  # of folders that go as a whole
    traced: dict[Path, set[Path]] = {root: set() for root in depths}
    for _ in _walk(base_folder, set(), found.out_of_reach):
        pass  # its files were scanned, but no folder that a link in it leads to
    with storage_errors(f"delete what holds traces in {at.home}"):
        for root, each in unreached:
            parts, depth = each.path.parts[len(root.parts) :], depths.get(root)
            if each.reason == "traces" and depth and len(parts) > depth:
                traced[root].add(root.joinpath(*parts[:depth]))
            elif each.reason == "unknown":
                each.path.unlink(missing_ok=True)
            else:
                found.out_of_reach.append(each)
        delete_caches(at.cache_dir, traced[at.cache_dir])
        for folder in traced[at.diagnoses_dir]:
            delete_folder(folder)
    found.caches += traced[at.cache_dir]
    found.diagnoses += traced[at.diagnoses_dir]


def look_at_all(
    roots: Mapping[Path, str], base_folder: Path, targets: PurgeTargets, needles: Needles
) -> tuple[list[ScannedFiles], list[tuple[Path, OutOfReach]]]:
    """(what holds no trace, by root; the root and what does or is out of reach) of every file below `roots`. Nothing is changed."""
    scanned, unreached = [], []
    for root, root_name in roots.items():
        sizes: list[int] = []
        beyond: list[OutOfReach] = []
        for path in _walk(root, {base_folder, *roots} - {root}, beyond):
            looked_at = _looked_at(path, root_name, targets, needles)
            if isinstance(looked_at, int):
                sizes.append(looked_at)
            elif looked_at is not None:
                beyond.append(looked_at)
        scanned.append(ScannedFiles(root_name, len(sizes), sum(sizes)))
        unreached += [(root, each) for each in beyond]
    return scanned, unreached


def _walk(root: Path, left_out: set[Path], out_of_reach: list[OutOfReach]) -> Iterator[Path]:
    """All files below `root`, but none in the folders `left_out`."""

    def unreadable(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            out_of_reach.append(_unreadable(Path(error.filename), error))

    for folder, names, files in os.walk(root, onerror=unreadable):
        here = Path(folder)
        names[:] = sorted(name for name in names if here / name not in left_out)
        for name in names:
            if (here / name).is_symlink():
                advice = (
                    "it leads to a folder elsewhere, which was not looked at. Look there yourself, or delete the link."
                )
                out_of_reach.append(OutOfReach("link", here / name, advice))
        yield from (here / name for name in sorted(files))


def _looked_at(path: Path, root_name: str, targets: PurgeTargets, needles: Needles) -> int | OutOfReach | None:
    """How many bytes were scanned, or why it is out of reach; None where there is no file with bytes."""
    writing = "another process is writing it. When that is done, look at it, or delete it."
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a named pipe or a socket keeps no bytes
            return None
        if path.suffix in _WEIGHTS and root_name in ("models", "runs"):
            advice = "it holds a model's numbers, in which no text can be found. Whether it has learned from them is reported apart."
            return OutOfReach("weights", path, advice)
        if path.suffix == ".state" and root_name == "states":
            if targets.states.is_known(path):
                return path.stat().st_size
            return OutOfReach("unknown", path, "nobody knows what it was read from. The next purge deletes it.")
        is_incoming = root_name == "models" and path.relative_to(targets.store.root).parts[0].startswith(INCOMING)
        if is_incoming or is_unfinished(path) or (path.suffix == ".new" and root_name == "states"):
            return OutOfReach("in use", path, writing)
        if path.name.endswith((".lock", ".building")) and root_name not in ("home", "models") and is_held(path):
            return OutOfReach("in use", path.parent, writing)
        at, size = needles.find_in(path, TELLING)
    except FileNotFoundError:
        return None
    except OSError as error:
        return _unreadable(path, error)
    if at is None:
        return size
    return OutOfReach("traces", path, f"a trace is in it, from byte {at} on. {_advice(path, root_name)}")


def _unreadable(path: Path, error: OSError) -> OutOfReach:
    return OutOfReach("unreadable", path, f"it cannot be read: {error.strerror or error}. Look at it yourself.")


def _advice(path: Path, root_name: str) -> str:
    """What a file with traces is, and what to do about it."""
    if path.name == LOG_FILE:
        return "It is a log of receipts, which can only grow: delete it, or keep what it tells of them."
    if root_name == "knowledge base":
        return "It is of this knowledge base: purge the documents with this text."
    for folder in path.parents:
        if (folder / FILE_NAME).exists():
            return f"It belongs to another knowledge base: purge them there too, with --kb {folder}"
    if root_name == "runs":
        return "It is of a training run: delete the run's folder."
    if root_name == "diagnoses":
        return "Delete the diagnosis's folder."
    return "No purge deletes this file: look at it, then delete it or move it elsewhere."
