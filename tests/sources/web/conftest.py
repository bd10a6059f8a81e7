"""A web site on loopback whose pages the tests write, and what a mirror keeps of a source's items."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from openbook.sources import KnownItem, Source
from tests.sources.conftest import fetch

PROSE = "The office is open from nine to five on every working day of the week, and closed on holidays. "


@dataclass
class Page:
    """`raw`: all that the server sends, in pieces, instead of a proper answer."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "text/html; charset=utf-8"})
    etag: str = ""
    raw: Callable[[], Iterable[bytes]] | None = None


class LocalSite:
    """`asked`: (path, headers) of each request. `ports`: of the other end of each connection. `hooks`: called when a path is asked for."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.asked: list[tuple[str, Mapping[str, str]]] = []
        self.ports: set[int] = set()
        self.hooks: dict[str, Callable[[], None]] = {}
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = 65_536  # heads and bodies leave together

            def do_GET(self) -> None:
                site.asked.append((self.path, dict(self.headers)))
                site.ports.add(self.client_address[1])
                site.hooks.get(self.path, lambda: None)()
                page = site.pages.get(self.path, Page(b"not here", 404))
                if page.raw is not None:
                    self.close_connection = True
                    for piece in page.raw():
                        self.wfile.write(piece)
                        self.wfile.flush()
                    return
                is_known = bool(page.etag) and self.headers.get("If-None-Match") == page.etag
                self.send_response(304 if is_known else page.status)
                for name, value in {**page.headers, **({"ETag": page.etag} if page.etag else {})}.items():
                    self.send_header(name, value)
                body = b"" if is_known else page.body
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass  # the client hung up, as it should

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def add(self, path: str, body: bytes | str = b"", status: int = 200, **more: Any) -> None:
        self.pages[path] = Page(body.encode() if isinstance(body, str) else body, status, **more)

    def add_page(self, path: str, *links: str, text: str = PROSE, title: str = "A page", **more: Any) -> None:
        linked = "".join(f'<li><a href="{link}">see</a></li>' for link in links)
        head, nav = f"<head><title>{title}</title></head>", f"<nav><ul>{linked}</ul></nav>"
        self.add(path, f"<html>{head}<body>{nav}<main><h1>{title}</h1><p>{text}</p></main></body></html>", **more)

    def add_pages(self, lines: str) -> None:
        """A page for each line: its path, and after `->` where it leads."""
        for line in lines.strip().splitlines():
            path, _, links = line.partition("->")
            self.add_page(path.strip(), *links.split())

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]


@pytest.fixture
def site() -> Iterator[LocalSite]:
    yield from _serving()


@pytest.fixture
def other_site() -> Iterator[LocalSite]:
    yield from _serving()


def _serving() -> Iterator[LocalSite]:
    local = LocalSite()
    thread = threading.Thread(target=local.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield local
    finally:
        local.server.shutdown()
        local.server.server_close()
        thread.join()


class Kept:
    """As a mirror: takes a source's items, reads those with a new fingerprint, and drops what is gone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.known: dict[str, KnownItem] = {}
        self.data: dict[str, bytes] = {}

    def take(self, source: Source) -> Kept:
        found = fetch(source, dict(self.known), most=2_000_000)
        self.items, self.verdicts, self.read = found.items, found.verdicts, list(found.read)
        self.data |= found.read
        failed = tuple(f"{path.rstrip('/')}/" for path, each in self.verdicts.items() if each.outcome == "failed")
        self.known = {name: each for name, each in self.known.items() if f"{name.rstrip('/')}/".startswith(failed)}
        for number, (name, item) in enumerate(self.items.items()):
            file = self._folder / str(number)
            file.write_bytes(self.data[name])
            self.known[name] = KnownItem(item.fingerprint, item.kept, file)
        return self


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    for name in ("http_proxy", "https_proxy", "all_proxy", "openbook_web_token"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return Kept(tmp_path)
