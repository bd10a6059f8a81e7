"""The documents of a knowledge base and its versions over HTTP: list, read, compare, remove, purge.

A caller sees and changes only documents that its labels allow. The others do not exist for that caller.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Collection
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Response

from openbook.deletion import Places, finish, purge_everywhere
from openbook.errors import KnowledgeError, NoPicture
from openbook.inference.kv_cache import KVCache
from openbook.knowledge import KnowledgeBase, pictures, remove
from openbook.knowledge.discovery import display_path
from openbook.knowledge.versions import diff, history
from openbook.models import ModelStore
from openbook.serving.auth import Caller
from openbook.serving.concurrency import Stop
from openbook.serving.configuration import Configuration
from openbook.serving.errors import ApiError, check_at_most
from openbook.serving.schemas import (
    Difference,
    DifferenceQuery,
    Document,
    Documents,
    DocumentsBody,
    DocumentsQuery,
    DocumentText,
    FileVerdict,
    FileVerdicts,
    ListQuery,
    Page,
    PageQuery,
    PurgeBody,
    Purged,
    ScopeOptions,
    TextQuery,
    Version,
    Versions,
)
from openbook.serving.service import Call, CallOf, Route, content, needs, scope_of
from openbook.serving.uploads import run_options

router = APIRouter(route_class=Route)

_PNG = "image/png"
_LISTS = ("added", "changed", "removed", "described", "passages_added", "passages_removed")


def _limit(call: Call, query: ListQuery, default: int | None = None) -> int:
    """How many entries to list. Raises ApiError for more than the bound."""
    most = call.service.configuration.bounds.listed
    limit = query.limit or default or most
    check_at_most(limit, most, "limit")
    return limit


@router.get("/v1/documents", **needs("read"))
async def list_documents(call: CallOf, query: Annotated[DocumentsQuery, Query()]) -> Documents:
    """The documents that the caller may see, in the order of their paths."""
    base = call.service.base(query.knowledge_base)
    options = ScopeOptions(as_of=query.as_of, where=query.where)
    limit = _limit(call, query)

    def work(stop: Stop) -> Documents:
        scope = scope_of(base, call.caller, options)
        stop.check()
        version, paths = base.kept_version(scope.as_of), base.documents(scope)
        first = 0 if query.after is None else bisect_right(paths, query.after)
        data = [Document(path=path) for path in paths[first : first + limit]]
        more = first + limit < len(paths)
        return Documents(knowledge_base=base.id, version=version, data=data, has_more=more)

    return await call.read(work)


@router.get("/v1/documents/text", **needs("read"))
async def document_text(call: CallOf, query: Annotated[TextQuery, Query()]) -> DocumentText:
    """A part of one document's text, for instance around a citation. `page` says where each page begins, if it has any."""
    base, path = call.service.base(query.knowledge_base), query.path
    most = call.service.configuration.bounds.text_chars
    length = query.length or most
    check_at_most(length, most, "length")

    def work(stop: Stop) -> DocumentText:
        stop.check()
        version = _version_seen(base, call.caller, path, query.as_of)
        stop.check()
        text, origin = base.text(path, version), base.origin(path, version)
        if text is None or origin is None:  # purged meanwhile
            raise _no_document(path, "path")
        start = min(query.start, len(text))
        end = min(start + length, len(text))
        pages = [*base.pages(path, version), (0, end)]  # (number, where it begins)
        return DocumentText(
            knowledge_base=base.id,
            version=version,
            path=path,
            media_type=origin.media_type,
            start=start,
            end=end,
            total=len(text),
            text=text[start:end],
            pages=[
                Page(page=page, start=begin)
                for (page, begin), (_, until) in pairwise(pages)
                if begin < end and until > start
            ],
        )

    return await call.read(work)


@router.get(
    "/v1/documents/page",
    response_class=Response,
    **needs("read", also=content(_PNG, format="binary")),
)
async def page_picture(call: CallOf, query: Annotated[PageQuery, Query()]) -> Response:
    """A page of a PDF as a picture, if its file has not changed since its text was read.

    Refused with 404 `page_not_found`; with 409 `not_a_pdf`, `file_not_kept` (it was uploaded), `file_unreadable` (usually it
    is gone), `file_changed` (its bytes differ from those that were read) and `page_not_drawn` (damaged, or over a limit).
    """
    configuration, path = call.service.configuration, query.path
    base = call.service.base(query.knowledge_base)
    limits = run_options(configuration, query.knowledge_base).limits
    limits = replace(limits, timeout_s=configuration.bounds.picture_s)

    def work(stop: Stop) -> bytes:
        origin = base.origin(path, _version_seen(base, call.caller, path, query.as_of))
        if origin is None:  # purged meanwhile
            raise _no_document(path, "path")
        try:
            return pictures.page_picture(path, origin, query.page, limits, stop)
        except NoPicture as error:
            stop.check()
            if error.code == "page_not_found":
                raise ApiError(404, str(error), code=error.code, param="page") from error
            uploads = display_path(Path(os.path.abspath(configuration.settings.uploads_dir))) + "/"
            if path.startswith(uploads) and error.code in ("file_unreadable", "file_changed"):
                message = "The page cannot be shown as a picture: this document was uploaded, and the server keeps only the text of uploads."
                raise ApiError(409, message, code="file_not_kept", param="path") from error
            raise ApiError(409, str(error), code=error.code, param="path") from error

    picture = await call.read(work)
    return Response(picture, headers={"cache-control": "private, no-store"}, media_type=_PNG)


def _version_seen(base: KnowledgeBase, caller: Caller, path: str, as_of: str | None) -> int:
    """The version asked for, in which the caller may see that document. Raises ApiError."""
    version = base.kept_version(scope_of(base, caller, ScopeOptions(as_of=as_of)).as_of)
    if path not in base.documents(caller.scope(version)):
        raise _no_document(path, "path")
    return version


# --- versions ---------------------------------------------------------------------------------------------------------


@router.get("/v1/versions", **needs("read"))
async def versions(call: CallOf, query: Annotated[ListQuery, Query()]) -> Versions:
    """The newest first. `documents` counts those that the caller may see. Changes between versions are not shown, since they count all documents."""
    base = call.service.base(query.knowledge_base)
    limit = _limit(call, query, default=100)

    def work(stop: Stop) -> list[Version]:
        return [
            Version(
                version=each.version,
                created_at=each.created_at,
                tags=list(each.tags),
                documents=len(base.documents(call.caller.scope(each.version))),
            )
            for each in stop.each(history(base)[:limit])
        ]

    return Versions(knowledge_base=base.id, data=await call.read(work))


@router.get("/v1/versions/difference", **needs("read"))
async def difference(call: CallOf, query: Annotated[DifferenceQuery, Query()]) -> Difference:
    """From version `before` to `after` (default: the newest), between what the caller may see of both.

    Each list has at most `limit` entries; `counts` says how many there are.
    """
    base = call.service.base(query.knowledge_base)
    limit = _limit(call, query, default=100)

    def work(stop: Stop) -> Difference:
        before, after = (
            base.kept_version(scope_of(base, call.caller, ScopeOptions(as_of=side), param).as_of)
            for side, param in ((query.before, "before"), (query.after, "after"))
        )
        found = diff(base, before, after, call.caller.scope(), stop.check)
        lists = {name: getattr(found, name) for name in _LISTS}
        return Difference.model_validate(
            {
                "knowledge_base": base.id,
                "before": before,
                "after": after,
                "counts": {name: len(each) for name, each in lists.items()},
                **{name: list(each[:limit]) for name, each in lists.items()},
            }
        )

    return await call.read(work)


# --- taking out -------------------------------------------------------------------------------------------------------


@router.post("/v1/documents/remove", **needs("write"))
async def remove_documents(call: CallOf, body: DocumentsBody) -> FileVerdicts:
    """Take documents out of the newest version; older ones still hold them."""
    service = call.service
    base = service.base(body.knowledge_base)

    def work(stop: Stop) -> int:
        _check_visible(body.documents, base.documents(call.caller.scope()))
        return remove(base, body.documents).version

    version = await call.run(service.deleting, work, until_done=True)
    data = [FileVerdict(path=path, outcome="removed") for path in body.documents]
    return FileVerdicts(knowledge_base=base.id, version=version, data=data)


@router.post("/v1/documents/purge", **needs("admin"))
async def purge_documents(call: CallOf, body: PurgeBody) -> Purged:
    """Delete documents from all versions, indexes and caches, and prove it by a scan of all bytes."""
    service = call.service
    base = service.base(body.knowledge_base)

    def work(stop: Stop) -> Purged:
        places = places_of(service.configuration)
        finish(base, places)
        scopes = [call.caller.scope(each.version) for each in history(base)]
        seen = {path for scope in scopes for path in base.documents(scope)}
        _check_visible(body.documents, seen)
        try:
            done = purge_everywhere(base, body.documents, places, copies=body.copies)
        except KnowledgeError as error:
            if "--copies" not in str(error) or body.copies:
                raise
            # Without its message, which names the other documents with the text: the caller may not see them.
            message = "Another document holds the same text. To purge every copy, send copies: true."
            raise ApiError(409, message, code="text_is_elsewhere", param="copies") from error
        return Purged(
            knowledge_base=base.id,
            version=done.purged.version,
            documents=[path for path in done.purged.documents if path in seen],
            proved=done.proved,
            files_scanned=done.files,
            bytes_scanned=done.bytes,
            out_of_reach=dict(done.unreached),
            models_that_learned_it=[each.name for each in done.carried],
        )

    return await call.run(service.deleting, work, until_done=True)


def places_of(configuration: Configuration) -> Places:
    settings = configuration.settings
    states = KVCache(settings.states_dir, memory_bytes=settings.kv_memory << 20, disk_bytes=settings.kv_disk << 20)
    return Places(settings, states, ModelStore(settings.models_dir))


def _check_visible(wanted: Collection[str], seen: Collection[str]) -> None:
    for path in wanted:
        if path not in seen:
            raise _no_document(path, "documents")


def _no_document(path: str, param: str) -> ApiError:
    """The same for a missing document and for one that the caller may not see."""
    message = f"There is no document {path[:200]!r}; GET /v1/documents lists them."
    return ApiError(404, message, code="document_not_found", param=param)
