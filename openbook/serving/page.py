"""The web page at `/`: files of the package, equal for everybody. They hold no data; what they show comes from the API.

Questions, answers and documents are other people's words. The policy lets a browser run only the page's own files, ask only
this server, and turn no text into markup (Trusted Types: Chromium and Safari enforce them).
"""

from __future__ import annotations

import asyncio
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from openbook.serving.access import Caller
from openbook.serving.refusals import not_found
from openbook.serving.service import Service

FOLDER = Path(__file__).parent / "web"
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",  # a page of a document, which the page's own script fetched with its key
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
# A report holds its style and script itself, and names their digests in a policy of its own. Without an origin it cannot ask
# the server anything, and nothing may be loaded from anywhere.
REPORT_POLICY = "; ".join(
    (
        "sandbox allow-scripts",
        "default-src 'none'",
        "script-src 'unsafe-inline'",
        "style-src 'unsafe-inline'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

_HEADERS = {"cross-origin-opener-policy": "same-origin", "cache-control": "no-cache"}
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
MEDIA = tuple(_TYPES.values())


async def index(service: Service, request: Request, caller: Caller | None) -> Response:
    """The web page."""
    return _file("index.html")


async def report(service: Service, request: Request, caller: Caller) -> Response:
    """The file that the server was started with. Its words are not this server's: its page belongs to no origin and reaches nothing."""
    content = await asyncio.to_thread(_report_of(service).read_bytes)
    return Response(content, headers={**_HEADERS, "content-security-policy": REPORT_POLICY}, media_type="text/html")


def _report_of(service: Service) -> Path:
    path = service.configuration.report
    if path is None:
        raise TypeError("The route of the report is only there when there is a report.")
    return path


async def asset(service: Service, request: Request, caller: Caller | None) -> Response:
    """A file of the web page."""
    name = request.path_params["name"]
    if name not in _names():
        return not_found(request.url.path[:200], request.method).response()
    return _file(name)


def _file(name: str) -> Response:
    headers = {**_HEADERS, "content-security-policy": POLICY}
    return Response(_content(name), headers=headers, media_type=_TYPES[Path(name).suffix])


@cache
def _names() -> frozenset[str]:
    return frozenset(path.name for path in FOLDER.iterdir() if path.suffix in _TYPES)


@cache
def _content(name: str) -> bytes:
    return (FOLDER / name).read_bytes()
