"""Bytes to text when nobody says which encoding it is."""

from __future__ import annotations

import codecs
import re

from openbook.errors import UnreadableFile

_SAMPLE_BYTES = 256_000

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
_STRAY = 2  # so many are no proof, in however short a file

# Left to choose among all codecs, the detector takes exotic ones (mac_latin2, cp1006) for short Western texts.
_CANDIDATES = [
    "cp1252", "shift_jis", "cp932", "euc_jp", "gb18030", "big5", "euc_kr", "koi8_r", "cp1251", "cp1250", "iso8859_2",
    "cp1253", "iso8859_7", "cp1254", "cp1255", "cp1256",
]  # fmt: skip
_EASTERN_LATIN = {"cp1250", "iso8859_2", "cp1254"}
_EASTERN_LANGUAGES = {"Czech", "Slovak", "Polish", "Hungarian", "Romanian", "Croatian", "Slovene", "Turkish"}


def decode(data: bytes, declared: str = "") -> str:
    """The text of `data`: by its mark, else as UTF-8, else as `declared`, else by what its bytes look like.

    Raises:
        UnreadableFile: when the bytes are not text.

    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    wide = _unmarked_utf16(data[:4096])
    if wide:
        return data.decode(wide, "replace")
    if _is_binary(data[:8192]) or _is_binary(data):
        raise UnreadableFile("looks like binary data")
    text = _as_utf8(data)
    if text is None and declared:
        text = _as_declared(data, declared)
    return text if text is not None else data.decode(_guess(data), "replace")


def _unmarked_utf16(head: bytes) -> str:
    """Latin text in UTF-16 has a zero in every second byte; some Windows programs leave the mark out."""
    pairs = len(head) // 2
    if pairs < 8:
        return ""
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if odd > 0.7 * pairs and even < 0.05 * pairs:
        return "utf-16-le"
    return "utf-16-be" if even > 0.7 * pairs and odd < 0.05 * pairs else ""


def _is_binary(data: bytes) -> bool:
    return len(data) - len(data.translate(None, _CONTROL)) > _BINARY_SHARE * len(data) + _STRAY


def _as_utf8(data: bytes) -> str | None:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("utf-8", "replace")
    # One damaged character must not turn a whole UTF-8 file into another alphabet.
    wide = len(text) - len(text.encode("ascii", "ignore"))
    return text if 20 * text.count("\ufffd") <= wide else None


def _as_declared(data: bytes, declared: str) -> str | None:
    # What calls itself ISO-8859-1 or GB2312 on the web is the larger Windows set (WHATWG Encoding Standard).
    wider = {"iso8859-1": "cp1252", "ascii": "cp1252", "gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932"}
    try:
        codec = codecs.lookup(declared)
        return data.decode(wider.get(codec.name, codec.name)) if codec.name not in {"utf-8", "utf-7"} else None
    except (LookupError, ValueError):
        return None


def _guess(data: bytes) -> str:
    from charset_normalizer import from_bytes

    sample = _telling_part(data)
    best = from_bytes(sample, cp_isolation=_CANDIDATES).best()
    if best is None:
        return "cp1252"
    # Western letters stand at the same codes in these tables, so only a language found tells them apart.
    if best.encoding in _EASTERN_LATIN and best.language not in _EASTERN_LANGUAGES:
        return "cp1252"
    return best.encoding


def _telling_part(data: bytes) -> bytes:
    """A bounded part that begins in the line of the first byte outside ASCII."""
    first = re.search(rb"[\x80-\xff]", data)
    at = first.start() if first else 0
    start = max(data.rfind(b"\n", 0, at) + 1, at - 1000, 0)
    return data[start : start + _SAMPLE_BYTES]
