"""A knowledge base's documents over HTTP. Documents that the caller may not see do not exist for it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from openbook.core.errors import KnowledgeError, QuestionError, TextIsElsewhere
from openbook.core.records import HeadingMark, MetadataValue, Verdict
from openbook.knowledge import KnowledgeBase, remove
from openbook.knowledge.documents import RefusedFile, examples, headings_between, page_starts, refused_files
from openbook.knowledge.ingest.remedies import remedy
from openbook.knowledge.store.integrity import StoredContent
from openbook.knowledge.store.names import display_path, resolve, resolve_one
from openbook.knowledge.updates import forget_verdicts
from openbook.knowledge.versions import history
from openbook.proofs.purge import clear_remnants, finish_purge_everywhere, proof_of, purge_everywhere
from openbook.proofs.signatures import public_key, sign
from openbook.serving.auth import Caller
from openbook.serving.errors import ApiError, check_at_most
from openbook.serving.routing import Route, needs
from openbook.serving.schemas import Count, NonEmpty, OfBase, Offset, OfVersion, Reply
from openbook.serving.service import Call, CurrentCall, scope_of
from openbook.serving.standing_questions import recorded_changes

router = APIRouter(route_class=Route)

LISTING = "GET /v1/documents lists them."


class ListQuery(OfBase):
    limit: Count | None = None

    def checked_limit(self, call: Call, default: int | None = None) -> int:
        """The page size, by default at most `default`. Raises ApiError above the bound."""
        most = call.service.configuration.bounds.listed
        limit = self.limit or min(default or most, most)
        check_at_most(limit, most, "entries", "limit")
        return limit


class DocumentQuery(OfBase):
    """`path`: of a document, or the end of it that no other document has."""

    path: NonEmpty


class PathQuery(DocumentQuery):
    as_of: str | None = None

    def found(self, base: KnowledgeBase, caller: Caller) -> tuple[str, int, StoredContent]:
        """(path, version, content). Raises ApiError unless the caller may see the document."""
        version = base.kept_version(scope_of(base, caller, self.as_of).as_of)
        scope = caller.scope(version)
        path = self.path if base.holds(self.path, scope) else one_document(base.documents(scope), self.path)
        if (stored := base.content(path, version)) is None:  # purged meanwhile
            message = f"No document {self.path[:200]!r} in the knowledge base. {LISTING}"
            raise ApiError(404, message, code="document_not_found", param="path")
        return path, version, stored


# --- reading ----------------------------------------------------------------------------------------------------------


class DocumentsQuery(ListQuery):
    """`after`: list only paths after this one."""

    as_of: str | None = None
    where: str = ""
    after: str | None = None


class Document(Reply):
    """`pages`: null without pages. `labels`: those that it takes to see the document.

    `version`: the oldest kept one from which on it has this text; `created_at`: when that was made.
    """

    object: Literal["document"] = "document"
    path: str
    title: str
    media_type: str
    bytes: int
    characters: int
    pages: int | None
    passages: int
    labels: tuple[str, ...]
    metadata: dict[str, MetadataValue]
    version: int
    created_at: str


class Documents(OfVersion[Document]):
    """`has_more`: pass the last path as `after` for the next page."""

    has_more: bool


@router.get("/v1/documents", **needs("read"))
def list_documents(call: CurrentCall, query: Annotated[DocumentsQuery, Query()]) -> Documents:
    """The documents that the caller may see, ordered by path."""
    base, limit = call.service.base(query.knowledge_base), query.checked_limit(call)
    scope = scope_of(base, call.caller, query.as_of, query.where)
    with base.snapshot():
        version = base.kept_version(scope.as_of)
        found = list(base.document_info(None, scope, after=query.after or "", limit=limit + 1).values())
    data = [Document(**{**each._asdict(), "metadata": dict(each.metadata)}) for each in found[:limit]]
    return Documents(knowledge_base=base.id, version=version, data=data, has_more=len(found) > limit)


class TextQuery(PathQuery):
    """`length` characters of the document at `path`, beginning at character `start`."""

    start: Offset = 0
    length: Count | None = None


class Page(Reply):
    page: int
    start: int


class DocumentText(Reply):
    """Characters `start` to `end` of `total`. `media_type`: the source file's. `headings`: those known of this part.

    `origin`: where the document says that it came from, in its metadata `url` or `source`; untrusted text, or empty.
    """

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
    headings: list[HeadingMark]
    origin: str


@router.get("/v1/documents/text", **needs("read"))
def document_text(call: CurrentCall, query: Annotated[TextQuery, Query()]) -> DocumentText:
    """Part of a document's text. `pages` says where each page begins, if it has any."""
    base = call.service.base(query.knowledge_base)
    most = call.service.configuration.bounds.text_chars
    length = query.length or most
    check_at_most(length, most, "characters", "length")
    with base.snapshot():
        path, version, stored = query.found(base, call.caller)
        spans = base.spans(stored)
        said = dict(base.document_info([path], call.caller.scope(version))[path].metadata)
    start = min(query.start, len(stored.text))
    end = min(start + length, len(stored.text))
    pages = [
        Page(page=page, start=begin)
        for (page, begin), (_, until) in pairwise([*page_starts(spans), (0, end)])
        if begin < end and until > start
    ]
    return DocumentText(
        knowledge_base=base.id,
        version=version,
        path=path,
        media_type=stored.media_type,
        start=start,
        end=end,
        total=len(stored.text),
        text=stored.text[start:end],
        pages=pages,
        headings=headings_between(stored.text, spans, start, end),
        origin=next((each for key in ("url", "source") if isinstance(each := said.get(key), str)), ""),
    )


class ExamplesQuery(OfBase):
    as_of: str | None = None
    limit: Annotated[Count, Field(le=20)] = 4


class Example(Reply):
    """A question to ask: what `document` says about `heading`, or, if that is empty, what it is about."""

    object: Literal["example"] = "example"
    document: str
    heading: str


@router.get("/v1/examples", **needs("read"))
def list_examples(call: CurrentCall, query: Annotated[ExamplesQuery, Query()]) -> OfVersion[Example]:
    """Headings of documents that the caller may see, one a document, for questions to begin with."""
    base = call.service.base(query.knowledge_base)
    with base.snapshot():
        scope = scope_of(base, call.caller, query.as_of)
        version = base.kept_version(scope.as_of)
        found = examples(base, scope, query.limit)
    data = [Example(document=document, heading=heading) for document, heading in found]
    return OfVersion[Example](knowledge_base=base.id, version=version, data=data)


@dataclass(frozen=True, slots=True)
class FileRemedy(RefusedFile):
    """`remedy`: what to do, with the command; empty if nothing is known to help."""

    remedy: str


@router.get("/v1/verdicts", **needs("admin"))
def verdicts(call: CurrentCall, query: Annotated[ListQuery, Query()]) -> OfVersion[FileRemedy]:
    """Files that are not in the knowledge base, or only with an older text, and what helps. Of uploads only the caller's own."""
    base, limit = call.service.base(query.knowledge_base), query.checked_limit(call)
    uploads, own = all_uploads(call), _own_uploads(call, base)
    with base.snapshot():
        version, found = base.version, refused_files(base, call.caller.labels)
    shown = [each for each in found if each.path.startswith(own) or not each.path.startswith(uploads)]
    data = [
        FileRemedy(
            **asdict(each),
            # The server has deleted an uploaded file, so that its path is of no use.
            remedy=remedy(each.reason, "FILE" if each.path.startswith(own) else each.path, base.store.place),
        )
        for each in shown[:limit]
    ]
    return OfVersion[FileRemedy](knowledge_base=base.id, version=version, data=data)


class VerdictsBody(OfBase):
    """`paths`: as `GET /v1/verdicts` lists them."""

    paths: list[str] = Field(min_length=1, max_length=1000)


@router.post("/v1/verdicts/remove", **needs("write"))
async def remove_verdicts(call: CurrentCall, body: VerdictsBody) -> OfVersion[Verdict]:
    """Forget uploads of the caller's own that failed. Documents stay as they are."""
    base = call.service.base(body.knowledge_base)
    own = _own_uploads(call, base)

    def work(_: Call) -> OfVersion[Verdict]:
        mine = {each.path for each in refused_files(base, call.caller.labels) if each.path.startswith(own)}
        for path in body.paths:
            if path not in mine:
                message = f"No upload of yours with the path {path[:200]!r} failed. GET /v1/verdicts lists them."
                raise ApiError(404, message, code="verdict_not_found", param="paths")
        version = forget_verdicts(base, body.paths)
        data = [Verdict(path, "removed") for path in body.paths]
        return OfVersion[Verdict](knowledge_base=base.id, version=version, data=data)

    return await call.run(call.service.deleting, work, until_done=True)


# --- removing and purging ---------------------------------------------------------------------------------------------


class DocumentsBody(OfBase):
    """`documents`: paths, unique ends of paths, or folders for all below."""

    documents: list[str] = Field(min_length=1, max_length=1000)

    def meant(self, seen: Collection[str]) -> list[str]:
        """The paths, among those that the caller may see. Raises ApiError."""
        paths, whole = sorted(seen), set(seen)
        named = ([name] if name in whole else named_documents(paths, name, "documents") for name in self.documents)
        return list(dict.fromkeys(path for several in named for path in several))


@router.post("/v1/documents/remove", **needs("write"))
async def remove_documents(call: CurrentCall, body: DocumentsBody) -> OfVersion[Verdict]:
    """Remove documents in a new version; older versions keep them."""
    base = call.service.base(body.knowledge_base)

    def work(_: Call) -> tuple[list[str], int]:
        paths = body.meant(base.documents(call.caller.scope()))
        return paths, remove(base, paths).version

    paths, version = await call.run(call.service.deleting, work, until_done=True)
    data = [Verdict(path, "removed") for path in paths]
    return OfVersion[Verdict](knowledge_base=base.id, version=version, data=data)


class PurgeBody(DocumentsBody):
    copies: bool = False


class PurgeReply(Reply):
    """Of `partly_kept` documents, only a text was purged. `proved`: no unscanned file, weights aside, may hold a trace.

    `out_of_reach`: files not scanned, counted by reason. `beyond_reach`: places no purge reaches, (reason, sentence).
    `models_that_may_have_learned_it`: those whose training record cannot be read. `changes_deleted`: recorded changes of
    the answers to the caller's standing questions. `proof`: the signed proof as a file for
    `openbook verify`; empty for a key that lacks a label of some document, since a proof counts all that was deleted.
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
    changes_deleted: int
    proof: str


@router.post("/v1/documents/purge", **needs("admin"))
async def purge_documents(call: CurrentCall, body: PurgeBody) -> PurgeReply:
    """Delete documents from all versions, indexes and caches, and prove it by a scan of all bytes."""
    base, settings = call.service.base(body.knowledge_base), call.service.configuration.settings

    def work(_: Call) -> PurgeReply:
        shows_all = base.shows_all_to(call.caller.labels)  # a label may go with the documents
        public_key(settings.home)  # raises before anything is deleted
        finish_purge_everywhere(base, settings)
        scopes = [call.caller.scope(each.version) for each in history(base)]
        seen = {path for scope in scopes for path in base.documents(scope)}
        try:
            paths = body.meant(seen)
        except ApiError:
            clear_remnants(base, settings)
            raise
        try:
            changes = recorded_changes(call)
            done = purge_everywhere(base, paths, settings, copies=body.copies)
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
            changes_deleted=changes,
            proof=sign(settings.home, proof_of(done, base)).decode() if shows_all else "",
        )

    return await call.run(call.service.deleting, work, until_done=True)


def named_documents(seen: Sequence[str], name: str, param: str) -> list[str]:
    """Those that `name` means, as in `resolve`, among the paths that the caller may see. Raises ApiError."""
    try:
        return resolve(seen, name, listing=LISTING)
    except KnowledgeError as error:
        raise ApiError(404, str(error), code="document_not_found", param=param) from None


def one_document(seen: Sequence[str], name: str) -> str:
    """As `named_documents`, for a `path` of one document."""
    with not_found():
        return resolve_one(seen, name, LISTING)


@contextmanager
def not_found() -> Iterator[None]:
    try:
        yield
    except QuestionError as error:
        raise ApiError(404, str(error), code="document_not_found", param="path") from None


def all_uploads(call: Call) -> str:
    """The beginning of the path of every upload."""
    return display_path(Path(os.path.abspath(call.service.configuration.settings.uploads_dir))) + "/"


def _own_uploads(call: Call, base: KnowledgeBase) -> str:
    return f"{all_uploads(call)}{base.id}/{call.caller.id}/"
