"""POST /v1/documents: files of a form, read into the knowledge base and gone."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from openbook.files import make_folder, storage_errors
from openbook.knowledge import KnowledgeBase, RunOptions, add
from openbook.knowledge.discovery import display_path
from openbook.knowledge.scope import checked_labels
from openbook.knowledge.write_lock import file_lock
from openbook.parsers.metadata import is_sidecar
from openbook.records import Embedder, Verdict
from openbook.serving.concurrency import Stop
from openbook.serving.configuration import Bounds, Configuration
from openbook.serving.errors import ApiError, invalid, unknown_parameter
from openbook.serving.schemas import FileVerdict, FileVerdicts, UploadBody
from openbook.serving.service import FORM, CallOf, Route, needs

MAX_NAME_BYTES = 200

_BAD_IN_NAME = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')
_FILES = {
    "type": "array",
    "items": {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"},
    "minItems": 1,
    "description": "Names must be plain and unique within one upload. A file with another name gets the verdict `failed`.",
}
_FIELDS = {"labels": {"type": "array", "items": {"type": "string"}}, "knowledge_base": {"type": "string"}}
_SCHEMA = {
    "type": "object",
    "properties": {"file": _FILES, **_FIELDS},
    "required": ["file"],
    "additionalProperties": False,
}

router = APIRouter(route_class=Route)


@router.post(
    "/v1/documents",
    **needs("write", requestBody={"required": True, "content": {FORM: {"schema": _SCHEMA}}}),
)
async def upload(call: CallOf) -> FileVerdicts:
    """Read files and add them as one new version. Each file gets a verdict; one that fails does not stop the others.

    Names must be plain and unique within one upload; a file with another name fails. If no name is valid, the upload is refused.
    """
    service = call.service
    bounds = service.configuration.bounds
    async with (
        service.uploading.place(),
        read_form(call.request, bounds) as form,
    ):  # few uploads are on the disk at a time
        fields = form.fields
        base = service.base(fields.knowledge_base)
        labels = checked_labels(fields.labels)
        if not labels <= call.caller.labels:
            message = "You can give a document only labels that your key holds."
            raise ApiError(403, message, code="label_not_held", param="labels")
        options = replace(run_options(service.configuration, fields.knowledge_base), labels=labels)
        folder = service.configuration.settings.uploads_dir / base.id / call.caller.id

        def work(stop: Stop) -> tuple[int, list[Verdict]]:
            return add_uploads(base, service.embedder, folder, form.files, replace(options, go_on=stop.check))

        version, verdicts = await call.run(None, work, bounds.upload_s)
    for place, verdict in form.refused:
        verdicts.insert(place, verdict)
    data = [FileVerdict.model_validate(each) for each in verdicts]
    return FileVerdicts(knowledge_base=base.id, version=version, data=data)


def run_options(configuration: Configuration, name: str | None) -> RunOptions:
    """How to read files for the knowledge base of that name (default: the first)."""
    given = configuration.reading
    name = name if name is not None else next(iter(given), "")
    return given.get(name, RunOptions())


def add_uploads(
    base: KnowledgeBase, embedder: Embedder, folder: Path, files: Mapping[str, BinaryIO], options: RunOptions
) -> tuple[int, list[Verdict]]:
    """Read files as one new version: its number, a verdict on each in their order.

    They are in `folder` only for as long as it takes; the knowledge base keeps their text. What `options.go_on` raises leaves
    no file and no version. The folder belongs to one caller: what it is told of a name depends on its own uploads alone.
    """
    with storage_errors(f"take in uploads in {folder}"):
        make_folder(folder)
        with file_lock(folder, options.lock_timeout_s):
            _empty(folder)  # what a server that was killed left
            try:
                for name, stream in files.items():
                    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
                    with os.fdopen(os.open(folder / name, flags, 0o600), "wb") as target:
                        shutil.copyfileobj(stream, target)
                report = add(base, [folder / name for name in files], embedder, replace(options, retry=True))
            finally:
                _empty(folder)
                with suppress(AttributeError, OSError, TypeError):  # another C library than glibc
                    ctypes.CDLL(None).malloc_trim(0)  # the heaps of threads keep what was freed
    found = {verdict.path: verdict for verdict in report.verdicts}
    return report.version, [_told(found[display_path(folder / name)]) for name in files]


def _told(verdict: Verdict) -> Verdict:
    """Without what it says about other documents: the caller may not see the one with the same text."""
    if verdict.outcome in ("failed", "skipped"):
        return verdict
    return Verdict(verdict.path, "added" if verdict.outcome == "duplicate" else verdict.outcome)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != ".lock":
            path.unlink()


# --- the form ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class UploadForm:
    """`files` by name, in their order; `refused`: verdicts on other files, each with its place among all, in order too."""

    files: dict[str, BinaryIO]
    refused: list[tuple[int, Verdict]]
    fields: UploadBody


@asynccontextmanager
async def read_form(request: Request, bounds: Bounds) -> AsyncIterator[UploadForm]:
    """Raises ApiError if it is not a form, or has no file with a valid name."""
    limits = {"max_files": bounds.upload_files, "max_fields": 64, "max_part_size": 10_000}
    try:
        form = await _Parser(request.headers, request.stream(), **limits).parse()
    except MultiPartException as error:
        raise invalid(f"The form cannot be read: {error.message}", code="invalid_form") from error
    try:
        yield _upload_form(form)
    finally:
        await form.close()


class _Parser(MultiPartParser):
    """Starlette's, but a form that is cut off is refused. Starlette returns what came before and keeps a file open.

    A form whose names cannot be decoded with its charset is refused too; some of Python's codecs fail in their own ways.
    """

    def __init__(self, headers: Headers, stream: AsyncGenerator[bytes, None], **limits: int) -> None:
        super().__init__(headers, self._whole(stream), **limits)
        self._ended = False

    def on_headers_finished(self) -> None:
        with _readable():
            super().on_headers_finished()

    def on_part_end(self) -> None:
        with _readable():
            super().on_part_end()

    def on_end(self) -> None:
        self._ended = True

    async def _whole(self, stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async for chunk in stream:
            yield chunk
        if not self._ended:
            raise MultiPartException("it is incomplete.")


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except UnicodeError as error:
        raise MultiPartException("its text does not match its charset.") from error


def _upload_form(form: FormData) -> UploadForm:
    """Raises ApiError."""
    files: dict[str, BinaryIO] = {}
    refused: list[tuple[int, Verdict]] = []
    fields: dict[str, Any] = {}
    for key, value in form.multi_items():
        if isinstance(value, UploadFile):
            if key != "file":
                raise invalid(f"Send files as parts named 'file', not {key[:60]!r}.", "file", "invalid_form")
            name = value.filename or ""
            if reason := name_problem(name, files):
                refused.append((len(files) + len(refused), Verdict(_shown(name), "failed", reason)))
            else:
                files[name] = value.file
        elif key == "labels":
            fields.setdefault(key, []).append(value)
        elif key in fields:
            raise unknown_parameter(_shown(key))
        else:
            fields[_shown(key)] = value
    if not files and refused:
        raise invalid(refused[0][1].reason, "file", "invalid_file_name")
    if not files:
        raise invalid("Missing required parameter: 'file'.", "file", "missing_required_parameter")
    try:
        return UploadForm(files, refused, UploadBody.model_validate(fields))
    except ValidationError as error:
        found = [{**each, "loc": ("body", *each["loc"])} for each in error.errors(include_context=False)]
        raise RequestValidationError(found) from error


def _shown(name: str) -> str:
    """The name as it can be sent: some charsets make half surrogates."""
    return name[:MAX_NAME_BYTES].encode("utf-8", "replace").decode()


def name_problem(name: str, taken: Collection[str] = ()) -> str:
    """Why a file cannot come in under this name beside those that are `taken`; empty if it can.

    A valid name is one file in one folder on every system, and is printable.
    """
    if name in taken:
        return "Names must be unique within one upload. Only the first file with this name was added."
    plain = not _BAD_IN_NAME.search(name) and name.isprintable() and not name.startswith(".")
    if plain and 0 < len(name.encode()) <= MAX_NAME_BYTES and name == name.strip(" .") and not is_sidecar(name):
        return ""
    return (
        f"{name[:100]!r} is not a valid name for an upload. Use a plain file name of 1 to {MAX_NAME_BYTES} bytes, without "
        "folders, that does not begin with a dot and is not the name of a sidecar."
    )
