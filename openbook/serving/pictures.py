"""GET /v1/documents/page: a page of a PDF as a picture."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from openbook.errors import NoPicture
from openbook.knowledge import pictures
from openbook.knowledge.discovery import display_path
from openbook.serving.access import Caller
from openbook.serving.bodies import PageQuery
from openbook.serving.documents import no_document, run_options, version_seen
from openbook.serving.queries import query_of
from openbook.serving.refusals import Refusal
from openbook.serving.routing import PNG
from openbook.serving.running import Stop
from openbook.serving.service import Service


async def page_picture(service: Service, request: Request, caller: Caller) -> Response:
    """A page of a PDF as a picture, if its file has not changed since its text was read.

    Refused with 404 `page_not_found`; with 409 `not_a_pdf`, `file_not_kept` (it was uploaded), `file_unreadable` (usually it
    is gone), `file_changed` (its bytes differ from those that were read) and `page_not_drawn` (damaged, or over a limit).
    """
    query = query_of(request, PageQuery)
    base = service.base(query.knowledge_base)
    bounds = service.configuration.bounds
    limits = replace(run_options(service, query.knowledge_base).limits, timeout_s=bounds.picture_s)

    def work(stop: Stop) -> bytes:
        origin = base.origin(query.path, version_seen(base, caller, query.path, query.as_of))
        if origin is None:  # purged meanwhile
            raise no_document(query.path, "path")
        try:
            return pictures.page_picture(query.path, origin, query.page, limits, stop)
        except NoPicture as error:
            if stop():
                stop.check()
            raise _refusal(error, was_uploaded=_was_uploaded(service, query.path)) from error

    async with service.drawing.place():  # so that pictures leave places to answers
        picture = await service.read(request.receive, work)
    return Response(picture, headers={"cache-control": "private, no-store"}, media_type=PNG)


def _refusal(error: NoPicture, *, was_uploaded: bool) -> Refusal:
    if error.code == "page_not_found":
        return Refusal(404, str(error), code=error.code, param="page")
    if was_uploaded and error.code in ("file_unreadable", "file_changed"):
        message = "The page cannot be shown as a picture: this document was uploaded, and the server keeps only the text of uploads."
        return Refusal(409, message, code="file_not_kept", param="path")
    return Refusal(409, str(error), code=error.code, param="path")


def _was_uploaded(service: Service, path: str) -> bool:
    folder = Path(os.path.abspath(service.configuration.settings.uploads_dir))
    return path.startswith(display_path(folder) + "/")
