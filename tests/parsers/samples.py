"""Files made on the spot: small PDFs written by hand, Word documents by python-docx or part by part."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_CONTENT_TYPES = (
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument.'
    'wordprocessingml.document.main+xml"/></Types>'
)
_RELATIONS = (
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" '
    'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" '
    'Target="word/document.xml"/></Relationships>'
)


def make_pdf(pages: Sequence[Sequence[str]], *, outline: Sequence[tuple[str, int]] = (), title: str = "") -> bytes:
    """Each page a sequence of lines; `outline` entries are (title, page index)."""
    bodies: list[str] = ["", "", "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>", f"<< /Title ({title}) >>"]
    page_numbers = []
    for lines in pages:
        shown = " T* ".join(f"({line}) Tj" for line in lines)
        stream = f"BT /F1 11 Tf 14 TL 50 750 Td {shown} ET" if lines else ""
        bodies.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
        bodies.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {len(bodies)} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
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
    return _pdf_file(bodies)


def make_scan(pages: Sequence[str | None]) -> bytes:
    """A page with a line of text, or for None a page that is one picture."""
    image = (
        "<< /Type /XObject /Subtype /Image /Width 2 /Height 2 /ColorSpace /DeviceGray /BitsPerComponent 8 /Length 4 >>\n"
        "stream\n\x00\xff\xff\x00\nendstream"
    )
    font = "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
    bodies = ["<< /Type /Catalog /Pages 2 0 R >>", "", font, "<< >>", image]
    numbers = []
    for line in pages:
        stream = "q 612 0 0 792 0 0 cm /I Do Q" if line is None else f"BT /F1 11 Tf 50 750 Td ({line}) Tj ET"
        bodies.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
        bodies.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {len(bodies)} 0 R "
            "/Resources << /Font << /F1 3 0 R >> /XObject << /I 5 0 R >> >> >>"
        )
        numbers.append(f"{len(bodies)} 0 R")
    bodies[1] = f"<< /Type /Pages /Kids [{' '.join(numbers)}] /Count {len(pages)} >>"
    return _pdf_file(bodies)


def _pdf_file(bodies: Sequence[str]) -> bytes:
    out, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(bodies, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode("latin-1")
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    size = len(bodies) + 1
    out_end = f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer << /Size {size} /Root 1 0 R /Info 4 0 R >>\n"
    return out + f"{out_end}startxref\n{len(out)}\n%%EOF\n".encode()


def new_docx() -> Any:
    import docx

    return docx.Document()


def docx_bytes(document: Any) -> bytes:
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


def docx_of_xml(document_xml: str | bytes, *, more: Mapping[str, str | bytes] | None = None) -> bytes:
    """The smallest Word package around a `word/document.xml`, with further members."""
    members = {"[Content_Types].xml": _CONTENT_TYPES, "_rels/.rels": _RELATIONS, "word/document.xml": document_xml}
    return packed(members | dict(more or {}))


def body_xml(body: str) -> str:
    spaces = (
        f'xmlns:w="{_W}" xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math" '
        'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
    )
    return f"<w:document {spaces}><w:body>{body}</w:body></w:document>"


def packed(members: Mapping[str, str | bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def relations(*entries: tuple[str, str]) -> str:
    """(kind, target) of each relation, with the ids rId1, rId2 ..."""
    lines = (
        f'<R Id="rId{i}" Type="http://t/{kind}" Target="{target}"/>' for i, (kind, target) in enumerate(entries, 1)
    )
    return f"<Rs>{''.join(lines)}</Rs>"


def damaged(data: bytes, step: int) -> Iterator[bytes]:
    """`data` cut short and with a byte changed, at every `step`-th place."""
    for at in range(0, len(data), step):
        yield data[:at]
        yield data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
