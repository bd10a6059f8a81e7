"""Find documents by name, search their texts for exact words, and read them: without a model and without an index.

Documents outside the scope do not exist for these functions.
"""

from __future__ import annotations

import fnmatch
import re
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

import regex

from openbook.errors import QuestionError
from openbook.knowledge.base import KnowledgeBase
from openbook.knowledge.index.scope import Scope
from openbook.knowledge.store.integrity import StoredContent
from openbook.knowledge.store.names import resolve
from openbook.parsers.text import text_headings
from openbook.records import HeadingMark, Passage

MAX_PATTERN_CHARS = 500
LIMIT_S = 5.0  # for all texts together
MAX_LINE_CHARS = 300  # of a match's line, around the match


@dataclass(frozen=True, slots=True)
class Match:
    """`line` is the text around `[start, end)` of the document: its line, at most MAX_LINE_CHARS. `number`: of the line, from 1."""

    document: str
    page: int | None
    number: int
    start: int
    end: int
    line: str


@dataclass(frozen=True, slots=True)
class Matches:
    """`more`: there are further matches; skip these with `skip`."""

    version: int
    matches: tuple[Match, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class Part:
    """Characters `start` to `end` of `total`. `page`: the first page of the part, if the document has pages."""

    document: str
    version: int
    page: int | None
    start: int
    end: int
    total: int
    text: str


@dataclass(frozen=True, slots=True)
class Heading:
    """`level` 1 is the highest. `start`: of its line, or of the first passage below it."""

    start: int
    page: int | None
    level: int
    title: str


def find(base: KnowledgeBase, scope: Scope, name: str) -> list[str]:
    """Documents whose path contains `name`, in any case; with * or ?, those whose path or file name match it."""
    wanted = name.casefold()
    if not wanted.strip():
        raise QuestionError("The name to find is empty. Give a part of it, or a pattern such as *.pdf")
    if "*" not in wanted and "?" not in wanted:
        return [path for path in base.documents(scope) if wanted in path.casefold()]
    matches = re.compile(fnmatch.translate(wanted)).match
    return [
        path
        for path in base.documents(scope)
        if matches(path.casefold()) or matches(path.casefold().rpartition("/")[2])
    ]


def grep(
    base: KnowledgeBase,
    scope: Scope,
    pattern: str,
    *,
    expression: bool = False,
    case: bool = False,
    limit: int = 50,
    skip: int = 0,
    stop: Callable[[], bool] = lambda: False,
) -> Matches:
    """Places where the words `pattern` stand, in order of paths; at most one a line.

    Space in `pattern` matches any white space. `expression`: it is a regular expression (syntax of the package regex), and ^ and $ match at lines.
    `case`: upper and lower case differ. Raises QuestionError for an invalid pattern, or one that takes longer than LIMIT_S.
    """
    places = _compiled(pattern, expression, case)
    until = time.monotonic() + LIMIT_S
    found: list[Match] = []
    with base.snapshot():
        version = base.kept_version(scope.as_of)
        for document in base.documents(scope):
            content = base.content(document, version)
            if stop() or content is None:
                continue
            try:
                for match in _in_text(base, document, content, places, until):
                    if skip:
                        skip -= 1
                    elif len(found) == limit:
                        return Matches(version, tuple(found), True)
                    else:
                        found.append(match)
            except TimeoutError as error:
                message = f"The search for {pattern[:100]!r} was ended after {LIMIT_S:g} seconds, in {document}. Use a simpler pattern, or fewer documents."
                raise QuestionError(message) from error
    return Matches(version, tuple(found), False)


def _compiled(pattern: str, expression: bool, case: bool) -> regex.Pattern[str]:
    if not pattern.strip():
        raise QuestionError("The words to search for are empty.")
    if len(pattern) > MAX_PATTERN_CHARS:
        raise QuestionError(f"The pattern has {len(pattern):,} characters; the limit is {MAX_PATTERN_CHARS}.")
    if not expression:
        pattern = r"\s+".join(map(regex.escape, pattern.split()))
    try:
        return regex.compile(pattern, regex.MULTILINE | regex.VERSION0 | (0 if case else regex.IGNORECASE))
    except (regex.error, RecursionError, OverflowError) as error:
        raise QuestionError(f"{pattern[:100]!r} is not a regular expression: {error}.") from error


def _in_text(
    base: KnowledgeBase, document: str, content: StoredContent, places: regex.Pattern[str], until: float
) -> Iterator[Match]:
    text, last = content.text, -1
    lines: list[int] = []
    pages: list[tuple[int, int]] = []
    for place in places.finditer(text, timeout=max(0.001, until - time.monotonic()), concurrent=True):
        if not lines:
            lines = [0, *(each.end() for each in re.finditer("\n", text))]
            pages = base.pages(content)
        start, end = place.span()
        number = bisect_right(lines, start)
        if number == last:
            continue
        last = number
        begin = max(lines[number - 1], start - MAX_LINE_CHARS // 2)
        line_end = text.find("\n", max(start, end - 1))
        line = text[begin : min(len(text) if line_end < 0 else line_end, begin + MAX_LINE_CHARS)]
        yield Match(document, _page_at(pages, start), number, start, end, line)


def read(
    base: KnowledgeBase,
    scope: Scope,
    document: str,
    *,
    start: int = 0,
    length: int | None = None,
    page: int | None = None,
) -> Part:
    """A part of a document, which may be named as in `resolve`. With `page`, `start` counts from the page's beginning, and the part ends with the page.

    Raises KnowledgeError for an unknown name, QuestionError for a missing page.
    """
    with base.snapshot():
        version = base.kept_version(scope.as_of)
        path, content = _content(base, scope, document, version)
        pages = base.pages(content)
    total = until = len(content.text)
    if page is not None:
        ends = [begin for _, begin in pages[1:]] + [total]
        bounds = {number: (begin, end) for (number, begin), end in zip(pages, ends, strict=False)}
        if page not in bounds:
            there = f"it has {pages[0][0]} to {pages[-1][0]}" if pages else "it has no pages"
            raise QuestionError(f"{path} has no page {page}; {there}.")
        begin, until = bounds[page]
        start += begin
    start = min(start, until)
    end = until if length is None else min(start + length, until)
    return Part(path, version, _page_at(pages, start), start, end, total, content.text[start:end])


def outline(base: KnowledgeBase, scope: Scope, document: str) -> list[Heading]:
    """The headings of a document, in order; without any, its pages. Raises KnowledgeError for an unknown name."""
    with base.snapshot():
        version = base.kept_version(scope.as_of)
        path, content = _content(base, scope, document, version)
        pages = base.pages(content)
        marks = text_headings(content.text, content.media_type)
        if marks is None:
            marks = _passage_headings(base.passages(path, version))
    if marks:
        return [Heading(each.start, _page_at(pages, each.start), each.level, each.title) for each in marks]
    return [Heading(begin, page, 1, f"Page {page}") for page, begin in pages]


def _passage_headings(passages: Sequence[Passage]) -> tuple[HeadingMark, ...]:
    found: list[HeadingMark] = []
    above: tuple[str, ...] = ()
    for each in passages:
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(above, each.headings, strict=False)))
        found += [
            HeadingMark(each.start, level, each.headings[level - 1])
            for level in range(shared + 1, len(each.headings) + 1)
        ]
        above = each.headings
    return tuple(found)


def _content(base: KnowledgeBase, scope: Scope, document: str, version: int) -> tuple[str, StoredContent]:
    paths = resolve(base.documents(scope), document)
    if len(paths) > 1:
        raise QuestionError(f"{document!r} is a folder of {len(paths):,} documents. Name one of them.")
    content = base.content(paths[0], version)
    assert content is not None  # within one snapshot
    return paths[0], content


def _page_at(pages: list[tuple[int, int]], at: int) -> int | None:
    number = None
    for page, begin in pages:
        if begin > at:
            break
        number = page
    return number
