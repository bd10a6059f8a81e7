"""HTML to text, in two steps: parse into a flat list of events, then write them out.

A list and not a tree: the parser builds trees only 256 elements deep, and old pages that never close `<font>` go
deeper. The list also lets a table be judged (data or page layout) before its first cell is written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from openbook.errors import UnreadableFile
from openbook.parsers.cleaning import clean, one_line, title_from_name
from openbook.parsers.decoding import decode
from openbook.parsers.html_writer import HEADINGS, Writer
from openbook.parsers.properties import stated
from openbook.records import Content, HeadingMark, Metadata

MOST_EVENTS = 20_000_000

_DROPPED = frozenset({
    "annotation", "audio", "button", "canvas", "datalist", "iframe", "nav", "noscript", "object", "script", "select",
    "style", "svg", "template", "textarea", "title", "video",
})  # fmt: skip
_DROPPED_ROLES = frozenset({"navigation", "search"})
_DROPPED_CLASSES = frozenset({
    "headerlink", "mw-editsection", "linenos", "anchor-link", "mw-jump-link", "mw-portlet", "noprint",
    "breadcrumb", "breadcrumbs", "navheader", "navfooter", "toctree-l1",
    "cc-window", "cookie-banner", "cookie-consent", "cookie-notice", "cookieconsent",
})  # fmt: skip
_DROPPED_IDS = frozenset({
    "cookie-banner", "cookie-consent", "cookie-law-info-bar", "cookie-notice", "cybotcookiebotdialog",
    "onetrust-consent-sdk",
})  # fmt: skip
_DECLARED = re.compile(
    rb"""<(?:meta|\?xml)\b[^<>]{0,256}?(?:charset|encoding)\s{0,4}=\s{0,4}["']?([\w.:-]{2,40})""", re.I
)
# Which `<meta>` says what, the better first: modified before published.
_META_DATES = (
    "article:modified_time", "og:updated_time", "dcterms.modified", "last-modified", "article:published_time",
    "dcterms.created", "dcterms.issued", "dcterms.date", "dc.date", "date", "pubdate",
)  # fmt: skip
_META_AUTHORS = ("author", "dc.creator", "dcterms.creator", "article:author")
_META_LANGUAGES = ("dc.language", "dcterms.language", "content-language")
_META = frozenset((*_META_DATES, *_META_AUTHORS, *_META_LANGUAGES))
# In XHTML `<title/>` is closed; to a parser of HTML it is open to the end of the file.
_SELF_CLOSED = re.compile(
    r"<((?!(?:area|base|br|col|embed|hr|img|input|link|meta|param|source|track|wbr)\b)[A-Za-z][A-Za-z0-9]{0,15})"
    r"(\s[^<>]{0,2000})?/>"
)
_HIDDEN_STYLE = re.compile(r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*hidden)", re.I)
_LONGEST_CELL_CHARS = 800
_MOST_BREAKS_IN_CELL = 4


@dataclass(slots=True)
class _Start:
    tag: str
    dropped: bool = False
    layout: bool = False  # a table that places blocks on the page and holds no data
    spans: tuple[int, int] = (1, 1)  # of a cell: how many rows and columns it takes


_End = str
_Event = _Start | _End | tuple[str]  # text is a tuple of one, to tell it from an end tag


@dataclass(slots=True)
class _Table:
    start: _Start
    cell_chars: int = 0
    cell_breaks: int = 0


@dataclass(slots=True)
class _Collector:
    """The parser's target. Its method names are lxml's."""

    events: list[_Event] = field(default_factory=list)
    tables: list[_Table] = field(default_factory=list)
    title: list[str] = field(default_factory=list)
    meta: dict[str, str] = field(default_factory=dict)
    language: str = ""
    chars: int = 0  # of text, dropped text too
    titles_begun: int = 0
    in_title: bool = False
    has_main: bool = False

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        event = _Start(tag, _is_dropped(tag, attributes))
        if tag in {"td", "th"}:
            event.spans = (_span(attributes.get("rowspan", "")), _span(attributes.get("colspan", "")))
        if len(self.events) >= MOST_EVENTS:
            raise UnreadableFile("holds too many elements")
        self.events.append(event)
        self.has_main = self.has_main or tag in {"main", "article"}
        if tag == "title":
            self.titles_begun += 1
            self.in_title = self.titles_begun == 1
        if tag == "meta" and attributes:
            named = (attributes.get("name") or attributes.get("property") or attributes.get("http-equiv") or "").lower()
            if named in _META:
                self.meta.setdefault(named, attributes.get("content", ""))
        elif tag == "html" and attributes:
            self.language = attributes.get("lang") or attributes.get("xml:lang") or ""
        self._judge_table(tag, event)

    def _judge_table(self, tag: str, event: _Start) -> None:
        if self.tables:
            table = self.tables[-1]
            if tag in HEADINGS or tag in {"table", "pre"}:
                table.start.layout = True
            elif tag in {"td", "th"}:
                table.cell_chars = table.cell_breaks = 0
            elif tag == "br":
                table.cell_breaks += 1
                table.start.layout = table.start.layout or table.cell_breaks > _MOST_BREAKS_IN_CELL
        if tag == "table":
            self.tables.append(_Table(event))

    def end(self, tag: str) -> None:
        self.events.append(tag)
        if tag == "title":
            self.in_title = False
        if tag == "table" and self.tables:
            self.tables.pop()

    def data(self, text: str) -> None:
        self.events.append((text,))
        self.chars += 0 if text.isspace() else len(text)
        if self.in_title:
            self.title.append(text)
        if self.tables:
            table = self.tables[-1]
            table.cell_chars += len(text)
            table.start.layout = table.start.layout or table.cell_chars > _LONGEST_CELL_CHARS

    def close(self) -> None:
        pass


def _span(text: str) -> int:
    return min(max(int(text), 1), 1000) if text.isascii() and text.isdigit() and len(text) < 6 else 1


def _is_dropped(tag: str, attributes: Mapping[str, str]) -> bool:
    """Whether a reader of the page would not see it as part of the text."""
    if tag in _DROPPED:
        return True
    if not attributes:
        return False
    if "hidden" in attributes or attributes.get("role") in _DROPPED_ROLES:
        return True
    if attributes.get("id", "").lower() in _DROPPED_IDS:
        return True
    if _HIDDEN_STYLE.search(attributes.get("style", "")[:1000]):
        return True
    classes = attributes.get("class", "")[:1000]
    if tag == "a" and "skip" in classes.lower() and attributes.get("href", "").startswith("#"):
        return True  # "Skip to main content"
    return not _DROPPED_CLASSES.isdisjoint(classes.split())


@dataclass(frozen=True, slots=True)
class Page:
    """What a page shows and says about itself; `title` is empty where it states none."""

    text: str
    headings: tuple[HeadingMark, ...]
    title: str
    metadata: Metadata
    chars: int  # of text between the tags, dropped text too


def read_html(data: bytes, name: str) -> Content:
    source = decode_page(data)
    page = parse_page(source)
    first = next((mark.title for mark in page.headings if mark.level == 1), "")
    title = page.title or first or (page.headings[0].title if page.headings else "") or title_from_name(name)
    return Content(
        page.text, "text/html", title, headings=page.headings, source_chars=len(source), metadata=page.metadata
    )


def parse_page(source: str) -> Page:
    if source.lstrip("\ufeff \t\n").startswith("<?xml"):
        source = _SELF_CLOSED.sub(r"<\1\2></\1>", source)
    collector = _parse(source)
    writer = Writer()
    _write(collector, writer)
    text, headings = writer.finish()
    metadata = stated(
        authors=[name for key in _META_AUTHORS if not _is_address(name := collector.meta.get(key, ""))][:1],
        dates=(collector.meta.get(key, "") for key in _META_DATES),
        language=collector.language
        or next((collector.meta[key] for key in _META_LANGUAGES if key in collector.meta), ""),
    )
    return Page(text, headings, one_line("".join(collector.title)), metadata, collector.chars)


def _is_address(author: str) -> bool:
    """Whether there is no name; some pages put the address of the author's page there."""
    return not author.strip() or author.startswith(("http://", "https://", "//"))


def decode_page(data: bytes) -> str:
    declared = _DECLARED.search(data[:4096])
    # Cleaned before the parser sees it too: a NUL would end its input.
    return clean(decode(data, declared[1].decode("ascii") if declared else ""))


def _parse(text: str) -> _Collector:
    from lxml import etree

    collector = _Collector()
    target: Any = collector  # lxml calls no more of it than it has
    parser = etree.HTMLParser(target=target, encoding="utf-8", recover=True, no_network=True, huge_tree=False)
    try:
        parser.feed(text.encode())
        parser.close()
    except (etree.LxmlError, AssertionError) as error:
        if not collector.events:
            raise UnreadableFile("holds no text") from error
        raise UnreadableFile("not readable as HTML") from error
    return collector


def _write(collector: _Collector, writer: Writer) -> None:
    hidden = 0  # how many elements deep inside a dropped one
    for event in collector.events:
        if isinstance(event, _Start):
            if hidden or event.dropped or (event.tag == "footer" and collector.has_main):
                hidden += 1
            else:
                writer.start(event.tag, layout=event.layout, spans=event.spans)
        elif isinstance(event, str):
            if hidden:
                hidden -= 1
            else:
                writer.end(event)
        elif not hidden:
            writer.text(event[0])
