"""HTML to text by lxml's events: blocks apart, white space collapsed, each table row on one line.

Events, not a tree: the parser builds trees only 256 elements deep, and old pages that never close `<font>` go deeper.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from openbook.core.errors import UnreadableFile
from openbook.core.records import Content, HeadingMark
from openbook.parsers.blocks import MAX_DEPTH, Text, text_content
from openbook.parsers.characters import clean, decode, one_line
from openbook.parsers.formats.elements import number
from openbook.parsers.formats.frontmatter import make_metadata
from openbook.parsers.formats.packages import common_metadata
from openbook.parsers.metadata import EDITION_KEYS, key_name

MAX_TABLES = 100  # inside one another

_LISTS = frozenset({"ul", "ol"})
_CELLS = frozenset({"td", "th"})
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_DROPPED = frozenset(
    "annotation audio button canvas datalist iframe nav noscript object script select style svg template textarea title "
    "video".split()
)
_DROPPED_NAMES = frozenset(  # of classes and ids
    "headerlink mw-editsection linenos anchor-link mw-jump-link mw-portlet noprint breadcrumb breadcrumbs navheader "
    "navfooter toctree-l1 cc-window cookie-banner cookie-consent cookie-notice cookieconsent cookie-law-info-bar "
    "cybotcookiebotdialog onetrust-consent-sdk".split()
)
_BLOCKS = frozenset(_HEADINGS) | frozenset(
    "address article aside blockquote body center dd details div dl fieldset figure footer form header hr main ol p pre "
    "section table ul".split()
)
_LINES = frozenset("caption dt figcaption legend li optgroup option rp summary tr td th".split())
_DECLARED = re.compile(
    rb"""<(?:meta|\?xml)\b[^<>]{0,256}?(?:charset|encoding)\s{0,4}=\s{0,4}["']?([\w.:-]{2,40})""", re.I
)
# By preference: modified before published.
_META_DATES = (
    "article:modified_time dcterms.modified last-modified article:published_time dcterms.created dc.date date".split()
)
_META_AUTHORS = ("author", "dc.creator", "article:author")
_ADDRESSES = ("http://", "https://", "//")
# In XHTML `<title/>` is closed; an HTML parser leaves it open to the end of the file.
_SELF_CLOSED = re.compile(
    r"<((?!(?:area|base|br|col|embed|hr|img|input|link|meta|param|source|track|wbr)\b)[A-Za-z][A-Za-z0-9]{0,15})"
    r"(\s[^<>]{0,2000})?/>"
)
_HIDDEN_STYLE = re.compile(r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*hidden)", re.I)
_SPACES = re.compile(r"[ \t\n\xa0]+")
_INVISIBLE = str.maketrans("", "", "\xad\u200b\ufeff")  # soft hyphens and the like hide words from a search
_MAX_COUNT = 999_999_999
_MAX_CELL_CHARS = 800  # a longer cell is page layout, not data
_MAX_LINES_IN_CELL = 8


def parse_html(data: bytes, name: str) -> Content:
    source = decode_page(data)
    page = parse_page(source)
    title = page.title or next((mark.title for mark in page.headings if mark.level == 1), "")
    return text_content(page.text, "text/html", name, page.headings, page.metadata, title=title, chars=len(source))


def decode_page(data: bytes) -> str:
    declared = _DECLARED.search(data[:4096])
    # Cleaned before the parser sees it too: a NUL would end its input.
    return clean(decode(data, declared[1].decode("ascii") if declared else ""))


def parse_page(source: str) -> Content:
    """`source_chars` counts the text between the tags. Raises UnreadableFile."""
    from lxml import etree

    if source.lstrip("\ufeff \t\n").startswith("<?xml"):
        source = _SELF_CLOSED.sub(r"<\1\2></\1>", source)
    has_main = re.search(r"<(?:main|article)[\s>]", source, re.I) is not None
    target = _PageTarget(drops_footer=has_main)
    called: Any = target  # lxml calls only the methods that exist
    parser = etree.HTMLParser(target=called, encoding="utf-8", recover=True, no_network=True, huge_tree=False)
    try:
        parser.feed(source.encode())
        parser.close()
    except (etree.LxmlError, AssertionError) as error:
        raise UnreadableFile("not readable as HTML" if source.strip() else "holds no text") from error
    said = target.meta
    # Some pages state a URL as author.
    authors = [said[key] for key in _META_AUTHORS if said.get(key) and not said[key].startswith(_ADDRESSES)]
    date = next((said[key] for key in _META_DATES if said.get(key)), "")
    language = target.language or said.get("dc.language", "") or said.get("content-language", "")
    out, title = target.finish(), one_line("".join(target.title))
    declared = [(key, value) for key, value in said.items() if key_name(key) in EDITION_KEYS]
    metadata = make_metadata([*common_metadata(authors[:1], date, language), *declared])
    return Content(out.text, "text/html", title, (), tuple(out.headings), target.chars, metadata)


@dataclass(slots=True)
class _Table:
    outer: Text
    row: list[tuple[Text, int, int]] = field(default_factory=list)  # cells with their rowspan and colspan
    above: dict[int, tuple[str, int]] = field(default_factory=dict)  # by column: text, and rows that still have it


class _PageTarget:
    """lxml names the methods."""

    def __init__(self, *, drops_footer: bool) -> None:
        self.title: list[str] = []
        self.meta: dict[str, str] = {}
        self.language = ""
        self.chars = 0
        self._drops_footer = drops_footer
        self._hidden = 0  # depth inside a dropped element
        self._in_title = False
        self._out = Text()
        self._tables: list[_Table] = []
        self._lists: list[int | None] = []  # last number of each open list; None: bullets
        self._marker = ""  # of a list item that has no text yet
        self._pre: list[str] | None = None
        self._heading: tuple[str, int] | None = None  # the open heading's tag, and the number of parts before it

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if tag == "title":
            self._in_title = not self.title  # the first; pictures have others
        elif tag == "meta":
            named = attributes.get("name") or attributes.get("property") or attributes.get("http-equiv") or ""
            self.meta.setdefault(named.lower(), attributes.get("content", ""))
        elif tag == "html":
            self.language = attributes.get("lang") or attributes.get("xml:lang") or ""
        if self._hidden or _is_dropped(tag, attributes) or (tag == "footer" and self._drops_footer):
            self._hidden += 1
        elif self._pre is not None:
            self._pre += ["\n"] if tag == "br" else []
        elif tag == "br":
            self._break(2 if self._out.gap == 1 else 1)
        else:
            self._start_block(tag, attributes)

    def _start_block(self, tag: str, attributes: Mapping[str, str]) -> None:
        if tag in _BLOCKS or tag in _LINES:
            self._break(1 if tag in _LINES or (tag in _LISTS and self._lists) else 2)
        if tag in _LISTS:
            start = number(attributes.get("start", "").strip(), -_MAX_COUNT, _MAX_COUNT, 1)
            counts = tag == "ol" and "reversed" not in attributes  # a reversed list counts down from its length
            self._lists.append(start - 1 if counts else None)
        elif tag == "li":
            self._marker = "- "
            if self._lists and (last := self._lists[-1]) is not None:
                self._lists[-1] = number(attributes.get("value", "").strip(), -_MAX_COUNT, _MAX_COUNT, last + 1)
                self._marker = f"{self._lists[-1]}. "
            self._marker = "  " * max(min(len(self._lists), MAX_DEPTH) - 1, 0) + self._marker
        elif tag == "pre":
            self._pre = []
        elif tag in _HEADINGS:
            self._heading = (tag, len(self._out.parts))
        elif tag == "table":
            if len(self._tables) == MAX_TABLES:
                raise UnreadableFile(f"holds more than {MAX_TABLES} tables inside one another")
            self._tables.append(_Table(self._out))
        elif tag in _CELLS and self._tables:
            rows, columns = (number(attributes.get(name, ""), 1, 1000) for name in ("rowspan", "colspan"))
            self._out, self._marker = Text(), ""
            self._tables[-1].row.append((self._out, rows, columns))

    def end(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        if self._hidden:
            self._hidden -= 1
        elif self._pre is None:
            self._end_block(tag)
        elif tag == "pre":
            self._end_pre()

    def _end_block(self, tag: str) -> None:
        if self._heading and tag == self._heading[0]:
            self._end_heading()
        if self._tables:
            if tag in _CELLS:
                self._out = self._tables[-1].outer
            elif tag in {"tr", "table"}:
                self._end_row(self._tables[-1])
            if tag == "table":
                self._tables.pop()
        if tag in _LISTS and self._lists:
            self._lists.pop()
        if tag in {"li", "dt"}:
            self._marker, self._out.gap = "", 1  # items stay together even if their text is in paragraphs
        elif tag in _BLOCKS:
            self._break(1 if tag in _LISTS and self._lists else 2)
        elif tag in _LINES:
            self._break(1)

    def data(self, text: str) -> None:
        self.chars += 0 if text.isspace() else len(text)
        if self._in_title:
            self.title.append(text)
        if self._hidden:
            return
        if self._pre is not None:
            self._pre.append(text)
            return
        shown = _SPACES.sub(" ", clean(text).translate(_INVISIBLE))
        body = shown.strip(" ")
        if shown.startswith(" ") and not self._out.gap:
            self._out.gap = -1
        if body:
            self._put(body)
            if shown.endswith(" "):
                self._out.gap = -1

    def close(self) -> None:
        pass

    def finish(self) -> Text:
        self._end_pre()
        self._end_heading()
        while self._tables:
            self._end_block("table")
        return self._out

    def _put(self, body: str) -> None:
        self._out.put(self._marker + body)
        self._marker = ""

    def _break(self, gap: int) -> None:
        if not self._marker:  # the text of a list item begins on the line of its marker
            self._out.need(gap)

    def _end_pre(self) -> None:
        body = clean("".join(self._pre or ())).strip("\n").rstrip()
        self._pre = None
        if body:
            self._put(body)
            self._break(2)

    def _end_heading(self) -> None:
        if self._heading is None:
            return
        (tag, before), out = self._heading, self._out
        self._heading = None
        written = "".join(out.parts[before:])
        if title := one_line(written):
            start = out.length - len(written.lstrip("\n "))
            out.headings.append(HeadingMark(start, _HEADINGS[tag], title))

    def _end_row(self, table: _Table) -> None:
        """Write the cells of a row on one line, or as blocks if they are page layout."""
        out, cells = table.outer, table.row
        self._out, table.row = out, []
        if any(_lays_out(cell) for cell, _, _ in cells):
            for cell, _, _ in cells:
                if cell.length:
                    out.need(2)
                    out.put_marked(cell.text, cell.headings)
            out.need(2)
            return
        row: list[str] = []
        for cell, rows, columns in cells:
            _repeat(table, row)
            text = " ".join(cell.text.split())
            if rows > 1 and text:
                table.above[len(row)] = (text, rows - 1)
            row += [text, *[""] * (columns - 1)]
        if cells:
            _repeat(table, row)
        if line := " | ".join(row).rstrip(" |"):
            self._break(1)
            self._put(line)
            self._break(1)


def _lays_out(cell: Text) -> bool:
    return bool(cell.headings) or cell.length > _MAX_CELL_CHARS or cell.text.count("\n") > _MAX_LINES_IN_CELL


def _repeat(table: _Table, row: list[str]) -> None:
    """Repeat cells over several rows, so that every row is complete."""
    while len(row) in table.above:
        text, left = table.above.pop(len(row))
        if left > 1:
            table.above[len(row)] = (text, left - 1)
        row.append(text)


def _is_dropped(tag: str, attributes: Mapping[str, str]) -> bool:
    """True if a person would not see the element as part of the text."""
    if tag in _DROPPED:
        return True
    if not attributes:
        return False
    if "hidden" in attributes or attributes.get("role") in {"navigation", "search"}:
        return True
    if _HIDDEN_STYLE.search(attributes.get("style", "")[:1000]):
        return True
    names = f"{attributes.get('class', '')[:1000]} {attributes.get('id', '')[:100]}".lower()
    if tag == "a" and "skip" in names and attributes.get("href", "").startswith("#"):
        return True  # "Skip to main content"
    return not _DROPPED_NAMES.isdisjoint(names.split())
