"""Bytes to text when nobody says which encoding it is.

Marks and UTF-8 decide first. A legacy encoding is found by reading the bytes in each one that is in use and asking
whether the letters are those of a language written in it: `Ã¼` and `³` are in no one's alphabet.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache

from openbook.errors import UnreadableFile

_SAMPLE_BYTES = 16_000

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
_ESCAPED_JAPANESE = re.compile(rb"\x1b\$[@B]")


def decode(data: bytes, declared: str = "") -> str:
    """The text of `data`: by its mark, else as UTF-8, else as `declared`, else by what its bytes look like.

    Raises:
        UnreadableFile: when the bytes are not text.

    """
    return decode_counted(data, declared)[0]


def decode_counted(data: bytes, declared: str = "") -> tuple[str, int]:
    """As `decode`, with the number of places that could not be decoded and now hold U+FFFD."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _replaced(data[len(mark) :], encoding)
    wide = _unmarked_wide(data[:4096])
    if wide:
        return _replaced(data, wide)
    if _is_binary(data[:8192]) or _is_binary(data):
        raise UnreadableFile("binary data, not text")
    if _ESCAPED_JAPANESE.search(data) and (text := _strictly(data, "iso2022_jp_ext")) is not None:
        return text, 0
    read = _as_utf8(data)
    if read is None and declared and (text := _as_declared(data, declared)) is not None:
        return text, 0
    return read or _replaced(data, guess_encoding(data))


def _replaced(data: bytes, encoding: str) -> tuple[str, int]:
    text = _strictly(data, encoding)
    if text is not None:
        return text, 0
    text = data.decode(encoding, "replace")
    return text, text.count("\ufffd")


def _strictly(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return None


def _unmarked_wide(head: bytes) -> str:
    """Latin text in UTF-16 has a zero in every second byte; some Windows programs leave the mark out."""
    quads = len(head) // 4
    if quads >= 4:
        zeros = [head[i : 4 * quads : 4].count(0) for i in range(4)]
        if zeros[3] == zeros[2] == quads and zeros[0] < 0.05 * quads:
            return "utf-32-le"
        if zeros[0] == zeros[1] == quads and zeros[3] < 0.05 * quads:
            return "utf-32-be"
    pairs = len(head) // 2
    if pairs < 8:
        return ""
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if odd > 0.7 * pairs and even < 0.05 * pairs:
        return "utf-16-le"
    return "utf-16-be" if even > 0.7 * pairs and odd < 0.05 * pairs else ""


def _is_binary(data: bytes) -> bool:
    return len(data) - len(data.translate(None, _CONTROL)) > _BINARY_SHARE * len(data) + _STRAY


def _as_utf8(data: bytes) -> tuple[str, int] | None:
    text = _strictly(data, "utf-8")
    if text is not None:
        return text, 0
    text = data.decode("utf-8", "replace")
    # One damaged character must not turn a whole UTF-8 file into another alphabet.
    wide, broken = len(text) - len(text.encode("ascii", "ignore")), text.count("\ufffd")
    return (text, broken) if 20 * broken <= wide else None


def _as_declared(data: bytes, declared: str) -> str | None:
    # What calls itself ISO-8859-1 or GB2312 on the web is the larger Windows set (WHATWG Encoding Standard).
    wider = {
        "iso8859-1": "cp1252", "ascii": "cp1252", "iso8859-9": "cp1254", "gb2312": "gb18030", "gbk": "gb18030",
        "shift_jis": "cp932", "euc_kr": "cp949", "tis-620": "cp874", "iso8859-11": "cp874",
    }  # fmt: skip
    try:
        codec = codecs.lookup(declared)
        return data.decode(wider.get(codec.name, codec.name)) if codec.name not in {"utf-8", "utf-7"} else None
    except (LookupError, ValueError, TypeError, AttributeError):  # codecs such as `hex` give no text
        return None


# --- legacy encodings ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Language:
    """`letters`: its own in lower case, outside ASCII. `words`: frequent ones in ASCII. `frequent`: letters that make
    up more than half of a text, of an alphabet of its own.
    """

    encodings: tuple[str, ...]
    letters: str
    words: str = ""
    frequent: str = ""


_WESTERN = ("cp1252", "mac_roman", "cp850")
_CENTRAL = ("cp1250", "iso8859_2", "cp852")
_CYRILLIC = ("cp1251", "koi8_u", "koi8_r", "cp866", "iso8859_5", "mac_cyrillic")
_RUSSIAN = "абвгдежзийклмнопрстуфхцчшщъыьэюяё"

# In the order in which they are believed when the bytes fit several equally well.
_LANGUAGES = (
    _Language(_WESTERN, "äöüß", "der die das und nicht mit"),
    _Language(_WESTERN, "éèêàçùâîôûëïœ", "le les des est pour dans"),
    _Language(_WESTERN, "áéíóúüñ", "el los las que por para"),
    _Language(_WESTERN, "ãõçáéíóúâêôà", "os uma que para com"),
    _Language(_WESTERN, "àèéìòù", "il che di della per"),
    _Language(_WESTERN, "åäöé", "och att det som inte"),
    _Language(_WESTERN, "æøåé", "og det til ikke som"),
    _Language(_WESTERN, "ëéïèóü", "het een van niet voor"),
    _Language(("cp1254",), "çğıöşüİâ", "ve bir ile olarak daha"),
    _Language(_WESTERN, "áæéíðóöúýþ", "og sem ekki fyrir var"),
    _Language(_CENTRAL, "ąćęłńóśźż", "nie jest oraz dla przez"),
    _Language(_CENTRAL, "áčďéěíňóřšťúůýž", "je ve jako nebo pro"),
    _Language(_CENTRAL, "áäčďéíľňóôšťúýž", "je ako alebo pre sa"),
    _Language(_CENTRAL, "áéíóöőúüű", "az egy nem hogy meg"),
    _Language(_CENTRAL, "ăâîşţ", "este pentru care din sau"),
    _Language(_CENTRAL, "čćđšž", "je se su za koji"),
    _Language(("cp1257",), "ąčęėįšųūž", "ir kad yra tai"),
    _Language(("cp1257",), "āčēģīķļņšūž", "un ir kas par"),
    _Language(("cp1257",), "äöõüšž", "ja ei on oli mis"),
    _Language(_CYRILLIC, _RUSSIAN, frequent="оеаинтсрвлкд"),
    _Language(_CYRILLIC, "абвгдежзийклмнопрстуфхцчшщьюяіїєґ", frequent="оаниіктрвсел"),
    _Language(_CYRILLIC, "абвгдежзиклмнопрстуфхцчшђјљњћџ", frequent="аоиенртсјук"),
    _Language(("cp1253", "iso8859_7"), "αβγδεζηθικλμνξοπρςστυφχψωάέήίόύώϊϋ", frequent="αοιετσνηυρπκ"),
    _Language(("cp1255",), "אבגדהוזחטיךכלםמןנסעףפץצקרשת", frequent="יוהלאתרמבשנםחכ"),
    _Language(("cp1256", "iso8859_6"), "ءآأؤإئابةتثجحخدذرزسشصضطظعغفقكلمنهوىيپچژگک،؟", frequent="اليمونرتبعةد"),
    _Language(("cp874",), "กขคงจชซดตถทนบปผพมยรลวสหออะาิีึืุูเแโใไ่้ั็์ำๆ", frequent="านรอกเงมยลวดทส่้ัีต"),
)
# Of each encoding of two bytes the lead bytes of its frequent characters, and the codec to find them by.
_FIRST_LEVELS = {
    "cp932": (0x88, 0x98, "cp932"),
    "euc_jp": (0xB0, 0xCF, "euc_jp"),
    "cp949": (0xB0, 0xC8, "euc_kr"),  # before Chinese, whose first level holds this range and more
    "gb18030": (0xB0, 0xD7, "gb2312"),
    "big5": (0xA4, 0xC6, "big5"),
}
_PUNCTUATION = frozenset("“”‘’‚„‹›«»–—…·•€£§©®°ºª²³½¼¾№¿¡×±\xa0\xad")
_PUNCTUATION_WORTH = 0.4
_WORD_WORTH = 0.04
_LEAST = 0.35
_RARE_WORTH = 0.5  # a letter that is not among the frequent ones of an alphabet of its own
_CAPITAL_WORTH = 0.9
_OTHER_SCRIPT = "\u0370-\u1fff"
# What text read in the wrong encoding is full of: capitals inside words, and words of two alphabets.
_ODD = re.compile(
    "(?<=[a-zß-öø-ÿа-яёα-ω])[À-ÖØ-ÞĀĂĄĆČĎĐĘĚŁŃŇŐŘŚŞŠŢŤŮŰŹŻŽА-ЯЁΑ-Ω]"
    f"|[A-Za-z](?=[{_OTHER_SCRIPT}])|[{_OTHER_SCRIPT}](?=[A-Za-z])"
)
_ASCII_WORD = re.compile(rb"(?<![a-z\x80-\xff])[a-z]{2,8}(?![a-z\x80-\xff])")
_WIDE_RUN = re.compile(r"[\u3041-\u9fff]{2}")
_KANA = 0.15  # their least share in Japanese sentences; names and addresses have none
_WIDE = re.compile(rb"[\x80-\xff]")
_LETTER = r"[^\W\d_]"
_ALONE = re.compile(rf"(?<!{_LETTER})[^\W\d_\x00-\x7f](?!{_LETTER})")  # one letter is more often a sign, misread


def guess_encoding(data: bytes) -> str:
    """The legacy encoding in which `data` reads best; cp1252 where none reads well."""
    sample = _telling_lines(data)
    best, best_score = "cp1252", _LEAST
    words = {word.decode() for word in _ASCII_WORD.findall(sample.lower())}
    # All languages in their usual encoding before any in a rare one: of two equal readings the usual one counts.
    pairs = [(rank, encoding, lang) for lang in _LANGUAGES for rank, encoding in enumerate(lang.encodings)]
    asian = _asian(sample)
    for rank, encoding, language in sorted(pairs, key=lambda pair: pair[0]):
        if asian and encoding == "cp874":
            continue  # almost any pair of bytes is Thai
        found, odd = _reading(sample, encoding)
        score = _score(found, odd, language) + _WORD_WORTH * len(words.intersection(language.words.split()))
        if score - 0.02 * rank > best_score + 1e-9:
            best, best_score = encoding, score - 0.02 * rank
    _reading.cache_clear()
    return asian[0] if asian and asian[1] > best_score else best


@cache
def _reading(sample: bytes, encoding: str) -> tuple[Counter[str], int]:
    """How often each character outside ASCII stands in `sample`, lone letters as bullets, and how often something odd."""
    text = _ALONE.sub("\u2022", sample.decode(encoding, "replace"))
    return Counter(character for character in text if character > "\x7f"), len(_ODD.findall(text))


def _score(found: Counter[str], odd: int, language: _Language) -> float:
    """The share of characters that belong to the language, less what cannot stand in any text. At most 1."""
    good = sum(count * _worth(character, language) for character, count in found.items())
    return (good - odd) / max(found.total(), 1)


def _worth(character: str, language: _Language) -> float:
    small = character.lower()
    if character in language.letters or small in language.letters:
        rare = language.frequent and small not in language.frequent
        return (_RARE_WORTH if rare else 1.0) * (1.0 if small == character else _CAPITAL_WORTH)
    if character in _PUNCTUATION:
        return _PUNCTUATION_WORTH
    return -2.0 if character == "\ufffd" or "\x80" <= character < "\xa0" else 0.0


def _asian(sample: bytes) -> tuple[str, float] | None:
    """The best of the encodings of two bytes a character, with the share of characters that are in daily use."""
    readings = [(encoding, _asian_score(sample, encoding)) for encoding in _FIRST_LEVELS]
    best = max(readings, key=lambda reading: reading[1])
    return best if best[1] > 0.6 else None


def _asian_score(sample: bytes, encoding: str) -> float:
    # Lenient only at the end, where the sample may cut a character.
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(sample)
    except UnicodeDecodeError:
        return 0.0
    characters = [character for character in text if character > "\x7f"]
    if not characters:
        return 0.0
    common = sum(_is_daily(character, encoding) for character in characters) / len(characters)
    if encoding in {"cp932", "euc_jp"}:
        kana = sum("\u3041" <= character <= "\u30fe" for character in characters) / len(characters)
        if kana < _KANA and (encoding == "euc_jp" or len(_WIDE_RUN.findall(text)) * 4 < len(characters)):
            return 0.0  # Chinese; or English, whose apostrophe and next letter make one Japanese character
    return common


def _is_daily(character: str, encoding: str) -> bool:
    """Whether a character is of the everyday part of the national set: its first level, kana, or punctuation."""
    if "\u3000" <= character <= "\u30ff" or "\uff01" <= character <= "\uff5e":
        return encoding != "cp949" or character <= "\u303f"
    low, high, codec = _FIRST_LEVELS[encoding]
    code = character.encode(codec, "ignore")
    return len(code) == 2 and low <= code[0] <= high


def _telling_lines(data: bytes) -> bytes:
    """A bounded part of `data`: the lines that hold bytes outside ASCII."""
    lines: list[bytes] = []
    size = at = 0
    while size < _SAMPLE_BYTES and (wide := _WIDE.search(data, at)):
        start = max(data.rfind(b"\n", at, wide.start()) + 1, at, wide.start() - 1_000)
        end = data.find(b"\n", wide.start(), wide.start() + 4_000) + 1
        at = end or wide.start() + 4_000
        lines.append(data[start:at])
        size += at - start
    return b"".join(lines)
