"""PDF to text with pages, by PDFium. Headings come from the document's outline, if any."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from ctypes import c_ushort
from itertools import islice
from typing import Any

from openbook.core.errors import UnreadableFile
from openbook.core.records import Content, HeadingMark, Metadata, PageSpan
from openbook.parsers.blocks import Blocks
from openbook.parsers.characters import clean, one_line, title_from_name
from openbook.parsers.files import ENCRYPTED, NEEDS_OCR
from openbook.parsers.formats.packages import common_metadata

MAX_BOOKMARKS = 20_000

_ENCRYPTED = {4, 5}  # FPDF_ERR_PASSWORD, and FPDF_ERR_SECURITY for an unknown encryption
# PDFium marks a word broken at a line's end. The rest of the word is joined, and the line ends after it.
BROKEN_WORD_MARKS = "\x02\ufffe"
_BROKEN_WORD = re.compile(rf"[{BROKEN_WORD_MARKS}]\r?\n?([^\s{BROKEN_WORD_MARKS}]{{1,40}})[ \t]?\r?\n?")
# A page with fewer letters and a picture of this share is a scan, perhaps with a stamp.
_SCAN_LETTERS = 25
_SCAN_SHARE = 0.3
_FAR = 1e9  # points, beyond every page
# Placeholders of programs for an untitled document.
_NO_TITLE = re.compile(
    r"\.(?:docx?|pdf|tex|dvi|odt|rtf|xlsx?|pptx?|indd|qxd)$|^(?:untitled|microsoft word\b)"
    r"|^\(?(?:anonymous|unspecified)\)?$|^\S*_\S*$",
    re.I,
)

ONE_AT_A_TIME = threading.Lock()  # PDFium is not thread-safe


Recognise = Callable[[Any], tuple[str, float]]
"""Gets a page of PDFium. Returns the text in its picture, empty if it found no text or took too long, and the confidence."""


def parse_pdf(data: bytes, name: str, recognise: Recognise | None = None) -> Content:
    """`recognise` reads scanned pages."""
    import pypdfium2

    with ONE_AT_A_TIME, closing(open_pdf(data)) as document:
        try:
            return _content(document, name, recognise)
        except pypdfium2.PdfiumError as error:
            raise UnreadableFile("a damaged PDF") from error


def open_pdf(data: bytes) -> Any:
    """The caller closes it, and holds `ONE_AT_A_TIME`. Raises UnreadableFile."""
    import pypdfium2

    try:
        return pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if error.err_code in _ENCRYPTED:
            raise UnreadableFile(ENCRYPTED) from error
        raise UnreadableFile("not a readable PDF") from error


def _content(document: Any, name: str, recognise: Recognise | None) -> Content:
    import pypdfium2

    out = Blocks()
    scans = damaged = 0
    recognised: list[tuple[str, float]] = []
    has_text = False
    for number in range(len(document)):
        text, is_scan, found = "", False, ""
        try:
            with closing(document[number]) as page:
                text = _page_text(page)
                is_scan = sum(map(str.isalnum, text[:1000])) < _SCAN_LETTERS and _is_picture(page)
                if is_scan and recognise:
                    read, confidence = recognise(page)
                    found = clean(read).strip()
                    recognised += [(found, confidence)] if found else []
        except pypdfium2.PdfiumError:
            damaged += 1  # one broken page must not hide the others
        scans += is_scan and not found
        has_text = has_text or (bool(text) and not is_scan)
        out.paragraph(found or text)
        out.end_page()
    if not out.pages:
        raise UnreadableFile("a PDF without pages")
    if damaged == len(out.pages):
        raise UnreadableFile("a damaged PDF")
    if not has_text and not recognised:
        why = NEEDS_OCR if recognise is None else ", in which OCR found no text"
        raise UnreadableFile(f"no text, only images{why}")
    out.chars = out.length
    out.headings = list(_headings(document, out.text, out.pages))
    date = _stated(document, "ModDate") or _stated(document, "CreationDate")
    counts = (("pages_needing_ocr", scans), ("pages_read_by_ocr", len(recognised)))
    said = common_metadata([_stated(document, "Author")], date, "")
    metadata = tuple(sorted([*said, *((key, count) for key, count in counts if count), *confidence_of(recognised)]))
    return out.content("application/pdf", _title(document, out.text, name), name, metadata)


def confidence_of(read: Sequence[tuple[str, float]]) -> Metadata:
    """The mean confidence of texts read by OCR, by their length, as metadata; none without texts."""
    chars = sum(len(text) for text, _ in read)
    return (("ocr_confidence", round(sum(len(text) * sure for text, sure in read) / chars, 2)),) if chars else ()


def _page_text(page: Any) -> str:
    with closing(page.get_textpage()) as layer:
        # Text outside the visible page is left out, unless the page box leaves no text at all.
        left, bottom, right, top = page.get_bbox()
        raw = _text_in(layer, left, top, right, bottom)
        raw = raw if raw.strip() or not layer.count_chars() else _text_in(layer, -_FAR, _FAR, _FAR, -_FAR)
    return clean(_BROKEN_WORD.sub(r"\1\n", raw)).strip()


def _text_in(layer: Any, *box: float) -> str:
    """The text in (left, top, right, bottom), without halves of pairs."""
    import pypdfium2.raw as pdfium

    # PDFium counts characters and writes UTF-16, so that each may take two units. pypdfium2 provides for one.
    units = 2 * pdfium.FPDFText_GetBoundedText(layer, *box, None, 0) + 1
    buffer = (c_ushort * units)()
    written = pdfium.FPDFText_GetBoundedText(layer, *box, buffer, units)
    return bytes(buffer)[: 2 * written].decode("utf-16-le", "replace").removesuffix("\0")


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


def _headings(document: Any, text: str, pages: Sequence[PageSpan]) -> Iterator[HeadingMark]:
    import pypdfium2

    after = 0
    try:
        for bookmark in islice(document.get_toc(), MAX_BOOKMARKS):
            target = bookmark.get_dest()
            index = target.get_index() if target else None
            title = one_line(bookmark.get_title())
            if index is None or not 0 <= index < len(pages) or not title:
                continue
            start = _find_line(text, title, max(pages[index].start, after), pages[index].end)
            if start is not None:
                yield HeadingMark(start, bookmark.level + 1, title)
                after = start + 1
    except (pypdfium2.PdfiumError, UnicodeError):
        return  # a broken outline costs the headings, not the text


def _find_line(text: str, title: str, start: int, end: int) -> int | None:
    """The offset of a line that begins with `title`, however spaced, perhaps after `2.1.` or `Chapter 3`."""
    words = r"\s+".join(re.escape(word) for word in title.split())
    numbered = rf"(?:^|(?<=\n))(?:[A-Za-z]{{3,8}}[ \t])?(?-i:[\dA-Z.:)]{{0,10}})\s{{0,3}}{words}"
    found = re.compile(numbered, re.IGNORECASE).search(text, start, end)
    return found.start() if found else None


def _stated(document: Any, key: str) -> str:
    try:
        return one_line(document.get_metadata_value(key))
    except UnicodeError:
        return ""  # half a character: better no title than no document


def _title(document: Any, text: str, name: str) -> str:
    said = _stated(document, "Title")
    if said and not _NO_TITLE.search(said):
        return said
    first = next((line for line in text[:4096].split("\n") if len(line.strip()) > 3), "")
    return one_line(first) or title_from_name(name)
