"""Plain text, Markdown and reStructuredText. The text stays as it is, so that offsets mean something."""

from __future__ import annotations

from openbook.knowledge.reading.cleaning import clean, title_from_name
from openbook.knowledge.reading.decoding import decode
from openbook.knowledge.reading.headings import (
    front_matter_title,
    header_title,
    markdown_headings,
    underlined_headings,
)
from openbook.records import Content, HeadingMark


def read_plain(data: bytes, name: str) -> Content:
    text = clean(decode(data))
    return Content(text, "text/plain", title_from_name(name), headings=underlined_headings(text, exact=True))


def read_markdown(data: bytes, name: str) -> Content:
    text = clean(decode(data))
    headings = markdown_headings(text)
    title = front_matter_title(text) or _first(headings) or title_from_name(name)
    return Content(text, "text/markdown", title, headings=headings)


def read_rst(data: bytes, name: str) -> Content:
    text = clean(decode(data))
    headings = underlined_headings(text)
    title = header_title(text) or _first(headings) or title_from_name(name)
    return Content(text, "text/x-rst", title, headings=headings)


def _first(headings: tuple[HeadingMark, ...]) -> str:
    return headings[0].title if headings else ""
