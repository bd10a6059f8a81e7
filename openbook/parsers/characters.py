"""From bytes to characters that are safe to show, store and put into a prompt.

Documents are untrusted. Control characters can move a terminal's cursor, bidirectional overrides reorder what a person
sees, tag characters spell instructions that only a model reads, and lone surrogates cannot be stored.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import PurePath

from openbook.core.errors import UnreadableFile
from openbook.parsers.files import NOT_TEXT

MAX_TITLE_CHARS = 200

_NEWLINE = re.compile("\r\n?|[\f\x85\u2028\u2029]")
_UNSAFE = re.compile(
    "[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff\U000e0000-\U000e007f]"
)
# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Text may hold tab, newlines, form feed, backspace and escape (logs of terminals); anything else below space is rare.
_CONTROL = bytes(set(range(0x20)) - set(b"\t\n\v\f\r\b\x1b")) + b"\x7f"
_BINARY_SHARE = 0.04  # random bytes hold 10 %
_STRAY = 2  # a few control characters prove nothing, in however short a file
# The web's ISO-8859-1 is the larger Windows set (WHATWG Encoding Standard).
_WIDER = {"iso8859-1": "cp1252", "ascii": "cp1252", "gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932"}
_SAMPLE_BYTES = 64_000  # for guessing an encoding


def clean(text: str) -> str:
    """Line feeds as the only newlines, and a space for each unsafe character. Idempotent."""
    return _UNSAFE.sub(" ", _NEWLINE.sub("\n", text))


def one_line(text: str) -> str:
    """`text` as a title: cleaned, white space collapsed, cut to `MAX_TITLE_CHARS`."""
    return " ".join(clean(text[: 8 * MAX_TITLE_CHARS]).split())[:MAX_TITLE_CHARS].rstrip()


def lines_of(text: str, start: int = 0, end: int | None = None) -> Iterator[tuple[int, str]]:
    """The lines of `text[start:end]`, each with its offset in `text`."""
    for line in text[start:end].split("\n"):
        yield start, line
        start += len(line) + 1


def title_from_name(name: str) -> str:
    return one_line(PurePath(name).stem)


def decode(data: bytes, declared: str = "") -> str:
    """Decode by the byte order mark, else as UTF-8, else as `declared`, else by a guess.

    Undecodable bytes become U+FFFD. Raises UnreadableFile for bytes that are not text.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    if wide := _wide_encoding(data[:4096]):
        return data.decode(wide, "replace")
    if _is_binary(data[:8192]) or _is_binary(data):
        raise UnreadableFile(NOT_TEXT)
    if b"\x1b$" in data and (text := _as_declared(data, declared)):  # Japanese in seven bits
        return text
    text = data.decode("utf-8", "replace")
    # One damaged character must not turn a whole UTF-8 file into another alphabet.
    if 20 * text.count("\ufffd") <= len(text) - len(text.encode("ascii", "ignore")):
        return text
    return _as_declared(data, declared) or data.decode(_guessed_encoding(data), "replace")


def _wide_encoding(head: bytes) -> str:
    """Latin text in UTF-16 without a mark has a zero in every second byte."""
    pairs = len(head) // 2
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if pairs >= 8 and max(even, odd) > 0.7 * pairs and min(even, odd) < 0.05 * pairs:
        return "utf-16-le" if odd > even else "utf-16-be"
    return ""


def _is_binary(data: bytes) -> bool:
    return len(data) - len(data.translate(None, _CONTROL)) > _BINARY_SHARE * len(data) + _STRAY


def _as_declared(data: bytes, declared: str) -> str:
    try:
        codec = codecs.lookup(declared)
        return data.decode(_WIDER.get(codec.name, codec.name)) if codec.name not in {"utf-8", "utf-7"} else ""
    except (LookupError, ValueError, TypeError, AttributeError):  # codecs such as `hex` give no text
        return ""


def _guessed_encoding(data: bytes) -> str:
    from charset_normalizer import from_bytes  # late: UTF-8 never needs it

    first = re.search(rb"[\x80-\xff]", data)  # the sample must hold non-ASCII bytes, near its beginning
    begin = max(first.start() - 200, 0) if first else 0
    best = from_bytes(data[begin : begin + _SAMPLE_BYTES]).best()
    found = best.encoding if best else "cp1252"
    return {"latin_1": "cp1252", "ascii": "cp1252"}.get(found, found)
