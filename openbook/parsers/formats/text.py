"""Text files: plain, Markdown, reStructuredText, source code, and Rich Text Format.

The text stays as it is, so that offsets are those of the file; but front matter becomes metadata, and RTF markup is
dropped.
"""

from __future__ import annotations

import re
from functools import partial

from openbook.core.errors import UnreadableFile
from openbook.core.records import Content, HeadingMark
from openbook.parsers.blocks import text_content
from openbook.parsers.characters import clean, decode, lines_of, one_line, title_from_name
from openbook.parsers.formats.frontmatter import MAX_BLOCK_CHARS, YAML_END, front_matter, header_fields

_RULE = re.compile(r"([!-/:-@\[-`{-~])\1+\s*")  # a line of one punctuation character
_NO_TITLE = re.compile(r"[-*+>|]|\d{1,9}[.)][ \t]|    |\t")  # a list, a quote, a table or code, not a title
_ATX = re.compile(r" {0,3}(#{1,6})((?:[ \t].*)?)$")
_CLOSING = re.compile(r"(?:^|[ \t])#+[ \t]*$")
_UNDERLINE = re.compile(r" {0,3}(?:(=)=*|-+)[ \t]*$")
_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})")
_DEFINITION = re.compile(
    r"\s*(?:[\w@]+(?:\([^()]*\))?\s+){0,5}?(?:class|def|fn|func|function|fun|interface|struct|enum|trait|impl|module|"
    r"namespace|type|sub|message|service|resource|table|view|procedure)\s+[\w$.:]+"
    r"|\s*\[{1,2}[\w .:\"'-]+\]{1,2}\s*$"  # a section of settings
    r"|\s*\\(?:chapter|(?:sub){0,2}section)\*?\{[^{}]+\}"  # of TeX
    r"|[\w:.-]+\s*\(\s*\)\s*\{\s*$",  # a function of a shell
    re.IGNORECASE,
)
_MAX_CODE_LINE_CHARS = 400  # a longer line was not written by a person
_LINK = re.compile(r"!?\[([^\[\]]*)\](?:\([^()]*\)|\[[^\[\]]*\])")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_ANCHOR = re.compile(r"\{#[^{}]*\}\s*$")
_ROLE = re.compile(r":[A-Za-z][\w:+.-]*:(?=`)")
_TARGET = re.compile(r"\s*<[^<>]*>`_*")


def parse_plain(data: bytes, name: str) -> Content:
    text = read_text(data)
    return text_content(text, "text/plain", name, underlined_headings(text, exact=True), title=title_from_name(name))


def parse_markdown(data: bytes, name: str) -> Content:
    whole = read_text(data)
    fields, begin = front_matter(whole)
    text = whole[begin:].lstrip("\n") or whole  # if nothing follows, the block is the text
    return text_content(text, "text/markdown", name, markdown_headings(text), fields, chars=len(whole))


def parse_rst(data: bytes, name: str) -> Content:
    text = read_text(data)
    return text_content(text, "text/x-rst", name, underlined_headings(text), header_fields(text))


def parse_source(data: bytes, name: str) -> Content:
    """Source code, with definitions as headings."""
    text = read_text(data)
    return text_content(text, "text/x-source", name, definition_headings(text), title=title_from_name(name))


def parse_rtf(data: bytes, name: str) -> Content:
    from striprtf.striprtf import rtf_to_text

    try:
        text = clean(rtf_to_text(data.decode("latin-1"), encoding="cp1252", errors="replace")).strip()
    except (ValueError, LookupError, TypeError, IndexError, AttributeError) as error:
        raise UnreadableFile("not readable as RTF") from error
    # The library divides cells by `|` and keeps the lines of a table.
    lines = (" | ".join(cell.strip() for cell in line.split("|")).rstrip(" |") for line in text.split("\n"))
    return text_content("\n".join(lines), "text/rtf", name, title=title_from_name(name))


def read_text(data: bytes) -> str:
    """Raises UnreadableFile if `data` is not text."""
    return clean(decode(data))


def text_headings(text: str, media_type: str) -> tuple[HeadingMark, ...] | None:
    """The headings of a text that was stored as it was in its file; None for other media types."""
    readers = {
        "text/markdown": markdown_headings,
        "text/x-rst": underlined_headings,
        "text/x-source": definition_headings,
    }
    readers["text/plain"] = partial(underlined_headings, exact=True)
    return readers[media_type](text) if media_type in readers else None


# --- headings: Markdown by CommonMark 0.31, sections 4.2, 4.3 and 4.5; reStructuredText; source code -----------------------


def markdown_headings(text: str) -> tuple[HeadingMark, ...]:
    """ATX (`# Title`) and setext (underlined) headings outside fenced code and front matter."""
    found: list[HeadingMark] = []
    block = YAML_END.search(text, 4, MAX_BLOCK_CHARS) if text.startswith("---\n") else None
    fence = ""
    above, above_start = "", 0  # a one-line paragraph, which an underline makes a heading
    alone = True  # after a blank line, where a paragraph begins
    for start, line in lines_of(text, block.end() if block else 0):
        opening = _FENCE.match(line)
        if fence:
            if opening and opening[1].startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
            continue
        if opening and not ("`" in line[opening.end() :] and opening[1][0] == "`"):
            fence, above, alone = opening[1], "", True
            continue
        underline = _UNDERLINE.match(line)
        if above and underline:
            found.append(HeadingMark(above_start, 1 if underline[1] == "=" else 2, markdown_title(above)))
            above, alone = "", True
            continue
        atx = _ATX.match(line)
        if atx and (title := markdown_title(_CLOSING.sub("", atx[2]))):
            found.append(HeadingMark(start, len(atx[1]), title))
        above, above_start = (line, start) if alone and not atx and not _NO_TITLE.match(line) else ("", 0)
        alone = not line.strip() or atx is not None
    return tuple(found)


def markdown_title(line: str) -> str:
    """Without link targets, emphasis marks, tags and explicit anchors."""
    title = _TAG.sub("", _LINK.sub(r"\1", _ANCHOR.sub("", one_line(line))))
    return title.replace("**", "").replace("__", "").replace("`", "").strip().strip("*").strip()


def definition_headings(text: str) -> tuple[HeadingMark, ...]:
    """Lines that define a class, function or section; deeper indentation is a deeper level."""
    indents: list[int] = []
    found: list[HeadingMark] = []
    for start, line in lines_of(text):
        if len(line) > _MAX_CODE_LINE_CHARS or not (definition := _DEFINITION.match(line)):
            continue
        indent = len(line) - len(line.lstrip())
        while indents and indents[-1] >= indent:
            indents.pop()
        indents.append(indent)
        found.append(HeadingMark(start, len(indents), one_line(definition[0].strip().rstrip(":"))))
    return tuple(found)


def underlined_headings(text: str, *, exact: bool = False) -> tuple[HeadingMark, ...]:
    """Underlined and overlined titles; each new line style is one level deeper (docutils, "Section structure").

    `exact`: the line must be as long as the title, as in plain text.
    """
    lines = list(lines_of(text))
    levels: dict[tuple[str, bool], int] = {}
    found: list[HeadingMark] = []
    taken = -1  # lines up to here already belong to a heading
    for i in range(len(lines) - 1):
        (start, line), (_, below) = lines[i], lines[i + 1]
        rule = _RULE.fullmatch(below)
        if i <= taken or not rule or not line.strip() or _RULE.fullmatch(line):
            continue
        title, underline = line.strip(), below.rstrip()
        above_start, above = lines[i - 1] if i > 0 else (0, "")
        over = i - 1 > taken and above.rstrip() == underline
        if over or not exact:
            is_long_enough = len(underline) >= min(len(title), 4)
        else:
            is_long_enough = len(title) > 2 and abs(len(underline) - len(title)) <= 1
        in_paragraph = line[0] in " \t" or (above.strip() and not above.strip().startswith("..") and i - 1 != taken)
        shown = _TARGET.sub("`", _ROLE.sub("", one_line(line)))
        shown = shown.replace("`", "").replace("**", "").strip().strip("*").strip()
        if is_long_enough and (over or not in_paragraph) and shown:
            level = levels.setdefault((rule[1], over), len(levels) + 1)
            found.append(HeadingMark(above_start if over else start, level, shown))
            taken = i + 1
    return tuple(found)
