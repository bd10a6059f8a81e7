"""Changing what is in a knowledge base: `add` files, `sync` folders, `remove` documents. Each makes one version.

The order is always the same: find, take in, embed, commit, refresh the indexes. Whatever is interrupted, the last
committed version stands, and the next run finds the finished work of this one.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from openbook.errors import KnowledgeError, did_you_mean
from openbook.knowledge.base import KnowledgeBase
from openbook.knowledge.committing import commit, write_verdicts
from openbook.knowledge.discovery import Found, Rules, discover, display_path
from openbook.knowledge.embedding import embed_missing
from openbook.knowledge.intake import Change, Intake, Progress, Taken
from openbook.knowledge.renames import follow_renames
from openbook.knowledge.slices import SlicedRun, in_slices
from openbook.knowledge.splitting import TokenCounter
from openbook.knowledge.versions import apply_retention, drop_unused_contents
from openbook.parsers import needs_ocr
from openbook.parsers.isolated import Limits
from openbook.records import Embedder, Outcome, Verdict

OUTCOMES: tuple[Outcome, ...] = ("added", "updated", "unchanged", "removed", "duplicate", "skipped", "failed")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run reads. `labels`: access labels for every document of it; `unlabel`: those that `add` takes away. `retry`: read failed files again, though
    nothing about them changed. `ocr`: Tesseract's languages (`eng+deu`), empty for none. `count`: the reader's tokens of
    texts, for a knowledge base whose passages are counted in tokens. `go_on` is called between two pieces of the work and while
    it waits; when it raises, the run ends with that, without a version, and what it had stored is deleted.
    """

    limits: Limits = field(default_factory=Limits)
    labels: frozenset[str] = frozenset()
    unlabel: frozenset[str] = frozenset()
    retry: bool = False
    ocr: str = ""
    lock_timeout_s: float = 30.0
    count: TokenCounter | None = None
    progress: Progress = lambda stage, done, total: None
    go_on: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class Report:
    """`version` is the committed version; the one before when nothing changed.

    Of the files that went in, `characters` were read of the `source_characters` they hold (markup counts, where it is
    part of the text). `left_labelled`: documents that had labels given by name and went, while others without such
    labels came, which may be the same under another name. `open_copies`: documents without labels that hold the text of one
    that carries some, where one of both came or changed.
    """

    version: int
    verdicts: tuple[Verdict, ...]
    passages_embedded: int
    characters: int = 0
    source_characters: int = 0
    left_labelled: tuple[str, ...] = ()
    open_copies: tuple[str, ...] = ()


def add(base: KnowledgeBase, paths: Sequence[Path], embedder: Embedder, options: RunOptions = RunOptions()) -> Report:
    """Put files, and all files below folders, into the knowledge base as one new version.

    A file that cannot be read gets a verdict with the reason and the others go in. Nothing is committed when nothing
    changed. Raises KnowledgeError for a path that does not exist, KnowledgeBaseBusy, StorageError.
    """
    base.check_embedder(embedder.identity)

    def parts(connection: sqlite3.Connection) -> list[_Part]:
        # Absolute: the same file is the same document, wherever the command is run from.
        found = list(discover([Path(os.path.abspath(path)) for path in paths], ocr=bool(options.ocr)))
        return [_Part(found, options.labels, options.ocr)]

    return _in_slices(base, embedder, options, parts)


@dataclass(frozen=True, slots=True)
class SyncedFolder:
    """A folder that is kept equal to the disk. `ocr` as in RunOptions."""

    folder: Path
    rules: Rules = Rules()
    labels: frozenset[str] = frozenset()
    ocr: str = ""


def sync(
    base: KnowledgeBase,
    folder: Path,
    embedder: Embedder,
    rules: Rules = Rules(),
    options: RunOptions = RunOptions(),
    *,
    allow_empty: bool = False,
) -> Report:
    """Make what the knowledge base has below `folder` equal to the folder, as one new version.

    Documents whose file is gone, or left out by `rules`, are removed; a file that is there but cannot be read keeps the
    text read before. The folder, its rules and its labels are remembered: see `sources`.

    Raises KnowledgeError when the folder is missing, or empty though documents came from it (unless `allow_empty`):
    a disk that is not mounted must not empty the knowledge base.
    """
    wanted = [SyncedFolder(folder, rules, options.labels, options.ocr)]
    return sync_folders(base, wanted, embedder, options, allow_empty=allow_empty)


def sync_folders(
    base: KnowledgeBase,
    folders: Sequence[SyncedFolder],
    embedder: Embedder,
    options: RunOptions = RunOptions(),
    *,
    allow_empty: bool = False,
) -> Report:
    """`sync` of several folders as one version, each by its own rules, labels and OCR.

    A folder inside another that is, or was, synced itself is synced with it, by its own rules and with the labels of
    both. A folder that cannot be synced costs the others nothing: it gets the verdict `failed`. If none can, that is raised.
    """
    base.check_embedder(embedder.identity)

    def parts_of(connection: sqlite3.Connection) -> list[_Part]:
        known = {each.folder: each for each in sources(base)}
        asked = {each.folder: each for each in (replace(e, folder=Path(os.path.abspath(e.folder))) for e in folders)}
        inside = [e for e in known.values() if any(_is_inside(e.folder, each) for each in asked) and e.folder.is_dir()]
        wanted = {**{each.folder: each for each in inside}, **asked}
        parts: list[_Part] = []
        failed: list[KnowledgeError] = []
        for each in wanted.values():
            labels = _with_those_around(each, known | wanted)
            before = _with_those_around(known[each.folder], known) if each.folder in known else labels
            inner = tuple(folder for folder in wanted if _is_inside(folder, each.folder))
            part = _Part((), labels, each.ocr, each, inner, relabel=labels != before)
            try:
                parts.append(replace(part, found=_found_in(connection, part, each, allow_empty=allow_empty)))
            except KnowledgeError as error:
                failed.append(error)
                parts.append(_Part([Verdict(display_path(each.folder), "failed", str(error).rstrip("."))]))
        if failed and len(failed) == len(parts):
            raise failed[0]
        return parts

    return _in_slices(base, embedder, options, parts_of)


def _is_inside(folder: Path, other: Path) -> bool:
    return folder != other and folder.is_relative_to(other)


def _with_those_around(folder: SyncedFolder, known: Mapping[Path, SyncedFolder]) -> frozenset[str]:
    """Its labels, and those of all folders around it."""
    return folder.labels.union(*(each.labels for each in known.values() if _is_inside(folder.folder, each.folder)))


def _found_in(
    connection: sqlite3.Connection, part: _Part, wanted: SyncedFolder, *, allow_empty: bool
) -> Sequence[Found | Verdict]:
    folder = wanted.folder
    if folder.exists() and not folder.is_dir():
        raise KnowledgeError(f"{display_path(folder)} is a file, not a folder. To add a file: openbook add FILE")
    found = [each for each in discover([folder], wanted.rules, ocr=bool(wanted.ocr)) if part.has(_path_of(each))]
    below = part.below(live_paths(connection))
    if below and not any(isinstance(each, Found) for each in found) and not allow_empty:
        what = "is empty" if not found else "holds no file that is wanted"
        raise KnowledgeError(
            f"{display_path(folder)} {what}, but {len(below)} documents came from it. If they are really to go: openbook remove"
        )
    return found


def remove(base: KnowledgeBase, documents: Sequence[str], *, lock_timeout_s: float = 30.0) -> Report:
    """Take documents (paths, or folders for all below) out, as one new version. Older versions keep them.

    Raises KnowledgeError when one of them is not in the newest version.
    """
    with base.writing(lock_timeout_s) as connection:
        paths = sorted({path for each in documents for path in resolve(live_paths(connection), each)})
        version = commit(connection, (), paths)
        apply_retention(connection)
        base.refresh_indexes(connection)
        return Report(version, tuple(Verdict(path, "removed") for path in paths), 0)


def sources(base: KnowledgeBase) -> list[SyncedFolder]:
    """The folders that were synced, as they were."""
    rows = base.connection.execute("SELECT rules FROM sources ORDER BY folder").fetchall()
    return [_from_json(text) for (text,) in rows]


def forget_source(base: KnowledgeBase, folder: Path, *, lock_timeout_s: float = 30.0) -> None:
    """Do not sync `folder` any more unless it is named; its documents stay. Raises KnowledgeError when it was not synced."""
    name = display_path(Path(os.path.abspath(folder)))
    with base.writing(lock_timeout_s) as connection:
        if not connection.execute("DELETE FROM sources WHERE folder = ?", (name,)).rowcount:
            known = [folder for (folder,) in connection.execute("SELECT folder FROM sources ORDER BY folder")]
            raise KnowledgeError(f"{name} was not synced. Synced are: {', '.join(known) or 'none'}.")


def _to_json(source: SyncedFolder) -> str:
    # The path as it is, since the column holds it as it is displayed.
    value = {**asdict(source.rules), "labels": sorted(source.labels), "ocr": source.ocr, "path": str(source.folder)}
    return json.dumps(value)


def _from_json(text: str) -> SyncedFolder:
    value = json.loads(text)
    rules = Rules(tuple(value["include"]), tuple(value["exclude"]))
    return SyncedFolder(Path(value["path"]), rules, frozenset(value["labels"]), value["ocr"])


def live_paths(connection: sqlite3.Connection) -> list[str]:
    return [p for (p,) in connection.execute("SELECT path FROM documents WHERE removed_in IS NULL ORDER BY path")]


def resolve(paths: Sequence[str], name: str) -> list[str]:
    """The documents among `paths` that `name` means: a path as listed or as on this disk, a folder, or the end of one path.

    Raises KnowledgeError when there is none, or several end so.
    """
    if not name.strip():
        raise KnowledgeError("The name of a document is empty. To list them: openbook status --documents")
    for whole in (name, display_path(Path(os.path.abspath(name)))):
        if whole in paths:
            return [whole]
        if below := [path for path in paths if path.startswith(whole.rstrip("/") + "/")]:
            return below
    ending = [path for path in paths if path.endswith("/" + name)]
    if len(ending) == 1:
        return ending
    if ending:
        raise KnowledgeError(
            f"{len(ending)} documents end in {name!r}: {', '.join(ending[:3])}. Give more of the path."
        )
    names = {Path(path).name: path for path in paths}
    hint = did_you_mean(Path(name).name, names)
    raise KnowledgeError(f"No document {name!r} in the knowledge base.{hint} To list them: openbook status --documents")


# --- one run ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Part:
    """What was found, and how it is to be taken in; for `source` if that is a folder to be synced.

    `inner`: folders inside it that are parts of their own.
    """

    found: Sequence[Found | Verdict]
    labels: frozenset[str] = frozenset()
    ocr: str = ""
    source: SyncedFolder | None = None
    inner: tuple[Path, ...] = ()
    relabel: bool = False

    def has(self, path: str) -> bool:
        """Whether the document or file at `path` (as displayed) belongs to this folder."""
        if self.source is None or not path.startswith(_prefix(self.source.folder)):
            return False
        return not any(path.startswith(_prefix(inner)) for inner in self.inner)

    def below(self, paths: Iterable[str]) -> list[str]:
        return [path for path in paths if self.has(path)]


def _prefix(folder: Path) -> str:
    return display_path(folder).rstrip("/") + "/"


def _path_of(found: Found | Verdict) -> str:
    return display_path(found.path) if isinstance(found, Found) else found.path


def _in_slices(
    base: KnowledgeBase,
    embedder: Embedder,
    options: RunOptions,
    parts: Callable[[sqlite3.Connection], Sequence[_Part]],
) -> Report:
    """`parts` finds what there is, anew when another writer overtook the run."""

    def work(run: SlicedRun) -> Report:
        return _run(base, run, embedder, options, parts(run.connection))

    return in_slices(base, work, options.lock_timeout_s, options.go_on, drop_unused_contents)


def _run(
    base: KnowledgeBase,
    run: SlicedRun,
    embedder: Embedder,
    options: RunOptions,
    parts: Sequence[_Part],
) -> Report:
    connection = run.connection
    connection.execute("PRAGMA synchronous = NORMAL")  # what is stored ahead may be lost with the power, never damaged
    taken, tried = _taken(base, run, options, parts)
    live = live_paths(connection)
    removed = {path: why for part in parts if part.source for path, why in _gone(part, live)}
    moved = follow_renames(connection, taken.changes, removed, _synced(connection, parts), options.unlabel)
    taken = replace(taken, changes=tuple(moved))
    labelled = _labelled(connection, parts, {c.path for c in taken.changes} | removed.keys())
    taken = replace(taken, changes=(*taken.changes, *labelled))
    left_labelled = _left_labelled(connection, taken.changes, removed)
    contents = {c.content_id for c in taken.changes}
    embedded = embed_missing(run, contents, embedder, options.progress)
    verdicts = _finished(connection, taken, list(removed.items()))

    def beside(version: int) -> None:
        connection.executemany(
            "UPDATE documents SET stat = ? WHERE path = ? AND removed_in IS NULL", [(s, p) for p, s in taken.restat]
        )
        for part in parts:
            if part.source is not None:
                _forget_old_verdicts(connection, part, verdicts)
                row = (display_path(part.source.folder), _to_json(part.source))
                connection.execute("INSERT OR REPLACE INTO sources VALUES (?, ?)", row)
        write_verdicts(connection, verdicts, tried)

    with run.commit(contents):
        version = commit(connection, taken.changes, removed, beside=beside)
        apply_retention(connection)
        base.refresh_indexes(connection)
        characters, source = _characters(connection, contents)
        open_copies = _open_copies(connection, taken.changes)
    return Report(version, verdicts, embedded, characters, source, left_labelled, open_copies)


def _taken(
    base: KnowledgeBase, run: SlicedRun, options: RunOptions, parts: Sequence[_Part]
) -> tuple[Taken, dict[str, str]]:
    """What all parts took in, each path once, and what the file system said of each file that was tried."""
    changes: list[Change] = []
    verdicts: list[Verdict] = []
    restat: list[tuple[str, str]] = []
    tried: dict[str, str] = {}
    for part in parts:
        intake = Intake(
            run,
            base.sizing,
            options.limits,
            options.count,
            part.labels,
            by_name=part.source is None,
            unlabel=options.unlabel if part.source is None else frozenset(),
            relabel=part.relabel,
            retry=options.retry,
            ocr=part.ocr,
            progress=options.progress,
        )
        taken = intake.take(part.found)
        changes += taken.changes
        verdicts += taken.verdicts
        restat += taken.restat
        tried.update(intake.tried_stats(part.found))
    return Taken(tuple(changes), tuple(verdicts), tuple(restat)), tried


def _synced(connection: sqlite3.Connection, parts: Sequence[_Part]) -> tuple[str, ...]:
    """What the paths of documents in synced folders begin with, if this run syncs."""
    if not any(part.source for part in parts):
        return ()
    folders = [folder for (folder,) in connection.execute("SELECT folder FROM sources")]
    return tuple(_prefix(part.source.folder) for part in parts if part.source) + tuple(f"{f}/" for f in folders)


def _labelled(connection: sqlite3.Connection, parts: Sequence[_Part], done: Collection[str]) -> Iterator[Change]:
    """Documents that stay because their file cannot be read now, with the labels of the run: it must not leave them open."""
    rows = connection.execute(
        "SELECT path, content_id, bytes, metadata, labels, given_labels, identity FROM documents WHERE removed_in IS NULL"
    ).fetchall()
    for part in parts:
        met = {_path_of(each) for each in part.found}
        for path, content_id, size, metadata, own, given, identity in rows:
            held = set(json.loads(own))
            meant = part.has(path) if part.source else path in met
            if meant and path not in done and not part.labels <= held:
                more = json.dumps(sorted(held | part.labels))
                kept = given if part.source else json.dumps(sorted({*json.loads(given), *part.labels}))
                yield Change(path, content_id, size, "", metadata, more, kept, identity, "updated")


def _left_labelled(
    connection: sqlite3.Connection, changes: Sequence[Change], removed: Collection[str]
) -> tuple[str, ...]:
    if not any(change.outcome == "added" and change.given_labels == "[]" for change in changes):
        return ()
    rows = "SELECT path, content_id FROM documents WHERE given_labels <> '[]' AND removed_in IS NULL ORDER BY path"
    renamed = {change.content_id for change in changes}
    return tuple(path for path, content in connection.execute(rows) if path in removed and content not in renamed)


def _open_copies(connection: sqlite3.Connection, changes: Sequence[Change]) -> tuple[str, ...]:
    found: list[str] = []
    for content in {change.content_id for change in changes}:
        sql = "SELECT path, labels = '[]' FROM documents WHERE content_id = ? AND removed_in IS NULL"
        rows = connection.execute(sql, (content,)).fetchall()
        if not all(is_open for _, is_open in rows):
            found += [path for path, is_open in rows if is_open]
    return tuple(sorted(found))


def _gone(part: _Part, live: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(path, why) of the documents of a synced folder whose file is not there any more, or is not wanted."""
    there = {display_path(each.path) for each in part.found if isinstance(each, Found)}
    by_path = {each.path: each for each in part.found if isinstance(each, Verdict)}
    # What could not be looked into says nothing about what is in it.
    closed = tuple(path.rstrip("/") + "/" for path, verdict in by_path.items() if verdict.outcome == "failed")
    for path in part.below(live):
        verdict = by_path.get(path)
        if path in there or (verdict is None and path.startswith(closed)):
            continue
        if verdict is None or (verdict.outcome == "skipped" and not needs_ocr(verdict.reason)):
            yield path, verdict.reason if verdict else ""


def _finished(connection: sqlite3.Connection, taken: Taken, removed: Sequence[tuple[str, str]]) -> tuple[Verdict, ...]:
    """All verdicts of the run, sorted by path, with what was renamed and what is a duplicate of what."""
    gone = {path for path, _ in removed}
    rows = connection.execute(
        "SELECT content_id, path FROM documents WHERE removed_in IS NULL ORDER BY path"
    ).fetchall()
    was = {path: content for content, path in rows}
    left = {content: path for content, path in reversed(rows) if path in gone}  # the first path of each content
    changed = {c.path for c in taken.changes}
    first: dict[int, str] = {}
    for content, path in rows:
        if path not in gone and path not in changed:
            first.setdefault(content, path)
    verdicts = {verdict.path: verdict for verdict in taken.verdicts}
    renamed: dict[str, str] = {}
    for change in taken.changes:
        if was.get(change.path) == change.content_id:
            continue  # only its metadata or labels changed
        if change.content_id in first:
            verdicts[change.path] = Verdict(change.path, "duplicate", first[change.content_id])
            continue
        first[change.content_id] = change.path
        old = left.get(change.content_id)
        if old is not None and change.outcome == "added":
            renamed[old] = change.path
            verdicts[change.path] = replace(verdicts[change.path], reason=f"renamed from {old}")
    for path, reason in removed:
        verdicts[path] = Verdict(path, "removed", f"renamed to {renamed[path]}" if path in renamed else reason)
    return tuple(verdicts[path] for path in sorted(verdicts))


def _forget_old_verdicts(connection: sqlite3.Connection, part: _Part, verdicts: Iterable[Verdict]) -> None:
    """Files of a synced folder that this run did not meet are not there any more."""
    met = {verdict.path for verdict in verdicts}
    old = part.below(path for (path,) in connection.execute("SELECT path FROM verdicts") if path not in met)
    connection.executemany("DELETE FROM verdicts WHERE path = ?", [(path,) for path in old])


def _characters(connection: sqlite3.Connection, contents: Iterable[int]) -> tuple[int, int]:
    read = source = 0
    for content in contents:
        length, held = connection.execute(
            "SELECT length(text), coalesce(source_chars, length(text)) FROM contents WHERE id = ?", (content,)
        ).fetchone()
        read, source = read + length, source + held
    return read, source


def verdict_counts(verdicts: Sequence[Verdict]) -> Iterator[tuple[Outcome, int]]:
    """(outcome, how many), in a fixed order, without those that did not occur."""
    for outcome in OUTCOMES:
        if count := sum(v.outcome == outcome for v in verdicts):
            yield outcome, count
