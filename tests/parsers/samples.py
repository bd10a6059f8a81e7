"""Files made on the spot, and what their parsers gave: small PDFs written by hand, packages part by part."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from openbook.core.errors import UnreadableFile
from openbook.core.records import Content
from openbook.parsers import parse_bytes

CASES = Path(__file__).parent / "cases"
ENCRYPTED_PDFS = [(CASES / "refused" / f"encrypted-{how}.pdf").read_bytes() for how in ("rc4", "aes256")]
_W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


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


def docx_of_xml(document_xml: str, *, more: Mapping[str, bytes] | None = None) -> bytes:
    """The smallest Word package around a `word/document.xml`, with further members."""
    link = f'<Relationship Id="rId1" Type="{_OFFICE}/officeDocument" Target="word/document.xml"/>'
    space = "http://schemas.openxmlformats.org/package/2006/relationships"
    relations = f'<Relationships xmlns="{space}">{link}</Relationships>'
    return packed({"_rels/.rels": relations, "word/document.xml": document_xml, **(more or {})})


def body_xml(body: str) -> str:
    return f'<w:document xmlns:w="{_W}"><w:body>{body}</w:body></w:document>'


def packed(members: Mapping[str, str | bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def damaged(data: bytes, step: int) -> Iterator[bytes]:
    """`data` cut short and with a byte changed, at every `step`-th place."""
    for at in range(0, len(data), step):
        yield data[:at]
        yield data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
