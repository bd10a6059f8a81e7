"""What a PNG shows, for tests: only of the kind that is written here, checked chunk by chunk."""

from __future__ import annotations

import struct
import zlib


def decoded(png: bytes) -> tuple[int, int, bytes]:
    """(width, height, rows of red, green and blue). Raises AssertionError for what is no such PNG."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    chunks, at = {}, 8
    while at < len(png):
        size, kind = struct.unpack(">I4s", png[at : at + 8])
        content = png[at + 8 : at + 8 + size]
        assert struct.pack(">I", zlib.crc32(kind + content)) == png[at + 8 + size : at + 12 + size]
        chunks[kind] = content
        at += 12 + size
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    width, height, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert rest == [8, 2, 0, 0, 0]
    rows = zlib.decompress(chunks[b"IDAT"])
    step = 1 + 3 * width
    assert len(rows) == step * height
    assert not any(rows[start] for start in range(0, len(rows), step))  # no filters
    return width, height, b"".join(rows[start + 1 : start + step] for start in range(0, len(rows), step))
