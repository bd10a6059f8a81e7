"""/v1/vector_stores: the served knowledge bases in the shape of OpenAI's vector stores."""

from __future__ import annotations

from functools import partial
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, NoReturn

from fastapi import APIRouter, Query
from pydantic import Field

from openbook.knowledge import KnowledgeBase
from openbook.knowledge.cite.editions import DocumentInfo
from openbook.knowledge.versions import history
from openbook.prompts import checked_question
from openbook.records import Hit
from openbook.serving.concurrency import Stop
from openbook.serving.errors import invalid
from openbook.serving.files import FilesQuery, file_id, file_page, file_text, find_file, remove_file, time_of
from openbook.serving.schemas import Body, Filter, Reply
from openbook.serving.service import Call, CurrentCall, Route, needs, scope_of

router = APIRouter(route_class=Route)


# --- stores -----------------------------------------------------------------------------------------------------------


class FileCounts(Reply):
    completed: int
    total: int
    in_progress: Literal[0] = 0
    failed: Literal[0] = 0
    cancelled: Literal[0] = 0


class VectorStore(Reply):
    """`id`: the knowledge base's name. Counts and bytes are of the documents that the caller may see."""

    id: str
    object: Literal["vector_store"] = "vector_store"
    name: str
    created_at: int
    last_active_at: int
    status: Literal["completed"] = "completed"
    usage_bytes: int
    file_counts: FileCounts
    metadata: dict[str, str] = {}
    expires_after: None = None
    expires_at: None = None


class VectorStores(Reply):
    object: Literal["list"] = "list"
    data: list[VectorStore]
    first_id: str | None
    last_id: str | None
    has_more: Literal[False] = False


class StoresQuery(Body):
    """`after` ends the list, as all stores are on the first page."""

    after: str | None = None


@router.get("/v1/vector_stores", **needs("read"))
async def list_vector_stores(call: CurrentCall, query: Annotated[StoresQuery, Query()]) -> VectorStores:
    """The knowledge bases of this server."""
    names = [] if query.after else list(call.service.bases)
    data = await call.compute(lambda stop: [_store(call, name) for name in stop.each(names)])
    return VectorStores(data=data, first_id=names[0] if names else None, last_id=names[-1] if names else None)


@router.get("/v1/vector_stores/{vector_store_id}", **needs("read"))
async def retrieve_vector_store(call: CurrentCall, vector_store_id: str) -> VectorStore:
    """One knowledge base."""
    _base(call, vector_store_id)

    def work(stop: Stop) -> VectorStore:
        stop.check()
        return _store(call, vector_store_id)

    return await call.compute(work)


@router.post("/v1/vector_stores", **needs("write"))
async def create_vector_store(call: CurrentCall) -> VectorStore:
    """Refused: the server's operator makes knowledge bases."""
    _refuse()


@router.post("/v1/vector_stores/{vector_store_id}", **needs("write"))
async def update_vector_store(call: CurrentCall, vector_store_id: str) -> VectorStore:
    """Refused, as making one."""
    _refuse()


@router.delete("/v1/vector_stores/{vector_store_id}", **needs("write"))
async def delete_vector_store(call: CurrentCall, vector_store_id: str) -> VectorStore:
    """Refused, as making one."""
    _refuse()


def _refuse() -> NoReturn:
    message = (
        "A vector store is a knowledge base of this server, and no request makes, changes or deletes one. Use one that "
        "GET /v1/vector_stores lists, with filters for a part of it, or ask the server's operator, who makes one with: "
        "openbook sync FOLDER --kb PLACE"
    )
    raise invalid(message, code="unsupported_operation")


def _base(call: Call, name: str) -> KnowledgeBase:
    return call.service.base(name, "vector_store_id")


def _store(call: Call, name: str) -> VectorStore:
    base, scope = call.service.bases[name], call.caller.scope()
    with base.snapshot():
        count, size, versions = base.count(scope), base.source_bytes(scope), history(base)
    times = [time_of(each.created_at) for each in versions] or [0]
    return VectorStore(
        id=name,
        name=name,
        created_at=min(times),
        last_active_at=max(times),
        usage_bytes=size,
        file_counts=FileCounts(completed=count, total=count),
    )


# --- their files ------------------------------------------------------------------------------------------------------


class StoreFile(Reply):
    """`attributes`: the document's metadata without lists; its own fields and those of its sidecar."""

    id: str
    object: Literal["vector_store.file"] = "vector_store.file"
    created_at: int
    usage_bytes: int
    vector_store_id: str
    status: Literal["completed"] = "completed"
    last_error: None = None
    attributes: dict[str, str | int | float | bool]


class StoreFiles(Reply):
    object: Literal["list"] = "list"
    data: list[StoreFile]
    first_id: str | None
    last_id: str | None
    has_more: bool


class StoreFilesQuery(FilesQuery):
    knowledge_base: None = None
    purpose: None = None


class Auto(Body):
    type: Literal["auto"]


class StoreFileBody(Body):
    """`file_id`: of an uploaded file. Attributes are stated in the file itself or its sidecar, so none are taken here."""

    file_id: str
    attributes: Annotated[dict[str, Any], Field(max_length=0)] | None = None
    chunking_strategy: Auto | None = None


class DeletedStoreFile(Reply):
    id: str
    object: Literal["vector_store.file.deleted"] = "vector_store.file.deleted"
    deleted: Literal[True] = True


class TextContent(Reply):
    type: Literal["text"] = "text"
    text: str


class StoreFileContent(Reply):
    object: Literal["vector_store.file_content.page"] = "vector_store.file_content.page"
    data: list[TextContent]
    has_more: Literal[False] = False
    next_page: None = None


def _attributes(info: DocumentInfo) -> dict[str, Any]:
    return {key: value for key, value in info.metadata if not isinstance(value, tuple)}


def _store_file(store: str, info: DocumentInfo) -> StoreFile:
    return StoreFile(
        id=file_id(info.path),
        created_at=time_of(info.created_at),
        usage_bytes=info.bytes,
        vector_store_id=store,
        attributes=_attributes(info),
    )


_FILES = "/v1/vector_stores/{vector_store_id}/files"


@router.post(_FILES, **needs("write"))
async def add_store_file(call: CurrentCall, vector_store_id: str, body: StoreFileBody) -> StoreFile:
    """An uploaded file, which is in the knowledge base already."""
    return _store_file(vector_store_id, await find_file(call, _base(call, vector_store_id), body.file_id))


@router.get(_FILES, **needs("read"))
async def list_store_files(
    call: CurrentCall, vector_store_id: str, query: Annotated[StoreFilesQuery, Query()]
) -> StoreFiles:
    """The documents that the caller may see, ordered by path."""
    base = _base(call, vector_store_id)
    return StoreFiles(**await file_page(call, base, query, partial(_store_file, vector_store_id)))


@router.get(_FILES + "/{file_id}", **needs("read"))
async def retrieve_store_file(call: CurrentCall, vector_store_id: str, file_id: str) -> StoreFile:
    """One document."""
    return _store_file(vector_store_id, await find_file(call, _base(call, vector_store_id), file_id))


@router.get(_FILES + "/{file_id}/content", **needs("read"))
async def store_file_content(call: CurrentCall, vector_store_id: str, file_id: str) -> StoreFileContent:
    """The text that was read of the file."""
    text = await file_text(call, _base(call, vector_store_id), file_id)
    return StoreFileContent(data=[TextContent(text=text)])


@router.delete(_FILES + "/{file_id}", **needs("write"))
async def delete_store_file(call: CurrentCall, vector_store_id: str, file_id: str) -> DeletedStoreFile:
    """Remove a document, as `DELETE /v1/files` does: a file is nowhere but in its knowledge base."""
    await remove_file(call, _base(call, vector_store_id), file_id, vector_store_id)
    return DeletedStoreFile(id=file_id)


# --- searching --------------------------------------------------------------------------------------------------------


class RankingOptions(Body):
    ranker: str | None = None
    score_threshold: float = 0.0


class StoreSearchBody(Body):
    """`filters` are of attributes. `query`: one text, also as a list."""

    query: str | Annotated[list[str], Field(min_length=1, max_length=1)]
    filters: Filter | None = None
    max_num_results: int = Field(default=10, ge=1, le=50)
    ranking_options: RankingOptions | None = None
    rewrite_query: Literal[False] | None = None


class StoreHit(Reply):
    file_id: str
    filename: str
    score: float
    attributes: dict[str, str | int | float | bool]
    content: list[TextContent]


class StoreHits(Reply):
    object: Literal["vector_store.search_results.page"] = "vector_store.search_results.page"
    search_query: list[str]
    data: list[StoreHit]
    has_more: Literal[False] = False
    next_page: None = None


@router.post("/v1/vector_stores/{vector_store_id}/search", **needs("read"))
async def search_vector_store(call: CurrentCall, vector_store_id: str, body: StoreSearchBody) -> StoreHits:
    """Passages for a query, best first, as `POST /v1/search` finds them."""
    base = _base(call, vector_store_id)
    query = checked_question(body.query if isinstance(body.query, str) else body.query[0])
    least = body.ranking_options.score_threshold if body.ranking_options else 0.0

    def work(stop: Stop) -> tuple[list[Hit], dict[str, DocumentInfo]]:
        scope = scope_of(base, call.caller, None, body.filters.where if body.filters else "")
        stop.check()
        _, hits = base.search(query, call.service.embedder, body.max_num_results, scope)
        return hits, base.document_info((hit.passage.document for hit in hits), scope)

    hits, about = await call.compute(work)
    data = [
        StoreHit(
            file_id=file_id(hit.passage.document),
            filename=PurePosixPath(hit.passage.document).name,
            score=hit.score,
            attributes=_attributes(about[hit.passage.document]),
            content=[TextContent(text=hit.passage.text)],
        )
        for hit in hits
        if hit.score >= least and hit.passage.document in about  # not removed since the search
    ]
    return StoreHits(search_query=[query], data=data)
