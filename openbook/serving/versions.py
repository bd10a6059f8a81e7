"""A knowledge base's versions over HTTP, and what changed between them. Documents that the caller may not see do not exist for it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query

from openbook.knowledge import KnowledgeBase
from openbook.knowledge.documents import DocumentChange, document_history
from openbook.knowledge.lookup import compare
from openbook.knowledge.versions import Difference, diff, history
from openbook.knowledge.word_diff import Piece
from openbook.serving.documents import LISTING, DocumentQuery, ListQuery, not_found, one_document
from openbook.serving.routing import Route, needs
from openbook.serving.schemas import ListOf, NonEmpty, Reply
from openbook.serving.service import Call, CurrentCall, scope_of

router = APIRouter(route_class=Route)


def _version(base: KnowledgeBase, call: Call, side: str | None, param: str) -> int:
    return base.kept_version(scope_of(base, call.caller, side, param=param).as_of)


class ListedVersion(Reply):
    """`documents` counts those that the caller may see."""

    object: Literal["version"] = "version"
    version: int
    created_at: str
    tags: tuple[str, ...]
    documents: int


class Versions(ListOf[ListedVersion]):
    knowledge_base: str


@router.get("/v1/versions", **needs("read"))
def versions(call: CurrentCall, query: Annotated[ListQuery, Query()]) -> Versions:
    """The kept versions, newest first."""
    base, limit = call.service.base(query.knowledge_base), query.checked_limit(call, default=100)
    kept = call.stop.each(history(base)[:limit])
    seen = (replace(each, documents=base.count(call.caller.scope(each.version))) for each in kept)
    return Versions(knowledge_base=base.id, data=[ListedVersion.model_validate(each) for each in seen])


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
def difference(call: CurrentCall, query: Annotated[DifferenceQuery, Query()]) -> ServedDifference:
    """Changes from version `before` to `after` (default: the newest) that the caller may see, at most `limit` entries a list."""
    base, limit = call.service.base(query.knowledge_base), query.checked_limit(call, default=100)
    before, after = _version(base, call, query.before, "before"), _version(base, call, query.after, "after")
    found = diff(base, before, after, call.caller.scope(), call.stop.check)
    values: dict[str, Any] = {each.name: getattr(found, each.name) for each in fields(found)}
    counts = {name: len(value) for name, value in values.items() if isinstance(value, tuple)}
    cut = {name: values[name][:limit] for name in counts}
    return ServedDifference(**{**values, **cut}, knowledge_base=base.id, counts=counts)


# --- of one document --------------------------------------------------------------------------------------------------


class DocumentHistory(ListOf[DocumentChange]):
    knowledge_base: str
    path: str


@router.get("/v1/documents/history", **needs("read"))
def document_versions(call: CurrentCall, query: Annotated[DocumentQuery, Query()]) -> DocumentHistory:
    """What the kept versions did to a document, newest first, also if it is removed now."""
    base = call.service.base(query.knowledge_base)
    path, labels = query.path, call.caller.labels
    if not (found := document_history(base, path, labels)):
        path = one_document(base.documents(call.caller.scope()), path)
        found = document_history(base, path, labels)
    most = call.service.configuration.bounds.listed
    return DocumentHistory(knowledge_base=base.id, path=path, data=found[:most])


class WordsQuery(DocumentQuery):
    """`after`: the newest version by default."""

    before: NonEmpty
    after: str | None = None


class DocumentDifference(Reply):
    object: Literal["document.difference"] = "document.difference"
    knowledge_base: str
    path: str
    before: int
    after: int
    pieces: list[Piece]


@router.get("/v1/documents/difference", **needs("read"))
def document_difference(call: CurrentCall, query: Annotated[WordsQuery, Query()]) -> DocumentDifference:
    """The words of a document that changed between two versions. In a version without the document, its text is empty."""
    base = call.service.base(query.knowledge_base)
    versions = _version(base, call, query.before, "before"), _version(base, call, query.after, "after")
    most, scope = call.service.configuration.bounds.text_chars, call.caller.scope()
    with not_found():
        path, pieces = compare(base, query.path, *versions, scope, max_chars=most, listing=LISTING)
    return DocumentDifference(knowledge_base=base.id, path=path, before=versions[0], after=versions[1], pieces=pieces)
