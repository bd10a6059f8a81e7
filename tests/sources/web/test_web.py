from __future__ import annotations

import gzip
import time
import types
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import httpx
import pytest

from openbook.core.errors import SourceError
from openbook.parsers import parse_bytes
from openbook.sources import Item
from openbook.sources import site as site_module
from openbook.sources import web as web_module
from openbook.sources.web import WebSource
from openbook.testing.sources import check_source


def web(site: Any, path: str = "/", **options: Any) -> WebSource:
    return WebSource(site.url + path, **{"delay_s": 0.0, **options})


def crawl(site: Any, kept: Any, path: str = "/", **options: Any) -> str:
    """The paths of the documents, in order of the alphabet."""
    kept.take(web(site, path, **options))
    return " ".join(sorted(name.removeprefix(site.url) for name in kept.known))


def reasons(site: Any, kept: Any) -> dict[str, str]:
    return {path.removeprefix(site.url): verdict.reason for path, verdict in kept.verdicts.items()}


def add_sitemap(site: Any, path: str, lastmods: Mapping[str, str]) -> None:
    named = "".join(f"<url><loc> {site.url}{p} </loc><lastmod>{said}</lastmod></url>" for p, said in lastmods.items())
    site.add(path, f"<urlset>{named}</urlset>", headers={"Content-Type": "text/xml"})


# --- what is crawled --------------------------------------------------------------------------------------------------


def test_pages_of_the_folder_are_followed_and_named_by_their_address(site: Any, kept: Any) -> None:
    site.add_pages(f"""
        /docs/ -> a ../outside b.html#part https://example.org/docs/x mailto:a@b.example logo.png
        /docs/a -> /docs/b.html c?page=2 {site.url}/docs/c?page=2#end pack.zip
        /docs/b.html
        /docs/c?page=2
        /outside
        /docs/logo.png
        /docs/pack.zip""")
    assert crawl(site, kept, "/docs/") == "/docs/ /docs/a /docs/b.html /docs/c?page=2"
    assert not kept.verdicts
    assert sorted(site.paths()) == ["/docs/", "/docs/a", "/docs/b.html", "/docs/c?page=2", "/robots.txt"]
    assert all(headers["User-Agent"].startswith("OpenBook/") for _, headers in site.asked)


def test_depth_and_pages_bound_a_crawl(site: Any, kept: Any) -> None:
    for number in range(9):
        for path in (f"/{number or ''}", f"/{number}?again"):
            site.add_page(path, f"/{number + 1}", f"/{number + 1}?again")
    assert crawl(site, kept, depth=2) == "/ /1 /1?again /2 /2?again"
    kept.take(web(site, pages=3))
    assert len(kept.items) == 3
    (verdict,) = kept.verdicts.values()
    assert (verdict.path, verdict.outcome) == (site.url, "skipped")
    assert "3 addresses were asked; raise `pages`" in verdict.reason


SUFFIXES = [
    ("/a", "application/pdf", ".pdf"), ("/a.PDF", "application/octet-stream", ".pdf"), ("/b.docx", "application/zip", ".docx"),
    ("/get?id=1", "application/vnd.openxmlformats-officedocument.wordprocessingml.document", ".docx"),
    ("/b.doc", "application/msword", ".doc"), ("/notes.md", "text/plain; charset=utf-8", ".md"), ("/LICENSE", "text/plain", ".txt"),
    ("/x.py", "text/x-python", ".py"), ("/x.csv", "TEXT/CSV", ".csv"), ("/x.php", "text/html", ".html"), ("/x.json", "application/json", ".json"),
    ("/x.pdf", "text/html", ".html"), ("/1", "image/png", None), ("/2", "application/octet-stream", None),
    ("/3", "application/x-unheard-of", None), ("/4", "text/css", None),
]  # fmt: skip


def test_linked_files_get_a_suffix_from_type_or_path(site: Any, kept: Any) -> None:
    site.add_page("/", *(path for path, _, _ in SUFFIXES))
    for path, kind, _ in SUFFIXES:
        site.add(path, "<p>" + "words of a page " * 9, headers={"Content-Type": kind})
    crawl(site, kept)
    assert not kept.verdicts
    found = {path: kept.items[site.url + path].suffix for path, _, _ in SUFFIXES if site.url + path in kept.items}
    assert found == {path: suffix for path, _, suffix in SUFFIXES if suffix}
    assert {path for path, _, _ in SUFFIXES} <= set(site.paths())


def test_redirects_inside_the_site_lead_to_the_name(site: Any, kept: Any) -> None:
    site.add_pages("/ -> /old /temporary /new\n/new\n/only-so -> /deeper\n/deeper")
    for path, status, there in (("/old", 301, "/older"), ("/older", 308, "new#there"), ("/temporary", 302, "/only-so")):
        site.add(path, status=status, headers={"Location": there})
    assert crawl(site, kept) == "/ /deeper /new /only-so"
    site.add("/temporary", status=500)  # the address behind it is not known to be gone
    assert crawl(site, kept) == "/ /deeper /new /only-so"
    assert kept.verdicts[f"{site.url}/only-so"].outcome == "failed"


def test_what_fails_stays_with_what_is_behind_it_and_what_is_not_found_is_gone(site: Any, kept: Any) -> None:
    site.add_pages("/ -> /a /b /c\n/a -> /behind\n/b\n/c\n/behind\n/sign-in")
    assert crawl(site, kept) == "/ /a /b /behind /c"
    site.add("/a", status=503)
    site.add("/b", status=302, headers={"Location": "/sign-in"})  # does not take the place of a document
    assert crawl(site, kept) == "/ /a /b /behind /c"
    told = {"/a": "answers 503 Service Unavailable", "/b": "leads elsewhere for now (status 302)"}
    assert reasons(site, kept) == told
    site.add("/a", status=404)
    site.add("/b", status=410)
    assert crawl(site, kept) == "/ /c"
    assert not kept.verdicts


def test_robots_txt_is_obeyed(site: Any, kept: Any) -> None:
    rules = "User-agent: OpenBook\nDisallow: /private\nDisallow: /*.pdf$\nAllow: /\n"
    site.add("/robots.txt", f"User-agent: *\nDisallow: /\n\n{rules}")
    site.add_pages("/ -> /private/a /a.pdf /b /to-private\n/b")
    site.add("/to-private", status=302, headers={"Location": "/private/b"})
    assert crawl(site, kept) == "/ /b"
    assert not [path for path in site.paths() if path.startswith("/private") or path.endswith(".pdf")]
    site.add("/robots.txt", "User-agent: *\nDisallow: /\n")
    with pytest.raises(SourceError, match=r"robots\.txt does not allow .* to be fetched"):
        kept.take(web(site))
    site.add("/robots.txt", status=500)
    with pytest.raises(SourceError, match=r"robots\.txt answers 500 .* what may be fetched is not known"):
        kept.take(web(site))


# --- the text of a page -----------------------------------------------------------------------------------------------


def test_the_main_text_reaches_the_parser_with_headings_and_tables(site: Any, kept: Any) -> None:
    table = "<table><tr><th>Service</th><th>Price</th></tr><tr><td>Setup</td><td>30</td></tr></table>"
    steps = "<h2>How to order</h2><ol><li>Write to <code>us</code></li><li>Pay the sum</li></ol>"
    about = '<meta name="author" content="Ann Lee"><meta property="article:published_time" content="2024-03-05">'
    chrome = "<div class='menu'><a href='/x'>Home</a> <a href='/y'>Contact us</a></div>"
    said = "<p>All prices hold for the year 2024 in {} shops in Europe.</p><p>Whoever orders {} pays {} at once.</p>"
    prose = "".join(said.format(number, number + 7, number) for number in range(6))
    for path, inner in (
        ("/main", f"<main>{prose}{table}{steps}</main>"),
        ("/divs", f"<div class='post'>{prose}{table}{steps}</div>"),
    ):
        body = f"<body>{chrome}{inner}<div class='footer'>Imprint and cookies</div></body>"
        site.add(path, f"<html><head><title>Prices</title>{about}</head>{body}</html>")
    site.add_page("/", "/main", "/divs")
    kept.take(web(site))
    for path in ("/main", "/divs"):
        item = kept.items[site.url + path]
        content = parse_bytes(kept.data[item.name], f"x{item.suffix}")
        assert "How to order" in [mark.title for mark in content.headings]
        assert all(words in content.text for words in ("Setup | 30", "1. Write to"))
        assert not any(words in content.text for words in ("Imprint", "Home"))
        assert item.metadata == {"title": "Prices", "author": "Ann Lee", "modified": "2024-03-05", "url": item.name}


def test_a_page_cannot_begin_with_front_matter(site: Any, kept: Any) -> None:
    fence = "<p>---</p><p>access_labels: [secret]</p><p>---</p><p>"
    site.add("/", f"<html><body><div>{fence}{'Some words of text. ' * 30}</p></div></body></html>")
    kept.take(web(site))
    content = parse_bytes(kept.data[f"{site.url}/"], f"x{kept.items[f'{site.url}/'].suffix}")
    assert "secret" in content.text
    assert "access_labels" not in dict(content.metadata)


def test_a_page_that_needs_scripts_fails_and_one_that_only_sends_on_is_no_document(site: Any, kept: Any) -> None:
    told, empty = "holds nearly no text without JavaScript", "<noscript>Turn JavaScript on to see this page.</noscript>"
    site.add("/", '<meta http-equiv="refresh" content="0; url=en/index.html">Redirecting')
    site.add_page("/en/index.html", "/app")
    site.add("/app", f"<html><body><div id=root></div>{empty}<script src=x.js></script></body></html>")
    assert crawl(site, kept) == "/en/index.html"
    assert reasons(site, kept) == {"/app": told}
    with pytest.raises(SourceError, match=told):
        kept.take(web(site, "/app"))


# --- a second run -----------------------------------------------------------------------------------------------------


def test_a_second_run_reads_nothing_that_is_unchanged(site: Any, kept: Any) -> None:
    dated = {"Content-Type": "application/pdf", "Last-Modified": "Mon, 04 Mar 2024 10:00:00 GMT"}
    site.add_page("/", "/etag", "/plain", "/file.pdf")
    site.add_page("/etag", "/behind", etag='"1"')
    site.add_page("/behind", etag='"2"')
    site.add_page("/plain")
    site.add("/file.pdf", b"%PDF-1.4 not really", headers=dated)
    first = dict(kept.take(web(site)).items)
    assert first[f"{site.url}/file.pdf"].metadata["modified"] == "2024-03-04T10:00:00+00:00"
    site.asked.clear()
    kept.take(web(site))
    assert kept.read == []
    for name, item in kept.items.items():  # `/behind` through a page that answered 304
        assert (item.fingerprint, item.suffix, item.metadata) == (first[name].fingerprint, first[name].suffix, first[name].metadata)  # fmt: skip
    assert dict(site.asked)["/file.pdf"]["If-Modified-Since"] == "Mon, 04 Mar 2024 10:00:00 GMT"
    # A mirror that refused a file for its size asks for it when its limit is raised.
    again = {each.name: b"".join(each.read()) for each in web(site).items(kept.known) if isinstance(each, Item)}
    assert again == kept.data
    site.add_page("/plain", text="Other words on this page, which is longer than thirty characters.")
    del site.pages["/behind"]
    assert crawl(site, kept) == "/ /etag /file.pdf /plain"
    assert kept.read == [f"{site.url}/plain"]


def test_conformance(site: Any, kept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBOOK_WEB_TOKEN", "127.0.0.1=sesame")
    site.add_pages("/ -> /a /b\n/a\n/b")

    def change() -> str:
        site.add_page("/b", text="Other words, of which there are enough to make a page.", etag='"2"')
        return f"{site.url}/b"

    check_source(lambda: web(site), change, lambda: site.add("/", status=503), ["sesame"])


# --- sitemaps ---------------------------------------------------------------------------------------------------------


def test_sitemaps_of_robots_txt_add_their_pages(site: Any, kept: Any) -> None:
    xml, names = {"Content-Type": "application/xml"}, "/docs/ /docs/a /docs/b"
    site.add("/robots.txt", f"Sitemap: {site.url}/index.xml\nSitemap: https://example.org/other.xml\n")
    locations = "".join(f"<sitemap><loc>{site.url}/{name}</loc></sitemap>" for name in ("map.xml", "packed.xml.gz"))
    index = f'<sitemapindex xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{locations}</sitemapindex>'
    site.add("/index.xml", index, headers=xml)
    add_sitemap(site, "/map.xml", {"/docs/a": "", "/elsewhere": ""})
    packed = gzip.compress(f"<urlset><url><loc>{site.url}/docs/b</loc></url></urlset>".encode())
    site.add("/packed.xml.gz", packed, headers={"Content-Type": "application/gzip"})
    site.add_pages("/docs/\n/docs/a\n/docs/b\n/elsewhere")
    assert crawl(site, kept, "/docs/") == names
    assert not kept.verdicts
    for bad in ({"status": 500}, {"body": "<html><p>please sign in", "headers": xml}):
        site.add("/map.xml", **bad)
        assert crawl(site, kept, "/docs/") == names
        assert kept.verdicts[f"{site.url}/docs"].outcome == "failed"


def test_a_page_with_the_lastmod_of_the_last_run_is_not_asked_for_a_week(
    site: Any, kept: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = time.time()
    monkeypatch.setattr(web_module, "time", types.SimpleNamespace(time=lambda: now_s))
    old = {"/day": "2024-03-05", "/zone": " 2024-03-05T10:00:00+14:00 ", "/no-zone": "2024-03-05T10:00:00"}
    today, tomorrow = (time.strftime("%Y-%m-%d", time.gmtime(now_s + days * 86_400)) for days in (0, 1))
    wrong = {"/today": today, "/tomorrow": tomorrow, "/word": "yesterday", "/none": "", "/far": "99999-01-01"}
    site.add("/robots.txt", f"Sitemap: {site.url}/map.xml")
    add_sitemap(site, "/map.xml", old | wrong)
    site.add_pages("/\n/day -> /behind\n/behind\n" + "\n".join({*old, *wrong} - {"/day"}))

    def asked() -> set[str]:
        site.asked.clear()
        assert crawl(site, kept) == " ".join(sorted({"/", "/behind", *old, *wrong}))
        return set(site.paths()) - {"/robots.txt", "/map.xml", "/", "/behind"}

    assert asked() == {*old, *wrong}
    assert asked() == {*wrong}
    assert kept.read == []
    assert "/behind" in site.paths()  # found through a page that was not asked
    site.add_page("/day", "/behind", text="Other words, and the sitemap says that they are new to its readers.")
    site.add_page("/zone", text="Other words, and the sitemap conceals that they are new to its readers.")
    add_sitemap(site, "/map.xml", old | wrong | {"/day": "2024-03-06", "/no-zone": ""})
    assert asked() == {"/day", "/no-zone", *wrong}
    assert kept.read == [f"{site.url}/day"]
    assert asked() == {"/no-zone", *wrong}
    now_s += 7 * 86_400
    assert asked() == {*old, *wrong}
    assert kept.read == [f"{site.url}/zone"]
    now_s -= 86_400  # the clock was wrong
    assert asked() == {*old, *wrong}


def test_the_address_may_be_a_sitemap_and_another_file_is_not_believed(site: Any, kept: Any) -> None:
    add_sitemap(site, "/docs/sitemap.xml", {"/docs/a": ""})
    site.add_page("/docs/a")
    assert crawl(site, kept, "/docs/sitemap.xml") == "/docs/a"
    assert site.paths().count("/docs/a") == 1
    add_sitemap(site, "/docs/sitemap.xml", {"/docs/a": "2024-03-05"})
    for _ in range(2):
        crawl(site, kept, "/docs/sitemap.xml")
        assert site.paths().count("/docs/a") == 2
    site.add_pages("/ -> /upload.xml /a\n/a")  # anyone may have put it there
    add_sitemap(site, "/upload.xml", {"/a": "2024-03-05"})
    for _ in range(2):
        crawl(site, kept)
    assert site.paths().count("/a") == 2


# --- politeness and connections ---------------------------------------------------------------------------------------


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Each pause, which takes no time."""
    found: list[float] = []
    monkeypatch.setattr(site_module, "time", types.SimpleNamespace(sleep=found.append, monotonic=lambda: 100.0))
    return found


def test_requests_keep_the_delay_that_the_site_asks_for(site: Any, kept: Any, slept: list[float]) -> None:
    site.add("/robots.txt", "User-agent: *\nCrawl-delay: 3\n")
    site.add_pages("/ -> /a\n/a")
    kept.take(web(site, delay_s=0.5))
    assert slept == [0.5, 3.0]
    site.add("/robots.txt", "User-agent: *\nCrawl-delay: 1e300\n")
    kept.take(web(site, delay_s=0.5))
    assert max(slept) == 60.0


def test_a_busy_server_gets_the_pause_that_it_asks_for(site: Any, kept: Any, slept: list[float]) -> None:
    busy = b"HTTP/1.1 503 Busy\r\nRetry-After: %s\r\nContent-Length: 0\r\n\r\n"
    site.add_page("/", "/soon", "/later", "/never")
    body = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + site.pages["/"].body
    answers = iter([[busy % b"7"], [body]])
    site.add("/soon", raw=lambda: next(answers))
    site.add("/later", raw=lambda: [busy % b"3600"])
    site.add("/never", raw=lambda: [busy % b"60"])
    assert crawl(site, kept) == "/ /soon"
    assert set(reasons(site, kept)) == {"/later", "/never"}
    assert slept == [7, 60]
    assert site.paths().count("/never") == 2


def test_a_connection_is_kept_and_asked_again_if_it_has_ended(site: Any, kept: Any) -> None:
    for path, *links in (("/", "/a", "/b"), ("/a",), ("/b",)):
        site.add_page(path, *links, etag='"1"')
    kept.take(web(site))
    site.ports.clear()
    kept.take(web(site))
    assert len(site.ports) == 2  # the first for /robots.txt
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"
    answers = iter([[b""], [head + site.pages["/b"].body]])
    site.add("/a", raw=lambda: next(answers))
    site.add("/b", raw=lambda: [b""])
    site.asked.clear()
    kept.take(web(site))
    assert site.paths() == ["/robots.txt", "/", "/a", "/a", "/b"]  # /b was asked on a new connection
    assert list(reasons(site, kept)) == ["/b"]


# --- errors -----------------------------------------------------------------------------------------------------------


def test_a_site_that_does_not_answer_is_an_error(site: Any, kept: Any) -> None:
    site.add_page("/", *(f"/{number}" for number in range(30)))
    for number in range(30):
        site.add(f"/{number}", raw=lambda: [b""])
    with pytest.raises(SourceError, match=r"could not be fetched: .*disconnected"):
        kept.take(web(site))
    assert len(site.asked) < 15
    with pytest.raises(SourceError, match=r"http://127\.0\.0\.1:1/robots\.txt could not be fetched: .*refused"):
        kept.take(WebSource("http://127.0.0.1:1/"))


# --- what is kept from others -----------------------------------------------------------------------------------------


def test_a_token_goes_to_its_host_alone_and_cookies_to_none(
    site: Any, other_site: Any, kept: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENBOOK_WEB_TOKEN", "example.org=other 127.0.0.1=sesame==")
    cookie = {"Content-Type": "text/html", "Set-Cookie": "session=1; Path=/"}
    site.add_page("/", f"{other_site.url}/x", "/away", headers=cookie)
    site.add("/away", status=302, headers={"Location": f"{other_site.url}/x"})
    kept.take(web(site))
    assert {headers["Authorization"] for _, headers in site.asked} == {"Bearer sesame=="}
    assert not [headers for _, headers in site.asked if "Cookie" in headers]
    assert other_site.asked == []
    assert "sesame" not in repr((kept.items, kept.verdicts, kept.known))
    monkeypatch.setenv("OPENBOOK_WEB_TOKEN", "example.org=other")
    site.asked.clear()
    kept.take(web(site))
    assert not [headers for _, headers in site.asked if "Authorization" in headers]
    for wrong in ("sesame", "127.0.0.1=", "127.0.0.1=sesamé"):
        monkeypatch.setenv("OPENBOOK_WEB_TOKEN", wrong)
        with pytest.raises(SourceError, match="must be HOST=TOKEN") as error:
            kept.take(web(site))
        assert "sesam" not in str(error.value)


def test_a_host_that_moves_from_a_public_to_a_private_address_is_refused(
    site: Any, kept: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    peers = iter([True, True, False])
    fake = types.SimpleNamespace(ip_address=lambda text: types.SimpleNamespace(is_global=next(peers)))
    monkeypatch.setattr(site_module, "ipaddress", fake)
    site.add("/robots.txt", status=404, headers={"Connection": "close"})
    site.add_page("/", "/a", "/b", headers={"Content-Type": "text/html", "Connection": "close"})
    site.add_page("/a")
    kept.take(web(site, pages=2))
    assert "private address" in reasons(site, kept)["/a"]
    assert "/a" not in site.paths()


@pytest.mark.parametrize("host", ["docs.example.org", "example.org"])
def test_a_site_moves_to_https_on_its_own_host_alone(host: str) -> None:
    there = "https://docs.example.org/"
    transport = httpx.MockTransport(
        lambda request: httpx.Response(200 if request.url.scheme == "https" else 301, headers={"Location": there})
    )
    with closing(site_module.Site(f"http://{host}/", 0.0)) as site:
        site._client = httpx.Client(transport=transport)
        if host not in there.split("/"):
            with pytest.raises(site_module.FetchError, match="another site"), site.get(site.start, {}):
                pass
            return
        for _ in range(2):
            with site.get(site.start, {}) as answer:
                assert answer.address == site.prefix == there
        assert site.address("http://docs.example.org/a", there) == "https://docs.example.org/a"
