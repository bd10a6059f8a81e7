"""Plain text, Markdown and reStructuredText. The text stays as it is, so that offsets mean something.

Only the front matter of Markdown is taken out of the text: its fields become metadata.
"""

from __future__ import annotations

from openbook.parsers.cleaning import clean, one_line, title_from_name
from openbook.parsers.decoding import decode_counted
from openbook.parsers.frontmatter import front_matter, header_fields, make_metadata
from openbook.parsers.headings import header_title, markdown_headings, underlined_headings
from openbook.records import Content, HeadingMark, Metadata


def read_plain(data: bytes, name: str) -> Content:
    text, metadata = read_text(data)
    headings = underlined_headings(text, exact=True)
    return Content(
        text, "text/plain", title_from_name(name), headings=headings, source_chars=len(text), metadata=metadata
    )


def read_markdown(data: bytes, name: str) -> Content:
    whole, damage = read_text(data)
    fields, begin = front_matter(whole)
    text = whole[begin:].lstrip("\n") or whole  # where nothing follows, the block is the text
    headings = markdown_headings(text)
    title = _stated_title(fields) or _first(headings) or title_from_name(name)
    metadata = _both(fields, damage)
    return Content(text, "text/markdown", title, headings=headings, source_chars=len(whole), metadata=metadata)


def read_rst(data: bytes, name: str) -> Content:
    text, damage = read_text(data)
    headings = underlined_headings(text)
    title = header_title(text) or _first(headings) or title_from_name(name)
    metadata = _both(header_fields(text), damage)
    return Content(text, "text/x-rst", title, headings=headings, source_chars=len(text), metadata=metadata)


def read_text(data: bytes) -> tuple[str, Metadata]:
    """The clean text of `data`, and how many characters could not be decoded, if any."""
    decoded, undecodable = decode_counted(data)
    return clean(decoded), (("undecodable_chars", undecodable),) if undecodable else ()


def _both(fields: Metadata, damage: Metadata) -> Metadata:
    return make_metadata([*damage, *fields]) if damage else fields


def _stated_title(fields: Metadata) -> str:
    title = dict(fields).get("title", "")
    return one_line(str(title)) if title else ""


def _first(headings: tuple[HeadingMark, ...]) -> str:
    return headings[0].title if headings else ""
