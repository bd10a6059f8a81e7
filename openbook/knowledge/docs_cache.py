"""Cache of knowledge bases for `--docs`, keyed by file contents."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from openbook.core.derived import DOCS, DerivedFolder
from openbook.core.errors import KnowledgeBaseBusy, KnowledgeError, OpenBookError
from openbook.core.records import Embedder, EmbedderIdentity, canonical_json, sha256_hex
from openbook.knowledge import updates
from openbook.knowledge.base import KnowledgeBase
from openbook.knowledge.ingest.contents import RunOptions, parsed_by
from openbook.knowledge.ingest.discovery import FoundFile, discover
from openbook.knowledge.ingest.splitter import Sizing
from openbook.knowledge.store import schema
from openbook.parsers.ocr import ocr_engine

MAX_TRIES = 3  # when files change while they are read
UNFINISHED_S = 7 * 24 * 3600.0  # unfinished work this old is deleted
KEPT = 16  # knowledge bases kept in the cache; the longest unused go first
# Written last, with the sources (see `_made_from`). A folder without it is unfinished work that the next run continues.
_MARK = ".complete"


def for_documents(
    paths: Sequence[Path],
    derived: Path,
    embedder: Embedder,
    options: RunOptions = RunOptions(),
    sizing: Sizing = Sizing(),
) -> tuple[KnowledgeBase, updates.Report | None]:
    """A knowledge base of exactly these files now, and the report unless it existed. Raises KnowledgeError if they keep changing, KnowledgeBaseBusy."""
    for _ in range(MAX_TRIES):
        key = _key(paths, embedder.identity, options, sizing)
        folder = derived / DOCS / key
        if (base := _open_whole(folder, embedder.identity)) is not None:
            return base, None
        with schema.database_errors(derived), DerivedFolder(derived).writing(options.lock_timeout_s) as may_write:
            if not may_write:
                raise KnowledgeBaseBusy(f"A purge is under way in {derived}. Run this again when it is done.")
            wait_s = options.lock_timeout_s
            base = KnowledgeBase.ensure(folder, embedder.identity, base_id=key, sizing=sizing, lock_timeout_s=wait_s)
            made_from = "\n".join([embedder.identity.digest, *sorted(os.path.abspath(path) for path in paths)])
            _borrow_embeddings(base, made_from, wait_s)
            report = updates.add(base, paths, embedder, options)
            with base.writing(wait_s) as connection:  # vectors of texts that are not in these files
                connection.execute(f"DELETE FROM embeddings WHERE embedding_key IN {schema.UNUSED_VECTORS}")
            if key == _key(paths, embedder.identity, options, sizing):
                (folder / _MARK).write_text(made_from, encoding="utf-8", errors="surrogateescape")
                _prune(folder.parent, keep=folder)
                return base, report
        base.close()  # a file changed while it was read, so the result does not fit the key
        shutil.rmtree(folder, ignore_errors=True)
    raise KnowledgeError(f"The files keep changing while they are read: {', '.join(map(str, paths))}. Try again later.")


def _open_whole(folder: Path, embedder: EmbedderIdentity) -> KnowledgeBase | None:
    """The finished knowledge base, or None. A damaged one is deleted."""
    if not (folder / _MARK).exists():
        return None
    try:
        base = KnowledgeBase.open(folder, embedder)
        base.documents()
    except KnowledgeError:  # only a cache: rebuild what cannot be opened
        shutil.rmtree(folder, ignore_errors=True)
        return None
    with suppress(OSError):  # a read-only cache still answers; only the order of use is lost
        (folder / _MARK).touch()
    return base


def _key(paths: Sequence[Path], embedder: EmbedderIdentity, options: RunOptions, sizing: Sizing) -> str:
    """A digest of paths, contents, embedder, and relevant code and options."""
    files: list[list[str]] = []
    limit = options.limits.max_file_bytes
    engine = ocr_engine(options.ocr)
    for item in discover([Path(os.path.abspath(path)) for path in paths], ocr=bool(engine)):
        if isinstance(item, FoundFile):
            sidecar = _fingerprint(item.sidecar, limit) if item.sidecar else ""
            files.append([item.displayed, _fingerprint(item.path, limit), sidecar])
        else:
            files.append([item.path, f"{item.outcome}: {item.reason}"])
    how = [parsed_by(sizing), schema.FORMAT, limit, engine, sorted(options.labels)]
    return sha256_hex(canonical_json([how, embedder.digest, sorted(files)]))[:32]


def _fingerprint(path: Path, max_file_bytes: int) -> str:
    try:
        size = path.stat().st_size
        if size > max_file_bytes:  # refused unread, so its size is enough
            return f"{size} bytes"
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return str(error.strerror)


def _borrow_embeddings(base: KnowledgeBase, made_from: str, lock_timeout_s: float) -> None:
    """Save time: copy vectors from the last used knowledge base of the same paths and embedder."""
    others = [each for each in _by_use(base.folder.parent) if each != base.folder and _made_from(each) == made_from]
    with suppress(OpenBookError):
        for other in others[-1:]:
            with base.writing(lock_timeout_s) as connection:
                connection.execute("ATTACH DATABASE ? AS other", (str(other / schema.FILE_NAME),))
                whole = "SELECT * FROM other.embeddings WHERE digest = row_digest(embedding_key, vector)"
                connection.execute(f"INSERT OR IGNORE INTO main.embeddings {whole}")
                connection.execute("DETACH DATABASE other")


def _made_from(folder: Path) -> str:
    try:
        return (folder / _MARK).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def _by_use(cache: Path) -> list[Path]:
    found: list[tuple[float, Path]] = []
    for mark in cache.glob(f"*/{_MARK}"):
        with suppress(OSError):  # another process may have removed it
            found.append((mark.stat().st_mtime, mark.parent))
    return [folder for _, folder in sorted(found)]


def _prune(cache: Path, keep: Path) -> None:
    old = set(_by_use(cache)[:-KEPT])
    for folder in cache.iterdir():
        with suppress(OSError):
            unfinished = not (folder / _MARK).exists() and time.time() - folder.stat().st_mtime > UNFINISHED_S
            if folder != keep and (unfinished or folder in old):
                # The mark first, so that a half-deleted folder never counts as finished.
                (folder / _MARK).unlink(missing_ok=True)
                shutil.rmtree(folder, ignore_errors=True)
