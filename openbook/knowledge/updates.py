"""Changes to a knowledge base: `add` files, `sync` folders, `remove` documents, `reembed` all. Each makes one version.

Every run finds, ingests, embeds, commits, and refreshes the indexes. The last version survives interruption.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from openbook.core.errors import ConfigError, KnowledgeError, OpenBookError, SourceError
from openbook.core.parallel import StagedProgress
from openbook.core.records import Embedder, Verdict
from openbook.knowledge.base import KnowledgeBase, embedder_json
from openbook.knowledge.index.cache import kept_contents
from openbook.knowledge.ingest.contents import FileBatch, Ingest, LiveDocument, RunOptions, by_source, live_documents
from openbook.knowledge.ingest.discovery import FoundFile, Rules, SyncedFolder, check_exists, discover
from openbook.knowledge.ingest.embeddings import embed_missing
from openbook.knowledge.ingest.fetch import FetchResult, fetch
from openbook.knowledge.ingest.long_run import TABLE, LongRun, in_slices
from openbook.knowledge.store import schema
from openbook.knowledge.store.identities import Change, RunChanges, follow_renames, identities, waiting_names
from openbook.knowledge.store.interface import Connection, Writer
from openbook.knowledge.store.names import display_path, resolve
from openbook.knowledge.store.schema import IDS, NEXT_TABLE
from openbook.knowledge.store.version_rows import add_version, apply_retention, now, version_transaction, write_version
from openbook.knowledge.store.write_lock import LOCK_TIMEOUT_S
from openbook.knowledge.synced_folders import folder_labels, synced_folders
from openbook.parsers.files import IMAGE
from openbook.parsers.ocr import ocr_engine
from openbook.sources.registry import is_address

LiveDocuments: TypeAlias = dict[str, LiveDocument]  # documents of the newest version, by path, in their order
FindBatches: TypeAlias = Callable[[LiveDocuments], Sequence[FileBatch]]


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a run. `version` is the newest one, also when nothing changed.

    `characters` of the `source_characters` in the files were read (markup counts if it is part of the text). `taken_over`: labels of lost
    documents, by the new documents that now carry them, since each may be a renamed one. `unlabelled_copies`: unlabeled documents with the text
    of a labeled one, if this run added or changed either.
    """

    version: int
    verdicts: tuple[Verdict, ...]
    passages_embedded: int
    characters: int = 0
    source_characters: int = 0
    taken_over: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unlabelled_copies: tuple[str, ...] = ()


def add(base: KnowledgeBase, paths: Sequence[Path], embedder: Embedder, options: RunOptions = RunOptions()) -> Report:
    """Add files, and all below folders, as one new version. Unreadable ones get a verdict. Raises KnowledgeError for a missing path."""

    def find_batches(live: LiveDocuments) -> list[FileBatch]:
        # Absolute: the same file is the same document, wherever the command is run from.
        around = folder_labels(base)
        found = defaultdict[frozenset[str], list[FoundFile | Verdict]](list)
        for each in discover([Path(os.path.abspath(path)) for path in paths], ocr=bool(ocr_engine(options.ocr))):
            found[around(_path_of(each))].append(each)
        return [FileBatch(files, options.labels, options.ocr, around=labels) for labels, files in found.items()]

    return _ingest(base, embedder, options, find_batches)


def sync(
    base: KnowledgeBase, folder: Path, embedder: Embedder, rules: Rules = Rules(), options: RunOptions = RunOptions()
) -> Report:
    """Make the documents below `folder` equal to the folder, as one new version.

    Documents are removed if their file is gone or excluded by `rules`; an unreadable file keeps its earlier text. The folder, its rules and its
    labels are remembered: see `synced_folders`.

    Raises KnowledgeError when the folder is missing, or empty though it had documents: an unmounted disk must not empty the knowledge base.
    """
    return sync_folders(base, [SyncedFolder(folder, rules, options.labels, options.ocr)], embedder, options)


def sync_folders(
    base: KnowledgeBase, folders: Sequence[SyncedFolder], embedder: Embedder, options: RunOptions = RunOptions()
) -> Report:
    """Sync several folders and sources as one version, each by its own rules, labels and OCR.

    Synced folders inside these, old or new, are synced too, by their own rules and with both labels. What cannot be synced gets the verdict
    `failed`; if nothing can, its error is raised.
    """
    absolute = [replace(each, folder=Path(os.path.abspath(each.folder))) for each in folders]
    asked = {each.folder: each for each in absolute}
    fetched: dict[Path, FetchResult | OpenBookError] = {}
    for each in absolute:
        if each.address:
            try:
                fetched[each.folder] = fetch(each, options)
            except (ConfigError, KnowledgeError, SourceError) as error:
                fetched[each.folder] = error
    failures = [each for each in fetched.values() if isinstance(each, OpenBookError)]
    if failures and len(failures) == len(asked):
        raise failures[0]

    def find_batches(live: LiveDocuments) -> list[FileBatch]:
        known = {each.folder: each for each in synced_folders(base)}
        inside = [each for each in known.values() if any(map(each.is_inside, asked)) and each.folder.is_dir()]
        wanted = {**{each.folder: each for each in inside}, **asked}
        batches: list[FileBatch] = []
        failed: list[OpenBookError] = []
        origins = _origins(live)
        for each in wanted.values():
            labels = _with_those_around(each, known | wanted)
            before = _with_those_around(known[each.folder], known) if each.folder in known else labels
            inner = tuple(other.prefix for other in wanted.values() if other.is_inside(each.folder))
            batch = FileBatch((), labels, each.ocr, each, inner, relabel=labels != before)
            try:
                if each.address:
                    others = {other.name: other.labels for other in (known | wanted).values() if other != each}
                    batch = _of_source(batch, each.name, fetched[each.folder], origins, others)
                    _check_not_emptied(batch, each, live)
                else:
                    batch = replace(batch, found=_files_in(batch, each, live))
                batches.append(batch)
            except (ConfigError, KnowledgeError, SourceError) as error:
                failed.append(error)
                batches.append(FileBatch([Verdict(each.name, "failed", str(error).rstrip("."))]))
        if failed and len(failed) == len(batches):
            raise failed[0]
        return batches

    return _ingest(base, embedder, options, find_batches)


def _with_those_around(folder: SyncedFolder, known: Mapping[Path, SyncedFolder]) -> frozenset[str]:
    return folder.labels.union(*(each.labels for each in known.values() if folder.is_inside(each.folder)))


def _files_in(batch: FileBatch, wanted: SyncedFolder, live: LiveDocuments) -> list[FoundFile | Verdict]:
    folder = wanted.folder
    check_exists(folder)
    if not folder.is_dir():
        raise KnowledgeError(f"{display_path(folder)} is a file, not a folder. To add a file: openbook add FILE")
    met = {_path_of(each): each for each in discover([folder], wanted.rules, ocr=bool(ocr_engine(wanted.ocr)))}
    root = met.get(display_path(folder))
    if isinstance(root, Verdict) and root.outcome == "failed":
        raise KnowledgeError(f"{root.path} cannot be read: {root.reason}.")
    found = [met[path] for path in batch.below(met)]
    _check_not_emptied(replace(batch, found=found), wanted, live)
    return found


def _check_not_emptied(batch: FileBatch, wanted: SyncedFolder, live: LiveDocuments) -> None:
    below = batch.below(live)
    if below and not any(isinstance(each, FoundFile) for each in batch.found):
        what = "is empty" if not batch.found else "holds no file that its rules include"
        raise KnowledgeError(
            f"{wanted.name} {what}, but {len(below)} documents came from it. To remove them: openbook remove"
        )


def _origins(live: LiveDocuments) -> dict[str, str]:
    return {path: str(json.loads(row.metadata).get("source", "")) for path, row in live.items() if is_address(path)}


def _of_source(
    batch: FileBatch,
    address: str,
    fetched: FetchResult | OpenBookError,
    origins: dict[str, str],
    others: Mapping[str, frozenset[str]],
) -> FileBatch:
    """The batch of what was fetched. A name that another source has keeps that one's document, so that its labels hold."""
    if isinstance(fetched, OpenBookError):
        raise fetched
    found: list[FoundFile | Verdict] = []
    for each in fetched.found:
        name = _path_of(each)
        owner = origins.get(name)
        if owner is not None and owner in others:
            reason = f"the document of this name came from {owner}"
            if lacking := batch.labels - others[owner]:
                reason += f", so it lacks {', '.join(sorted(lacking))}: exclude it there, or give that source the label"
            found.append(Verdict(name, "failed" if lacking else "skipped", reason))
        elif isinstance(each, Verdict):
            found.append(each)
        elif each.path.exists():  # else purged meanwhile
            found.append(each)
            origins[name] = address
    verdicts = (each for each in fetched.found if isinstance(each, Verdict))
    refused = [each.reason for each in verdicts if (each.path, each.outcome) == (address, "failed")]
    if refused and not any(isinstance(each, FoundFile) for each in found):
        raise SourceError(f"{address} cannot be read: {refused[0]}.")
    names = frozenset(name for name, owner in origins.items() if owner == address)
    return replace(batch, found=found, names=names | {n for n in fetched.before if origins.get(n) not in others})


def remove(base: KnowledgeBase, documents: Sequence[str]) -> Report:
    """Remove documents (paths, or folders for all below) as one new version. Raises KnowledgeError for an unknown one."""
    with base.writing() as connection:
        rows = connection.execute("SELECT path FROM documents WHERE removed_in IS NULL ORDER BY path")
        live = [path for (path,) in rows]
        paths = sorted({path for each in documents for path in resolve(live, each, connection)})
        with version_transaction(connection, paths):
            version = write_version(connection, (), paths)
        apply_retention(connection)
        base.indexes.refresh(connection)
        return Report(version, tuple(Verdict(path, "removed") for path in paths), 0)


def forget_verdicts(base: KnowledgeBase, paths: Iterable[str]) -> int:
    """Delete the verdicts on files that were not read. Documents stay. Returns the newest version."""
    with base.writing() as connection, schema.transaction(connection), connection.changing(()):
        connection.executemany("DELETE FROM verdicts WHERE path = ?", [(path,) for path in paths])
    return base.version


def reembed(
    base: KnowledgeBase, embedder: Embedder, *, progress: StagedProgress = lambda stage, done, total: None
) -> tuple[int, int]:
    """Change the embedder. Returns (new version, texts embedded now).

    Search uses the old vectors until one transaction switches to the complete new ones; others may write meanwhile. An interrupted call is
    resumed with the same embedder. Open `base` again afterwards.
    """
    identity = embedder_json(embedder.identity)

    def is_ours(connection: Writer) -> bool:
        """True if the table of new vectors is for this run: purges and other embedders' runs drop it."""
        return schema.meta(connection).get("reembedding") == identity and NEXT_TABLE in connection.tables()

    def work(run: LongRun) -> tuple[int, int]:
        with run.slice() as connection, schema.transaction(connection):
            if not is_ours(connection):
                connection.execute(f"DROP TABLE IF EXISTS {NEXT_TABLE}")
            connection.make_embeddings(NEXT_TABLE)
            schema.remember(connection, reembedding=identity)
        contents = kept_contents(run.connection).tolist()
        run.table, run.is_ours = NEXT_TABLE, is_ours
        embedded = embed_missing(run, contents, embedder, progress, None)
        with run.commit(contents) as connection:
            connection.durable(True)
            with schema.transaction(connection), connection.changing(()):
                version = schema.newest_version(connection) + 1
                # Row by row, so that readers of the state before see the old ones.
                connection.execute(f"DELETE FROM {TABLE}")
                connection.execute(f"INSERT INTO {TABLE} SELECT * FROM {NEXT_TABLE}")
                connection.execute(f"DROP TABLE {NEXT_TABLE}")
                schema.remember(connection, embedder=identity, reembedding=None)
                add_version(connection, version, f"embedded again by {embedder.identity.name}")
        return version, embedded

    version, embedded = in_slices(base, work, LOCK_TIMEOUT_S)
    changed = KnowledgeBase.open(base.store.place, embedder.identity)
    with changed.writing() as connection:
        changed.indexes.refresh(connection)
    changed.close()
    return version, embedded


# --- one run ----------------------------------------------------------------------------------------------------------


def _path_of(found: FoundFile | Verdict) -> str:
    return found.displayed if isinstance(found, FoundFile) else found.path


def _ingest(base: KnowledgeBase, embedder: Embedder, options: RunOptions, find_batches: FindBatches) -> Report:
    """Run one update; `find_batches` is repeated after a conflict with another writer."""
    base.check_embedder(embedder.identity)

    def work(run: LongRun) -> Report:
        connection = run.connection
        live, known = live_documents(connection), identities(connection)
        batches = find_batches(live)
        connection.durable(False)  # power loss may drop what is stored ahead, never damage it
        ingest = Ingest(run, base.sizing, options, live, known)
        for batch in batches:
            ingest.add(batch)
        removed = {path: why for batch in batches for path, why in _gone(batch, live)}
        by_path, synced = {change.path: change for change in ingest.changes}, _synced(connection, batches)
        run_changes = RunChanges(by_path, removed, synced, options.unlabel, folder_labels(base))
        changes = list(follow_renames(known, waiting_names(connection), run_changes))
        changes += _relabelled(live, batches, {change.path for change in changes} | removed.keys())
        contents = {change.content_id for change in changes}
        embedded = embed_missing(run, contents, embedder, options.progress, ingest.reusable(changes))
        verdicts = _all_verdicts(live, ingest.verdicts, changes, removed)
        paths = {*removed, *(change.path for change in changes), *(path for _, path in ingest.restat)}
        with run.commit(contents):
            with version_transaction(connection, paths):
                version = write_version(connection, changes, removed)
                sql = "UPDATE documents SET stat = ? WHERE path = ? AND removed_in IS NULL"
                connection.executemany(sql, ingest.restat)
                _write_verdicts(connection, batches, ingest.tried, verdicts)
                sql = "INSERT INTO sources VALUES (?, ?) ON CONFLICT (folder) DO UPDATE SET rules = excluded.rules"
                there = [batch.synced_folder for batch in batches if batch.synced_folder]
                connection.executemany(sql, [(each.name, each.to_json()) for each in there])
            apply_retention(connection)
            base.indexes.refresh(connection)
            characters, source_characters = connection.execute(
                "SELECT coalesce(sum(length(text)), 0), CAST(coalesce(sum(coalesce(source_chars, length(text))), 0) AS BIGINT) "
                f"FROM contents WHERE id IN {IDS}",
                {"ids": json.dumps(sorted(contents))},
            ).fetchone()
            copies = _open_copies(connection, contents) if options.held_labels is None else ()  # others are not told
        taken_over = {change.path: change.taken_over for change in changes if change.taken_over}
        return Report(version, verdicts, embedded, characters, source_characters, taken_over, copies)

    return in_slices(base, work, options.lock_timeout_s, options.check_cancelled)


def _open_copies(connection: Connection, contents: Collection[int]) -> tuple[str, ...]:
    """Unlabeled documents with the text of a labeled one, if that text is in `contents`."""
    # The same text may have been stored for several callers. A passage's id names its whole text and its place in it.
    same = "SELECT q.content_id FROM passages p JOIN passages q USING (passage_id) WHERE p.start_char = 0 AND p.content_id IN"
    live = "FROM documents WHERE removed_in IS NULL AND"
    closed = f"SELECT content_id {live} labels <> '[]' AND content_id IN ({same} {IDS})"
    sql = f"SELECT path {live} labels = '[]' AND content_id IN ({same} ({closed})) ORDER BY path"
    return tuple(path for (path,) in connection.execute(sql, {"ids": json.dumps(sorted(contents))}))


def _synced(connection: Connection, batches: Sequence[FileBatch]) -> tuple[str, ...]:
    folders = {batch.synced_folder.prefix for batch in batches if batch.synced_folder}
    known = connection.execute("SELECT folder FROM sources")
    return tuple(folders | {f"{folder.rstrip('/')}/" for (folder,) in known})


def _relabelled(live: LiveDocuments, batches: Sequence[FileBatch], done: Collection[str]) -> Iterator[Change]:
    """Documents whose file cannot be read, with the run's labels added: they must not stay open."""
    for batch in batches:
        for path in batch.below(live) if batch.synced_folder else map(_path_of, batch.found):
            row = live.get(path)
            if row is None or path in done or batch.labels <= set(json.loads(row.labels)):
                continue
            labels = json.dumps(sorted(batch.labels.union(json.loads(row.labels))))
            given = row.given_labels
            if batch.synced_folder is None:
                given = json.dumps(sorted(batch.labels.union(json.loads(given))))
            yield Change(path, row.content_id, row.bytes, "", row.metadata, labels, given, row.identity, "updated")


def _gone(batch: FileBatch, live: LiveDocuments) -> Iterator[tuple[str, str]]:
    there = {each.displayed for each in batch.found if isinstance(each, FoundFile)}
    verdicts = {each.path: each for each in batch.found if isinstance(each, Verdict)}
    # A folder that could not be read says nothing about the files in it.
    closed = tuple(path.rstrip("/") + "/" for path, verdict in verdicts.items() if verdict.outcome == "failed")
    for path in batch.below(live):
        verdict = verdicts.get(path)
        if path in there or (verdict is None and path.startswith(closed)):
            continue
        if verdict is None or (verdict.outcome == "skipped" and verdict.reason != IMAGE):
            yield path, verdict.reason if verdict else ""


def _all_verdicts(
    live: LiveDocuments, found: Mapping[str, Verdict], changes: Sequence[Change], removed: Mapping[str, str]
) -> tuple[Verdict, ...]:
    was = {path: live[path].content_id for path in reversed(live)}
    changed = {change.path for change in changes}
    left = {content: path for path, content in was.items() if path in removed}  # the first path of each content
    first = {content: path for path, content in was.items() if path not in removed and path not in changed}
    verdicts = dict(found) | {path: Verdict(path, "removed", reason) for path, reason in removed.items()}
    for change in changes:
        if was.get(change.path) == change.content_id:
            continue  # only metadata or labels changed
        if change.content_id in first:
            verdicts[change.path] = Verdict(change.path, "duplicate", first[change.content_id])
            continue
        first[change.content_id] = change.path
        old = left.get(change.content_id)
        if old is not None and change.outcome == "added":
            verdicts[change.path] = replace(verdicts[change.path], reason=f"renamed from {old}")
            verdicts[old] = replace(verdicts[old], reason=f"renamed to {change.path}")
    return tuple(verdicts[path] for path in sorted(verdicts))


def _write_verdicts(
    connection: Writer, batches: Sequence[FileBatch], tried: Mapping[str, str], verdicts: Iterable[Verdict]
) -> None:
    """Replace the stored verdicts, also of synced files that this run did not meet."""
    old = dict(connection.execute("SELECT path, stat FROM verdicts").fetchall())
    gone = {path for batch in batches for path in batch.below(old)}
    synced = [batch.synced_folder for batch in batches if batch.synced_folder]
    gone.update(path for path, stat in old.items() if stat in {by_source(each.name) for each in synced})
    gone.update(each.name for each in synced)
    gone.update(verdict.path for verdict in verdicts)
    connection.executemany("DELETE FROM verdicts WHERE path = ?", [(path,) for path in sorted(gone)])
    kept = (each for each in verdicts if each.outcome in ("skipped", "failed"))
    rows = [(each.path, each.outcome, each.reason, now(), tried.get(each.path, "")) for each in kept]
    connection.executemany("INSERT INTO verdicts VALUES (?, ?, ?, ?, ?)", rows)
