"""PDF to text with pages, by PDFium. Headings come from the document's outline, where it has one."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any

from openbook.errors import UnreadableFile
from openbook.parsers.characters import clean, one_line, title_from_name
from openbook.parsers.packages import stated
from openbook.records import Content, HeadingMark, Metadata, PageSpan

MOST_CHARS = 100_000_000
MOST_BOOKMARKS = 20_000

_ENCRYPTED = {4, 5}  # FPDF_ERR_PASSWORD, and FPDF_ERR_SECURITY for an encryption that PDFium does not know
_PAGE_GAP = "\n\n"
# PDFium's mark for a word broken at a line's end, with the rest of the word. The line then ends after the word.
_BROKEN_WORD = re.compile("[\x02\ufffe]\r?\n?([^\\s\x02\ufffe]{1,40})[ \\t]?\r?\n?")
# A page with fewer letters and a picture over so much of it is a scan, perhaps with a stamp.
_SCAN_LETTERS = 25
_SCAN_SHARE = 0.3
# What programs put into the title when nobody gave one.
_NO_TITLE = re.compile(
    r"\.(?:docx?|pdf|tex|dvi|odt|rtf|xlsx?|pptx?|indd|qxd)$|^(?:untitled|microsoft word\b)"
    r"|^\(?(?:anonymous|unspecified)\)?$|^\S*_\S*$",
    re.I,
)

ONE_AT_A_TIME = threading.Lock()  # PDFium is not safe to call from two threads


Recognise = Callable[[Any], str]
"""From a page of PDFium to the text in its picture; empty where there is none or it took too long."""


@dataclass(frozen=True, slots=True)
class _Page:
    text: str = ""
    is_scan: bool = False
    is_recognised: bool = False


def parse_pdf(data: bytes, name: str, recognise: Recognise | None = None) -> Content:
    """Pages that are pictures are given to `recognise`."""
    import pypdfium2

    with ONE_AT_A_TIME, closing(open_pdf(data)) as document:
        try:
            found = list(_pages(document, recognise))
            if not found:
                raise UnreadableFile("a PDF without pages")
            if not any(page.text and not page.is_scan for page in found):
                why = ": needs OCR" if recognise is None else ", in which OCR found no text"
                raise UnreadableFile(f"no text, only images{why}")
            text, pages = join_pages([page.text for page in found])
            headings = _headings(document, text, pages)
            title = _title(document, text, name)
            return Content(text, "application/pdf", title, pages, headings, len(text), _metadata(document, found))
        except pypdfium2.PdfiumError as error:
            raise UnreadableFile("a damaged PDF") from error


def open_pdf(data: bytes) -> Any:
    """A document of PDFium, to be closed. The caller holds `ONE_AT_A_TIME`. Raises UnreadableFile."""
    import pypdfium2

    try:
        return pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) in _ENCRYPTED or "password" in str(error).lower():
            raise UnreadableFile("encrypted with a password") from error
        raise UnreadableFile("not a readable PDF") from error


def _pages(document: Any, recognise: Recognise | None) -> Iterator[_Page]:
    import pypdfium2

    total = readable = 0
    for number in range(len(document)):
        try:
            with closing(document[number]) as page:
                read = _page(page, recognise)
            readable += 1
        except pypdfium2.PdfiumError:
            read = _Page()  # one broken page must not hide the others
        total += len(read.text)
        if total > MOST_CHARS:
            raise UnreadableFile(f"holds more than {MOST_CHARS // 1_000_000} million characters")
        yield read
    if not readable and len(document):
        raise UnreadableFile("a damaged PDF")


def _page(page: Any, recognise: Recognise | None) -> _Page:
    with closing(page.get_textpage()) as layer:
        # Text outside the visible page is left out; a page box that makes no sense must not hide everything.
        raw = layer.get_text_bounded(errors="replace")
        raw = raw if raw.strip() or not layer.count_chars() else layer.get_text_range(errors="replace")
    text = clean(_BROKEN_WORD.sub(r"\1\n", raw)).strip()
    is_scan = sum(map(str.isalnum, text[:1000])) < _SCAN_LETTERS and _is_picture(page)
    if is_scan and recognise and (recognised := clean(recognise(page)).strip()):
        return _Page(recognised, is_recognised=True)
    return _Page(text, is_scan)


def _is_picture(page: Any) -> bool:
    import pypdfium2
    import pypdfium2.raw as pdfium

    width, height = page.get_size()
    for picture in page.get_objects(filter=[pdfium.FPDF_PAGEOBJ_IMAGE], max_depth=3):
        try:
            left, bottom, right, top = picture.get_bounds()
        except pypdfium2.PdfiumError:
            continue
        if (right - left) * (top - bottom) > _SCAN_SHARE * width * height:
            return True
    return False


def join_pages(texts: list[str]) -> tuple[str, tuple[PageSpan, ...]]:
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


def _stated(document: Any, key: str) -> str:
    try:
        return one_line(document.get_metadata_value(key))
    except UnicodeError:
        return ""  # half a character: no title costs less than the document


def _metadata(document: Any, found: list[_Page]) -> Metadata:
    counts = {
        "pages_needing_ocr": sum(page.is_scan for page in found),
        "pages_read_by_ocr": sum(page.is_recognised for page in found),
    }
    date = _stated(document, "ModDate") or _stated(document, "CreationDate")
    said = stated([_stated(document, "Author")], date, "")
    return tuple(sorted([*said, *((key, count) for key, count in counts.items() if count)]))


def _title(document: Any, text: str, name: str) -> str:
    said = _stated(document, "Title")
    if said and not _NO_TITLE.search(said):
        return said
    first = next((line for line in text[:4096].split("\n") if len(line.strip()) > 3), "")
    return one_line(first) or title_from_name(name)
