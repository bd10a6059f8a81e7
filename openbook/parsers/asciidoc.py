"""AsciiDoc: headings and the attributes of its header. The text stays as it is, comments included."""

from __future__ import annotations

import re
from collections.abc import Iterator

from openbook.parsers.cleaning import one_line, title_from_name
from openbook.parsers.frontmatter import make_metadata
from openbook.parsers.headings import markdown_title
from openbook.parsers.text import read_text
from openbook.records import Content, HeadingMark

_HEADING = re.compile(r"(={1,6}|#{1,6})[ \t]+(\S.*)")
_UNDERLINES = "=-~^+"  # two-line titles, from level 0 down
_FENCE = re.compile(r"(?:-{4,}|={4,}|\.{4,}|\*{4,}|_{4,}|\+{4,}|/{4,}|--|`{3,}\w*|[|,:!]={3,})[ \t]*$")
_ATTRIBUTE = re.compile(r":(!?[\w-]+!?):(?:[ \t]+(\S.*))?$")
_AUTHOR = re.compile(r"(?:[\w.'-]+ ?){1,4}(?: *<[^<>]{1,200}>)?(?:; .{1,300})?")
_REVISION = re.compile(r"(?:v([\w.-]+),?)?[ \t]*([\w ,.-]*\d{4}[\w-]*)?(?::.*)?$")
_LONGEST_HEADER_LINES = 200


def read_asciidoc(data: bytes, name: str) -> Content:
    text, damage = read_text(data)
    if "-----BEGIN PGP" in text[:4096]:
        return Content(text, "text/plain", title_from_name(name), source_chars=len(text), metadata=damage)
    headings = tuple(_headings(text))
    title = headings[0].title if headings else title_from_name(name)
    metadata = make_metadata([*_header(text), *damage])
    return Content(text, "text/asciidoc", title, headings=headings, source_chars=len(text), metadata=metadata)


def _headings(text: str) -> Iterator[HeadingMark]:
    fence = ""
    above, above_start = "", 0  # a line of its own, which an underline would make a heading
    alone, start = True, 0
    for line in text.split("\n"):
        mark = line.rstrip()
        if fence:
            fence = "" if mark == fence else fence
        elif above and (level := _underline_level(above, mark)):
            yield HeadingMark(above_start, level, markdown_title(above))
            above = ""
        elif _FENCE.match(mark):
            fence, above = (mark.rstrip("abcdefghijklmnopqrstuvwxyz") if mark[0] == "`" else mark), ""
        else:
            found = _HEADING.match(line)
            if found and (title := markdown_title(found[2].rstrip("=# "))):
                yield HeadingMark(start, len(found[1]), title)
            above, above_start = (mark, start) if alone and not found and mark[:1].isalnum() else ("", 0)
        alone = not mark or mark.startswith(("[", "//"))
        start += len(line) + 1


def _underline_level(title: str, rule: str) -> int:
    if len(rule) < 3 or rule.strip(rule[0]) or abs(len(rule) - len(title)) > 1:
        return 0
    return _UNDERLINES.find(rule[0]) + 1


def _header(text: str) -> Iterator[tuple[str, object]]:
    """`= Title`, a line of authors, one of the revision, and `:name: value` lines, up to the first blank line."""
    lines = text.lstrip("\n").split("\n", _LONGEST_HEADER_LINES)[:_LONGEST_HEADER_LINES]
    lines = [line.rstrip() for line in lines if not line.startswith("//")]
    titled = [i for i, line in enumerate(lines[:50]) if line.startswith("= ")]
    stated: list[tuple[str, object]] = []
    free: list[str] = []
    for line in lines[titled[0] + 1 :] if titled else lines:
        found = _ATTRIBUTE.match(line)
        if not found and (not line or not titled):
            break
        if found:
            stated.append((found[1].strip("!"), False if "!" in found[1] else found[2] or True))
        else:
            free.append(line)
    yield from stated
    yield from _free_lines(free)
    yield from ((to, value) for key, value in stated for to in _MEANINGS.get(key, ()))


_MEANINGS = {"revdate": ("date",), "docdate": ("date",), "lang": ("language",), "authors": ("author",)}


def _free_lines(lines: list[str]) -> Iterator[tuple[str, str]]:
    if lines and _AUTHOR.fullmatch(lines[0]):
        yield "author", one_line(lines[0])
        lines = lines[1:]
    if lines and (found := _REVISION.match(lines[0])) and (found[1] or found[2]):
        yield "revision", one_line(found[1] or "")
        yield "date", one_line((found[2] or "").strip(" ,"))
