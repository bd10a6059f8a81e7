"""Changing what is in a knowledge base: `add` files, `sync` folders, `remove` documents. Each makes one version.

The order is always the same: find, take in, embed, commit, refresh the indexes. Whatever is interrupted, the last
committed version stands, and the next run finds the finished work of this one.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from openbook.errors import KnowledgeError, did_you_mean
from openbook.knowledge.base import KnowledgeBase
from openbook.knowledge.committing import commit, write_verdicts
from openbook.knowledge.discovery import Found, Rules, discover, display_path
from openbook.knowledge.embedding import embed_missing
from openbook.knowledge.intake import Intake, Progress, Taken
from openbook.knowledge.reading.isolated import Limits
from openbook.knowledge.splitting import TokenCounter
from openbook.knowledge.versions import apply_retention
from openbook.records import Embedder, Outcome, Verdict

OUTCOMES: tuple[Outcome, ...] = ("added", "updated", "unchanged", "removed", "duplicate", "skipped", "failed")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run reads. `labels`: access labels for every document of it. `retry`: read failed files again, though
    nothing about them changed. `ocr`: Tesseract's languages (`eng+deu`), empty for none. `count`: the reader's tokens of
    texts, for a knowledge base whose passages are counted in tokens.
    """

    limits: Limits = field(default_factory=Limits)
    labels: frozenset[str] = frozenset()
    retry: bool = False
    ocr: str = ""
    lock_timeout_s: float = 30.0
    count: TokenCounter | None = None
    progress: Progress = lambda stage, done, total: None


@dataclass(frozen=True, slots=True)
class Report:
    """`version` is the committed version; the one before when nothing changed.

    Of the files that went in, `characters` were read of the `source_characters` they hold (markup counts, where it is
    part of the text).
    """

    version: int
    verdicts: tuple[Verdict, ...]
    passages_embedded: int
    characters: int = 0
    source_characters: int = 0


def add(base: KnowledgeBase, paths: Sequence[Path], embedder: Embedder, options: RunOptions = RunOptions()) -> Report:
    """Put files, and all files below folders, into the knowledge base as one new version.

    A file that cannot be read gets a verdict with the reason and the others go in. Nothing is committed when nothing
    changed. Raises KnowledgeError for a path that does not exist, KnowledgeBaseBusy, StorageError.
    """
    base.check_embedder(embedder.identity)
    with base.writing(options.lock_timeout_s) as connection:
        # Absolute: the same file is the same document, wherever the command is run from.
        found = list(discover([Path(os.path.abspath(path)) for path in paths], ocr=bool(options.ocr)))
        return _run(base, connection, embedder, options, found, folder="", rules=None)


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
    text read before. The folder and its rules are remembered: see `sources`.

    Raises KnowledgeError when the folder is missing, or empty though documents came from it (unless `allow_empty`):
    a disk that is not mounted must not empty the knowledge base.
    """
    base.check_embedder(embedder.identity)
    folder = Path(os.path.abspath(folder))
    if folder.exists() and not folder.is_dir():
        raise KnowledgeError(f"{display_path(folder)} is a file, not a folder. To add a file: openbook add FILE")
    with base.writing(options.lock_timeout_s) as connection:
        found = list(discover([folder], rules, ocr=bool(options.ocr)))
        below = _below(connection, display_path(folder))
        if below and not found and not allow_empty:
            raise KnowledgeError(
                f"{display_path(folder)} is empty, but {len(below)} documents came from it. If they are really to go: --allow-empty"
            )
        return _run(base, connection, embedder, options, found, folder=display_path(folder), rules=rules)


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


def sources(base: KnowledgeBase) -> list[tuple[str, Rules, frozenset[str]]]:
    """(folder, rules, labels) of each folder that was synced."""
    rows = base.connection.execute("SELECT folder, rules FROM sources ORDER BY folder").fetchall()
    found = []
    for folder, text in rows:
        value = json.loads(text)
        rules = Rules(tuple(value["include"]), tuple(value["exclude"]))
        found.append((folder, rules, frozenset(value["labels"])))
    return found


def live_paths(connection: sqlite3.Connection) -> list[str]:
    return [p for (p,) in connection.execute("SELECT path FROM documents WHERE removed_in IS NULL ORDER BY path")]


def resolve(paths: Sequence[str], name: str) -> list[str]:
    """The documents among `paths` that `name` means: a path as listed or as on this disk, a folder, or the end of one path.

    Raises KnowledgeError when there is none, or several end so.
    """
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


def _run(
    base: KnowledgeBase,
    connection: sqlite3.Connection,
    embedder: Embedder,
    options: RunOptions,
    found: Sequence[Found | Verdict],
    *,
    folder: str,
    rules: Rules | None,
) -> Report:
    intake = Intake(
        connection,
        base.sizing,
        options.limits,
        options.count,
        options.labels,
        keep_labels=rules is None,
        relabel=_labels_differ(connection, folder, options.labels),
        retry=options.retry,
        ocr=options.ocr,
        progress=options.progress,
    )
    connection.execute("PRAGMA synchronous = NORMAL")  # what is stored ahead may be lost with the power, never damaged
    taken = intake.take(found)
    removed = _gone(connection, folder, taken.verdicts) if rules is not None else []
    embedded = embed_missing(connection, [c.content_id for c in taken.changes], embedder, options.progress)
    verdicts = _finished(connection, taken, removed)

    def beside(version: int) -> None:
        connection.executemany(
            "UPDATE documents SET stat = ? WHERE path = ? AND removed_in IS NULL", [(s, p) for p, s in taken.restat]
        )
        if rules is not None:
            _forget_old_verdicts(connection, folder, verdicts)
            value = json.dumps({**asdict(rules), "labels": sorted(options.labels)})
            connection.execute("INSERT OR REPLACE INTO sources VALUES (?, ?)", (folder, value))
        write_verdicts(connection, verdicts, intake.tried_stats(found))

    version = commit(connection, taken.changes, [path for path, _ in removed], beside=beside)
    apply_retention(connection)
    base.refresh_indexes(connection)
    characters, source = _characters(connection, {c.content_id for c in taken.changes})
    return Report(version, verdicts, embedded, characters, source)


def _labels_differ(connection: sqlite3.Connection, folder: str, labels: frozenset[str]) -> bool:
    row = connection.execute("SELECT rules FROM sources WHERE folder = ?", (folder,)).fetchone()
    return row is not None and frozenset(json.loads(row[0])["labels"]) != labels


def _below(connection: sqlite3.Connection, folder: str) -> list[str]:
    """Paths of the newest version's documents below a folder (as displayed)."""
    inside = folder.rstrip("/") + "/"
    return [path for path in live_paths(connection) if path.startswith(inside)]


def _gone(connection: sqlite3.Connection, folder: str, verdicts: Sequence[Verdict]) -> list[tuple[str, str]]:
    """(path, why) of the documents below `folder` whose file is not there any more, or is not wanted."""
    by_path = {verdict.path: verdict for verdict in verdicts}
    # What could not be looked into says nothing about what is in it.
    closed = tuple(v.path.rstrip("/") + "/" for v in verdicts if v.outcome == "failed")
    found: list[tuple[str, str]] = []
    for path in _below(connection, folder):
        verdict = by_path.get(path)
        if verdict is None and path.startswith(closed):
            continue
        if verdict is None or verdict.outcome == "skipped":
            found.append((path, verdict.reason if verdict else ""))
    return found


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


def _forget_old_verdicts(connection: sqlite3.Connection, folder: str, verdicts: Iterable[Verdict]) -> None:
    """Files below a synced folder that this run did not meet are not there any more."""
    met = {verdict.path for verdict in verdicts}
    inside = folder.rstrip("/") + "/"
    old = [p for (p,) in connection.execute("SELECT path FROM verdicts") if p.startswith(inside) and p not in met]
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
