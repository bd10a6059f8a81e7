"""POST /v1/documents: ingests the files of a form, then deletes them, but keeps PDFs for pictures of their pages."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, BinaryIO

from fastapi import APIRouter, Form, UploadFile
from pydantic import Field

from openbook.core.config import Settings
from openbook.core.derived import UPLOADS, DerivedFolder
from openbook.core.files import make_folder, storage_errors
from openbook.core.records import Embedder, Verdict
from openbook.knowledge import KnowledgeBase, RunOptions, add
from openbook.knowledge.cite.pictures import kept_name
from openbook.knowledge.index.scope import checked_labels
from openbook.knowledge.store.names import display_path
from openbook.knowledge.store.write_lock import clear_unlocked, file_lock
from openbook.parsers.metadata import is_sidecar
from openbook.proofs.absence import unheld
from openbook.serving.errors import ApiError, invalid
from openbook.serving.routing import FORM, Route, needs
from openbook.serving.schemas import Body, OfVersion
from openbook.serving.service import Call, CurrentCall

MAX_NAME_BYTES = 200

_BAD_IN_NAME = re.compile(r'[/\\:*?"<>|]')  # on some system; unprintable characters are refused too

router = APIRouter(route_class=Route)


class UploadBody(Body):
    """`labels`: access labels for all files. The key must hold them, and those that a file states itself."""

    file: list[UploadFile] = Field(min_length=1, description="A file with a name that is not plain fails.")
    labels: list[str] = []
    knowledge_base: str | None = None


@router.post("/v1/documents", **needs("write"))
async def upload(call: CurrentCall, body: Annotated[UploadBody, Form(media_type=FORM)]) -> OfVersion[Verdict]:
    """Ingest files as one new version. Each file gets a verdict; a failure does not stop the others.

    Names must be plain and unique within one upload; a file with another name fails. If no name is valid, the upload is
    refused.
    """
    service = call.service
    base = service.base(body.knowledge_base)
    labels = checked_labels(body.labels)
    if not labels <= call.caller.labels:
        message = "You can give a document only labels that your key holds."
        raise ApiError(403, message, code="label_not_held", param="labels")
    files: dict[str, BinaryIO] = {}
    refused: list[tuple[int, Verdict]] = []
    for place, each in enumerate(body.file):
        name = each.filename or ""
        if reason := upload_name_problem(name, files):
            refused.append((place, Verdict(name[:MAX_NAME_BYTES], "failed", reason)))
        else:
            files[name] = each.file
    if not files:
        raise invalid(refused[0][1].reason, "file", "invalid_file_name")
    options = replace(service.configuration.ingest, labels=labels, held_labels=call.caller.labels)
    settings = service.configuration.settings
    folder = settings.uploads_dir / base.id / call.caller.id

    def work(call: Call) -> tuple[int, list[Verdict]]:
        checked = replace(options, check_cancelled=call.stop.check)
        return add_uploads(base, service.embedder, folder, files, checked, kept_uploads(settings, base))

    version, verdicts = await call.run(None, work, service.configuration.bounds.upload_s)
    for place, verdict in refused:
        verdicts.insert(place, verdict)
    return OfVersion[Verdict](knowledge_base=base.id, version=version, data=verdicts)


def add_uploads(
    base: KnowledgeBase,
    embedder: Embedder,
    folder: Path,
    files: Mapping[str, BinaryIO],
    options: RunOptions,
    kept: Path | None = None,
) -> tuple[int, list[Verdict]]:
    """Ingest files as one version; return its number and verdicts in order.

    Files stay in `folder` only meanwhile; PDFs go to `kept`. An error of `options.check_cancelled` leaves no file and no
    version. `folder` belongs to one caller, so verdicts depend on its own uploads alone.
    """
    derived = DerivedFolder(kept.parent.parent) if kept else None
    mark = derived.purge_mark() if derived else ""
    with storage_errors(f"take in uploads in {folder}"):
        make_folder(folder)
        clear_unlocked(folder.parent)  # leftovers of a killed server
        with file_lock(folder, options.lock_timeout_s):
            try:
                for name, stream in files.items():
                    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
                    with os.fdopen(os.open(folder / name, flags, 0o600), "wb") as target:
                        shutil.copyfileobj(stream, target)
                report = add(base, [folder / name for name in files], embedder, replace(options, retry=True))
                if kept and derived:
                    with derived.writing() as may_write:
                        if may_write and derived.purge_mark() == mark:
                            _keep_pdfs(base, [folder / name for name in files], kept)
            finally:
                for path in folder.iterdir():
                    if path.name != ".lock":
                        path.unlink()
                with suppress(AttributeError, OSError, TypeError):  # the C library is not glibc
                    ctypes.CDLL(None).malloc_trim(0)  # threads' heaps keep freed memory
    found = {verdict.path: verdict for verdict in report.verdicts}
    return report.version, [_without_others(found[display_path(folder / name)]) for name in files]


def kept_uploads(settings: Settings, base: KnowledgeBase) -> Path:
    """The folder of this knowledge base's uploaded PDFs. A purge deletes it."""
    return settings.derived_dir / UPLOADS / base.id


def _keep_pdfs(base: KnowledgeBase, paths: Sequence[Path], kept: Path) -> None:
    """Keep what the newest version holds, and delete what no version holds."""
    for path in unheld(base, kept):
        path.unlink(missing_ok=True)
    for path in paths:
        content = base.content(display_path(path))
        if content is not None and content.media_type == "application/pdf":
            make_folder(kept)
            path.replace(kept / kept_name(content.key))


def _without_others(verdict: Verdict) -> Verdict:
    """Hide facts about other documents, such as the one with the same text."""
    if verdict.outcome in ("failed", "skipped"):
        return verdict
    return Verdict(verdict.path, "added" if verdict.outcome == "duplicate" else verdict.outcome)


def upload_name_problem(name: str, taken: Collection[str] = ()) -> str:
    """Why `name` is invalid, or empty. A valid name is printable and one file in one folder on every system."""
    if name in taken:
        return "Names must be unique within one upload. Only the first file with this name was added."
    plain = not _BAD_IN_NAME.search(name) and name.isprintable() and not name.startswith(".")
    if plain and 0 < len(name.encode()) <= MAX_NAME_BYTES and name == name.strip(" .") and not is_sidecar(name):
        return ""
    return (
        f"{name[:100]!r} is not a valid name for an upload. Use a plain file name of 1 to {MAX_NAME_BYTES} bytes, without "
        "folders, that does not begin with a dot and is not the name of a sidecar."
    )
