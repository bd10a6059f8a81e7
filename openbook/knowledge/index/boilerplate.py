"""Boilerplate: bare headings, page headers and footers, tables of contents, navigation.

It stays in the text, but passages of boilerplate alone are not searched: they would displace ones that answer. In such a passage each visible
line is of these kinds and repeats text from elsewhere; in a table of contents half of the lines may be unknown.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import compress

from openbook.core.records import PassageSpan
from openbook.parsers.characters import lines_of

_LEAST_PAGES = 3  # with a running header or footer, and at least a quarter of all pages
_EDGE_LINES = 2  # of a page, above and below, which may be running ones
_MAX_LINE_CHARS = 200  # a longer line is prose
_LEAST_DOTS = 3  # before the page number of an entry
_LEAST_ENTRIES = 3  # of a table of contents that may hold unknown lines

_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"\d{1,9}")
_SECTION_NUMBER = re.compile(r"\A(?:\d+ )++(?=\D)")
_LINK = re.compile(r"\[([^\[\]]*)\]\([^()\s]*\)")
_PAGE_NUMBER = re.compile(r"(?<![^ \t.\u2026])(?:\d{1,7}|[ivxlc]{1,7})\Z", re.IGNORECASE)
# reStructuredText that is never shown or only a link: directives with their indented lines, and labels.
_DIRECTIVE = re.compile(
    r"^([ \t]*)\.\. (?:toctree|contents|index|highlight|currentmodule|include|sectnum)::[^\n]*"
    r"(?:\n(?:[ \t]*(?=\n)|\1[ \t]+\S[^\n]*))*"
    r"|^[ \t]*\.\. _[^\n:]+:[ \t]*$(?!\n[ \t]+\S)",
    re.MULTILINE,
)
_DIVIDER = re.compile(r"\s*[|\u00b7\u2022\u00bb\u203a\u2192]\s*")
_NAVIGATION = frozenset({
    "about", "about us", "api", "back to top", "blog", "contact", "contact us", "contents", "docs", "documentation",
    "download", "edit on github", "edit this page", "faq", "help", "home", "imprint", "index", "legal", "login", "menu",
    "next", "on this page", "prev", "previous", "pricing", "privacy", "search", "sign in", "sign up", "site map",
    "skip to content", "skip to main content", "support", "table of contents", "terms", "top", "up",
})  # fmt: skip


def with_content(text: str, title: str, passages: Sequence[PassageSpan]) -> list[bool]:
    """True for each passage of one document, in order, with more than white space and boilerplate. Linear in the text.

    Headings are boilerplate only over passages with content, which are searched with their words. A document of only boilerplate is content.
    """
    document = _Document(text, passages)
    visible = [not text[span.start : span.end].isspace() for span in passages]
    document.titles = _titles(title, compress(passages, visible))
    found = [seen and not document.is_boilerplate(span) for seen, span in zip(visible, passages, strict=True)]
    # A heading is boilerplate only over passages with content. Fewer titles make nothing else boilerplate.
    document.titles = _titles(title, compress(passages, found))
    several = zip(found, visible, passages, strict=True)
    found = [holds or (seen and not document.is_boilerplate(span)) for holds, seen, span in several]
    return found if any(found) else visible


def _titles(title: str, passages: Iterable[PassageSpan]) -> set[str]:
    return {_plain(part) for headings in {span.headings for span in passages} for part in (title, *headings)} - {""}


def _plain(line: str) -> str:
    return " ".join(_WORD.findall(line)).casefold()


class _Document:
    def __init__(self, text: str, passages: Sequence[PassageSpan]) -> None:
        self.text = text
        self.titles = set[str]()
        self._running = _running_lines(text, passages)
        directives = (_visible_lines(text, *found.span()) for found in _DIRECTIVE.finditer(text))
        self._hidden = {start for lines in directives for start, _ in lines}

    def is_boilerplate(self, span: PassageSpan) -> bool:
        entries, unknown = 0, 0
        lines = list(_visible_lines(self.text, span.start, span.end))
        # The order does not change the result. Lines that end a sentence mostly decide at once.
        for start, line in sorted(lines, key=lambda each: not _ends_sentence(each[1])):
            if len(line) > _MAX_LINE_CHARS:
                return False
            if self._is_entry(line):
                entries += 1
            elif not (
                start in self._hidden
                or self._is_title(line)
                or (span.page is not None and not self._running.isdisjoint(_forms(line, span.page)))
                or _is_navigation(line)
            ):
                # A table of contents may be cut anywhere, and its titles broken.
                unknown += 1
                if _ends_sentence(line) or 2 * unknown > len(lines):
                    return False
        return not unknown or entries >= _LEAST_ENTRIES

    def _is_title(self, line: str) -> bool:
        plain = _plain(_LINK.sub(r"\1", line))
        return not plain or plain in self.titles or _SECTION_NUMBER.sub("", plain, count=1) in self.titles

    def _is_entry(self, line: str) -> bool:
        """True if it names a line of this document and, after a row of dots, a page."""
        if line.count(".") < _LEAST_DOTS and "\u2026" not in line:
            return False  # most lines, without the search below
        before = _PAGE_NUMBER.sub("", line.rstrip())
        title = before.rstrip(" \t.\u2026")
        leader = before[len(title) :]
        if before == line.rstrip() or not (leader.count(".") >= _LEAST_DOTS or "\u2026" in leader):
            return False
        return self._is_title(title) or _plain(title) in self._lines

    @cached_property
    def _lines(self) -> set[str]:
        return {_plain(line) for _, line in _visible_lines(self.text, 0, len(self.text))}


def _visible_lines(text: str, start: int, end: int) -> Iterator[tuple[int, str]]:
    return ((at, line) for at, line in lines_of(text, start, end) if line and not line.isspace())


def _ends_sentence(line: str) -> bool:
    return line.rstrip().endswith((".", ":", ";", "?", "!"))


def _is_navigation(line: str) -> bool:
    words = [_plain(part) for part in _DIVIDER.split(line.strip(" \t*-|"))]
    return 2 * sum(word in _NAVIGATION for word in words) > len(words)


def _running_lines(text: str, passages: Sequence[PassageSpan]) -> set[tuple[str, int]]:
    pages: dict[int, tuple[int, int]] = {}
    for span in passages:
        if span.page is not None:
            pages[span.page] = (pages.get(span.page, (span.start, 0))[0], span.end)
    on_pages = Counter[tuple[str, int]]()
    for page, (start, end) in pages.items():
        lines = [line for _, line in _visible_lines(text, start, end)]
        edges = [line for line in (*lines[:_EDGE_LINES], *lines[-_EDGE_LINES:]) if len(line) <= _MAX_LINE_CHARS]
        on_pages.update({form for line in edges for form in _forms(line, page)})
    least = max(_LEAST_PAGES, len(pages) / 4)
    return {form for form, count in on_pages.items() if count >= least}


def _forms(line: str, page: int) -> Iterator[tuple[str, int]]:
    """The parts of a line that repeat on all pages: the line, and the line without one number, with that number minus the page."""
    plain = _plain(line)
    yield plain, 0
    for number in _NUMBER.finditer(plain):
        yield f"{plain[: number.start()]}#{plain[number.end() :]}", int(number[0]) - page
