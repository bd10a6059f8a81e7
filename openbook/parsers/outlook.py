"""Outlook messages (.msg): MAPI properties in a compound file ([MS-OXMSG], [MS-OXPROPS])."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

from openbook.errors import UnreadableFile
from openbook.parsers.cleaning import clean, one_line, title_from_name
from openbook.parsers.decoding import decode
from openbook.parsers.frontmatter import make_metadata
from openbook.parsers.mail import MOST_ATTACHMENTS, TextParts
from openbook.records import Content

_SUBJECT, _BODY, _HTML, _RTF = 0x0037, 0x1000, 0x1013, 0x1009
_SENDER, _SENDER_ADDRESS, _SENDER_SMTP = 0x0C1A, 0x0C1F, 0x5D01
_TO, _CC = 0x0E04, 0x0E03
_DATA, _FILE_NAME, _LONG_FILE_NAME, _DISPLAY_NAME = 0x3701, 0x3704, 0x3707, 0x3001
_TIMES = (0x0039, 0x0E06, 0x3007)  # sent, delivered, created
_CODE_PAGES = (0x3FDE, 0x3FFD)  # of the HTML, of 8-bit strings
_PROPERTIES = "__properties_version1.0"
_MOST_STREAM_BYTES = 200_000_000
_DEEPEST = 3
# The start of every compressed text's dictionary ([MS-OXRTFCP] 2.1.3.1.2).
_RTF_START = (
    rb"{\rtf1\ansi\mac\deff0\deftab720{\fonttbl;}{\f0\fnil \froman \fswiss \fmodern \fscript \fdecor MS Sans SerifSymbol"
    rb"ArialTimes New RomanCourier{\colortbl\red0\green0\blue0" + b"\r\n" + rb"\par \pard\plain\f0\fs20\b\i\u\tab\tx"
)


def read_outlook(data: bytes, name: str, depth: int = 0) -> Content:
    import olefile

    try:
        with olefile.OleFileIO(BytesIO(data)) as file:
            return _Message(file, (), depth).read(name)
    except (UnreadableFile, MemoryError):
        raise
    except Exception as error:  # the library lets a damaged table fail in any way
        raise UnreadableFile("a damaged Outlook message") from error


class _Message:
    """One message: the whole file, or one that is attached in it, at `place`."""

    def __init__(self, file: Any, place: tuple[str, ...], depth: int) -> None:
        self._file = file
        self._place = place
        self._depth = depth
        head = 32 if not place else 24  # [MS-OXMSG] 2.4.1
        self._fixed = _fixed_properties(self._stream(_PROPERTIES), head)
        self._code_page = next((f"cp{page}" for tag in reversed(_CODE_PAGES) if (page := self._number(tag))), "")

    def read(self, name: str) -> Content:
        if not self._file.exists(_PROPERTIES):
            raise UnreadableFile("not an Outlook message")
        parts = TextParts()
        parts.add(self._head())
        self._body(parts)
        for storage in self._attachments():
            self._attach(storage, parts)
        text, headings = parts.finish()
        sent = self._sent()
        metadata = make_metadata(
            [("author", self._sender()), ("to", self._text(_TO)), ("cc", self._text(_CC)), ("date", sent)]
        )
        title = one_line(self._text(_SUBJECT)) or title_from_name(name)
        return Content(
            text, "application/vnd.ms-outlook", title, headings=headings, source_chars=parts.source_chars, metadata=metadata
        )  # fmt: skip

    def _head(self) -> str:
        sent = self._sent()
        shown = [
            ("From", self._sender()),
            ("To", self._text(_TO)),
            ("Cc", self._text(_CC)),
            ("Date", sent and f"{sent:%Y-%m-%d %H:%M} UTC"),
        ]
        return "\n".join(
            f"{key}: {one_line(str(value))}" for key, value in [*shown, ("Subject", self._text(_SUBJECT))] if value
        )

    def _sender(self) -> str:
        name, address = self._text(_SENDER), self._text(_SENDER_SMTP) or self._text(_SENDER_ADDRESS)
        return one_line(f"{name} <{address}>" if "@" in address and address not in name else name or address)

    def _sent(self) -> datetime | None:
        for tag in _TIMES:
            ticks = int.from_bytes(self._fixed.get(tag, b""), "little")  # of 100 ns since 1601
            if 0 < ticks < 10**18:
                return datetime(1601, 1, 1, tzinfo=UTC) + timedelta(seconds=ticks // 10_000_000)
        return None

    def _body(self, parts: TextParts) -> None:
        plain = self._text(_BODY)
        html = b"" if plain.strip() else self._binary(_HTML) or self._text(_HTML).encode()
        rtf = b"" if plain.strip() or html else decompressed_rtf(self._binary(_RTF))
        parts.source_chars += len(plain) or len(html) or len(rtf)
        if plain.strip():
            parts.add(plain)
        elif html or rtf:
            content = _read_html(html) if html else _read_rtf(rtf)
            parts.add(content.text, content.headings)

    def _attachments(self) -> list[tuple[str, ...]]:
        here = len(self._place)
        found = {
            tuple(path[: here + 1])
            for path in self._file.listdir(streams=True, storages=False)
            if len(path) > here + 1
            and tuple(path[:here]) == self._place
            and path[here].startswith("__attach_version1.0_")
        }
        return sorted(found)[:MOST_ATTACHMENTS]

    def _attach(self, storage: tuple[str, ...], parts: TextParts) -> None:
        attached = _Message(self._file, storage, self._depth + 1)
        inner = (*storage, f"__substg1.0_{_DATA:04X}000D")
        name = attached._text(_LONG_FILE_NAME) or attached._text(_FILE_NAME) or attached._text(_DISPLAY_NAME)
        if not self._file.exists("/".join((*inner, _PROPERTIES))):
            parts.attachment(name, attached._binary(_DATA), self._depth)
            return
        if self._depth >= _DEEPEST:
            parts.add(f"Attachment: {one_line(name)} (not read: too many inside one another)")
            return
        content = _Message(self._file, inner, self._depth + 1).read(name)
        parts.heading(f"Attachment: {content.title}", 1)
        parts.add(content.text, content.headings, deeper=1)
        parts.source_chars += content.source_chars or 0

    def _number(self, tag: int) -> int:
        return int.from_bytes(self._fixed.get(tag, b"")[:4], "little")

    def _text(self, tag: int) -> str:
        wide = self._stream(f"__substg1.0_{tag:04X}001F")
        if wide:
            return clean(wide.decode("utf-16-le", "replace")).rstrip()
        narrow = self._stream(f"__substg1.0_{tag:04X}001E").rstrip(b"\0")
        return clean(decode(narrow, self._code_page)).rstrip() if narrow else ""

    def _binary(self, tag: int) -> bytes:
        return self._stream(f"__substg1.0_{tag:04X}0102")

    def _stream(self, name: str) -> bytes:
        path = "/".join((*self._place, name))
        if not self._file.exists(path) or self._file.get_size(path) > _MOST_STREAM_BYTES:
            return b""
        data: bytes = self._file.openstream(path).read()
        return data


def _fixed_properties(stream: bytes, head: int) -> dict[int, bytes]:
    """Property number to its eight bytes of value ([MS-OXMSG] 2.4.2)."""
    rows = (stream[at : at + 16] for at in range(head, len(stream) - 15, 16))
    return {int.from_bytes(row[2:4], "little"): row[8:16] for row in rows}


def decompressed_rtf(data: bytes) -> bytes:
    """[MS-OXRTFCP]: `MELA` is stored as it is, `LZFu` refers back into a ring of 4,096 bytes."""
    if len(data) < 16 or data[8:12] not in {b"LZFu", b"MELA"}:
        return b""
    size = int.from_bytes(data[4:8], "little")
    body = data[16:]
    if data[8:12] == b"MELA":
        return body[:size]
    ring = bytearray(_RTF_START.ljust(4096, b" "))
    write, at, out = len(_RTF_START), 0, bytearray()
    while at < len(body) and len(out) < min(size, _MOST_STREAM_BYTES):
        control, at = body[at], at + 1
        for bit in range(8):
            if not control >> bit & 1:
                piece, at = body[at : at + 1], at + 1
            else:
                token, at = int.from_bytes(body[at : at + 2], "big"), at + 2
                offset, length = token >> 4, (token & 15) + 2
                if offset == write or at > len(body):
                    return bytes(out)
                piece = _copied(ring, offset, write, length)
            for byte in piece:
                ring[write] = byte
                write = (write + 1) % 4096
            out += piece
    return bytes(out)


def _copied(ring: bytearray, offset: int, write: int, length: int) -> bytes:
    """`length` bytes from `offset` on, which may run into those being written."""
    distance = (write - offset) % 4096
    return bytes(ring[(offset + i % distance) % 4096] for i in range(length))


def _read_html(data: bytes) -> Content:
    from openbook.parsers.html import read_html

    return read_html(data, "")


def _read_rtf(data: bytes) -> Content:
    from openbook.parsers.rtf import read_rtf

    return read_rtf(data, "")
