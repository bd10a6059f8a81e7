"""Files that are text: plain, Markdown, reStructuredText, source code, and Rich Text Format.

The text stays as it is, so that offsets mean something. Only the front matter of Markdown is taken out: its fields
become metadata. Of RTF the markup is left out.
"""

from __future__ import annotations

from openbook.errors import UnreadableFile
from openbook.parsers.characters import clean, decode, one_line, title_from_name
from openbook.parsers.frontmatter import front_matter, header_fields
from openbook.parsers.headings import definition_headings, markdown_headings, underlined_headings
from openbook.records import Content, HeadingMark, Metadata


def parse_plain(data: bytes, name: str) -> Content:
    text = read_text(data)
    return text_content(text, "text/plain", name, underlined_headings(text, exact=True), title=title_from_name(name))


def parse_markdown(data: bytes, name: str) -> Content:
    whole = read_text(data)
    fields, begin = front_matter(whole)
    text = whole[begin:].lstrip("\n") or whole  # where nothing follows, the block is the text
    return text_content(text, "text/markdown", name, markdown_headings(text), fields, chars=len(whole))


def parse_rst(data: bytes, name: str) -> Content:
    text = read_text(data)
    return text_content(text, "text/x-rst", name, underlined_headings(text), header_fields(text))


def parse_source(data: bytes, name: str) -> Content:
    """Source code and settings, with definitions as headings, so that a passage knows its function."""
    text = read_text(data)
    return text_content(text, "text/x-source", name, definition_headings(text), title=title_from_name(name))


def parse_rtf(data: bytes, name: str) -> Content:
    from striprtf.striprtf import rtf_to_text

    try:
        text = clean(rtf_to_text(data.decode("latin-1"), encoding="cp1252", errors="replace")).strip()
    except (ValueError, LookupError, TypeError, IndexError, AttributeError) as error:
        raise UnreadableFile("not readable as RTF") from error
    # The library divides cells by `|` and leaves the lines of a table as they are.
    lines = (" | ".join(cell.strip() for cell in line.split("|")).rstrip(" |") for line in text.split("\n"))
    return text_content("\n".join(lines), "text/rtf", name, title=title_from_name(name))


def read_text(data: bytes) -> str:
    """The clean text of `data`. Raises UnreadableFile if it is not text."""
    return clean(decode(data))


def text_content(
    text: str,
    media_type: str,
    name: str,
    headings: tuple[HeadingMark, ...] = (),
    metadata: Metadata = (),
    *,
    title: str = "",
    chars: int | None = None,
) -> Content:
    """Without a `title` the document has that of its metadata, its first heading or its file's name."""
    stated = one_line(str(dict(metadata).get("title", "")))
    title = title or stated or (headings[0].title if headings else "") or title_from_name(name)
    source_chars = len(text) if chars is None else chars
    return Content(text, media_type, title, headings=headings, source_chars=source_chars, metadata=metadata)
