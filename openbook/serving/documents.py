"""The documents of a knowledge base over HTTP: list, read, add by upload, remove, purge.

A caller sees and changes only documents that its labels allow. The others do not exist for that caller.
"""

from __future__ import annotations

import os
import re
import shutil
from bisect import bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import JSONResponse

from openbook.errors import KnowledgeError
from openbook.files import make_folder, storage_errors
from openbook.inference.kv_cache import KVCache
from openbook.knowledge import KnowledgeBase, RunOptions, add, remove
from openbook.knowledge.discovery import display_path
from openbook.knowledge.locking import file_lock
from openbook.knowledge.scope import checked_labels
from openbook.knowledge.versions import history
from openbook.models import ModelStore
from openbook.parsers.metadata import is_sidecar
from openbook.purge import Places, finish, purge_everywhere
from openbook.records import Verdict
from openbook.serving.access import Caller
from openbook.serving.bodies import (
    DocumentsBody,
    DocumentsQuery,
    PurgeBody,
    ScopeOptions,
    TextQuery,
    UploadBody,
    parsed,
    unknown_parameter,
    validated,
)
from openbook.serving.configuration import Bounds, Configuration
from openbook.serving.memory import give_back_freed
from openbook.serving.queries import limit_of, query_of
from openbook.serving.refusals import Refusal
from openbook.serving.running import Stop
from openbook.serving.service import Service, check_at_most, scope_of
from openbook.serving.stopping import go_on

MAX_NAME_BYTES = 200

_BAD_IN_NAME = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')


async def list_documents(service: Service, request: Request, caller: Caller) -> JSONResponse:
    """The documents that the caller may see, in the order of their paths."""
    query = query_of(request, DocumentsQuery)
    base = service.base(query.knowledge_base)
    asked_scope = ScopeOptions(as_of=query.as_of, where=query.where)
    limit = limit_of(query, service.configuration.bounds.listed)

    def work(stop: Stop) -> tuple[int, list[str]]:
        scope = scope_of(base, caller, asked_scope)
        go_on(stop)
        return base.kept_version(scope.as_of), base.documents(scope)

    version, paths = await service.read(request.receive, work)
    first = 0 if query.after is None else bisect_right(paths, query.after)
    data = [{"object": "document", "path": path} for path in paths[first : first + limit]]
    more = first + limit < len(paths)
    return JSONResponse(
        {"object": "list", "knowledge_base": base.id, "version": version, "data": data, "has_more": more}
    )


async def document_text(service: Service, request: Request, caller: Caller) -> JSONResponse:
    """A part of one document's text, for instance around a citation. `page` says where each page begins, if it has any."""
    query = query_of(request, TextQuery)
    path, start = query.path, query.start
    base = service.base(query.knowledge_base)
    most = service.configuration.bounds.text_chars
    length = query.length or most
    check_at_most(length, most, "length")

    def work(stop: Stop) -> dict[str, Any]:
        go_on(stop)
        version = version_seen(base, caller, path, query.as_of)
        go_on(stop)
        text, origin = base.text(path, version), base.origin(path, version)
        if text is None or origin is None:  # purged meanwhile
            raise no_document(path, "path")
        part = text[start : start + length]
        first = min(start, len(text))
        place = {"start": first, "end": first + len(part), "total": len(text)}
        pages = _pages_within(base.pages(path, version), first, first + len(part))
        about = {"knowledge_base": base.id, "version": version, "path": path, "media_type": origin.media_type}
        return {**about, **place, "text": part, "pages": pages}

    return JSONResponse({"object": "document.text", **await service.read(request.receive, work)})


def version_seen(base: KnowledgeBase, caller: Caller, path: str, as_of: str | None) -> int:
    """The version asked for, in which the caller may see that document. Raises Refusal."""
    version = base.kept_version(scope_of(base, caller, ScopeOptions(as_of=as_of)).as_of)
    if path not in base.documents(caller.scope(version)):
        raise no_document(path, "path")
    return version


def _pages_within(pages: Sequence[tuple[int, int]], start: int, end: int) -> list[dict[str, int]]:
    """Those of `pages` (number, where it begins) of which something lies in `[start, end)`."""
    ends = [begin for _, begin in pages[1:]] + [end]
    return [
        {"page": page, "start": begin}
        for (page, begin), until in zip(pages, ends, strict=False)
        if begin < end and until > start
    ]


# --- adding -----------------------------------------------------------------------------------------------------------


async def upload(service: Service, request: Request, caller: Caller) -> JSONResponse:
    """Read files and add them as one new version. Each file gets a verdict; one that fails does not stop the others.

    Names must be plain and unique within one upload; a file with another name fails. If no name is valid, the upload is refused.
    """
    async with service.receiving.place():  # so that only so many uploads are on the disk at a time
        return await _upload(service, request, caller)


async def _upload(service: Service, request: Request, caller: Caller) -> JSONResponse:
    async with read_form(request, service.configuration.bounds) as form:
        fields = form.fields
        base, options = service.base(fields.knowledge_base), run_options(service, fields.knowledge_base)
        labels = checked_labels(fields.labels)
        if not labels <= caller.labels:
            raise Refusal(
                403, "You can give a document only labels that your key holds.", code="label_not_held", param="labels"
            )
        options = replace(options, labels=labels)
        folder = service.configuration.settings.uploads_dir / base.id / caller.id

        def work(stop: Stop) -> tuple[int, list[Verdict]]:
            return add_uploads(base, service, folder, form.files, replace(options, go_on=lambda: go_on(stop)))

        version, verdicts = await service.write(request.receive, work)
    for place, verdict in form.refused:
        verdicts.insert(place, verdict)
    data = [{"object": "verdict", **asdict(each)} for each in verdicts]
    return JSONResponse({"object": "list", "knowledge_base": base.id, "version": version, "data": data})


@dataclass(frozen=True, slots=True)
class Form:
    """`files` by name, in their order; `refused`: verdicts on other files, each with its place among all, in order too."""

    files: dict[str, BinaryIO]
    refused: list[tuple[int, Verdict]]
    fields: UploadBody


@asynccontextmanager
async def read_form(request: Request, bounds: Bounds) -> AsyncIterator[Form]:
    """Raises Refusal if it is not a form, or has no file with a valid name."""
    parser = _Parser(
        request.headers, request.stream(), max_files=bounds.upload_files, max_fields=64, max_part_size=10_000
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Refusal(400, f"The form cannot be read: {error.message}", code="invalid_form") from error
    try:
        yield _parts(form)
    finally:
        await form.close()


class _Parser(MultiPartParser):
    """Starlette's, but a form that is cut off is refused. Starlette returns what came before and keeps a file open.

    A form whose names cannot be decoded with its charset is refused too; some of Python's codecs fail in their own ways.
    """

    def __init__(self, headers: Headers, stream: AsyncGenerator[bytes, None], **bounds: int) -> None:
        super().__init__(headers, self._whole(stream), **bounds)
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


def add_uploads(
    base: KnowledgeBase, service: Service, folder: Path, files: Mapping[str, BinaryIO], options: RunOptions
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
                report = add(base, [folder / name for name in files], service.embedder, replace(options, retry=True))
            finally:
                _empty(folder)
                give_back_freed()
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


def _parts(form: FormData) -> Form:
    """Raises Refusal."""
    files: dict[str, BinaryIO] = {}
    refused: list[tuple[int, Verdict]] = []
    fields: dict[str, Any] = {}
    for key, value in form.multi_items():
        if isinstance(value, UploadFile):
            if key not in ("file", "files"):
                message = f"Send files as parts named 'file', not {key[:60]!r}."
                raise Refusal(400, message, code="invalid_form", param="file")
            name = value.filename or ""
            if (reason := _reason_against(name, files)) is None:
                files[name] = value.file
            else:
                refused.append((len(files) + len(refused), Verdict(_shown(name), "failed", reason)))
        elif key == "labels":
            fields.setdefault(key, []).append(value)
        elif key in fields:
            raise unknown_parameter(_shown(key))
        else:
            fields[_shown(key)] = value
    if not files and refused:
        raise Refusal(400, refused[0][1].reason, code="invalid_file_name", param="file")
    if not files:
        message = "Missing required parameter: 'file'."
        raise Refusal(400, message, code="missing_required_parameter", param="file")
    return Form(files, refused, validated(UploadBody, fields))


def _reason_against(name: str, taken: Collection[str]) -> str | None:
    """Why a file cannot come in under this name beside those that are `taken`, or None."""
    if name in taken:
        return "Names must be unique within one upload. Only the first file with this name was added."
    try:
        checked_name(name)
    except Refusal as refusal:
        return refusal.message
    return None


def _shown(name: str) -> str:
    """The name as it can be sent: some charsets make half surrogates."""
    return name[:MAX_NAME_BYTES].encode("utf-8", "replace").decode()


def checked_name(name: str) -> str:
    """A name that is one file in one folder on every system, and is printable. Raises Refusal."""
    plain = not _BAD_IN_NAME.search(name) and name.isprintable() and not name.startswith(".")
    if not plain or not 0 < len(name.encode()) <= MAX_NAME_BYTES or name != name.strip(" .") or is_sidecar(name):
        message = (
            f"{name[:100]!r} is not a valid name for an upload. Use a plain file name of 1 to {MAX_NAME_BYTES} bytes, without "
            "folders, that does not begin with a dot and is not the name of a sidecar."
        )
        raise Refusal(400, message, code="invalid_file_name", param="file")
    return name


def run_options(service: Service, name: str | None) -> RunOptions:
    """How to read files for the knowledge base of that name (default: the first)."""
    name = name if name is not None else next(iter(service.bases), "")
    return service.configuration.reading.get(name, RunOptions())


# --- taking out -------------------------------------------------------------------------------------------------------


async def remove_documents(service: Service, request: Request, caller: Caller) -> JSONResponse:
    """Take documents out of the newest version; older ones still hold them."""
    body = parsed(DocumentsBody, await request.body())
    base = service.base(body.knowledge_base)

    def work(stop: Stop) -> int:
        _check_visible(body.documents, base.documents(caller.scope()))
        return remove(base, body.documents).version

    version = await service.delete(service.removing, request.receive, work)
    data = [{"object": "verdict", "path": path, "outcome": "removed", "reason": ""} for path in body.documents]
    return JSONResponse({"object": "list", "knowledge_base": base.id, "version": version, "data": data})


async def purge_documents(service: Service, request: Request, caller: Caller) -> JSONResponse:
    """Delete documents from all versions, indexes and caches, and prove it by a scan of all bytes."""
    body = parsed(PurgeBody, await request.body())
    base = service.base(body.knowledge_base)

    def work(stop: Stop) -> dict[str, Any]:
        places = places_of(service.configuration)
        finish(base, places)
        seen = _ever_seen(base, caller)
        _check_visible(body.documents, sorted(seen))
        try:
            done = purge_everywhere(base, body.documents, places, copies=body.copies)
        except KnowledgeError as error:
            raise _not_purged(error, copies=body.copies) from error
        return {
            "object": "purged",
            "knowledge_base": base.id,
            "version": done.purged.version,
            "documents": [path for path in done.purged.documents if path in seen],
            "proved": done.proved,
            "files_scanned": done.files,
            "bytes_scanned": done.bytes,
            "out_of_reach": done.unreached,
            "models_that_learned_it": [each.name for each in done.carried],
        }

    return JSONResponse(await service.delete(service.purging, request.receive, work))


def places_of(configuration: Configuration) -> Places:
    settings = configuration.settings
    states = KVCache(settings.states_dir, memory_bytes=settings.kv_memory << 20, disk_bytes=settings.kv_disk << 20)
    return Places(settings, states, ModelStore(settings.models_dir))


def _ever_seen(base: KnowledgeBase, caller: Caller) -> set[str]:
    """The documents of all kept versions that the caller may see."""
    return {path for each in history(base) for path in base.documents(caller.scope(each.version))}


def _check_visible(wanted: Sequence[str], seen: Sequence[str]) -> None:
    """Raises the same Refusal for a missing document and for one that the caller may not see."""
    for path in wanted:
        if path not in seen:
            raise no_document(path, "documents")


def no_document(path: str, param: str) -> Refusal:
    """The refusal for a missing document and for one that the caller may not see."""
    message = f"There is no document {path[:200]!r}; GET /v1/documents lists them."
    return Refusal(404, message, code="document_not_found", param=param)


def _not_purged(error: KnowledgeError, *, copies: bool) -> Exception:
    """Without its message, which names the other documents with the text: the caller may not see them."""
    if "--copies" not in str(error) or copies:
        return error
    message = "Another document holds the same text. To purge every copy, send copies: true."
    return Refusal(409, message, code="text_is_elsewhere", param="copies")
