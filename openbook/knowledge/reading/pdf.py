"""PDF to text with pages, by PDFium. Headings come from the document's outline, where it has one."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from itertools import islice
from typing import Any

from openbook.errors import UnreadableFile
from openbook.knowledge.reading.cleaning import clean, one_line, title_from_name
from openbook.records import Content, HeadingMark, PageSpan

MOST_CHARS = 100_000_000
MOST_BOOKMARKS = 20_000

_PASSWORD_ERROR = 4  # FPDF_ERR_PASSWORD
_SECURITY_ERROR = 5  # FPDF_ERR_SECURITY, an encryption PDFium does not know
_PAGE_GAP = "\n\n"
# PDFium's mark for a word broken at a line's end, with the rest of the word. The line then ends after the word.
_BROKEN_WORD = re.compile("[\x02\ufffe](?:\r?\n)?([^\\s\x02\ufffe]{0,40})[ \\t]?(?:\r?\n)?")
# What programs put into the title when nobody gave one.
_NO_TITLE = re.compile(
    r"\.(?:docx?|pdf|tex|dvi|odt|rtf|xlsx?|pptx?|indd|qxd)$|^(?:untitled|microsoft word\b)"
    r"|^\(?(?:anonymous|unspecified)\)?$|^\S*_\S*$",
    re.I,
)

_ONE_AT_A_TIME = threading.Lock()  # PDFium is not safe to call from two threads


def read_pdf(data: bytes, name: str) -> Content:
    with _ONE_AT_A_TIME:
        return _read(data, name)


def _read(data: bytes, name: str) -> Content:
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        code = getattr(error, "err_code", None)
        if code in {_PASSWORD_ERROR, _SECURITY_ERROR} or "password" in str(error).lower():
            raise UnreadableFile("encrypted with a password") from error
        raise UnreadableFile("not a readable PDF") from error
    try:
        texts = list(_page_texts(document))
        if not texts:
            raise UnreadableFile("a PDF without pages")
        if not any(text for text in texts):
            raise UnreadableFile("no text, only images: needs OCR")
        text, pages = _join(texts)
        headings = _headings(document, text, pages)
        return Content(text, "application/pdf", _title(document, text, name), pages, headings)
    except pypdfium2.PdfiumError as error:
        raise UnreadableFile("a damaged PDF") from error
    finally:
        document.close()


def _page_texts(document: Any) -> Iterator[str]:
    import pypdfium2

    total = readable = 0
    for number in range(len(document)):
        try:
            text = _page_text(document, number)
            readable += 1
        except pypdfium2.PdfiumError:
            text = ""  # one broken page must not hide the others
        total += len(text)
        if total > MOST_CHARS:
            raise UnreadableFile(f"holds more than {MOST_CHARS // 1_000_000} million characters")
        yield text
    if not readable and len(document):
        raise UnreadableFile("a damaged PDF")


def _page_text(document: Any, number: int) -> str:
    page = document[number]
    try:
        layer = page.get_textpage()
        try:
            # Text outside the visible page is left out; a page box that makes no sense must not hide everything.
            text = layer.get_text_bounded() or layer.get_text_range()
        finally:
            layer.close()
    finally:
        page.close()
    return clean(_BROKEN_WORD.sub(r"\1\n", text)).strip()


def _join(texts: list[str]) -> tuple[str, tuple[PageSpan, ...]]:
    """Every page has a span, an empty one where the page holds no text; the gap belongs to no page."""
    pages: list[PageSpan] = []
    parts: list[str] = []
    length = 0
    for number, text in enumerate(texts, 1):
        if text and length:
            parts.append(_PAGE_GAP)
            length += len(_PAGE_GAP)
        pages.append(PageSpan(number, length, length + len(text)))
        parts.append(text)
        length += len(text)
    return "".join(parts), tuple(pages)


def _headings(document: Any, text: str, pages: tuple[PageSpan, ...]) -> tuple[HeadingMark, ...]:
    import pypdfium2

    found: list[HeadingMark] = []
    after = 0
    try:
        for bookmark in islice(document.get_toc(), MOST_BOOKMARKS):
            target = bookmark.get_dest()
            index = target.get_index() if target else None
            title = one_line(bookmark.get_title())
            if index is None or not 0 <= index < len(pages) or not title:
                continue
            page = pages[index]
            start = _find_line(text, title, max(page.start, after), page.end)
            if start is not None:
                found.append(HeadingMark(start, bookmark.level + 1, title))
                after = start + 1
    except (pypdfium2.PdfiumError, UnicodeError):
        pass  # a broken outline costs the headings, not the text
    return tuple(found)


def _find_line(text: str, title: str, start: int, end: int) -> int | None:
    """Where a line begins with `title`, however spaced, perhaps after a number such as `2.1.` or `Chapter 3`."""
    words = r"\s+".join(re.escape(word) for word in title.split())
    numbered = rf"(?:^|(?<=\n))(?:[A-Za-z]{{3,8}}[ \t])?[\dA-Z.:)]{{0,10}}\s{{0,3}}{words}"
    found = re.compile(numbered, re.IGNORECASE).search(text, start, end)
    return found.start() if found else None


def _title(document: Any, text: str, name: str) -> str:
    try:
        stated = one_line(document.get_metadata_value("Title"))
    except UnicodeError:
        stated = ""  # half a character: no title costs less than the document
    if stated and not _NO_TITLE.search(stated):
        return stated
    first = next((line for line in text[:4096].split("\n") if len(line.strip()) > 3), "")
    return one_line(first) or title_from_name(name)
