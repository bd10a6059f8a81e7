"""Knowledge bases for `--docs`: built once for given contents, found again by them."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from openbook.errors import KnowledgeBaseBusy, KnowledgeError, OpenBookError
from openbook.files import delete_folder, delete_left_over, make_folder
from openbook.knowledge import adding, intake, schema
from openbook.knowledge.base import KnowledgeBase
from openbook.knowledge.discovery import Found, discover, display_path
from openbook.knowledge.forgetting import named
from openbook.knowledge.sizing import Sizing
from openbook.locks import among, is_held
from openbook.parsers.ocr import available
from openbook.records import Embedder, EmbedderIdentity, canonical_json, sha256_hex

MAX_TRIES = 3  # when files change while they are read
UNFINISHED_S = 7 * 24 * 3600.0  # work that nobody went on with for so long is dropped
KEPT = 16  # knowledge bases kept in the cache; the longest unused go first
_ROOTS = ".roots"
_BUILDING = ".building"
_MARK = ".complete"  # written last: a folder without it is unfinished work, which the next run goes on with


def for_documents(
    paths: Sequence[Path],
    cache: Path,
    embedder: Embedder,
    options: adding.RunOptions = adding.RunOptions(),
    sizing: Sizing = Sizing(),
) -> tuple[KnowledgeBase, adding.Report | None]:
    """A knowledge base of exactly the files in `paths` as they are now; the report is None when it was there already.

    Raises KnowledgeError for a path that does not exist or files that never stop changing, StorageError.
    """
    for _ in range(MAX_TRIES):
        key = _key(paths, embedder.identity, options, sizing)
        folder = cache / "docs" / key
        if (base := _open_whole(folder, embedder.identity)) is not None:
            return base, None
        with _building(folder):
            base = KnowledgeBase.ensure(
                folder, embedder.identity, base_id=key, sizing=sizing, lock_timeout_s=options.lock_timeout_s
            )
            roots = "\n".join([embedder.identity.digest, *sorted(os.path.abspath(path) for path in paths)])
            _borrow_embeddings(base, _latest_with(cache / "docs", roots), options.lock_timeout_s)
            report = adding.add(base, paths, embedder, options)
            with base.writing(options.lock_timeout_s) as connection:  # vectors of what is not in these files
                connection.execute(
                    "DELETE FROM embeddings WHERE embedding_key NOT IN (SELECT embedding_key FROM passages)"
                )
            if key == _key(paths, embedder.identity, options, sizing):
                with schema.storage_errors(folder):
                    (folder / _ROOTS).write_text(roots, encoding="utf-8", errors="surrogateescape")
                    (folder / _MARK).touch()
                _prune(cache / "docs", keep=folder)
                return base, report
        base.close()  # a file changed between looking and reading: what was built is not what the key names
        shutil.rmtree(folder, ignore_errors=True)
    raise KnowledgeError(f"The files keep changing while they are read: {', '.join(map(str, paths))}. Try again later.")


@contextmanager
def _building(folder: Path) -> Iterator[None]:
    """While a knowledge base is made here, by one process or several, its folder is not what a killed one left.

    Raises StorageError, KnowledgeBaseBusy while a purge looks at it.
    """
    with ExitStack() as holding_it:
        with schema.storage_errors(folder):
            make_folder(folder)
            held = holding_it.enter_context(among(folder / _BUILDING))
        if not held:
            raise KnowledgeBaseBusy(f"A purge looks at {folder}. Run it again when that is done.")
        yield


def _open_whole(folder: Path, embedder: EmbedderIdentity) -> KnowledgeBase | None:
    """The finished knowledge base in `folder`; None if there is none, or if it is damaged, which is then removed."""
    if not (folder / _MARK).exists():
        return None
    try:
        base = KnowledgeBase.open(folder, embedder)
        base.documents()
    except KnowledgeError:  # it is only a cache: what cannot be opened is built again
        shutil.rmtree(folder, ignore_errors=True)
        return None
    with suppress(OSError):  # a read-only cache still answers; it only forgets what was used last
        (folder / _MARK).touch()
    return base


def _key(paths: Sequence[Path], embedder: EmbedderIdentity, options: adding.RunOptions, sizing: Sizing) -> str:
    """Names the files' paths and contents, and the code and embedder that a knowledge base of them depends on."""
    files: list[list[str]] = []
    limit = options.limits.max_file_bytes
    for item in discover([Path(os.path.abspath(path)) for path in paths], ocr=bool(options.ocr)):
        if isinstance(item, Found):
            sidecar = _fingerprint(item.sidecar, limit) if item.sidecar else ""
            files.append([display_path(item.path), _fingerprint(item.path, limit), sidecar])
        else:
            files.append([item.path, f"{item.outcome}: {item.reason}"])
    code = [intake.code_of(sizing), schema.FORMAT, limit, available(options.ocr), sorted(options.labels)]
    return sha256_hex(canonical_json([code, embedder.digest, sorted(files)]))[:32]


def _fingerprint(path: Path, max_file_bytes: int) -> str:
    try:
        size = path.stat().st_size
        if size > max_file_bytes:  # it will be refused unread, so its size says enough
            return f"{size} bytes"
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return str(error.strerror)


def _latest_with(cache: Path, roots: str) -> Path | None:
    """The most recently used knowledge base from the same paths and embedder: most of its texts are the same."""
    found = [folder for _, folder in _by_use(cache) if _read(folder / _ROOTS) == roots]
    return found[-1] if found else None


def _borrow_embeddings(base: KnowledgeBase, other: Path | None, lock_timeout_s: float) -> None:
    """Copy vectors from `other`. A saving only: what cannot be copied is embedded."""
    if other is None or other == base.folder:
        return
    with suppress(OpenBookError):
        if KnowledgeBase.open(other).embedder.digest != base.embedder.digest:
            return
        with base.writing(lock_timeout_s) as connection:
            connection.execute("ATTACH DATABASE ? AS other", (str(other / schema.FILE_NAME),))
            connection.execute(
                "INSERT OR IGNORE INTO main.embeddings SELECT * FROM other.embeddings "
                "WHERE digest = row_digest(embedding_key, vector)"
            )
            connection.execute("DETACH DATABASE other")


def _by_use(cache: Path) -> list[tuple[float, Path]]:
    """(when last used, folder) of the finished ones, longest ago first."""
    found: list[tuple[float, Path]] = []
    for mark in cache.glob(f"*/{_MARK}"):
        with suppress(OSError):  # another process may have removed it meanwhile
            found.append((mark.stat().st_mtime, mark.parent))
    return sorted(found)


def _prune(cache: Path, keep: Path) -> None:
    for _, folder in _by_use(cache)[:-KEPT]:
        if folder != keep:
            with suppress(OSError):
                (folder / _MARK).unlink()  # first, so that a half-deleted folder is never taken for a whole one
            shutil.rmtree(folder, ignore_errors=True)
    for folder in cache.iterdir():
        with suppress(OSError):
            unfinished = not (folder / _MARK).exists()
            if unfinished and folder != keep and time.time() - folder.stat().st_mtime > UNFINISHED_S:
                shutil.rmtree(folder, ignore_errors=True)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def holding(cache: Path, base: KnowledgeBase, documents: Sequence[str]) -> list[Path]:
    """The cached knowledge bases (their folders) that hold a text or path of `documents` of `base`, or were never finished.

    Raises KnowledgeError when one of them is in no version of `base`, KnowledgeBaseBusy while another process makes one.
    """
    rows = base.connection.execute("SELECT DISTINCT path, content_id FROM documents ORDER BY path").fetchall()
    paths = set(named(base, documents))
    contents = {content for path, content in rows if path in paths}
    texts = [base.connection.execute("SELECT text FROM contents WHERE id = ?", (c,)).fetchone()[0] for c in contents]
    keys = [
        key
        for content in contents
        for (key,) in base.connection.execute("SELECT embedding_key FROM passages WHERE content_id = ?", (content,))
    ]
    found = []
    for folder in sorted(cache.glob("docs/[!.]*")):
        if not (folder / _MARK).exists():  # what was written of it may stand in no row yet
            if is_held(folder / _BUILDING):
                raise KnowledgeBaseBusy(
                    f"Another process reads documents for --docs into {folder}. Purge when that is done."
                )
            found.append(folder)
        elif _holds(folder, paths, texts, keys):
            found.append(folder)
    return found


def drop(cache: Path, folders: Iterable[Path]) -> None:
    """Delete cached knowledge bases, and what killed processes left of such. Raises OSError."""
    for folder in folders:
        with suppress(OSError):
            (folder / _MARK).unlink()
        delete_folder(folder)
    delete_left_over(cache / "docs")


def _holds(folder: Path, paths: Iterable[str], texts: Iterable[str], keys: Iterable[bytes]) -> bool:
    try:
        connection = schema.connect(folder, writable=False)
    except (sqlite3.Error, KnowledgeError):
        return True  # it cannot be looked into, and it is only a cache
    try:
        checks: list[tuple[str, str | bytes]] = [("SELECT 1 FROM documents WHERE path = ?", p) for p in paths]
        checks += [("SELECT 1 FROM embeddings WHERE embedding_key = ?", k) for k in keys]
        checks += [("SELECT 1 FROM contents WHERE text = ?", t) for t in texts]
        return any(connection.execute(sql, (value,)).fetchone() for sql, value in checks)
    except sqlite3.Error:
        return True
    finally:
        connection.close()
