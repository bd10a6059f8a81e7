"""A knowledge base's documents and versions over HTTP. Documents that the caller may not see do not exist for it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from openbook.errors import TextIsElsewhere
from openbook.knowledge import KnowledgeBase, remove
from openbook.knowledge.store.integrity import StoredContent
from openbook.knowledge.versions import Difference, diff, history
from openbook.purge import clear_remnants, finish_purge_everywhere, purge_everywhere
from openbook.serving.auth import Caller
from openbook.serving.concurrency import Stop
from openbook.serving.errors import ApiError, check_at_most
from openbook.serving.schemas import Body, Count, FileVerdict, FileVerdicts, NonEmpty, Offset, OfVersion, Reply
from openbook.serving.service import Call, CurrentCall, Route, needs, scope_of

router = APIRouter(route_class=Route)


class ListQuery(Body):
    knowledge_base: str | None = None
    limit: Count | None = None

    def checked_limit(self, call: Call, default: int | None = None) -> int:
        """The page size, by default at most `default`. Raises ApiError above the bound."""
        most = call.service.configuration.bounds.listed
        limit = self.limit or min(default or most, most)
        check_at_most(limit, most, "entries", "limit")
        return limit


class PathQuery(Body):
    path: NonEmpty
    knowledge_base: str | None = None
    as_of: str | None = None

    def found(self, base: KnowledgeBase, caller: Caller) -> tuple[int, StoredContent]:
        """(version, content). Raises ApiError unless the caller may see the document."""
        version = base.kept_version(scope_of(base, caller, self.as_of).as_of)
        is_seen = base.holds(self.path, caller.scope(version))
        stored = base.content(self.path, version) if is_seen else None
        if stored is None:  # hidden from this caller, or purged meanwhile
            raise _no_document(self.path, "path")
        return version, stored


# --- reading ----------------------------------------------------------------------------------------------------------


class DocumentsQuery(ListQuery):
    """`after`: list only paths after this one."""

    as_of: str | None = None
    where: str = ""
    after: str | None = None


class Document(Reply):
    object: Literal["document"] = "document"
    path: str


class Documents(OfVersion):
    """`has_more`: pass the last path as `after` for the next page."""

    data: list[Document]
    has_more: bool


@router.get("/v1/documents", **needs("read"))
async def list_documents(call: CurrentCall, query: Annotated[DocumentsQuery, Query()]) -> Documents:
    """The documents that the caller may see, ordered by path."""
    base, limit = call.service.base(query.knowledge_base), query.checked_limit(call)

    def work(stop: Stop) -> Documents:
        scope = scope_of(base, call.caller, query.as_of, query.where)
        stop.check()
        with base.snapshot():
            version = base.kept_version(scope.as_of)
            paths = base.documents(scope, after=query.after or "", limit=limit + 1)
        data = [Document(path=path) for path in paths[:limit]]
        return Documents(knowledge_base=base.id, version=version, data=data, has_more=len(paths) > limit)

    return await call.compute(work)


class TextQuery(PathQuery):
    """`length` characters of the document at `path`, beginning at character `start`."""

    start: Offset = 0
    length: Count | None = None


class Page(Reply):
    page: int
    start: int


class DocumentText(Reply):
    """Characters `start` to `end` of `total`. `media_type`: the source file's."""

    object: Literal["document.text"] = "document.text"
    knowledge_base: str
    version: int
    path: str
    media_type: str
    start: int
    end: int
    total: int
    text: str
    pages: list[Page]


@router.get("/v1/documents/text", **needs("read"))
async def document_text(call: CurrentCall, query: Annotated[TextQuery, Query()]) -> DocumentText:
    """Part of a document's text. `pages` says where each page begins, if it has any."""
    base = call.service.base(query.knowledge_base)
    most = call.service.configuration.bounds.text_chars
    length = query.length or most
    check_at_most(length, most, "characters", "length")

    def work(stop: Stop) -> DocumentText:
        stop.check()
        with base.snapshot():
            version, stored = query.found(base, call.caller)
            begins = base.pages(stored)
        start = min(query.start, len(stored.text))
        end = min(start + length, len(stored.text))
        pages = [
            Page(page=page, start=begin)
            for (page, begin), (_, until) in pairwise([*begins, (0, end)])
            if begin < end and until > start
        ]
        return DocumentText(
            knowledge_base=base.id,
            version=version,
            path=query.path,
            media_type=stored.media_type,
            start=start,
            end=end,
            total=len(stored.text),
            text=stored.text[start:end],
            pages=pages,
        )

    return await call.compute(work)


# --- versions ---------------------------------------------------------------------------------------------------------


class ListedVersion(Reply):
    """`documents` counts those that the caller may see."""

    object: Literal["version"] = "version"
    version: int
    created_at: str
    tags: tuple[str, ...]
    documents: int


class Versions(Reply):
    object: Literal["list"] = "list"
    knowledge_base: str
    data: list[ListedVersion]


@router.get("/v1/versions", **needs("read"))
async def versions(call: CurrentCall, query: Annotated[ListQuery, Query()]) -> Versions:
    """The kept versions, newest first."""
    base, limit = call.service.base(query.knowledge_base), query.checked_limit(call, default=100)

    def work(stop: Stop) -> list[ListedVersion]:
        kept = stop.each(history(base)[:limit])
        seen = (replace(each, documents=base.count(call.caller.scope(each.version))) for each in kept)
        return [ListedVersion.model_validate(each) for each in seen]

    return Versions(knowledge_base=base.id, data=await call.compute(work))


class DifferenceQuery(ListQuery):
    before: NonEmpty
    after: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedDifference(Difference):
    """Each list may be cut; `counts` holds the full numbers."""

    object: Literal["difference"] = "difference"
    knowledge_base: str
    counts: dict[str, int]


@router.get("/v1/versions/difference", **needs("read"))
async def difference(call: CurrentCall, query: Annotated[DifferenceQuery, Query()]) -> ServedDifference:
    """Changes from version `before` to `after` (default: the newest) that the caller may see, at most `limit` entries a list."""
    base, limit = call.service.base(query.knowledge_base), query.checked_limit(call, default=100)

    def version(side: str | None, param: str) -> int:
        return base.kept_version(scope_of(base, call.caller, side, param=param).as_of)

    def work(stop: Stop) -> ServedDifference:
        before, after = version(query.before, "before"), version(query.after, "after")
        found = diff(base, before, after, call.caller.scope(), stop.check)
        values: dict[str, Any] = {each.name: getattr(found, each.name) for each in fields(found)}
        counts = {name: len(value) for name, value in values.items() if isinstance(value, tuple)}
        cut = {name: values[name][:limit] for name in counts}
        return ServedDifference(**{**values, **cut}, knowledge_base=base.id, counts=counts)

    return await call.compute(work)


# --- removing and purging ---------------------------------------------------------------------------------------------


class DocumentsBody(Body):
    documents: list[str] = Field(min_length=1, max_length=1000)
    knowledge_base: str | None = None

    def check_visible(self, seen: Collection[str]) -> None:
        for path in self.documents:
            if path not in seen:
                raise _no_document(path, "documents")


@router.post("/v1/documents/remove", **needs("write"))
async def remove_documents(call: CurrentCall, body: DocumentsBody) -> FileVerdicts:
    """Remove documents in a new version; older versions keep them."""
    base = call.service.base(body.knowledge_base)

    def work(stop: Stop) -> int:
        body.check_visible(base.documents(call.caller.scope()))
        return remove(base, body.documents).version

    version = await call.run(call.service.deleting, work, until_done=True)
    data = [FileVerdict(path=path, outcome="removed") for path in body.documents]
    return FileVerdicts(knowledge_base=base.id, version=version, data=data)


class PurgeBody(DocumentsBody):
    copies: bool = False


class PurgeReply(Reply):
    """Of `partly_kept` documents, only a text was purged. `proved`: no unscanned file, weights aside, may hold a trace.

    `out_of_reach`: files not scanned, counted by reason. `beyond_reach`: places no purge reaches, (reason, sentence).
    `models_that_may_have_learned_it`: those whose training record cannot be read.
    """

    object: Literal["purged"] = "purged"
    knowledge_base: str
    version: int
    documents: list[str]
    partly_kept: list[str]
    proved: bool
    files_scanned: int
    bytes_scanned: int
    out_of_reach: dict[str, int]
    beyond_reach: list[str]
    models_that_learned_it: list[str]
    models_that_may_have_learned_it: list[str]


@router.post("/v1/documents/purge", **needs("admin"))
async def purge_documents(call: CurrentCall, body: PurgeBody) -> PurgeReply:
    """Delete documents from all versions, indexes and caches, and prove it by a scan of all bytes."""
    base, settings = call.service.base(body.knowledge_base), call.service.configuration.settings

    def work(stop: Stop) -> PurgeReply:
        finish_purge_everywhere(base, settings)
        scopes = [call.caller.scope(each.version) for each in history(base)]
        seen = {path for scope in scopes for path in base.documents(scope)}
        try:
            body.check_visible(seen)
        except ApiError:
            clear_remnants(base, settings)
            raise
        try:
            done = purge_everywhere(base, body.documents, settings, copies=body.copies)
        except TextIsElsewhere as error:
            # The message would name the other documents with this text, which the caller may not see.
            message = "Another document holds the same text. To purge every copy, send copies: true."
            raise ApiError(409, message, code="text_is_elsewhere", param="copies") from error
        return PurgeReply(
            knowledge_base=base.id,
            version=done.purged.version,
            documents=[path for path in done.purged.documents if path in seen],
            partly_kept=[path for path in done.purged.partly_kept if path in seen],
            proved=done.proved,
            files_scanned=done.files,
            bytes_scanned=done.bytes,
            out_of_reach=dict(done.unreached),
            beyond_reach=[str(each) for each in done.purged.beyond_reach],
            models_that_learned_it=[each.name for each in done.carried if each.found],
            models_that_may_have_learned_it=[each.name for each in done.carried if each.found is None],
        )

    return await call.run(call.service.deleting, work, until_done=True)


def _no_document(path: str, param: str) -> ApiError:
    """The one error for missing and hidden documents."""
    message = f"There is no document {path[:200]!r}; GET /v1/documents lists them."
    return ApiError(404, message, code="document_not_found", param=param)
