"""One web site, asked politely and with bounds on what it may answer."""

from __future__ import annotations

import ipaddress
import math
import os
import re
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.parse import urljoin

import httpx
import msgspec
import protego

from openbook import __version__
from openbook.core.errors import SourceError, first_line
from openbook.sources import KnownItem

MAX_HEAD_BYTES = 10_000_000  # of a body, read for links and a digest; the rest is streamed
REQUEST_S = 120.0  # until these bytes are there
MAX_DELAY_S = 60
AGENT = f"OpenBook/{__version__}"
_TOKEN = "OPENBOOK_WEB_TOKEN"  # noqa: S105  its name
_MAX_HOPS = 10
_UNCHANGED = re.compile(rb"HTTP/1\.1 304[^\r\n]*(?:\r?\n[^\r\n]+)*\r?\n\r?\n")  # whole


class FetchError(Exception):
    """Why `address` was not fetched: the end of a sentence about it."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(reason)
        self.address = address


class PageRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is found again of an item. `via`: the address that led to it; `links`: without the site's prefix.

    `lastmod`: what a sitemap said of it when it was asked last, at `asked_s` (Unix time).
    """

    etag: str = ""
    modified: str = ""
    via: str = ""
    suffix: str = ""
    links: tuple[str, ...] = ()
    lastmod: str = ""
    asked_s: int = 0
    metadata: dict[str, str | list[str]] = {}
    entries: int = 0  # of the feed that held it

    @classmethod
    def of(cls, item: KnownItem) -> PageRecord:
        with suppress(msgspec.DecodeError):
            return msgspec.json.decode(item.kept, type=cls)
        return cls()

    def text(self) -> str:
        return msgspec.json.encode(self).decode()


@dataclass(frozen=True, slots=True)
class Answer:
    """`address`: after redirects. `head`: the first bytes of the body, unpacked; `rest` follows if it is not whole."""

    address: str
    status: int
    headers: Mapping[str, str]
    head: bytes = b""
    is_whole: bool = True
    rest: Iterable[bytes] = ()

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def marks(self) -> dict[str, Any]:
        etag, modified = (self.headers.get(name, "")[:1000] for name in ("etag", "last-modified"))
        return {"etag": etag, "modified": modified}

    @property
    def reason(self) -> str:
        hint = f"; {_TOKEN}=HOST=TOKEN signs in" if self.status in (401, 403) else ""
        return f"answers {self.status} {httpx.codes.get_reason_phrase(self.status)}".rstrip() + hint


class Site:
    """One host, asked at a rate, without cookies. Redirects to other hosts, and from public to private addresses, are refused."""

    def __init__(self, url: str, delay_s: float) -> None:
        try:
            start = httpx.URL(url).copy_with(fragment=None)
        except (httpx.InvalidURL, ValueError) as error:
            raise SourceError(f"{url!r} is not a web address: {first_line(error)}.") from error
        if not start.host or start.scheme not in {"http", "https"}:
            raise SourceError(f"{url!r} is not a web address: it must begin with https:// and a host.")
        if b"@" in start.userinfo + start.netloc or start.userinfo:
            raise SourceError(
                f"The address at {start.host} names a user. Leave that out; {_TOKEN}=HOST=TOKEN signs in."
            )
        if not 0 <= delay_s <= MAX_DELAY_S:
            raise SourceError(f"delay_s must be 0 to {MAX_DELAY_S} seconds, not {delay_s:g}.")
        tokens = dict(pair.partition("=")[::2] for pair in os.environ.get(_TOKEN, "").split())
        if not all(name and token and token.isascii() and token.isprintable() for name, token in tokens.items()):
            raise SourceError(f"{_TOKEN} must be HOST=TOKEN; separate several with spaces.")
        signed = {"Authorization": f"Bearer {tokens[start.host]}"} if start.host in tokens else {}
        self.start = str(start.copy_with(path=start.path or "/"))
        self.delay_s, self.robots = delay_s, protego.Protego.parse("")
        self._scheme, self._host, self._port = start.scheme, start.host, start.port
        self.move(self.start)
        self._next_s, self._until, self._is_public, self._is_new = 0.0, math.inf, False, False
        self._connection: Any = None  # the newest; no older one is used again
        self._heard = b""  # from it, since it was asked last
        self._client = httpx.Client(
            headers={"User-Agent": AGENT, "Accept-Encoding": "gzip, deflate", **signed},
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            timeout=httpx.Timeout(30.0, connect=10.0),
        )
        self.close = self._client.close

    def move(self, address: str) -> None:
        """Make the folder of `address` the site's: `prefix` is its address."""
        url = httpx.URL(address)
        self._folder = url.path.rpartition("/")[0] + "/"
        self.prefix = str(url.copy_with(scheme=self._scheme, query=None, path=self._folder))

    def address(self, link: str, base: str) -> str:
        """Absolute, without fragment, with the site's scheme; empty if it leaves the site."""
        try:
            url = httpx.URL(urljoin(base, link.strip())).copy_with(fragment=None)
        except (httpx.InvalidURL, ValueError):
            return ""
        is_here = (url.host, url.port, url.userinfo) == (self._host, self._port, b"")
        if not is_here or url.scheme not in ({self._scheme} if self._port else {"http", "https"}):
            return ""
        return str(url.copy_with(scheme=self._scheme, path=url.path or "/"))

    def is_inside(self, address: str) -> bool:
        return address.startswith(self.prefix) or httpx.URL(address).path.startswith(self._folder)

    def may_ask(self, address: str) -> bool:
        return bool(self.robots.can_fetch(address, AGENT))

    @contextmanager
    def get(self, address: str, known: Mapping[str, PageRecord]) -> Generator[Answer, None, None]:
        """The answer, after redirects; with bytes if its status is 200. Raises FetchError."""
        has_paused = is_again = False
        for _ in range(_MAX_HOPS):
            before, pause_s, answer = known.get(address, PageRecord()), 0, None
            conditions = {"If-None-Match": before.etag, "If-Modified-Since": before.modified}
            headers = {name: value for name, value in conditions.items() if value}
            extensions = {"trace": partial(self._trace, address)}
            if (wait_s := self._next_s - time.monotonic()) > 0:
                time.sleep(wait_s)
            if self._connection and not _UNCHANGED.fullmatch(self._heard):  # what follows a body may pass for an answer
                self._connection.close()
            self._heard, self._is_new, self._until = b"", False, time.monotonic() + REQUEST_S
            try:
                with self._client.stream("GET", address, headers=headers, extensions=extensions) as response:
                    status, said = response.status_code, response.headers.get("retry-after", "")
                    if status in (429, 503) and not has_paused and re.fullmatch(r"[1-9]\d?", said, re.ASCII):
                        pause_s = int(said) if int(said) <= MAX_DELAY_S else 0
                    if not pause_s and status not in (301, 302, 303, 307, 308):
                        if status == 304 and address not in known:
                            raise FetchError(address, "answers 304 Not Modified to a first request")
                        answer = _answer(address, response)
                        self._until = math.inf
                        if answer.is_whole:
                            response.close()  # so the connection can be used again
                        yield answer
                        return
            except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
                if answer or is_again or self._is_new or isinstance(error, httpx.TimeoutException):
                    raise FetchError(address, f"could not be fetched: {first_line(error)[:200]}") from error
                is_again = True  # a server may close a connection just when it is used again
                continue
            finally:
                self._until, self._next_s = math.inf, time.monotonic() + max(self.delay_s, pause_s)
            if not pause_s:
                if status in (302, 303, 307) and address in known:  # a page for signing in must not replace a document
                    raise FetchError(address, f"leads elsewhere for now (status {status})")
                address = self._redirected(address, response.headers.get("location", ""))
            has_paused |= pause_s > 0
        raise FetchError(address, f"is reached only after {_MAX_HOPS} redirects")

    def _redirected(self, address: str, location: str) -> str:
        if address.startswith("http:") and not self._port and location.startswith(f"https://{self._host}/"):
            self._scheme, self.prefix = "https", self.prefix.replace("http:", "https:", 1)
        there = self.address(location, address)
        if not there or there == address or not self.may_ask(there):
            why = "itself" if there == address else "what robots.txt does not allow" if there else "another site"
            raise FetchError(address, f"leads to {location[:200]!r}, {why}")
        return there

    def _trace(self, address: str, event: str, about: Mapping[str, Any]) -> None:
        """For httpx: checks the peer before anything is sent to it, first without and then with TLS."""
        self._is_new |= event.endswith(".connect_tcp.started")
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            stream = self._connection = about["return_value"]
            stream.read = partial(self._read, stream.read)
            peer = ipaddress.ip_address(stream.get_extra_info("server_addr")[0])
            if self._is_public and not peer.is_global:
                stream.close()
                raise FetchError(address, f"has the private address {peer} now, and had a public one before")
            self._is_public = peer.is_global

    def _read(self, read: Callable[[int, float], bytes], max_bytes: int, timeout: float | None = None) -> bytes:
        if (left := self._until - time.monotonic()) <= 0:  # however slowly bytes still come
            raise httpx.ReadTimeout(f"it took more than {REQUEST_S:g} seconds")
        data = read(max_bytes, min(timeout or REQUEST_S, left))
        self._heard = (self._heard + data)[:100_000]
        return data


def _answer(address: str, response: httpx.Response) -> Answer:
    status, headers, head = response.status_code, response.headers, bytearray()
    if status not in (200, 304):
        return Answer(address, status, headers)
    # A single packing: pieces of 64 kB grow a thousandfold at most.
    if (packing := headers.get("content-encoding", "").lower()) not in ("", "identity", "gzip", "deflate"):
        raise FetchError(address, f"is packed as {packing[:40]!r}")
    pieces = response.iter_bytes()
    while len(head) <= MAX_HEAD_BYTES and (piece := next(pieces, b"")):
        head += piece
    return Answer(address, status, headers, bytes(head), len(head) <= MAX_HEAD_BYTES, pieces)
