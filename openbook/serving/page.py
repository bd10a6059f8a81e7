"""The web page at `/`, and routes about the server.

The page's files hold no data. Questions, answers and documents are untrusted text: the content security policy lets a
browser run only the page's own files, contact only this server, and turn no text into markup (Trusted Types: Chromium
and Safari).
"""

from __future__ import annotations

import gzip
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from openbook.serving.errors import ApiError, server_stops
from openbook.serving.routing import OPEN_TO_ALL, Route, content_of, needs
from openbook.serving.schemas import Reply
from openbook.serving.service import CurrentCall, Service

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FOLDER = Path(__file__).parent / "web"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob:; "  # page images, which the page's own script fetches with its key
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)

_HEADERS = {"cross-origin-opener-policy": "same-origin", "cache-control": "no-cache"}
_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}

router = APIRouter(route_class=Route)


@router.get("/", response_class=HTMLResponse, **OPEN_TO_ALL)
async def index(request: Request) -> Response:
    """The web page. Open to all."""
    return _file("index.html", request)


@router.get("/web/{name:path}", response_class=Response, **OPEN_TO_ALL)
async def asset(name: str, request: Request) -> Response:
    """A file of the web page. Open to all."""
    if name in _files():
        return _file(name, request)
    raise ApiError(404, f"Unknown request URL: GET /web/{name[:200]}.", code="unknown_url")


def _file(name: str, request: Request) -> Response:
    headers = {**_HEADERS, "content-security-policy": POLICY, "vary": "accept-encoding"}
    data, packed, headers["etag"] = _files()[name]
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        data, headers["content-encoding"] = packed, "gzip"
    return Response(data, headers=headers, media_type=_TYPES[Path(name).suffix])


@cache
def _files() -> dict[str, tuple[bytes, bytes, str]]:
    """(whole, as gzip, entity tag) of each file, by its path below FOLDER."""
    paths = (path for path in FOLDER.rglob("*") if path.suffix in _TYPES)
    contents = {path.relative_to(FOLDER).as_posix(): path.read_bytes() for path in paths}
    return {
        name: (data, gzip.compress(data, mtime=0), f'W/"{sha256(data).hexdigest()[:32]}"')
        for name, data in contents.items()
    }


class Status(Reply):
    status: Literal["ok", "ready"]


@router.get("/health", **OPEN_TO_ALL)
async def health() -> Status:
    """The process answers. Open to all."""
    return Status(status="ok")


@router.get("/ready", **OPEN_TO_ALL)
async def ready(request: Request) -> Status:
    """The server takes requests: each knowledge base can be read, and the server is not stopping. Open to all."""
    service: Service = request.app.state.service
    if service.ends.is_set():
        raise server_stops()
    for base in service.bases.values():
        base.kept_version()
    return Status(status="ready")


class Activity(Reply):
    """Numbers of requests: those that answer, that wait for a place, that upload and that delete."""

    object: Literal["activity"] = "activity"
    answering: int
    waiting: int
    uploading: int
    deleting: int


@router.get("/v1/activity", **needs("read"))
async def activity(call: CurrentCall) -> Activity:
    """How busy the server is."""
    service = call.service
    reading, uploading, deleting = service.reading, service.uploading, service.deleting
    return Activity(
        answering=len(service.answers),
        waiting=sum(places.waiting for places in (reading, uploading, deleting)),
        uploading=uploading.running,
        deleting=deleting.running,
    )


@router.get("/metrics", response_class=Response, **needs("admin", also=content_of("text/plain", type="string")))
async def metrics(call: CurrentCall) -> Response:
    """Counts and times in Prometheus text format."""
    return Response(call.service.metrics.text(), headers={"content-type": METRICS_TYPE})


@router.get("/openapi.json", **needs("read"))
async def openapi(call: CurrentCall) -> dict[str, Any]:
    """This description."""
    found: dict[str, Any] = call.request.app.openapi()
    return found
