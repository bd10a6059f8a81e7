"""A page of a site answers whatever it likes. The listing ends, the other pages are there, no other host is asked, and each answer has its outcome."""

from __future__ import annotations

import gzip
import itertools
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import pytest

from openbook.core.errors import SourceError
from openbook.sources import site as site_module
from openbook.sources.registry import open_source
from openbook.sources.web import WebSource

PAGE = (
    b"<html><head><title>T</title></head><body><main><p>"
    + b"Words of a page that is long enough. " * 4
    + b"</p></main></body></html>"
)
HTML = b"Content-Type: text/html\r\n"


def raw(*pieces: bytes | Iterable[bytes]) -> Callable[[], Iterable[bytes]]:
    return lambda: itertools.chain.from_iterable([piece] if isinstance(piece, bytes) else piece for piece in pieces)


def ok(body: bytes = PAGE, head: bytes = HTML, length: bytes | None = None) -> Callable[[], Iterable[bytes]]:
    said = str(len(body)).encode() if length is None else length
    return raw(b"HTTP/1.1 200 OK\r\n" + head + b"Content-Length: " + said + b"\r\n\r\n" + body)


def page(body: bytes | str, kind: str = "text/html") -> Callable[[], Iterable[bytes]]:
    return ok(body if isinstance(body, bytes) else body.encode(), b"Content-Type: " + kind.encode() + b"\r\n")


def packed(kind: bytes, body: bytes) -> Callable[[], Iterable[bytes]]:
    return ok(body, HTML + b"Content-Encoding: " + kind + b"\r\n")


def slow(piece: bytes) -> Iterator[bytes]:
    """Pieces with pauses, without end: only the limit of a request ends them."""
    while True:
        time.sleep(0.02)
        yield piece


LOCATIONS = [
    "{other}/x", "{other}", "//127.0.0.1:{other_port}/x", "http://localhost:{port}/good", "http://169.254.169.254/latest/meta-data/",
    "http://[::1]:{port}/good", "http://0.0.0.0:{port}/good", "http://127.1:{port}/good", "http://2130706433:{port}/good", "http://0x7f.0.0.1:{port}/good",
    "https://127.0.0.1:{port}/good", "http://ann:pw@127.0.0.1:{port}/good", "http://127.0.0.1:{port}@example.org/", "http://127.0.0.1:99999/",
    "http://127.0.0.1:{port}.example.org/", "http://127.0.0.1/", "file:///etc/passwd", "ftp://127.0.0.1/x", "javascript:alert(1)", "data:text/html,hello",
    "gopher://127.0.0.1:{port}/", "", "/bad", "#part", "/round", "/long/0", "/private", "http:///good", "http://exa mple/", "\\\\example.org\\x", "http://%31%32%37.0.0.1:{other_port}/",
]  # fmt: skip
STATUSES = [100, 199, 204, 206, 300, 305, 399, 401, 403, 407, 425, 429, 500, 503, 599, 999]
DOCTYPE = (
    "<!DOCTYPE x [" + '<!ENTITY a0 "x">' + "".join(f'<!ENTITY a{n + 1} "{f"&a{n};" * 10}">' for n in range(9)) + "]>"
)
DEEP = "<div>" * 5_000 + "Words that are far below. " * 9
ANSWERS: dict[str, tuple[Callable[[], Iterable[bytes]], str]] = {
    "endless body": (raw(b"HTTP/1.1 200 OK\r\n", HTML, b"\r\n", itertools.repeat(b"<p>more" * 999)), "cut"),
    "endless chunks": (raw(b"HTTP/1.1 200 OK\r\n", HTML, b"Transfer-Encoding: chunked\r\n\r\n", itertools.repeat((b"1388\r\n" + b"words" * 1000 + b"\r\n") * 9)), "cut"),
    "endless head": (raw(b"HTTP/1.1 200 OK\r\n", itertools.repeat(b"X-More: and more\r\n" * 99)), "failed"),
    "endless line": (raw(b"HTTP/1.1 200 OK\r\nX: ", itertools.repeat(b"x" * 9999)), "failed"),
    "endless answers before": (raw(itertools.repeat(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 99)), "failed"),
    "slow head": (raw(b"HTTP/1.1 200 OK\r\n", slow(b"X: y\r\n")), "failed"),
    "slow body": (raw(b"HTTP/1.1 200 OK\r\n", HTML, b"\r\n", slow(b"x")), "failed"),
    "silence": (raw(slow(b"")), "failed"),
    "nothing": (raw(b""), "failed"),
    "length too long": (ok(length=b"100000"), "failed"),
    "length too short": (ok(length=b"60"), "item"),
    "length negative": (ok(length=b"-1"), "failed"),
    "length not a number": (ok(length=b"many"), "failed"),
    "two lengths": (ok(head=HTML + b"Content-Length: 7\r\n"), "failed"),
    "bad chunk": (raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n" + PAGE), "failed"),
    "chunks without end": (raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwords\r\n"), "failed"),
    "unknown transfer": (raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: rot13\r\n\r\n" + PAGE), "failed"),
    "not HTTP": (raw(PAGE), "failed"),
    "HTTP/2": (raw(b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80"), "failed"),
    "HTTP/9": (raw(b"HTTP/9.9 200 OK\r\n\r\n" + PAGE), "item"),
    "status a word": (raw(b"HTTP/1.1 OK\r\n\r\n"), "failed"),
    "NUL in a header": (ok(head=HTML + b"X: a\0b\r\n"), "failed"),
    "header without colon": (ok(head=HTML + b"nonsense\r\n"), "failed"),
    "header in bytes": (ok(head=HTML + b"X: \xff\xfe\xe9\r\nETag: \xe9\xff\r\nLast-Modified: \xe9\r\n"), "item"),
    "500 headers": (ok(head=HTML + b"X: y\r\n" * 500), "item"),
    "a day that is none": (ok(head=HTML + b"Last-Modified: Tue, 99 Foo 99999 99:99:99 GMT\r\n"), "item"),
    "gzip bomb": (packed(b"gzip", gzip.compress(bytes(30_000_000))), "cut"),
    "gzip twice": (packed(b"gzip, gzip", gzip.compress(gzip.compress(PAGE))), "failed"),
    "gzip cut": (packed(b"gzip", gzip.compress(PAGE * 99)[:100]), "item"),
    "not gzip": (packed(b"gzip", PAGE), "failed"),
    "deflate": (packed(b"deflate", zlib.compress(PAGE)), "item"),
    "br": (packed(b"br", PAGE), "failed"),
    "type unheard of": (page(PAGE, "x" * 5000), "absent"),
    "type in bytes": (ok(head=b"Content-Type: \xff\xfe/\xe9\r\n"), "absent"),
    "no type": (ok(head=b""), "item"),
    "picture": (page(PAGE, "image/svg+xml"), "absent"),
    "bytes as a page": (page(bytes(range(256)) * 99), "item"),
    "empty page": (page(b""), "item"),
    **{f"charset {name}": (page("<main>Größe und Maß, жук. Words and words and words.</main>", f"text/html; charset={name}"), "item")
       for name in ("utf-16", "none", "idna", "zip", "\"'", "utf-8;charset=utf-16")},
    "charset of the page lies": (page('<meta charset="utf-16"><main>Größe und Maß. Words and words and words.</main>'), "item"),
    "real utf-16": (page("<html><body><main>Größe und Maß. Words and words and words.".encode("utf-16")), "item"),
    "NULs": (page(PAGE.replace(b" ", b"\0")), "item"),
    "deep": (page(DEEP), "item"),
    "giant tag": (page("<p " + "".join(f"a{n}=1 " for n in range(20_000)) + ">" + "Words and words. " * 9), "item"),
    "30,000 links": (page(PAGE + b"".join(b"<a href=//example.org/%d>" % n for n in range(30_000))), "item"),
    "100,000 elements": (page(PAGE + b"<p>x" * 100_000), "item"),
    "links of all kinds": (page(PAGE + b"".join(b'<a href="%s">' % link for link in (b"http://[::1", b"//", b"?", b"\0", b"http://x:y/", b"%zz", b"&#0;", b"javascript:x", b"http://a@b/"))), "item"),
    "unclosed tags": (page(PAGE + b"<a href=\"" * 50_000), "item"),
    "base elsewhere": (page(b'<base href="http://example.org/">' + PAGE + b"<a href=x>"), "item"),
    "scripts alone": (page("<html><body><div id=app></div><script>render()</script>"), "failed"),
    "sends on to itself": (page('<meta http-equiv=refresh content="0;url=/bad">'), "absent"),
    "sends on elsewhere": (page('<meta http-equiv=refresh content="0;url=http://169.254.169.254/">'), "absent"),
    "entity bomb": (page(f"{DOCTYPE}<urlset>&a9;</urlset>", "application/xml"), "absent"),
    "entity of a file": (page('<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><urlset><url><loc>&a;</loc></url></urlset>', "application/xml"), "absent"),
    **{f"status {status}": (raw(b"HTTP/1.1 %d %s\r\n" % (status, b"Why" * 9), HTML, b"Content-Length: 5\r\n\r\nwords"), "failed") for status in STATUSES},
    "status 304": (raw(b"HTTP/1.1 304 Not Modified\r\n\r\n"), "failed"),
    "status 404": (raw(b"HTTP/1.1 404 No\r\n\r\n"), "absent"),
}  # fmt: skip


def listed(site: Any, other_site: Any, kept: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """The outcome of `/bad`."""
    monkeypatch.setattr(site_module, "MAX_HEAD_BYTES", 3_000_000)
    site.add("/robots.txt", "User-agent: *\nDisallow: /private\n")
    site.add_page("/", "/bad", "/good")
    site.add_page("/good")
    for path in ("/private", "/x"):
        site.add_page(path)
    kept.take(WebSource(f"{site.url}/", depth=1, delay_s=0.0))
    assert {f"{site.url}/", f"{site.url}/good"} <= set(kept.items)
    assert set(kept.items) <= {f"{site.url}/", f"{site.url}/good", f"{site.url}/bad"}
    assert other_site.asked == []
    assert "/private" not in site.paths()
    assert not [data for data in kept.data.values() if b"root:" in data]
    bad = f"{site.url}/bad"
    if kept.verdicts:
        assert set(kept.verdicts) <= {bad, f"{site.url}/round", f"{site.url}/long/10", f"{site.url}/long/9"}
        assert all(verdict.outcome == "failed" and len(verdict.reason) < 500 for verdict in kept.verdicts.values())
        return "failed"
    if bad not in kept.items:
        return "absent"
    return "cut" if len(kept.data[bad]) > 2_000_000 else "item"


@pytest.mark.parametrize("name", ANSWERS)
def test_answers(site: Any, other_site: Any, kept: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    answer, outcome = ANSWERS[name]
    if name.startswith(("slow", "silence", "endless answers")):  # only the limit of a request ends these
        limits = {"/": 0.3, "/bad": site_module.REQUEST_S}  # of the next request
        for path, limit in limits.items():
            site.hooks[path] = partial(monkeypatch.setattr, site_module, "REQUEST_S", limit)
    site.add("/bad", raw=answer)
    assert listed(site, other_site, kept, monkeypatch) == outcome


@pytest.mark.parametrize(
    ("location", "status"), [*((location, 302) for location in LOCATIONS), *(("{other}/x", n) for n in (301, 303, 307, 308))]
)  # fmt: skip
def test_redirects(
    site: Any, other_site: Any, kept: Any, monkeypatch: pytest.MonkeyPatch, location: str, status: int
) -> None:
    there = location.format(other=other_site.url, other_port=other_site.port, port=site.port)
    site.add("/bad", raw=raw(f"HTTP/1.1 {status} Moved\r\nContent-Length: 0\r\nLocation: {there}\r\n\r\n".encode()))
    site.add("/round", status=status, headers={"Location": "/bad"})
    for number in range(20):
        site.add(f"/long/{number}", status=status, headers={"Location": f"/long/{number + 1}"})
    own = ("http:///good", "\\\\example.org\\x")  # addresses of the same host, after RFC 3986
    assert listed(site, other_site, kept, monkeypatch) == ("absent" if location in own else "failed")


@pytest.mark.parametrize("first", [b"HTTP/1.1 200 OK\r\n" + HTML + b"Content-Length: 60\r\n\r\n" + PAGE[:60], b"HTTP/1.1 304 Not Modified\r\n\r\n", b"HTTP/1.1 304\n\n"])  # fmt: skip
def test_what_follows_an_answer_is_not_the_next_answer(site: Any, kept: Any, first: bytes) -> None:
    for path, *links in (("/", "/bad", "/good"), ("/bad",), ("/good",)):
        site.add_page(path, *links, etag='"1"')
    kept.take(WebSource(f"{site.url}/", delay_s=0.0))
    forged = b"HTTP/1.1 200 OK\r\n" + HTML + b"Content-Length: 36\r\n\r\n" + b"<main>Forged words, and more forged."
    site.add("/bad", raw=raw(first + forged, itertools.islice(slow(b""), 20)))
    kept.take(WebSource(f"{site.url}/", delay_s=0.0))
    assert site.paths()[-1] == "/good"
    assert kept.read in ([], [f"{site.url}/bad"])


IMAGE, NO_FEED, LARGE = {"Content-Type": "image/png"}, "is not a feed", "too large or too deep"
STARTS: list[tuple[str, dict[str, Any], str]] = [  # of a site, or of a feed
    *(("/", {"status": status}, f"answers {status} ") for status in (401, 404, 429, 500)),
    ("/", {"body": b"\x89PNG", "headers": IMAGE}, "is image/png, not a page"),
    ("/docs/", {"status": 302, "headers": {"Location": "/sign-in"}}, "/sign-in, outside the folder"),
    *(("feed", {"status": status}, f"/feed answers {status} ") for status in (401, 404, 500)),
    ("feed", {"status": 301, "headers": {"Location": "{other}/feed"}}, "another site"),
    ("feed", {"body": f"{DOCTYPE}<rss version='2.0'><channel><item><title>&a9;</title></item></channel></rss>"}, LARGE),
    ("feed", {"body": "<rss version='2.0'><channel>" + "<a>" * 100_000}, LARGE),
    *(("feed", {"body": body}, NO_FEED) for body in ("<html><body>Sign in</body></html>", "", "\0\1\2")),
]


@pytest.mark.parametrize(("path", "answer", "says"), STARTS)
def test_a_start_that_is_none_is_an_error(
    site: Any, other_site: Any, kept: Any, path: str, answer: dict[str, Any], says: str
) -> None:
    headers = {name: said.format(other=other_site.url) for name, said in answer.get("headers", {}).items()}
    site.add_page("/sign-in")
    site.add("/feed" if path == "feed" else path, **{**answer, "headers": headers})
    url = f"feed+{site.url}/feed" if path == "feed" else site.url + path
    with pytest.raises(SourceError, match=says):
        kept.take(open_source(url, {} if path == "feed" else {"delay_s": 0.0}))
    assert other_site.asked == []
