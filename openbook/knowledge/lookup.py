"""Find documents by name, search texts for exact words, read and compare them, without model and index. What a scope leaves out is not there."""

from __future__ import annotations

import fnmatch
import posixpath
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from typing import Any

import re2

from openbook.core.errors import QuestionError
from openbook.core.parallel import silent
from openbook.knowledge.base import KnowledgeBase
from openbook.knowledge.documents import headings_between, page_starts
from openbook.knowledge.index.scope import Scope, condition
from openbook.knowledge.store import integrity
from openbook.knowledge.store.integrity import StoredContent
from openbook.knowledge.store.interface import Connection
from openbook.knowledge.store.names import LISTING, resolve_one
from openbook.knowledge.word_diff import Piece, word_diff
from openbook.parsers.formats.text import text_headings

MAX_PATTERN_CHARS = 500
MAX_LINE_CHARS = 300  # of a match's line, around the match

_GROUP_BYTES = 4_000_000  # of files whose texts are read in one statement
_GROUP_FILES = 64
_SPACE = r"[\s\v\x85\p{Z}]+"  # RE2's \s is of ASCII alone


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
class Entry:
    """A document, or a folder with so many `documents` below it."""

    path: str
    documents: int | None


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
    if len(wanted) > MAX_PATTERN_CHARS:
        raise QuestionError(f"The name has {len(name):,} characters; the limit is {MAX_PATTERN_CHARS}.")
    if "*" not in wanted and "?" not in wanted:
        return [path for path in base.documents(scope) if wanted in path.casefold()]
    fits = re.compile(fnmatch.translate(wanted)).match
    folded = ((path, path.casefold()) for path in base.documents(scope))
    return [path for path, name in folded if fits(name) or fits(name.rpartition("/")[2])]


def entries(base: KnowledgeBase, scope: Scope, folder: str = "") -> list[Entry]:
    """What lies in a folder, which may be named by the end of its path: folders first. Default: the lowest folder above all documents."""
    paths, name = base.documents(scope), folder.strip().rstrip("/")
    if name:
        folders = {path[:at] for path in paths for at, character in enumerate(path) if character == "/"}
        found = [name] if name in folders else sorted(each for each in folders if each.endswith(f"/{name}"))
        if not found:
            raise QuestionError(f"There is no folder {folder[:200]!r}. Leave the folder out to begin at the top.")
        if len(found) > 1:
            message = f"{len(found)} folders end in {name[:200]!r}: {', '.join(found[:3])}. Give more of the path."
            raise QuestionError(message)
        top = found[0]
    else:
        top = posixpath.commonpath(map(posixpath.dirname, paths)) if paths else ""
    begin = f"{top.rstrip('/')}/" if top else ""
    below = [path for path in paths if path.startswith(begin)]
    counts = Counter(path[: path.index("/", len(begin)) + 1] for path in below if "/" in path[len(begin) :])
    return [
        *(Entry(path, count) for path, count in sorted(counts.items())),
        *(Entry(path, None) for path in below if "/" not in path[len(begin) :]),
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
    check: Callable[[], None] = silent,
) -> Matches:
    """Places where the words `pattern` stand, in order of paths; at most one a line.

    Space in `pattern` matches any white space. `expression`: it is a regular expression in the syntax of RE2, which takes time in proportion
    to the text; ^ and $ match at lines. `case`: upper and lower case differ. `check` is called before each text and match; what it
    raises ends the search. Raises QuestionError for an invalid pattern.
    """
    places = _compiled(pattern, expression, case)
    found: list[Match] = []
    with base.snapshot() as connection:
        version = base.kept_version(scope.as_of)
        for document, content in _texts(connection, scope, version):
            check()
            pages: list[tuple[int, int]] | None = None
            for number, start, end, line in _places(places, content.text):
                check()
                if skip:
                    skip -= 1
                    continue
                if len(found) == limit:
                    return Matches(version, tuple(found), True)
                if pages is None:
                    pages = page_starts(base.spans(content))
                found.append(Match(document, _page_at(pages, start), number, start, end, line))
    return Matches(version, tuple(found), False)


def _compiled(pattern: str, expression: bool, case: bool) -> Any:
    if not pattern.strip():
        raise QuestionError("The words to search for are empty.")
    if len(pattern) > MAX_PATTERN_CHARS:
        raise QuestionError(f"The pattern has {len(pattern):,} characters; the limit is {MAX_PATTERN_CHARS}.")
    options = re2.Options()
    options.case_sensitive, options.never_capture, options.log_errors = case, True, False
    try:
        return re2.compile("(?m)" + (pattern if expression else _SPACE.join(map(re2.escape, pattern.split()))), options)
    except (re2.error, UnicodeEncodeError) as error:
        why = error.args[0].decode(errors="replace") if isinstance(error, re2.error) else "it is not Unicode"
        raise QuestionError(f"{pattern[:100]!r} is not a regular expression of RE2: {why}.") from error


def _texts(connection: Connection, scope: Scope, version: int) -> Iterator[tuple[str, StoredContent]]:
    """The documents in scope, in order of paths."""
    seen = condition(scope, version)
    rows = integrity.documents(connection, f"{seen.sql} ORDER BY d.path", seen.values)
    sizes = accumulate(row.bytes + _GROUP_BYTES // _GROUP_FILES for row in rows)
    for _, several in groupby(zip(rows, sizes, strict=True), lambda each: each[1] // _GROUP_BYTES):
        group = [row for row, _ in several]
        contents = integrity.contents(connection, [row.content_id for row in group])
        for row in group:
            yield row.path, contents[row.content_id]


def _places(places: Any, text: str) -> Iterator[tuple[int, int, int, str]]:
    """(number of the line, start, end, its text around them) of the first match in each line."""
    data, position = text.encode(), 0  # RE2 counts in bytes
    line_at = line_begin = 0
    number = 1
    while (match := places.search(data, position)) is not None:
        first, last = match.span()
        begin = data.rfind(b"\n", 0, first) + 1
        number += data.count(b"\n", line_at, begin)
        line_begin += len(data[line_at:begin].decode())
        line_at = begin
        start = line_begin + len(data[begin:first].decode(errors="ignore"))  # \C matches a part of a character
        end = start + len(data[first:last].decode(errors="ignore"))
        shown = max(line_begin, start - MAX_LINE_CHARS // 2)
        line_end = text.find("\n", max(start, end - 1))
        yield number, start, end, text[shown : min(len(text) if line_end < 0 else line_end, shown + MAX_LINE_CHARS)]
        below = data.find(b"\n", first) + 1
        if not below:
            return
        position = max(last, below)


def read(
    base: KnowledgeBase,
    scope: Scope,
    document: str,
    *,
    start: int = 0,
    length: int | None = None,
    page: int | None = None,
) -> Part:
    """A part of a document, which may be named as in `resolve_one`. With `page`, `start` counts from the page's beginning, and the part ends with the page.

    Raises QuestionError for an unknown name or page.
    """
    if start < 0 or (length or 0) < 0:
        raise QuestionError(f"A part starts at character 0 or later and has a length, not {start} and {length}.")
    with base.snapshot():
        version = base.kept_version(scope.as_of)
        path, content = _content(base, scope, document, version)
        pages = page_starts(base.spans(content))
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
    """The headings of a document, in order; without any, its pages. Raises QuestionError for an unknown name."""
    with base.snapshot():
        _, content = _content(base, scope, document, base.kept_version(scope.as_of))
        spans = base.spans(content)
    text, pages = content.text, page_starts(spans)
    marks = text_headings(text, content.media_type)
    if marks is None:
        marks = tuple(headings_between(text, spans, 0, len(text)))
    if marks:
        return [Heading(each.start, _page_at(pages, each.start), each.level, each.title) for each in marks]
    return [Heading(begin, page, 1, f"Page {page}") for page, begin in pages]


def compare(
    base: KnowledgeBase,
    document: str,
    before: int,
    after: int,
    scope: Scope | None = None,
    *,
    max_chars: int | None = None,
    listing: str = LISTING,
) -> tuple[str, list[Piece]]:
    """(path, the words that changed) of the document that a name means in either version, as in `resolve_one`.

    Its text is empty in a version without it, and where `scope` (None: all labels) does not show it. Raises QuestionError.
    """
    scopes = [replace(scope or Scope(), as_of=version) for version in (before, after)]

    def text(path: str, each: Scope) -> str | None:
        return base.text(path, each.as_of) if scope is None or base.holds(path, each) else None

    with base.snapshot():
        path, texts = document, [text(document, each) for each in scopes]
        if texts == [None, None]:
            path = resolve_one(sorted({path for each in scopes for path in base.documents(each)}), document, listing)
            texts = [text(path, each) for each in scopes]
    return path, word_diff(*(each or "" for each in texts), max_chars=max_chars)


def _content(base: KnowledgeBase, scope: Scope, document: str, version: int) -> tuple[str, StoredContent]:
    path = resolve_one(base.documents(scope), document)
    content = base.content(path, version)
    assert content is not None  # within one snapshot
    return path, content


def _page_at(pages: list[tuple[int, int]], at: int) -> int | None:
    place = bisect_right(pages, at, key=lambda each: each[1])
    return pages[place - 1][0] if place else None
