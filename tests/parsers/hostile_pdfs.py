"""PDFs that want to break what draws them: odd sizes, pictures without end, drawings without end."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from .samples import pdf_file

_BOX = b"/MediaBox [0 0 612 792]"


def pdf_of(page: bytes, objects: Sequence[bytes] = ()) -> bytes:
    """One page, with `page` in its dictionary; `objects` are numbered from 4."""
    pages = b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>"
    return pdf_file(
        [b"<< /Type /Catalog /Pages 2 0 R >>", pages, b"<< /Type /Page /Parent 2 0 R %s >>" % page, *objects]
    )


def with_box(box: str, more: str = "") -> bytes:
    return pdf_of(f"/MediaBox [{box}] {more} /Contents 4 0 R".encode(), [_stream(b"", b"0 0 m 600 700 l S")])


def with_glyph(glyph: str, drawing: str) -> bytes:
    """One page, in whose font the byte 1 is the glyph of that name, such as `u1F600`."""
    font = f"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding << /Differences [1 /{glyph}] >> >>"
    page = _BOX + b" /Contents 4 0 R /Resources << /Font << /F 5 0 R >> >>"
    return pdf_of(page, [_stream(b"", drawing.encode()), font.encode()])


def nested(depth: int, width: int) -> bytes:
    """A form that draws another `width` times, and so on: `width ** (depth - 1)` lines from a file of few bytes."""
    form = b"/Type /XObject /Subtype /Form /BBox [0 0 612 792] "
    objects = [_stream(b"", b"/X Do")]
    for number in range(6, 5 + depth):
        objects.append(_stream(form + b"/Resources << /XObject << /X %d 0 R >> >>" % number, b"/X Do " * width))
    objects.append(_stream(form, b"0 0 m 600 700 l S"))
    return pdf_of(_BOX + b" /Contents 4 0 R /Resources << /XObject << /X 5 0 R >> >>", objects)


def inflating(side: int) -> bytes:
    """A picture of `side * side` pixels, of which a small share is there."""
    head = b"/Type /XObject /Subtype /Image /Width %d /Height %d /ColorSpace /DeviceRGB /BitsPerComponent 8 " % (
        side,
        side,
    )
    data = zlib.compress(bytes(side * side // 8), 9)
    objects = [_stream(b"", b"q 612 0 0 792 0 0 cm /X Do Q"), _stream(head + b"/Filter /FlateDecode", data)]
    return pdf_of(_BOX + b" /Contents 4 0 R /Resources << /XObject << /X 5 0 R >> >>", objects)


def _stream(head: bytes, data: bytes) -> bytes:
    return b"<< %s /Length %d >>\nstream\n%s\nendstream" % (head, len(data), data)
