"""Pages of one web site: their main text, and the PDF, office and text files that they lead to."""

from __future__ import annotations

import hashlib
import html
import itertools
import mimetypes
import re
import time
import zlib
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urljoin

import httpx
import lxml.html
import msgspec
import protego
from lxml import etree

from openbook.core.errors import SourceError
from openbook.core.records import Verdict
from openbook.sources import Item, KnownItem
from openbook.sources.site import AGENT, MAX_DELAY_S, MAX_HEAD_BYTES, Answer, FetchError, PageRecord, Site

_MAX_FAILURES = 10  # without an answer between them
_SETTLED_S = 2 * 86_400  # `lastmod` may be a day without a time zone; a page may change again on it
_TRUST_S = 7 * 86_400
_MIN_CHARS = 30  # with less text in a page, its scripts would write it
_MIN_EXTRACT = 300  # characters; trafilatura keeps no structure of less
_MAX_TAGS, _MAX_CHARS = 12_000, 1_000_000  # 37,500 tags took trafilatura half a minute
_MAX_LINKS = 20_000  # looked at in a page
_GIANT_TAG = re.compile(rb"<[A-Za-z][^<>]{20000}")  # 40,000 attributes took libxml2 17 seconds
_UNREADABLE = (etree.LxmlError, ValueError, TypeError, AttributeError, LookupError, RecursionError)
_OFFICE, _OPEN = "application/vnd.openxmlformats-officedocument.", "application/vnd.oasis.opendocument."
_SUFFIXES = {
    "text/html": ".html", "application/xhtml+xml": ".html", "application/pdf": ".pdf", "application/epub+zip": ".epub",
    _OFFICE + "wordprocessingml.document": ".docx", _OFFICE + "presentationml.presentation": ".pptx",
    _OFFICE + "spreadsheetml.sheet": ".xlsx", _OPEN + "text": ".odt", _OPEN + "presentation": ".odp",
    _OPEN + "spreadsheet": ".ods", "application/msword": ".doc", "application/vnd.ms-powerpoint": ".ppt",
    "application/vnd.ms-excel": ".xls", "application/rtf": ".rtf", "text/rtf": ".rtf", "message/rfc822": ".eml",
    "application/x-ipynb+json": ".ipynb", "application/json": ".json", "application/xml": ".xml", "text/xml": ".xml",
    "text/csv": ".csv", "text/markdown": ".md",
}  # fmt: skip
_BY_ENDING = mimetypes.MimeTypes()  # without the machine's own list
_NOT_TEXT = ("text/css", "text/javascript")
_VALUE = r"""\s{0,4}=\s{0,4}(?:"([^"<>]{1,2000})"|'([^'<>]{1,2000})'|([^\s"'<>]{1,2000}))"""
_LINK = re.compile(r"<(?:a|area|frame|iframe)\s[^<>]{0,1000}?\b(?:href|src)" + _VALUE, re.IGNORECASE)
_BASE = re.compile(r"<base\s[^<>]{0,200}?\bhref" + _VALUE, re.IGNORECASE)
_REFRESH = re.compile(
    r"""<meta\s[^<>]{0,200}?\brefresh\b[^<>]{0,100}?\burl\s{0,4}=\s{0,4}["']?([^"'<>\s]{1,2000})""", re.IGNORECASE
)


class WebSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The page at `url`, what it leads to in its folder, up to `depth` links away, and the sitemaps that robots.txt names.

    At most `pages` addresses are asked, with `delay_s` between them. A document is named by its address after redirects. A page for which a
    sitemap gives the same `lastmod` as when it was asked is not asked again for a week.
    """

    url: str
    depth: int = 5
    pages: int = 1000
    delay_s: float = 0.2

    def items(self, known: Mapping[str, KnownItem]) -> Iterator[Item | Verdict]:
        with closing(Site(self.url, self.delay_s)) as site:
            yield from _Crawl(site, known, self.pages).run(self.depth)


class _Crawl:
    def __init__(self, site: Site, known: Mapping[str, KnownItem], pages: int) -> None:
        self._site, self._known, self._pages = site, known, pages
        self._kept = {name: PageRecord.of(item) for name, item in known.items()}
        self._behind = {kept.via: name for name, kept in self._kept.items() if kept.via}
        self._met: set[str] = set()
        self._sitemaps: set[str] = set()
        self._lastmods: dict[str, str] = {}

    def run(self, most_links: int) -> Iterator[Item | Verdict]:
        site, failures = self._site, 0
        self._read_robots()
        waiting = deque((address, 0) for address in [site.start, *sorted(self._sitemaps)])
        seen = {address for address, _ in waiting}
        for _ in range(max(self._pages, 1)):
            if not waiting:
                return
            address, depth = waiting.popleft()
            if address in self._met:
                continue
            try:
                if self._is_unchanged(address):
                    links = yield from self._take_known(address, {})
                else:
                    with site.get(address, self._kept) as answer:
                        links, failures = (yield from self._visit(address, answer)), 0
            except FetchError as error:
                failures += isinstance(error.__cause__, httpx.HTTPError)
                if address == site.start or failures == _MAX_FAILURES:
                    raise SourceError(f"{error.address} {error}. Check the address, or try again later.") from error
                links = yield from self._fail(address, error)
            for link in links if depth < most_links else ():
                link = link if link.startswith(("http://", "https://")) else site.prefix + link
                if link not in seen and (site.is_inside(link) or link in self._sitemaps) and site.may_ask(link):
                    seen.add(link)
                    waiting.append((link, depth + 1))
        if waiting:
            reason = f"{self._pages:,} addresses were asked; raise `pages` to read the others"
            yield Verdict(site.prefix.rstrip("/"), "skipped", reason)

    def _read_robots(self) -> None:
        """As RFC 9309: without a robots.txt all is allowed; if the server fails, nothing is."""
        site, address = self._site, urljoin(self._site.start, "/robots.txt")
        try:
            with site.get(address, {}) as answer:
                site.robots = protego.Protego.parse(answer.head[:500_000].decode("utf-8", "replace"))
        except FetchError as error:
            if error.__cause__:
                raise SourceError(f"{error.address} {error}. Check the address, or try again later.") from error
        else:
            if answer.status >= 500 or answer.status == 429:
                raise SourceError(f"{address} {answer.reason}, so what may be fetched is not known. Try again later.")
        site.delay_s = max(site.delay_s, min(site.robots.crawl_delay(AGENT) or 0, MAX_DELAY_S))
        if not site.may_ask(site.start):
            raise SourceError(f"{address} does not allow {site.start} to be fetched. Ask those who run the site.")
        named = (site.address(link, address) for link in itertools.islice(site.robots.sitemaps, self._pages))
        self._sitemaps |= {link for link in named if link and site.may_ask(link)} - {site.start}

    def _fail(self, address: str, error: FetchError) -> Generator[Verdict, None, tuple[str, ...]]:
        """What was fetched before is kept, and its links are followed."""
        if address in self._sitemaps:
            yield Verdict(self._site.prefix.rstrip("/"), "failed", f"its sitemap {error.address} {error}")
            return ()
        names = {name for name in (address, self._behind.get(address, "")) if name in self._known} | {error.address}
        for name in sorted(names - self._met):
            yield Verdict(name, "failed", str(error))
        self._met |= names
        return tuple(link for name in names if name in self._kept for link in self._kept[name].links)

    def _visit(self, asked: str, answer: Answer) -> Generator[Item, None, tuple[str, ...]]:
        """Yields the page, unless it is not a document; returns its links."""
        site, name, is_start = self._site, answer.address, asked == self._site.start
        if name in self._met or (answer.status in (404, 410) and not is_start):
            return ()
        if answer.status not in (200, 304):
            raise FetchError(name, answer.reason)
        suffix = _suffix(answer) if answer.status == 200 else self._kept[name].suffix
        if asked in self._sitemaps or (suffix == ".xml" and answer.status == 200):
            kind, links = self._read_sitemap(asked, answer)
            self._sitemaps.update(links if kind == "sitemapindex" else ())
            if kind or asked in self._sitemaps:
                return links
        if not site.is_inside(name):
            raise FetchError(asked, f"leads to {name}, outside the folder {site.prefix}")
        if is_start:
            site.move(name)
            if not suffix:
                raise FetchError(name, f"is {answer.content_type[:80] or 'of no known type'}, not a page")
        return (yield from self._take(asked, suffix, answer)) if suffix else ()

    def _is_unchanged(self, address: str) -> bool:
        """As a sitemap says. It may be wrong, so for a week at most."""
        if address not in self._known or not self._known[address].fingerprint:
            return False
        before = self._kept[address]
        return before.lastmod == self._lastmods.get(address) and 0 <= time.time() - before.asked_s < _TRUST_S

    def _take_known(self, name: str, marks: Mapping[str, Any]) -> Generator[Item, None, tuple[str, ...]]:
        new = msgspec.structs.replace(self._kept[name], **marks)
        self._met.add(name)
        read = partial(self._read_again, name)
        yield Item(name, self._known[name].fingerprint, read, new.suffix, new.metadata, kept=new.text())
        return new.links

    def _take(self, asked: str, suffix: str, answer: Answer) -> Generator[Item, None, tuple[str, ...]]:
        name, data = answer.address, answer.head
        before, known = self._kept.get(name, PageRecord()), self._known.get(name)
        marks: dict[str, Any] = answer.marks if answer.status == 200 else {}
        if lastmod := self._lastmods.get(name, ""):
            marks["asked_s"] = int(time.time())
        marks |= {"via": asked if asked != name else before.via, "lastmod": lastmod}
        fingerprint = hashlib.sha256(data).hexdigest() if answer.is_whole else marks["etag"] or marks["modified"]
        if known and (answer.status == 304 or fingerprint == known.fingerprint != ""):
            return (yield from self._take_known(name, marks))
        metadata: dict[str, str | list[str]] = {"url": name}
        with suppress(ValueError):
            metadata["modified"] = parsedate_to_datetime(marks["modified"]).isoformat()
        links: tuple[str, ...] = ()
        if suffix == ".html":
            text = data.decode("utf-8", "replace")
            links = self._links(name, text)
            if _REFRESH.search(text[:4096]):
                return links
            suffix, data, said = main_text(answer)
            metadata |= said
            if not suffix:
                raise FetchError(name, "holds nearly no text without JavaScript")
        self._met.add(name)
        new = PageRecord(**marks, suffix=suffix, links=links, metadata=metadata)
        yield Item(name, fingerprint, lambda: itertools.chain([data], answer.rest), suffix, metadata, kept=new.text())
        return links

    def _read_again(self, name: str) -> Iterator[bytes]:
        """For a mirror that wants the bytes of an unchanged item: it refused them before."""
        with self._site.get(name, {}) as answer:
            yield main_text(answer)[1] if _suffix(answer) == ".html" else answer.head
            yield from answer.rest

    def _links(self, address: str, text: str) -> tuple[str, ...]:
        site, links, base = self._site, dict[str, None](), address
        if stated := _BASE.search(text[:50_000]):
            base = urljoin(address, html.unescape(stated[stated.lastindex or 0]))
        found = itertools.chain(_REFRESH.finditer(text[:4096]), _LINK.finditer(text))
        for match in itertools.islice(found, _MAX_LINKS):
            there = site.address(html.unescape(match[match.lastindex or 0]), base)
            if there and site.is_inside(there) and _may_be_document(there):
                links[there.removeprefix(site.prefix)] = None
            if len(links) == self._pages:
                break
        return tuple(links)

    def _read_sitemap(self, asked: str, answer: Answer) -> tuple[str, tuple[str, ...]]:
        """`urlset` or `sitemapindex`, and the addresses. Empty if it is another file. Raises FetchError for a sitemap that cannot be read."""
        data, root = answer.head, None
        with suppress(zlib.error):
            data = zlib.decompressobj(31).decompress(data, MAX_HEAD_BYTES)
        with suppress(etree.LxmlError):
            parser = etree.XMLParser(recover=True, resolve_entities=False, no_network=True, huge_tree=False)
            root = etree.fromstring(data, parser)
        kind = str(root.tag).rpartition("}")[2] if root is not None and answer.is_whole else ""
        if root is not None and kind in ("urlset", "sitemapindex"):
            named = ((each.findtext("{*}loc", ""), each.findtext("{*}lastmod", "")) for each in root.iterfind("{*}*"))
            here = ((self._site.address(loc, answer.address), lastmod.strip()[:40]) for loc, lastmod in named)
            links = dict(itertools.islice((pair for pair in here if pair[0]), self._pages))
            if asked in self._sitemaps or asked == self._site.start:  # not a file that anyone may have put on the site
                until = datetime.fromtimestamp(time.time() - _SETTLED_S, UTC).isoformat()
                self._lastmods |= {a: m for a, m in links.items() if re.match(r"\d{4}-\d\d-\d\d", m) and m < until}
            return kind, tuple(links)
        if asked in self._sitemaps:
            raise FetchError(answer.address, "is not a sitemap that can be read")
        return "", ()


def _suffix(answer: Answer) -> str:
    """The content type decides; if it is vague, the path. Empty: not a document."""
    kind, ending = answer.content_type, PurePosixPath(httpx.URL(answer.address).path).suffix.lower()
    if kind in _SUFFIXES or kind in _NOT_TEXT:
        return _SUFFIXES.get(kind, "")
    if not kind and re.match(rb"\s{0,99}<(?:!doctype html|html)", answer.head, re.IGNORECASE):
        return ".html"
    is_text = kind.startswith("text/") or not kind
    if is_text or kind in ("application/octet-stream", "binary/octet-stream", "application/zip"):
        is_file = ending in _SUFFIXES.values() or ending in _BY_ENDING.types_map[True]
        return ending if is_file and _may_be_document(answer.address) else ".txt" if is_text else ""
    return ""


def _may_be_document(address: str) -> bool:
    """False for pictures, archives and the like, which need not be asked for."""
    ending = PurePosixPath(httpx.URL(address).path).suffix.lower()
    kind = _BY_ENDING.types_map[True].get(ending, "text/")
    is_text = kind.startswith("text/") and kind not in _NOT_TEXT
    return (is_text or kind in _SUFFIXES or ending in _SUFFIXES.values()) and ending not in _BY_ENDING.encodings_map


def main_text(answer: Answer) -> tuple[str, bytes, dict[str, str]]:
    """Suffix, bytes and metadata of a page's main text, or of the page whole. No suffix: its scripts would write the text."""
    page, charset = _page_and_charset(answer)
    whole = ".html", page, dict[str, str]()
    if not answer.is_whole or _GIANT_TAG.search(page):
        return whole
    is_small = len(page) <= _MAX_CHARS and page.count(b"<") <= _MAX_TAGS
    try:
        parser = lxml.html.HTMLParser(encoding=charset or None)
        tree: Any = lxml.html.document_fromstring(page, parser=parser)
        if tree.find("body") is None or any(error.type_name == "ERR_RESOURCE_LIMIT" for error in parser.error_log):
            return whole
        metadata = _about(tree, is_small)
        if _is_written_by_scripts(tree):
            return "", b"", {}
        if _keep_main_element(tree):
            return ".html", lxml.html.tostring(tree), metadata  # in ASCII
        text = _extracted(tree) if is_small else ""
    except _UNREADABLE:
        return whole
    if len(text) < _MIN_EXTRACT:
        return ".html", page, metadata
    if not text.startswith("# "):  # so the page cannot begin with front matter
        text = f"# {metadata.get('title', answer.address)}\n\n{text}"
    return ".md", text.encode("utf-8", "replace"), metadata


def _page_and_charset(answer: Answer) -> tuple[bytes, str]:
    """The page names the charset that the header says, if it is not UTF-8."""
    with suppress(UnicodeDecodeError):
        answer.head.decode()  # then it is UTF-8, whatever the header says
        return answer.head, "utf-8"
    said = re.search(r"charset=[\"']?([\w.:-]{2,40})", answer.headers.get("content-type", ""), re.ASCII | re.I)
    return (f'<meta charset="{said[1]}">'.encode() + answer.head, said[1]) if said else (answer.head, "")


def _about(tree: Any, is_small: bool) -> dict[str, str]:
    from trafilatura.metadata import extract_metadata  # slow, and needed for pages that are new or changed alone

    about = extract_metadata(tree, None, {"extensive_search": False}) if is_small else None
    title = " ".join((tree.findtext(".//title") or (about and about.title) or "").split())
    stated = {"title": title, "author": about and about.author, "modified": about and about.date}
    return {key: value for key, value in stated.items() if value}


def _is_written_by_scripts(tree: Any) -> bool:
    """Removes the scripts."""
    has_scripts = tree.find(".//script") is not None
    etree.strip_elements(tree, "script", "style", "noscript", "template", with_tail=False)
    return has_scripts and len("".join(tree.find("body").text_content().split())) < _MIN_CHARS


def _keep_main_element(tree: Any) -> bool:
    """Keep only the page's one main element, if it says which it is."""
    body = tree.find("body")
    for path in (".//main", ".//*[@role='main']", ".//article"):
        mains = body.xpath(path)
        if len(mains) == 1 and mains[0].text_content().strip():
            mains[0].tail = body.text = None
            body[:] = mains
            for meta in tree.xpath("//meta[@charset or @http-equiv]"):
                meta.drop_tree()
            return True
    return False


def _extracted(tree: Any) -> str:
    import trafilatura

    return trafilatura.extract(tree, output_format="markdown", include_comments=False) or ""
