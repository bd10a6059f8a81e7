"""Files made on the spot, and what their parsers gave: small PDFs written by hand, packages part by part."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from openbook.core.errors import UnreadableFile
from openbook.core.records import Content
from openbook.parsers import parse_bytes

FIXTURES = Path(__file__).parent / "fixtures"
ENCRYPTED_PDFS = [(FIXTURES / f"encrypted-{how}.pdf").read_bytes() for how in ("rc4", "aes256")]
_W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def titles(content: Content) -> list[tuple[int, str]]:
    """Level and title of each heading. Each begins a line."""
    assert all(mark.start == 0 or content.text[mark.start - 1] == "\n" for mark in content.headings)
    return [(mark.level, mark.title) for mark in content.headings]


def page_texts(content: Content) -> list[str]:
    assert [page.number for page in content.pages] == list(range(1, len(content.pages) + 1))
    return [content.text[page.start : page.end] for page in content.pages]


def refusal(data: bytes, name: str) -> str:
    with pytest.raises(UnreadableFile) as caught:
        parse_bytes(data, name)
    return str(caught.value)


def make_pdf(
    pages: Sequence[Sequence[str] | None], *, outline: Sequence[tuple[str, int]] = (), title: str = ""
) -> bytes:
    """Each page a sequence of lines, or None for a page that is one picture; `outline` entries are (title, page index)."""
    bodies: list[str] = ["", "", "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>", f"<< /Title ({title}) >>"]
    resources = "/Font << /F1 3 0 R >>"
    if None in pages:
        image = (
            "/Type /XObject /Subtype /Image /Width 2 /Height 2 /ColorSpace /DeviceGray /BitsPerComponent 8 /Length 4"
        )
        bodies.append(f"<< {image} >>\nstream\n\x00\xff\xff\x00\nendstream")
        resources += " /XObject << /I 5 0 R >>"
    page_numbers = []
    for lines in pages:
        shown = " T* ".join(f"({line}) Tj" for line in lines or ())
        stream = f"BT /F1 11 Tf 14 TL 50 750 Td {shown} ET" if lines else ""
        stream = "q 612 0 0 792 0 0 cm /I Do Q" if lines is None else stream
        bodies.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
        bodies.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {len(bodies)} 0 R "
            f"/Resources << {resources} >> >>"
        )
        page_numbers.append(len(bodies))
    first, root = len(bodies) + 1, len(bodies) + len(outline) + 1
    for i, (name, page) in enumerate(outline):
        following = f"/Next {first + i + 1} 0 R" if i + 1 < len(outline) else ""
        bodies.append(f"<< /Title ({name}) /Parent {root} 0 R {following} /Dest [{page_numbers[page]} 0 R /Fit] >>")
    if outline:
        bodies.append(f"<< /First {first} 0 R /Last {root - 1} 0 R /Count {len(outline)} >>")
    bodies[0] = "<< /Type /Catalog /Pages 2 0 R " + (f"/Outlines {root} 0 R" if outline else "") + " >>"
    kids = " ".join(f"{number} 0 R" for number in page_numbers)
    bodies[1] = f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>"
    return pdf_file([body.encode("latin-1") for body in bodies], b"/Info 4 0 R")


def pdf_file(objects: Sequence[bytes], trailer: bytes = b"") -> bytes:
    """Of objects that are numbered from 1, which is the catalogue."""
    out, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table, size = b"".join(b"%010d 00000 n \n" % offset for offset in offsets), len(objects) + 1
    end = b"xref\n0 %d\n0000000000 65535 f \n%strailer << /Size %d /Root 1 0 R %s >>\n" % (size, table, size, trailer)
    return out + end + b"startxref\n%d\n%%%%EOF\n" % len(out)


def docx_bytes(document: Any) -> bytes:
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


def docx_of_xml(document_xml: str | bytes, *, more: Mapping[str, str | bytes] | None = None) -> bytes:
    """The smallest Word package around a `word/document.xml`, with further members."""
    members = {"_rels/.rels": relations(("officeDocument", "word/document.xml")), "word/document.xml": document_xml}
    return packed({**members, **(more or {})})


def body_xml(body: str) -> str:
    spaces = (
        f'xmlns:w="{_W}" xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math" '
        'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
    )
    return f"<w:document {spaces}><w:body>{body}</w:body></w:document>"


_PPTX = (
    'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main" '
    'xmlns:p="http://schemas.openxmlformats.org/presentationml/2006/main" '
    'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships" '
    'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
)


def paragraph(text: str, properties: str = "") -> str:
    return f"<a:p>{properties}<a:r><a:t>{text}</a:t></a:r></a:p>"


def shape(*paragraphs: str, kind: str | None = None) -> str:
    place = "" if kind is None else f'<p:ph type="{kind}"/>' if kind else "<p:ph/>"
    body = "".join(p if p.startswith("<") else paragraph(p) for p in paragraphs)
    return f"<p:sp><p:nvSpPr><p:nvPr>{place}</p:nvPr></p:nvSpPr><p:txBody>{body}</p:txBody></p:sp>"


def deck(*slides: str, more: Mapping[str, str | bytes] | None = None) -> bytes:
    """A presentation of these slides, with further members."""
    listed = "".join(f'<p:sldId id="{255 + i}" r:id="rId{i}"/>' for i in range(1, len(slides) + 1))
    slide_parts = [("slide", f"slides/slide{i}.xml") for i in range(1, len(slides) + 1)]
    members: dict[str, str | bytes] = {
        "ppt/presentation.xml": f"<p:presentation {_PPTX}><p:sldIdLst>{listed}</p:sldIdLst></p:presentation>",
        "ppt/_rels/presentation.xml.rels": relations(*slide_parts),
    }
    for number, body in enumerate(slides, 1):
        tree = f"<p:sld {_PPTX}><p:cSld><p:spTree>{body}</p:spTree></p:cSld></p:sld>"
        members[f"ppt/slides/slide{number}.xml"] = tree
    return packed({**members, **(more or {})})


_ODF = " ".join(
    f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
    for name in ("office", "text", "table", "draw", "style", "presentation", "meta", "manifest")
) + ' xmlns:dc="http://purl.org/dc/elements/1.1/"'  # fmt: skip


def odf_file(kind: str, body: str, *, styles: str = "", more: Mapping[str, str] | None = None) -> bytes:
    """An OpenDocument file. In further members `NS` stands for the namespaces."""
    content = (
        f"<office:document-content {_ODF}><office:automatic-styles>{styles}</office:automatic-styles>"
        f"<office:body><office:{kind}>{body}</office:{kind}></office:body></office:document-content>"
    )
    members = {"mimetype": f"application/vnd.oasis.opendocument.{kind}", "content.xml": content}
    return packed({**members, **{name: text.replace("NS", _ODF) for name, text in (more or {}).items()}})


BOOK_METADATA = (
    "<dc:title>Winter rules</dc:title><dc:creator>Ada</dc:creator><dc:creator>Grace</dc:creator><dc:language>en</dc:language>"
    '<dc:date>2019</dc:date><meta property="dcterms:modified">2024-05-06T07:08:09Z</meta>'
)
CONTAINER = '<container xmlns="c"><rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'


def chapter(body: str, title: str = "") -> str:
    head = f"<title>{title}</title>" if title else "<title/>"
    return (
        '<?xml version="1.0"?><!DOCTYPE html><html xmlns="http://www.w3.org/1999/xhtml">'
        f'<head>{head}<script src="x.js"/></head><body>{body}</body></html>'
    )


def book(
    chapters: Mapping[str, str],
    *,
    metadata: str = BOOK_METADATA,
    items: str = "",
    more: Mapping[str, str] | None = None,
) -> bytes:
    """An EPUB book of these chapters, with further items in its manifest and further members."""
    manifest = "".join(
        f'<item id="{i}" href="{name}" media-type="application/xhtml+xml"/>' for i, name in enumerate(chapters)
    )
    spine = "".join(f'<itemref idref="{i}"/>' for i in range(len(chapters)))
    opf = (
        f'<package xmlns="o" xmlns:dc="d"><metadata>{metadata}</metadata><manifest>{manifest}{items}</manifest>'
        f"<spine>{spine}</spine></package>"
    )
    members = {"mimetype": "application/epub+zip", "META-INF/container.xml": CONTAINER, "OEBPS/book.opf": opf}
    members |= {f"OEBPS/{name}": text for name, text in chapters.items()}
    return packed({**members, **(more or {})})


_XLSX = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
_STYLES = (
    f'<styleSheet {_XLSX}><cellXfs><xf numFmtId="0"/><xf numFmtId="14"/><xf numFmtId="22"/></cellXfs></styleSheet>'
)


def workbook(sheets: Mapping[str, str], *, hidden: str = "", more: Mapping[str, str] | None = None) -> bytes:
    """Sheets by their names."""
    listed = "".join(
        f'<sheet name="{name}" sheetId="{i}" state="{"hidden" if name == hidden else "visible"}" r:id="rId{i}"/>'
        for i, name in enumerate(sheets, 1)
    )
    kinds = [("worksheet", f"worksheets/sheet{i}.xml") for i in range(1, len(sheets) + 1)]
    members: dict[str, str | bytes] = {
        "xl/workbook.xml": f'<workbook {_XLSX} xmlns:r="{_OFFICE}"><sheets>{listed}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": relations(*kinds, ("styles", "styles.xml")),
        "xl/styles.xml": _STYLES,
        "_rels/.rels": relations(("officeDocument", "xl/workbook.xml")),
    }
    for number, body in enumerate(sheets.values(), 1):
        members[f"xl/worksheets/sheet{number}.xml"] = f"<worksheet {_XLSX}>{body}</worksheet>"
    return packed({**members, **(more or {})})


def packed(members: Mapping[str, str | bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def relations(*entries: tuple[str, str]) -> str:
    """(kind, target) of each relation, with the ids rId1, rId2 ..."""
    lines = (
        f'<Relationship Id="rId{i}" Type="{_OFFICE}/{kind}" Target="{target}"/>'
        for i, (kind, target) in enumerate(entries, 1)
    )
    space = "http://schemas.openxmlformats.org/package/2006/relationships"
    return f'<Relationships xmlns="{space}">{"".join(lines)}</Relationships>'


def damaged(data: bytes, step: int) -> Iterator[bytes]:
    """`data` cut short and with a byte changed, at every `step`-th place."""
    for at in range(0, len(data), step):
        yield data[:at]
        yield data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
