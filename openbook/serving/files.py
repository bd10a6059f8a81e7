"""/v1/files: documents in the shape of OpenAI's files."""

from __future__ import annotations

import base64
from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Query, Response, UploadFile
from pydantic import Field

from openbook.knowledge import KnowledgeBase
from openbook.knowledge.cite.editions import DocumentInfo
from openbook.serving.concurrency import Stop
from openbook.serving.documents import DocumentsBody, ListQuery, remove_documents
from openbook.serving.errors import ApiError, invalid
from openbook.serving.schemas import Body, Reply, refused_unless
from openbook.serving.service import FORM, Call, CurrentCall, Route, needs, response_of
from openbook.serving.uploads import UploadBody, upload

router = APIRouter(route_class=Route)

_TO_READ: Any = refused_unless("assistants", "user_data", because="files are documents to answer from")
_BY_PATH: Any = refused_unless("asc", because="files are listed by path")


def file_id(document: str) -> str:
    """The path of a document as an id that fits in an address."""
    return "file-" + base64.urlsafe_b64encode(document.encode(errors="replace")).rstrip(b"=").decode()


def document_of(file: str) -> str:
    """The path in an id. Raises ApiError."""
    digits = file.removeprefix("file-")
    try:
        document = base64.b64decode(digits + "=" * (-len(digits) % 4), b"-_", validate=True).decode()
    except ValueError as error:
        raise no_file(file) from error
    if file_id(document) != file:
        raise no_file(file)
    return document


def no_file(file: str) -> ApiError:
    message = f"There is no file {file[:200]!r}; GET /v1/files lists them."
    return ApiError(404, message, code="file_not_found", param="file_id")


def time_of(text: str) -> int:
    """Seconds since 1970."""
    return int(datetime.fromisoformat(text).timestamp())


# --- uploading --------------------------------------------------------------------------------------------------------


class FileBody(UploadBody):
    """As `POST /v1/documents`, with one file."""

    file: list[UploadFile] = Field(min_length=1, max_length=1)
    purpose: Annotated[Literal["assistants", "user_data"], _TO_READ]


class File(Reply):
    """A document. `created_at`: when the version with this text was made."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: Literal["assistants"] = "assistants"
    status: Literal["processed"] = "processed"

    @classmethod
    def of(cls, info: DocumentInfo) -> File:
        return cls(
            id=file_id(info.path),
            bytes=info.bytes,
            created_at=time_of(info.created_at),
            filename=PurePosixPath(info.path).name,
        )


@router.post("/v1/files", **needs("write"))
async def create_file(call: CurrentCall, body: Annotated[FileBody, Form(media_type=FORM)]) -> File:
    """Ingest a file. Another upload of the same name by the same key replaces it in a new version."""
    (verdict,) = (await upload(call, body)).data
    if verdict.outcome in ("failed", "skipped"):
        raise invalid(f"The file was not taken in: {verdict.reason}", "file", "file_not_read")
    return File.of(await find_file(call, call.service.base(body.knowledge_base), file_id(verdict.path)))


# --- reading ----------------------------------------------------------------------------------------------------------


class FilesQuery(ListQuery):
    """`after`: the last id of the page before."""

    after: str | None = None
    order: Annotated[Literal["asc"], _BY_PATH] = "asc"
    purpose: Annotated[Literal["assistants", "user_data"], _TO_READ] | None = None


class FileQuery(Body):
    knowledge_base: str | None = None


class Files(Reply):
    object: Literal["list"] = "list"
    data: list[File]
    first_id: str | None
    last_id: str | None
    has_more: bool


@router.get("/v1/files", **needs("read"))
async def list_files(call: CurrentCall, query: Annotated[FilesQuery, Query()]) -> Files:
    """The documents that the caller may see, ordered by path."""
    return Files(**await file_page(call, call.service.base(query.knowledge_base), query, File.of))


async def file_page(call: Call, base: KnowledgeBase, query: FilesQuery, shape: Any) -> dict[str, Any]:
    """The fields of one page; `shape` makes an entry of a DocumentInfo."""
    limit, after = query.checked_limit(call), document_of(query.after) if query.after else ""

    def work(stop: Stop) -> list[DocumentInfo]:
        stop.check()
        return list(base.document_info(None, call.caller.scope(), after=after, limit=limit + 1).values())

    found = await call.compute(work)
    data = [shape(each) for each in found[:limit]]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return {"data": data, "first_id": first, "last_id": last, "has_more": len(found) > limit}


async def find_file(call: Call, base: KnowledgeBase, file: str) -> DocumentInfo:
    """The document. Raises ApiError unless the caller may see it."""
    document = document_of(file)

    def work(stop: Stop) -> DocumentInfo | None:
        stop.check()
        return base.document_info([document], call.caller.scope()).get(document)

    info = await call.compute(work)
    if info is None:
        raise no_file(file)
    return info


@router.get("/v1/files/{file_id}", **needs("read"))
async def retrieve_file(call: CurrentCall, file_id: str, query: Annotated[FileQuery, Query()]) -> File:
    """One document."""
    return File.of(await find_file(call, call.service.base(query.knowledge_base), file_id))


@router.get("/v1/files/{file_id}/content", response_class=Response, **needs("read", also=response_of("text/plain")))
async def file_content(call: CurrentCall, file_id: str, query: Annotated[FileQuery, Query()]) -> Response:
    """The text that was read of the file, whatever its format."""
    text = await file_text(call, call.service.base(query.knowledge_base), file_id)
    return Response(text, headers={"cache-control": "private, no-store"}, media_type="text/plain")


async def file_text(call: Call, base: KnowledgeBase, file: str) -> str:
    document = document_of(file)

    def work(stop: Stop) -> str:
        stop.check()
        with base.snapshot():
            text = base.text(document) if base.holds(document, call.caller.scope()) else None
        if text is None:
            raise no_file(file)
        return text

    return await call.compute(work)


# --- removing ---------------------------------------------------------------------------------------------------------


class DeletedFile(Reply):
    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


@router.delete("/v1/files/{file_id}", **needs("write"))
async def delete_file(call: CurrentCall, file_id: str, query: Annotated[FileQuery, Query()]) -> DeletedFile:
    """Remove a document in a new version; older versions keep it until a purge."""
    await remove_file(call, call.service.base(query.knowledge_base), file_id, query.knowledge_base)
    return DeletedFile(id=file_id)


async def remove_file(call: Call, base: KnowledgeBase, file: str, name: str | None) -> None:
    """`name`: of `base`. Raises ApiError unless the caller may see the document."""
    info = await find_file(call, base, file)
    await remove_documents(call, DocumentsBody(documents=[info.path], knowledge_base=name))
