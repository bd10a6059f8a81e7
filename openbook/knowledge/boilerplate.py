"""What stands around the content of a document: headings alone, page headers and footers, tables of contents, navigation.

It stays in the text, which passages cover exactly. But a passage that holds nothing else is not searched: it would take
the place of one that answers. Each visible line must be boilerplate, and what a line says must stand elsewhere too.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from openbook.records import PassageSpan

_LEAST_PAGES = 3  # on which a running header or footer stands, and a quarter of all pages
_EDGE_LINES = 2  # of a page, above and below, which may be running ones
_LONGEST_LINE_CHARS = 200  # a longer one is prose
_LEAST_ENTRIES = 3  # of a table of contents that may hold lines we do not know
_LEAST_DOTS = 3  # between an entry and its page
_LONGEST_PAGE_NUMBER = 7  # xxxviii
_LEAST_LINKS = 3  # on one line, for it to be a navigation bar wherever they lead

_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"\d{1,9}")
_SECTION_NUMBER = re.compile(r"(?:\d+ )+(?=\D)")
_PAGE = re.compile(r"\W*page\s*\d{1,5}(?:\s*(?:of|/)\s*\d{1,5})?\W*", re.IGNORECASE)
_LABEL = re.compile(r"\[([^\[\]]*)\]\([^()\s]*\)")
_LINK = re.compile(
    r"\[!\[[^\[\]]*\]\([^()\s]*\)\]\([^()\s]*\)"  # a badge
    r"|(?<!!)\[[^\[\]]*\]\(([^()\s]*)\)"
    r"|:(?:doc|ref):`[^`]*`"
)
# reStructuredText that only leads elsewhere or is never shown: directives with their indented lines, and labels.
_DIRECTIVE = re.compile(
    r"^([ \t]*)\.\. (?:toctree|contents|index|highlight|currentmodule|include|sectnum)::[^\n]*"
    r"(?:\n(?:[ \t]*(?=\n)|\1[ \t]+\S[^\n]*))*"
    r"|^[ \t]*\.\. _[^\n:]+:[ \t]*$(?!\n[ \t]+\S)",
    re.MULTILINE,
)
_DIVIDER = re.compile(r"\s*[|\u00b7\u2022\u00bb\u203a\u2192]\s*")
_NAVIGATION = frozenset({
    "about", "about us", "api", "api reference", "back", "back to top", "blog", "careers", "community", "contact",
    "contact us", "contents", "docs", "documentation", "download", "downloads", "edit on github", "edit this page",
    "faq", "github", "help", "home", "imprint", "index", "legal", "log in", "login", "main page", "menu", "modules",
    "news", "next", "on this page", "prev", "previous", "pricing", "privacy", "privacy policy", "search", "sign in",
    "sign up", "site map", "sitemap", "skip to content", "skip to main content", "support", "table of contents",
    "terms", "terms of service", "top", "up",
})  # fmt: skip


def with_content(text: str, title: str, passages: Sequence[PassageSpan]) -> list[bool]:
    """For each of the `passages` of one document, in their order, whether it holds more than white space and boilerplate.

    A heading or a list of headings is boilerplate only where passages with content stand under each of them, which are
    searched with its words. A document that is nothing but boilerplate is content. Takes time linear in the text.
    """
    document = _Document(text, title, passages)
    visible = [bool(document.lines(span)) for span in passages]
    found = [seen and not document.is_boilerplate(span) for seen, span in zip(visible, passages, strict=True)]
    document.titles = _titles(title, [span for span, holds in zip(passages, found, strict=True) if holds])
    found = [
        holds or (seen and not document.is_boilerplate(span))
        for holds, seen, span in zip(found, visible, passages, strict=True)
    ]
    return found if any(found) else visible


def _titles(title: str, passages: Sequence[PassageSpan]) -> set[str]:
    """The titles that `passages` are searched with, as plain words."""
    return {_plain(part) for headings in {span.headings for span in passages} for part in (title, *headings)} - {""}


def _plain(line: str) -> str:
    return " ".join(_WORD.findall(line)).casefold()


@dataclass(slots=True)
class _Document:
    text: str
    title: str
    passages: Sequence[PassageSpan]
    titles: set[str] = field(init=False)
    _running: set[tuple[str, int]] = field(init=False)
    _leading: set[int] = field(init=False)  # where lines begin that only lead elsewhere
    _plain_lines: set[str] | None = None

    def __post_init__(self) -> None:
        self.titles = _titles(self.title, self.passages)
        self._running = _running_lines(self.text, self.passages)
        self._leading = set(self._link_lists())
        for found in _DIRECTIVE.finditer(self.text) if ".. " in self.text else ():
            self._leading.update(start for start, _ in _visible_lines(self.text, *found.span()))

    def _link_lists(self) -> Iterator[int]:
        """Lines of nothing but links into the document or its folder, unless a sentence stands before the first."""
        introduced = False
        for start, line in _visible_lines(self.text, 0, len(self.text)) if _LINK.search(self.text) else ():
            rest, count = _LINK.subn("", line)
            if not count or _WORD.search(rest):
                introduced = not self._is_title(line)
            elif not introduced and not any("://" in (found[1] or "") for found in _LINK.finditer(line)):
                yield start

    def lines(self, span: PassageSpan) -> list[tuple[int, str]]:
        return list(_visible_lines(self.text, span.start, span.end))

    def is_boilerplate(self, span: PassageSpan) -> bool:
        entries, unknown = 0, 0
        lines = self.lines(span)
        for start, line in lines:
            if len(line) > _LONGEST_LINE_CHARS and not _LINK.match(line):
                return False
            if self._is_entry(line):
                entries += 1
            elif not (
                start in self._leading or self._is_title(line) or self._is_running(line, span) or _is_navigation(line)
            ):
                # A table of contents may be cut anywhere, and the titles in it broken.
                unknown += 1
                if line.rstrip().endswith((".", ":", ";", "?", "!")) or 2 * unknown > len(lines):
                    return False
        return not unknown or entries >= _LEAST_ENTRIES

    def _is_title(self, line: str) -> bool:
        plain = _plain(_LABEL.sub(r"\1", line))
        return not plain or plain in self.titles or _SECTION_NUMBER.sub("", plain, count=1) in self.titles

    def _is_running(self, line: str, span: PassageSpan) -> bool:
        if _PAGE.fullmatch(line):
            return True
        return span.page is not None and not self._running.isdisjoint(_forms(line, span.page))

    def _is_entry(self, line: str) -> bool:
        """Whether it names a line of this document and the page on which that stands."""
        title = _before_leader(line)
        if not title:
            return False
        if self._plain_lines is None:
            self._plain_lines = {_plain(each) for _, each in _visible_lines(self.text, 0, len(self.text))}
        return self._is_title(title) or _plain(title) in self._plain_lines


def _visible_lines(text: str, start: int, end: int) -> Iterator[tuple[int, str]]:
    for line in text[start:end].split("\n"):
        if line and not line.isspace():
            yield start, line
        start += len(line) + 1


def _before_leader(line: str) -> str:
    """What stands before dots that lead to a page number; empty if none do."""
    line = line.strip()
    head = line.rstrip("0123456789")
    head = head if head != line else line.rstrip("ivxlcIVXLC")
    title = head.rstrip(" \t.\u2026")
    leader = head[len(title) :]
    leads = leader.count(".") >= _LEAST_DOTS or "\u2026" in leader
    return title if leads and 0 < len(line) - len(head) <= _LONGEST_PAGE_NUMBER else ""


def _is_navigation(line: str) -> bool:
    """Whether it is a navigation bar, or a part of one."""
    rest, count = _LINK.subn("", line)
    if count and not _WORD.search(rest):
        return count >= _LEAST_LINKS or line.lstrip().startswith("[![") or "](#" in line
    words = [_plain(part) for part in _DIVIDER.split(line.strip(" \t*-|"))]
    return 2 * sum(word in _NAVIGATION for word in words) > len(words)


def _running_lines(text: str, passages: Sequence[PassageSpan]) -> set[tuple[str, int]]:
    """Forms of the lines that stand at the edges of many pages."""
    pages: dict[int, tuple[int, int]] = {}
    for span in passages:
        if span.page is not None:
            pages[span.page] = (pages.get(span.page, (span.start, 0))[0], span.end)
    on_pages: dict[tuple[str, int], int] = defaultdict(int)
    for page, (start, end) in pages.items():
        lines = [line for _, line in _visible_lines(text, start, end)]
        edges = {*lines[:_EDGE_LINES], *lines[-_EDGE_LINES:]}
        for form in {form for line in edges if len(line) <= _LONGEST_LINE_CHARS for form in _forms(line, page)}:
            on_pages[form] += 1
    least = max(_LEAST_PAGES, len(pages) / 4)
    return {form for form, count in on_pages.items() if count >= least}


def _forms(line: str, page: int) -> Iterator[tuple[str, int]]:
    """What is the same on all pages: the line, and the line without one number and that number's distance to the page."""
    plain = _plain(line)
    yield plain, 0
    for number in _NUMBER.finditer(plain):
        yield f"{plain[: number.start()]}#{plain[number.end() :]}", int(number[0]) - page
