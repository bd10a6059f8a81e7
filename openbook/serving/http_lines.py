"""The lines of a request, parsed more strictly than by h11, which forgives what others read differently.

A proxy and a server that do not agree where a request ends can be made to see two where there is one. So each line ends in
CR LF, none goes on in the next, and a head says once how long its body is (RFC 9112: 2.2, 2.3, 5.2, 6.1 to 6.3, 7.1).
"""

from __future__ import annotations

import re

from h11 import LocalProtocolError
from h11._receivebuffer import ReceiveBuffer

_END = b"\r\n\r\n"
_WRONG = re.compile(
    rb"(?P<bare_CR>\r(?!\n))|(?P<bare_LF>(?<!\r)\n)|(?P<folded_line>\n[ \t])"
    rb"|(?P<control_character>[\x00-\x08\x0b\x0c\x0e-\x1f\x7f])"
)
_FRAMING = re.compile(rb"(content-length|transfer-encoding):", re.IGNORECASE)
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]+[;\r]")


class StrictLines(ReceiveBuffer):
    """For `h11.Connection._receive_buffer`, which is asked for lines only where a head, a chunk's size or a trailer is due.

    What it answers depends on the bytes alone, not on the packets in which they came. Raises h11.LocalProtocolError.
    """

    def __init__(self, most_bytes: int) -> None:
        """`most_bytes`: of one head, trailer, or line with a chunk's size."""
        super().__init__()
        self._most_bytes = most_bytes

    def maybe_extract_lines(self) -> list[bytearray] | None:
        start = self._multiple_lines_search  # before it, all was looked at already, except for two bytes
        if not self._data.startswith(b"\r\n"):
            self._check(start, self._data.find(_END, max(0, start - 1)), len(_END))
        lines = super().maybe_extract_lines()
        if lines:
            _check_framing(lines)
        return lines

    def maybe_extract_next_line(self) -> bytearray | None:
        start = max(0, self._next_line_search - 1)
        self._check(start, self._data.find(b"\r\n", start), len(b"\r\n"))
        line = super().maybe_extract_next_line()
        if line is not None and not _CHUNK_SIZE.match(line):
            raise LocalProtocolError("the size of a chunk is not a hexadecimal number")
        return line

    def _check(self, start: int, found: int, length: int) -> None:
        """Raises for what is wrong from `start` to the end of the lines, which was `found`, or is not there yet: -1."""
        is_open = found < 0
        end = len(self._data) - self._data.endswith(b"\r") if is_open else found + length
        if wrong := _WRONG.search(self._data, start, end):
            what = (wrong.lastgroup or "").replace("_", " ")
            raise LocalProtocolError(f"found a {what}; lines end with CR LF")
        if end > self._most_bytes:
            raise LocalProtocolError(f"its lines have more than {self._most_bytes:,} bytes")


def _check_framing(lines: list[bytearray]) -> None:
    """Of a head or a trailer. Raises h11.LocalProtocolError."""
    framing = [line for line in lines if _FRAMING.match(line)]
    if len(framing) > 1 or any(b"," in line for line in framing):
        raise LocalProtocolError("send exactly one Content-Length or Transfer-Encoding header")
    words = bytes(lines[0]).split(b" ")
    version = words[-1]
    if b":" in words[0]:  # of a trailer
        return
    if version not in (b"HTTP/1.0", b"HTTP/1.1"):
        raise LocalProtocolError("the first line does not end with HTTP/1.1 or HTTP/1.0")
    if version == b"HTTP/1.0" and any(line.lower().startswith(b"t") for line in framing):
        raise LocalProtocolError("HTTP/1.0 does not allow Transfer-Encoding")
