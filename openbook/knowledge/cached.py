"""Knowledge bases for `--docs`: built once for given contents, found again by them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from openbook.knowledge import adding, schema
from openbook.knowledge.base import KnowledgeBase
from openbook.knowledge.discovery import Found, discover, display_path
from openbook.knowledge.reading import READER_VERSION
from openbook.knowledge.splitting import SPLITTER_VERSION
from openbook.records import Embedder, EmbedderIdentity, canonical_json, sha256_hex

KEPT = 16  # knowledge bases kept in the cache; the longest unused go first
_MARK = ".complete"  # written last: a folder without it is unfinished work, which the next run goes on with


def for_documents(
    paths: Sequence[Path],
    cache: Path,
    embedder: Embedder,
    *,
    max_file_bytes: int = 100_000_000,
    lock_timeout_s: float = 30.0,
    progress: adding.Progress = lambda stage, done, total: None,
) -> tuple[KnowledgeBase, adding.AddReport | None]:
    """A knowledge base of exactly the files in `paths` as they are now; the report is None when it was there already."""
    folder = cache / "docs" / _key(paths, embedder.identity, max_file_bytes)
    if (folder / _MARK).exists():
        base = KnowledgeBase.open(folder, embedder.identity)
        _touch(folder / _MARK)
        return base, None
    base = KnowledgeBase.ensure(folder, embedder.identity)
    roots = "\n".join(sorted(os.path.abspath(p) for p in paths))
    with schema.storage_errors(folder):
        _borrow_embeddings(base, _latest_with(cache / "docs", roots), lock_timeout_s)
    report = adding.add(
        base, paths, embedder, max_file_bytes=max_file_bytes, lock_timeout_s=lock_timeout_s, progress=progress
    )
    with schema.storage_errors(folder):
        (folder / ".roots").write_text(roots, encoding="utf-8", errors="surrogateescape")
        (folder / _MARK).write_text(json.dumps({"version": report.version}), encoding="utf-8")
    _prune(cache / "docs", keep=folder)
    return base, report


def _key(paths: Sequence[Path], embedder: EmbedderIdentity, max_file_bytes: int) -> str:
    """Names the files' paths and contents, and the code and embedder that a knowledge base of them depends on."""
    files: list[list[str]] = []
    for item in discover([Path(os.path.abspath(path)) for path in paths]):
        if isinstance(item, Found):
            files.append([display_path(item.path), _fingerprint(item, max_file_bytes)])
        else:
            files.append([item.path, f"{item.outcome}: {item.reason}"])
    code = [READER_VERSION, SPLITTER_VERSION, adding.PASSAGE_CHARS, schema.FORMAT, max_file_bytes]
    return sha256_hex(canonical_json([code, embedder.digest, sorted(files)]))[:32]


def _fingerprint(found: Found, max_file_bytes: int) -> str:
    if found.bytes > max_file_bytes:  # it will be refused unread, so its size says enough
        return f"{found.bytes} bytes"
    try:
        with found.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return str(error.strerror)


def _latest_with(cache: Path, roots: str) -> Path | None:
    """The most recently used complete knowledge base made from the same paths: most of its texts are the same."""
    found = [m.parent for m in cache.glob(f"*/{_MARK}") if _read(m.parent / ".roots") == roots]
    return max(found, key=lambda folder: (folder / _MARK).stat().st_mtime, default=None)


def _borrow_embeddings(base: KnowledgeBase, other: Path | None, lock_timeout_s: float) -> None:
    if other is None:
        return
    with base.writing(lock_timeout_s) as connection:
        connection.execute("ATTACH DATABASE ? AS other", (str(other / schema.FILE_NAME),))
        connection.execute("INSERT OR IGNORE INTO main.embeddings SELECT * FROM other.embeddings")
        connection.execute("DETACH DATABASE other")


def _prune(cache: Path, keep: Path) -> None:
    marks = sorted(cache.glob(f"*/{_MARK}"), key=lambda m: m.stat().st_mtime, reverse=True)
    for mark in marks[KEPT:]:
        if mark.parent != keep:
            mark.unlink(missing_ok=True)  # first, so that a half-deleted folder is never taken for a whole one
            shutil.rmtree(mark.parent, ignore_errors=True)


def _touch(path: Path) -> None:
    try:
        path.touch()
    except OSError:
        return  # a read-only cache still answers; it only forgets what was used last


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
