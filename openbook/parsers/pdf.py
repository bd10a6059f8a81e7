"""PDF to text with pages, by PDFium. Headings come from the document's outline, where it has one.

PDFium tells the characters and their places, `pdf_layout` the order in which a person reads them.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import Any

from openbook.errors import UnreadableFile
from openbook.parsers.cleaning import clean, one_line, title_from_name
from openbook.parsers.pdf_layout import Piece, lay_out
from openbook.parsers.properties import pdf_date, stated
from openbook.records import Content, HeadingMark, Metadata, PageSpan

MOST_CHARS = 100_000_000
MOST_BOOKMARKS = 20_000

_PASSWORD_ERROR = 4  # FPDF_ERR_PASSWORD
_SECURITY_ERROR = 5  # FPDF_ERR_SECURITY, an encryption PDFium does not know
_PAGE_GAP = "\n\n"
# PDFium's mark for a word broken at a line's end, with the rest of the word. The line then ends after the word.
_BROKEN_WORD = re.compile("[\x02\ufffe]\n([^\\s\x02\ufffe]{1,40})[ \\t]?\n?")
_BREAK = str.maketrans("\x02\ufffe", "--")  # the rest of the word stands elsewhere
# PDFium turns the ligature of lam and alef around. After an alef that cannot be right: no word has two in a row.
_LAM_ALEF = re.compile("\u0627([\u0622\u0623\u0625\u0627])\u0644")
_LINE = re.compile("[^\r\n\x02\ufffe]+[\x02\ufffe]?")
_WORD = re.compile(r"[^ \t\xa0]+")
_LEADER = re.compile(r"\s*(?:\.[ \t]*){5,}")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
# Of a line's height. Justified text stays below, the cells of a table mostly do not.
_WIDE_GAP = 1.0
_NOTABLE_GAP = 0.6  # beside a much narrower gap on the same line
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
    chars: int = 0
    is_scan: bool = False
    recognised: bool = False


def read_pdf(data: bytes, name: str) -> Content:
    return read_pdf_with(data, name, None)


def read_pdf_with(data: bytes, name: str, recognise: Recognise | None) -> Content:
    """As `read_pdf`; pages that are pictures are given to `recognise`."""
    with ONE_AT_A_TIME:
        return _read(data, name, recognise)


def open_pdf(data: bytes) -> Any:
    """A document of PDFium, to be closed. The caller holds `ONE_AT_A_TIME`. Raises UnreadableFile."""
    import pypdfium2

    try:
        return pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        code = getattr(error, "err_code", None)
        if code in {_PASSWORD_ERROR, _SECURITY_ERROR} or "password" in str(error).lower():
            raise UnreadableFile("encrypted with a password") from error
        raise UnreadableFile("not a readable PDF") from error


def _read(data: bytes, name: str, recognise: Recognise | None) -> Content:
    import pypdfium2

    document = open_pdf(data)
    try:
        found = list(_pages(document, recognise))
        if not found:
            raise UnreadableFile("a PDF without pages")
        if not any(page.text and not page.is_scan for page in found):
            why = ": needs OCR" if recognise is None else ", in which OCR found no text"
            raise UnreadableFile(f"no text, only images{why}")
        text, pages = join_pages([page.text for page in found])
        headings = _headings(document, text, pages)
        chars, metadata = sum(page.chars for page in found), _metadata(document, found)
        return Content(text, "application/pdf", _title(document, text, name), pages, headings, chars, metadata)
    except pypdfium2.PdfiumError as error:
        raise UnreadableFile("a damaged PDF") from error
    finally:
        document.close()


def _pages(document: Any, recognise: Recognise | None) -> Iterator[_Page]:
    import pypdfium2

    total = readable = 0
    for number in range(len(document)):
        try:
            page = _page(document, number, recognise)
            readable += 1
        except pypdfium2.PdfiumError:
            page = _Page()  # one broken page must not hide the others
        total += page.chars
        if total > MOST_CHARS:
            raise UnreadableFile(f"holds more than {MOST_CHARS // 1_000_000} million characters")
        yield page
    if not readable and len(document):
        raise UnreadableFile("a damaged PDF")


def _page(document: Any, number: int, recognise: Recognise | None) -> _Page:
    page = document[number]
    try:
        layer = page.get_textpage()
        try:
            chars = layer.count_chars()
            text = _BROKEN_WORD.sub(r"\1\n", _layer_text(page, layer, chars)).translate(_BREAK)
        finally:
            layer.close()
        text = clean(_LAM_ALEF.sub("\u0627\u0644\\1", text)).strip()
        is_scan = sum(map(str.isalnum, text[:1000])) < _SCAN_LETTERS and _is_picture(page)
        if is_scan and recognise:
            recognised = clean(recognise(page)).strip()
            if recognised:
                return _Page(recognised, max(chars, len(recognised)), recognised=True)
        return _Page(text, chars, is_scan)
    finally:
        page.close()


def _layer_text(page: Any, layer: Any, chars: int) -> str:
    # Text outside the visible page is left out; a page box that makes no sense must not hide everything.
    pieces = list(_pieces(layer, chars))
    left, bottom, right, top = page.get_bbox()
    inside = [
        piece
        for piece in pieces
        if left <= (piece.left + piece.right) / 2 <= right and bottom <= (piece.bottom + piece.top) / 2 <= top
    ]
    turns = page.get_rotation() // 90 % 4
    return lay_out([_turned(piece, turns) for piece in inside or pieces])


def _turned(piece: Piece, turns: int) -> Piece:
    """`piece` as the page is shown: turned clockwise so many quarters. Only the order of places matters, not the zero."""
    for _ in range(turns):
        piece = replace(piece, left=piece.bottom, bottom=-piece.right, right=piece.top, top=-piece.left)
    return piece


def _pieces(layer: Any, chars: int) -> Iterator[Piece]:
    """The lines of a page as PDFium sees them, cut where a wide gap stands between two words."""
    import pypdfium2.raw as pdfium

    box = pdfium.FS_RECTF()
    units = layer.get_text_range(0, chars, errors="replace") if chars > 0 else ""
    place = _char_places(layer, units, chars)
    order = 0
    for line in _LINE.finditer(units):
        words: list[Piece] = []
        leader = _LEADER.search(line[0])
        for word in _WORD.finditer(line[0]):
            start, end = place(line.start() + word.start()), place(line.start() + word.end() - 1)
            edges = []
            for index in (start, end):
                if index >= 0 and pdfium.FPDFText_GetLooseCharBox(layer, index, box):
                    edges.append((box.left, box.bottom, box.right, box.top))
            if edges:
                lefts, bottoms, rights, tops = zip(*edges, strict=True)
                words.append(Piece(min(lefts), min(bottoms), max(rights), max(tops), word[0]))
        # The dots that lead the eye to a page number would otherwise be words with gaps between.
        for piece in [_led(words)] if leader and words else _cut(words):
            yield replace(piece, order=order)
            order += 1


def _char_places(layer: Any, units: str, chars: int) -> Callable[[int], int]:
    """From an offset in the text to PDFium's index of the character. They are the same unless PDFium left some out."""
    import pypdfium2.raw as pdfium

    if len(units) == chars:
        return lambda offset: offset
    # PDFium counts the text in UTF-16.
    wide = [0]
    for char in units:
        wide.append(wide[-1] + (2 if char > "\uffff" else 1))
    return lambda offset: int(pdfium.FPDFText_GetCharIndexFromTextIndex(layer, wide[offset]))


def _cut(words: list[Piece]) -> Iterator[Piece]:
    gaps = [max(b.left - a.right, a.left - b.right) for a, b in pairwise(words)]
    narrowest = min((gap for gap in gaps if gap > 0), default=0.0)
    start = 0
    for number, gap in enumerate(gaps, 1):
        height = max(words[number - 1].height, words[number].height)
        wide = gap > _WIDE_GAP * height or (gap > _NOTABLE_GAP * height and gap > 2.5 * narrowest)
        # The ends of a word that mixes directions are not its edges.
        if wide and not _RIGHT_TO_LEFT.search(words[number - 1].text + words[number].text):
            yield _joined(words[start:number])
            start = number
    if words:
        yield _joined(words[start:])


def _led(words: list[Piece]) -> Piece:
    whole = _joined(words)
    return replace(whole, text=_LEADER.sub(" ... ", whole.text).strip())


def _joined(words: list[Piece]) -> Piece:
    return Piece(
        min(word.left for word in words),
        min(word.bottom for word in words),
        max(word.right for word in words),
        max(word.top for word in words),
        " ".join(word.text for word in words),
    )


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
        "pages_needing_ocr": sum(1 for page in found if page.is_scan),
        "pages_read_by_ocr": sum(1 for page in found if page.recognised),
    }
    return stated(
        authors=(_stated(document, "Author"),),
        dates=(pdf_date(_stated(document, "ModDate")), pdf_date(_stated(document, "CreationDate"))),
        own=[(key, count) for key, count in counts.items() if count],
    )


def _title(document: Any, text: str, name: str) -> str:
    said = _stated(document, "Title")
    if said and not _NO_TITLE.search(said):
        return said
    first = next((line for line in text[:4096].split("\n") if len(line.strip()) > 3), "")
    return one_line(first) or title_from_name(name)
