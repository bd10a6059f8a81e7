"""Word documents to text, in the order of the body. Opened by python-docx, then read at the level of its XML.

The XML level, because python-docx's `Paragraph.text` leaves out tracked insertions, content controls and equations.
Element names: ECMA-376 part 1, sections 17 and 22.1.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import Any

from openbook.errors import UnreadableFile
from openbook.knowledge.reading.cleaning import clean, one_line, title_from_name
from openbook.knowledge.reading.docx_styles import Style, read_styles
from openbook.records import Content, HeadingMark

MOST_UNPACKED_BYTES = 200_000_000
MOST_MEMBERS = 10_000
MOST_RATIO = 150  # XML packs some 10 to 40 times; a bomb 1,000 times
_SMALL_BYTES = 10_000_000

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_M = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"

# Deleted and moved-away text, the second rendering of a shape, and paragraphs inside a shape (they follow their host).
_SKIPPED = frozenset({f"{_W}del", f"{_W}moveFrom", f"{_MC}Fallback", f"{_W}txbxContent", f"{_W}pPr", f"{_W}rPr"})
_CHARACTERS = {f"{_W}tab": "\t", f"{_W}br": "\n", f"{_W}cr": "\n", f"{_W}noBreakHyphen": "-", f"{_W}ptab": "\t"}


def read_docx(data: bytes, name: str) -> Content:
    _check_package(data)
    document = _open(data)
    try:
        writer = _Writer(read_styles(document))
        writer.blocks(document.element.body)
        stated = one_line(document.core_properties.title or "")
    except Exception as error:  # python-docx answers a hostile package with whatever its lookups raise
        raise UnreadableFile("a damaged Word document") from error
    text = "".join(writer.parts)
    first = writer.headings[0].title if writer.headings else ""
    title = writer.title or stated or first or title_from_name(name)
    media = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
    return Content(text, media, title, headings=tuple(writer.headings))


def _check_package(data: bytes) -> None:
    """Refuse what is no package or would unpack to too much. `zipfile` reads no more than the sizes checked here."""
    if data.startswith(_OLE):
        locked = "EncryptedPackage".encode("utf-16-le") in data
        raise UnreadableFile("encrypted with a password" if locked else "an old Word file: save it as .docx")
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            members = archive.infolist()
            relations = _head(archive, "_rels/.rels")
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UnreadableFile("not a Word document") from error
    unpacked = sum(member.file_size for member in members)
    if len(members) > MOST_MEMBERS:
        raise UnreadableFile(f"holds {len(members)} parts, over the limit of {MOST_MEMBERS}")
    if unpacked > MOST_UNPACKED_BYTES or unpacked > max(_SMALL_BYTES, MOST_RATIO * len(data)):
        raise UnreadableFile(f"unpacks from {len(data) / 1e6:.1f} MB to {unpacked / 1e6:.1f} MB, like a zip bomb")
    if any(member.flag_bits & 1 for member in members):
        raise UnreadableFile("encrypted with a password")
    if b"purl.oclc.org/ooxml" in relations:
        raise UnreadableFile("a Word document in the strict format: save it as an ordinary .docx")
    if "word/document.xml" not in {member.filename for member in members}:
        raise UnreadableFile("not a Word document")


def _head(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        with archive.open(name) as member:
            return member.read(65_536)
    except (KeyError, RuntimeError, EOFError, zlib.error):  # absent, encrypted, cut off, corrupt
        return b""


def _open(data: bytes) -> Any:
    import docx

    try:
        document = docx.Document(BytesIO(data))
        # An office document never has a document type; one is where entity bombs live.
        if document.element.getroottree().docinfo.internalDTD is not None:
            raise UnreadableFile("declares XML entities, which no Word document does")
        return document
    except UnreadableFile:
        raise
    except Exception as error:  # see read_docx
        raise UnreadableFile("a damaged Word document") from error


class _Writer:
    def __init__(self, styles: dict[str, Style]) -> None:
        self.parts: list[str] = []
        self.headings: list[HeadingMark] = []
        self.title = ""
        self._styles = styles
        self._length = 0
        self._after_item = False  # list items stay close together

    def blocks(self, container: Any) -> None:
        """Paragraphs and tables in document order, through content controls and other wrappers."""
        waiting = [iter(container)]
        while waiting:
            element = next(waiting[-1], None)
            if element is None:
                waiting.pop()
            elif element.tag == f"{_W}p":
                self._paragraph(element)
                waiting.append(_boxes(element))
            elif element.tag == f"{_W}tbl":
                if _is_frame(element):
                    waiting.append(iter(element.iter(f"{_W}tc")))
                else:
                    self._table(element)
            elif element.tag not in _SKIPPED or element.tag == f"{_W}txbxContent":
                waiting.append(iter(element))

    def _paragraph(self, element: Any) -> None:
        text = clean(_text(element)).strip()
        if not text:
            return
        style = self._style(element)
        item = style.listed and not style.level
        if item:
            text = "  " * min(style.depth, 8) + "- " + text
        start = self._put(text, close=item and self._after_item)
        self._after_item = item
        if style.level:
            self.headings.append(HeadingMark(start, style.level, one_line(text)))
            self.title = self.title or (one_line(text) if style.title else "")

    def _table(self, table: Any) -> None:
        rows = []
        for row in table.iterchildren(f"{_W}tr"):
            cells = [" ".join(_cell_text(cell).split()) for cell in _cells(row)]
            if any(cells):
                rows.append(" | ".join(cells))
        if rows:
            self._put("\n".join(rows), close=False)
        self._after_item = False

    def _put(self, text: str, *, close: bool) -> int:
        gap = "" if not self._length else "\n" if close else "\n\n"
        self.parts += (gap, text)
        start = self._length + len(gap)
        self._length = start + len(text)
        return start

    def _style(self, paragraph: Any) -> Style:
        properties = paragraph.find(f"{_W}pPr")
        if properties is None:
            return self._styles.get("", Style())
        named = properties.find(f"{_W}pStyle")
        base = self._styles.get(named.get(f"{_W}val", "") if named is not None else "", Style())
        return base.with_properties(properties)


def _text(element: Any) -> str:
    return "".join(_pieces(element))


def _pieces(element: Any) -> Iterator[str]:
    waiting = [iter(element)]
    while waiting:
        child = next(waiting[-1], None)
        if child is None:
            waiting.pop()
        elif child.tag in {f"{_W}t", f"{_M}t"}:
            yield child.text or ""
        elif child.tag in _CHARACTERS:
            yield _CHARACTERS[child.tag]
        elif child.tag not in _SKIPPED:
            waiting.append(iter(child))


def _boxes(paragraph: Any) -> Iterator[Any]:
    """The text boxes anchored in a paragraph, outermost only, each once."""
    waiting = [iter(paragraph)]
    while waiting:
        child = next(waiting[-1], None)
        if child is None:
            waiting.pop()
        elif child.tag == f"{_W}txbxContent":
            yield child
        elif child.tag not in _SKIPPED:
            waiting.append(iter(child))


def _cells(row: Any) -> Iterator[Any]:
    """The cells of a row, through content controls, but not those of tables inside its cells."""
    waiting = [iter(row)]
    while waiting:
        child = next(waiting[-1], None)
        if child is None:
            waiting.pop()
        elif child.tag == f"{_W}tc":
            yield child
        elif child.tag not in _SKIPPED:
            waiting.append(iter(child))


def _cell_text(cell: Any) -> str:
    return clean(" ".join(_text(paragraph) for paragraph in cell.iter(f"{_W}p")))


def _is_frame(table: Any) -> bool:
    """A table of one cell is a frame around paragraphs, not data."""
    rows = list(table.iterchildren(f"{_W}tr"))
    return len(rows) == 1 and sum(1 for _ in _cells(rows[0])) == 1
