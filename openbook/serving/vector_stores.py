"""/v1/files and /v1/vector_stores: documents and the served knowledge bases in the shapes that OpenAI documents."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Query, Response, UploadFile
from pydantic import Field

from openbook.answers.prompts import checked_question
from openbook.knowledge import KnowledgeBase
from openbook.knowledge.cite.editions import DocumentInfo
from openbook.knowledge.versions import times
from openbook.serving.documents import DocumentsBody, ListQuery, remove_documents
from openbook.serving.errors import ApiError, invalid
from openbook.serving.schemas import Body, Filter, OfBase, refused_unless
from openbook.serving.service import FORM, Call, CurrentCall, Route, content_of, needs, scope_of
from openbook.serving.uploads import UploadBody, upload

router = APIRouter(route_class=Route)

_TO_READ: Any = refused_unless("assistants user_data", "files are documents to answer from")
_FILES = "/v1/vector_stores/{vector_store_id}/files"


class FilesQuery(ListQuery):
    """`after`: the last id of the page before."""

    after: str | None = None
    purpose: Annotated[Literal["assistants", "user_data"], _TO_READ] | None = None


# --- ids --------------------------------------------------------------------------------------------------------------


def file_id_of(document: str) -> str:
    """The path of a document as an id that fits in an address."""
    return "file-" + base64.urlsafe_b64encode(document.encode(errors="replace")).rstrip(b"=").decode()


def document_of(file: str) -> str:
    """The path in an id. Raises ApiError."""
    digits = file.removeprefix("file-")
    try:
        document = base64.b64decode(digits + "=" * (-len(digits) % 4), b"-_", validate=True).decode()
    except ValueError as error:
        raise _no_file(file) from error
    if file_id_of(document) != file:
        raise _no_file(file)
    return document


def _no_file(file: str) -> ApiError:
    message = f"There is no file {file[:200]!r}; GET /v1/files lists them."
    return ApiError(404, message, code="file_not_found", param="file_id")


def _base(call: Call, store: str) -> KnowledgeBase:
    return call.service.base(store, "vector_store_id")


def _time(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def _attributes(info: DocumentInfo) -> dict[str, Any]:
    return {key: value for key, value in info.metadata if not isinstance(value, tuple)}


def _file(info: DocumentInfo) -> dict[str, Any]:
    """`created_at`: when the version with this text was made."""
    return {
        "id": file_id_of(info.path),
        "object": "file",
        "bytes": info.bytes,
        "created_at": _time(info.created_at),
        "filename": PurePosixPath(info.path).name,
        "purpose": "assistants",
        "status": "processed",
    }


def _store_file(store: str, info: DocumentInfo) -> dict[str, Any]:
    return {
        "id": file_id_of(info.path),
        "object": "vector_store.file",
        "created_at": _time(info.created_at),
        "usage_bytes": info.bytes,
        "vector_store_id": store,
        "status": "completed",
        "last_error": None,
        "attributes": _attributes(info),
    }


def _listed(data: list[dict[str, Any]], *, has_more: bool = False) -> dict[str, Any]:
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": has_more}


# --- files ------------------------------------------------------------------------------------------------------------


class FileBody(UploadBody):
    """As `POST /v1/documents`, with one file."""

    file: list[UploadFile] = Field(min_length=1, max_length=1)
    purpose: Annotated[Literal["assistants", "user_data"], _TO_READ]


@router.post("/v1/files", **needs("write"))
async def create_file(call: CurrentCall, body: Annotated[FileBody, Form(media_type=FORM)]) -> dict[str, Any]:
    """Ingest a file. Another upload of the same name by the same key replaces it in a new version."""
    (verdict,) = (await upload(call, body)).data
    if verdict.outcome in ("failed", "skipped"):
        raise invalid(f"The file was not taken in: {verdict.reason}", "file", "file_not_read")
    query = OfBase(knowledge_base=body.knowledge_base)
    return await call.compute(partial(retrieve_file, file_id=file_id_of(verdict.path), query=query))


@router.get("/v1/files", **needs("read"))
def list_files(call: CurrentCall, query: Annotated[FilesQuery, Query()]) -> dict[str, Any]:
    """The documents that the caller may see, ordered by path. `has_more`: pass `last_id` as `after` for the next page."""
    return _page(call, call.service.base(query.knowledge_base), query, _file)


@router.get("/v1/files/{file_id}", **needs("read"))
def retrieve_file(call: CurrentCall, file_id: str, query: Annotated[OfBase, Query()]) -> dict[str, Any]:
    """One document."""
    return _file(_find(call, call.service.base(query.knowledge_base), file_id))


@router.get(
    "/v1/files/{file_id}/content",
    response_class=Response,
    **needs("read", also=content_of("text/plain", type="string")),
)
def file_content(call: CurrentCall, file_id: str, query: Annotated[OfBase, Query()]) -> Response:
    """The text that was read of the file, whatever its format."""
    base = call.service.base(query.knowledge_base)
    with base.snapshot():
        text = base.text(_find(call, base, file_id).path)
    return Response(text, headers={"cache-control": "private, no-store"}, media_type="text/plain")


@router.delete("/v1/files/{file_id}", **needs("write"))
async def delete_file(call: CurrentCall, file_id: str, query: Annotated[OfBase, Query()]) -> dict[str, Any]:
    """Remove a document in a new version; older versions keep it until a purge."""
    base = call.service.base(query.knowledge_base)
    info = await call.compute(lambda call: _find(call, base, file_id))
    await remove_documents(call, DocumentsBody(documents=[info.path], knowledge_base=query.knowledge_base))
    return {"id": file_id, "object": "file", "deleted": True}


def _page(
    call: Call, base: KnowledgeBase, query: FilesQuery, entry: Callable[[DocumentInfo], dict[str, Any]]
) -> dict[str, Any]:
    limit, after = query.checked_limit(call), document_of(query.after) if query.after else ""
    found = list(base.document_info(None, call.caller.scope(), after=after, limit=limit + 1).values())
    return _listed(list(map(entry, found[:limit])), has_more=len(found) > limit)


def _find(call: Call, base: KnowledgeBase, file: str) -> DocumentInfo:
    """Raises ApiError unless the caller may see the document."""
    document, scope = document_of(file), call.caller.scope()
    with base.snapshot():
        if not base.holds(document, scope):
            raise _no_file(file)
        return base.document_info([document], scope)[document]


# --- vector stores ----------------------------------------------------------------------------------------------------


@router.get("/v1/vector_stores", **needs("read"))
def list_vector_stores(call: CurrentCall) -> dict[str, Any]:
    """The knowledge bases of this server, on one page."""
    return _listed([retrieve_vector_store(call, name) for name in call.stop.each(call.service.bases)])


@router.post("/v1/vector_stores", **needs("write"))
async def create_vector_store(call: CurrentCall) -> None:
    """Refused: the server's operator makes knowledge bases."""
    message = (
        "A vector store is a knowledge base of this server, and no request makes one. GET /v1/vector_stores lists those that "
        "there are; filters choose a part. The server's operator makes another with: openbook sync FOLDER --kb PLACE"
    )
    raise invalid(message, code="unsupported_operation")


@router.get("/v1/vector_stores/{vector_store_id}", **needs("read"))
def retrieve_vector_store(call: CurrentCall, vector_store_id: str) -> dict[str, Any]:
    """One knowledge base; its name is its id. Counts and bytes are of the documents that the caller may see."""
    base, scope = _base(call, vector_store_id), call.caller.scope()
    with base.snapshot():
        count, size, (oldest, newest) = base.count(scope), base.source_bytes(scope), times(base)
    return {
        "id": vector_store_id,
        "object": "vector_store",
        "name": vector_store_id,
        "created_at": _time(oldest),
        "last_active_at": _time(newest),
        "status": "completed",
        "usage_bytes": size,
        "file_counts": {"completed": count, "total": count, "in_progress": 0, "failed": 0, "cancelled": 0},
        "metadata": {},
    }


class StoreFileBody(Body):
    """Attributes are stated in the file itself or its sidecar, so none are taken here. Texts are always split in the same way."""

    file_id: str
    attributes: Annotated[dict[str, Any], Field(max_length=0)] | None = None
    chunking_strategy: dict[Literal["type"], Literal["auto"]] | None = None


@router.post(_FILES, **needs("write"))
def add_store_file(call: CurrentCall, vector_store_id: str, body: StoreFileBody) -> dict[str, Any]:
    """An uploaded file, which is in the knowledge base already."""
    return retrieve_store_file(call, vector_store_id, body.file_id)


@router.get(_FILES, **needs("read"))
def list_store_files(call: CurrentCall, vector_store_id: str, query: Annotated[FilesQuery, Query()]) -> dict[str, Any]:
    """The documents that the caller may see, ordered by path. Attributes are their metadata without lists."""
    return _page(call, _base(call, vector_store_id), query, partial(_store_file, vector_store_id))


@router.get(_FILES + "/{file_id}", **needs("read"))
def retrieve_store_file(call: CurrentCall, vector_store_id: str, file_id: str) -> dict[str, Any]:
    """One document."""
    return _store_file(vector_store_id, _find(call, _base(call, vector_store_id), file_id))


@router.delete(_FILES + "/{file_id}", **needs("write"))
async def delete_store_file(call: CurrentCall, vector_store_id: str, file_id: str) -> dict[str, Any]:
    """Remove a document, as `DELETE /v1/files` does: a file is nowhere but in its knowledge base."""
    _base(call, vector_store_id)
    await delete_file(call, file_id, OfBase(knowledge_base=vector_store_id))
    return {"id": file_id, "object": "vector_store.file.deleted", "deleted": True}


# --- searching --------------------------------------------------------------------------------------------------------


class StoreSearchBody(Body):
    """`filters` are of attributes. `query`: one text, also as a list."""

    query: str | Annotated[list[str], Field(min_length=1, max_length=1)]
    filters: Filter | None = None
    max_num_results: int = Field(default=10, ge=1, le=50)
    rewrite_query: Literal[False] | None = None


@router.post("/v1/vector_stores/{vector_store_id}/search", **needs("read"))
def search_vector_store(call: CurrentCall, vector_store_id: str, body: StoreSearchBody) -> dict[str, Any]:
    """Passages for a query, best first, as `POST /v1/search` finds them."""
    base = _base(call, vector_store_id)
    query = checked_question(body.query if isinstance(body.query, str) else body.query[0])
    scope = scope_of(base, call.caller, None, body.filters.where if body.filters else "")
    _, hits = base.search(query, call.service.embedder, body.max_num_results, scope)
    about = base.document_info((hit.passage.document for hit in hits), scope)
    data = [
        {
            "file_id": file_id_of(hit.passage.document),
            "filename": PurePosixPath(hit.passage.document).name,
            "score": hit.score,
            "attributes": _attributes(about[hit.passage.document]),
            "content": [{"type": "text", "text": hit.passage.text}],
        }
        for hit in hits
        if hit.passage.document in about  # not removed since the search
    ]
    return {"object": "vector_store.search_results.page", "search_query": [query], "data": data}
