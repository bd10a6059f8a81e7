"""Headings of plain text: Markdown (CommonMark 0.31, sections 4.2, 4.3 and 4.5), reStructuredText, source code."""

from __future__ import annotations

import re
from collections.abc import Iterator

from openbook.parsers.characters import one_line
from openbook.records import HeadingMark

_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
_NO_TITLE = re.compile(r"[-*+>|]|\d{1,9}[.)][ \t]|    |\t")  # a list, a quote, a table or code, not a title
_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})")
_ASCIIDOC_FENCE = re.compile(r"(-{4,}|={4,}|\.{4,}|\*{4,}|_{4,}|`{3,})(?=\w*[ \t]*$)")
_DEFINITION = re.compile(
    r"\s*(?:[\w@]+(?:\([^()]*\))?\s+){0,5}?(?:class|def|fn|func|function|fun|interface|struct|enum|trait|impl|module|"
    r"namespace|type|sub|message|service|resource|table|view|procedure)\s+[\w$.:]+"
    r"|\s*\[{1,2}[\w .:\"'-]+\]{1,2}\s*$"  # a section of settings
    r"|\s*\\(?:chapter|(?:sub){0,2}section)\*?\{[^{}]+\}"  # of TeX
    r"|[\w:.-]+\s*\(\s*\)\s*\{\s*$",  # a function of a shell
    re.IGNORECASE,
)
_LONGEST_CODE_LINE_CHARS = 400  # what is longer was not written by a person
_MOST_DEFINITIONS = 20_000
_LINK = re.compile(r"!?\[([^\[\]]*)\](?:\([^()]*\)|\[[^\[\]]*\])")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_ANCHOR = re.compile(r"\{#[^{}]*\}\s*$")
_ROLE = re.compile(r":[A-Za-z][\w:+.-]*:(?=`)")
_TARGET = re.compile(r"\s*<[^<>]*>`_*")


def markdown_headings(text: str, mark: str = "#") -> tuple[HeadingMark, ...]:
    """ATX (`# Title`) and setext (underlined) headings outside fenced code and a block of front matter left in place.

    AsciiDoc marks headings by `=` and fences by four hyphens or more.
    """
    return tuple(_markdown_headings(text, _front_matter_end(text), mark))


def _front_matter_end(text: str) -> int:
    if not text.startswith("---\n"):
        return 0
    end = re.compile(r"^(?:---|\.\.\.)[ \t]*$", re.MULTILINE).search(text, 4, 65_536)
    return end.end() if end else 0


def _markdown_headings(text: str, begin: int, mark: str) -> Iterator[HeadingMark]:
    fences = _FENCE if mark == "#" else _ASCIIDOC_FENCE
    fence = ""
    above, above_start = "", 0  # a paragraph of one line, which an underline would make a heading
    alone = True  # the line before is blank, so the next line begins a paragraph
    for start, line in _lines(text, begin):
        opening = fences.match(line)
        if fence:
            if opening and opening[1].startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
            continue
        if opening and not ("`" in line[opening.end() :] and opening[1][0] == "`"):
            fence, above, alone = opening[1], "", True
            continue
        level = _setext_level(line)
        if above and level:
            yield HeadingMark(above_start, level, markdown_title(above))
            above, alone = "", True
            continue
        atx = _atx(line, mark)
        if atx and atx[1]:
            yield HeadingMark(start, atx[0], atx[1])
        above, above_start = (line, start) if alone and not atx and not _NO_TITLE.match(line) else ("", 0)
        alone = not line.strip() or atx is not None


def _atx(line: str, mark: str) -> tuple[int, str] | None:
    """Level and title of `## Title ##`, else None."""
    stripped = line.lstrip(" ")
    marks = len(stripped[:7]) - len(stripped[:7].lstrip(mark))
    if len(line) - len(stripped) > 3 or not 1 <= marks <= 6 or stripped[marks : marks + 1] not in {"", " ", "\t"}:
        return None
    title = stripped[marks:].strip()
    bare = title.rstrip(mark)
    return marks, markdown_title(bare if not bare or bare[-1] in " \t" else title)


def _setext_level(line: str) -> int:
    mark = line.rstrip()
    indent = len(mark) - len(mark.lstrip(" "))
    mark = mark[indent:]
    if indent > 3 or not mark or mark.strip(mark[0]):
        return 0
    return {"=": 1, "-": 2}.get(mark[0], 0)


def markdown_title(line: str) -> str:
    """A heading as it is read: without link targets, emphasis marks, tags and explicit anchors."""
    title = _TAG.sub("", _LINK.sub(r"\1", _ANCHOR.sub("", one_line(line))))
    return title.replace("**", "").replace("__", "").replace("`", "").strip().strip("*").strip()


def definition_headings(text: str) -> tuple[HeadingMark, ...]:
    """Lines of source code that define a class, a function or a section; what is indented more is one level deeper."""
    indents: list[int] = []
    found: list[HeadingMark] = []
    for start, line in _lines(text, 0):
        if len(line) > _LONGEST_CODE_LINE_CHARS or not (definition := _DEFINITION.match(line)):
            continue
        indent = len(line) - len(line.lstrip())
        while indents and indents[-1] >= indent:
            indents.pop()
        indents.append(indent)
        found.append(HeadingMark(start, len(indents), one_line(definition[0].strip().rstrip(":"))))
        if len(found) == _MOST_DEFINITIONS:
            break
    return tuple(found)


def underlined_headings(text: str, *, exact: bool = False) -> tuple[HeadingMark, ...]:
    """Underlined and overlined titles; each new style of line is one level deeper (docutils, "Section structure").

    With `exact` the line must be as long as the title, as in plain text where a longer one may mean anything.
    """
    lines = list(_lines(text, 0))
    levels: dict[tuple[str, bool], int] = {}
    found: list[HeadingMark] = []
    taken = -1  # lines up to here belong to a heading already
    for i in range(len(lines) - 1):
        start, line = lines[i]
        mark = _rule(lines[i + 1][1])
        if i <= taken or not mark or not line.strip() or _rule(line):
            continue
        over = i > 0 and i - 1 > taken and lines[i - 1][1].rstrip() == lines[i + 1][1].rstrip()
        above = lines[i - 1][1].strip() if i > 0 else ""
        if not over and (line[0] in " \t" or (above and not above.startswith("..") and i - 1 != taken)):
            continue
        if not _long_enough(line.strip(), lines[i + 1][1].rstrip(), exact and not over):
            continue
        level = levels.setdefault((mark, over), len(levels) + 1)
        found.append(HeadingMark(lines[i - 1][0] if over else start, level, rst_title(line)))
        taken = i + 1
    return tuple(mark for mark in found if mark.title)


def _rule(line: str) -> str:
    """The character of a line that is one punctuation character repeated, else an empty string."""
    line = line.rstrip()
    return line[0] if len(line) > 1 and line[0] in _PUNCTUATION and not line.strip(line[0]) else ""


def _long_enough(title: str, rule: str, exact: bool) -> bool:
    if exact:
        return len(title) > 2 and abs(len(rule) - len(title)) <= 1
    return len(rule) >= len(title) or len(rule) >= 4


def rst_title(line: str) -> str:
    title = _TARGET.sub("`", _ROLE.sub("", one_line(line)))
    return title.replace("`", "").replace("**", "").strip().strip("*").strip()


def header_title(text: str) -> str:
    """`Title:` of a block of mail-like header lines at the top, as in Python's enhancement proposals."""
    block = text[:4096].split("\n\n", 1)[0].split("\n")
    if len(block) < 2 or not all(re.match(r"[A-Z][\w-]{0,30}:|[ \t]", line) for line in block):
        return ""
    return next((one_line(line[6:]) for line in block if line.startswith("Title:")), "")


def _lines(text: str, begin: int) -> Iterator[tuple[int, str]]:
    for line in text[begin:].split("\n"):
        yield begin, line
        begin += len(line) + 1
