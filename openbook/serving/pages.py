"""Pages of PDF documents as pictures over HTTP, and where quotes stand on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Literal, TypeVar

from fastapi import APIRouter, Query, Response

from openbook.core.errors import NoPicture
from openbook.knowledge.cite import pictures
from openbook.knowledge.documents import page_starts
from openbook.parsers.formats.pdf_pages import WHOLE, page_quote
from openbook.parsers.formats.pdf_pages import PageMarks as FoundMarks
from openbook.parsers.pages import find_marks
from openbook.parsers.sandbox.protocol import Limits
from openbook.serving.documents import PathQuery, all_uploads
from openbook.serving.errors import ApiError, check_at_most, invalid
from openbook.serving.routing import Route, content_of, needs
from openbook.serving.schemas import Count, Offset, Reply
from openbook.serving.service import Call, CurrentCall
from openbook.serving.uploads import kept_uploads

router = APIRouter(route_class=Route)

_T = TypeVar("_T")
_PNG = "image/png"


class PageQuery(PathQuery):
    """Page `page` (from 1) of the document at `path`."""

    page: Count


@router.get(
    "/v1/documents/page",
    response_class=Response,
    **needs("read", also=content_of(_PNG, type="string", format="binary")),
)
def page_picture(call: CurrentCall, query: Annotated[PageQuery, Query()]) -> Response:
    """A page of a PDF as an image, if the file has not changed since its text was read.

    Fails with 404 `page_not_found`; with 409 `not_a_pdf`, `file_not_kept` (uploaded, and gone since a purge), `file_unreadable` (usually
    deleted), `file_changed` (its bytes differ) or `page_not_drawn` (damaged, or over a limit).
    """
    base = call.service.base(query.knowledge_base)
    kept = kept_uploads(call.service.configuration.settings, base)
    path, _, stored = query.found(base, call.caller)

    def draw(limits: Limits) -> bytes:
        return pictures.page_picture(path, stored, query.page, limits, call.stop, kept, base.folder)

    return Response(_made(call, path, draw), headers={"cache-control": "private, no-store"}, media_type=_PNG)


class MarksQuery(PathQuery):
    """Characters `start` to `end` of the document at `path`."""

    start: Offset
    end: Offset


class PageMarks(Reply):
    """`width` and `height` of the page's picture in pixels. `found`: false if this text cannot be located on it.

    `rectangles`: (left, top, right, bottom) of each line of text, as shares of the picture, from its top left corner.
    """

    page: int
    width: int
    height: int
    rectangles: list[tuple[float, float, float, float]]
    found: bool


class Marks(Reply):
    object: Literal["marks"] = "marks"
    path: str
    version: int
    pages: list[PageMarks]


@router.get("/v1/documents/marks", **needs("read"))
def marks(call: CurrentCall, query: Annotated[MarksQuery, Query()]) -> Marks:
    """Where part of a PDF's text stands on the pictures of its pages. Fails as `/v1/documents/page` does."""
    base, most = call.service.base(query.knowledge_base), call.service.configuration.bounds.text_chars
    if not query.start < query.end:
        raise invalid(f"end must be greater than start ({query.start:,}), not {query.end:,}.", "end")
    check_at_most(query.end - query.start, most, "characters after start", "end")
    kept = kept_uploads(call.service.configuration.settings, base)
    with base.snapshot():
        path, version, stored = query.found(base, call.caller)
        begins = page_starts(base.spans(stored))
    text = stored.text
    if query.end > len(text):
        raise invalid(f"end may be at most {len(text):,}, the length of the text, not {query.end:,}.", "end")
    found = (
        page_quote(page, text[begin:until], max(query.start - begin, 0), query.end - begin)
        for (page, begin), (_, until) in pairwise([*begins, (0, len(text))])
        if begin < query.end and until > query.start
    )
    quotes = [quote for quote in found if quote]

    def make(limits: Limits) -> list[FoundMarks]:
        return pictures.from_file(
            path, stored, limits, lambda data: find_marks(data, quotes, limits, call.stop), kept, base.folder
        )

    pages = [
        PageMarks(
            page=quote.page,
            width=each.width,
            height=each.height,
            rectangles=[(a / WHOLE, b / WHOLE, c / WHOLE, d / WHOLE) for a, b, c, d in each.rectangles],
            found=bool(each.rectangles),
        )
        for quote, each in zip(quotes, _made(call, path, make), strict=True)
    ]
    return Marks(path=path, version=version, pages=pages)


def _made(call: Call, path: str, make: Callable[[Limits], _T]) -> _T:
    """What `make` returns. Raises ApiError for its NoPicture."""
    configuration = call.service.configuration
    try:
        return make(replace(configuration.ingest.limits, timeout_s=configuration.bounds.picture_s))
    except NoPicture as error:
        call.stop.check()
        if error.code == "page_not_found":
            raise ApiError(404, str(error), code=error.code, param="page") from error
        if path.startswith(all_uploads(call)) and error.code in ("file_unreadable", "file_changed"):
            message = "The page cannot be shown as a picture: this document was uploaded, and its file is not kept any more. Upload it again."
            raise ApiError(409, message, code="file_not_kept", param="path") from error
        raise ApiError(409, str(error), code=error.code, param="path") from error
