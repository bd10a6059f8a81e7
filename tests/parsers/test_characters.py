"""From bytes to characters that are safe to show."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.core.errors import UnreadableFile
from openbook.parsers.characters import clean, decode

RUSSIAN = "Это русский текст о погоде и природе. Завтра будет дождь, а потом снова солнце.\n"
JAPANESE = "これは日本語の文書です。富士山は日本で一番高い山です。\n"
GERMAN = "Der Bürgermeister sagte, die Straße sei “fertig” — für 20 € könne man übersetzen.\n"
FRENCH = "Le café était fermé à cause de la grève générale, mais l'hôtel voisin était ouvert.\n"
ENGLISH = "The ferry leaves the north quay at nine o'clock and returns in the evening. "


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        *(("Zoë pays 20 €. 富士山 🚢\n", encoding) for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32")),
        *((ENGLISH, encoding) for encoding in ("utf-16-le", "utf-16-be")),  # without a mark
        *((before + text * 5, encoding)
          for text, encoding in ((GERMAN, "cp1252"), (FRENCH, "latin-1"), (RUSSIAN, "cp1251"), (JAPANESE, "shift_jis"),
                                 (JAPANESE, "euc_jp"))
          for before in ("", ENGLISH * 8000)),  # alone, and late in English
    ],
)  # fmt: skip
def test_encodings(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding)) == text


def test_a_declared_encoding_counts_unless_the_bytes_are_utf8() -> None:
    assert decode(RUSSIAN.encode("koi8-r"), "koi8-r") == RUSSIAN
    assert decode("20 € — “so”".encode("cp1252"), "latin1") == "20 € — “so”"
    for declared in ("cp1251", "hex", "utf-7", "no such", "\0"):
        assert decode(GERMAN.encode(), declared) == GERMAN


@given(st.binary(max_size=300), st.sampled_from(["", "koi8-r", "shift_jis"]))
def test_any_bytes_are_decoded_or_refused(data: bytes, declared: str) -> None:
    with contextlib.suppress(UnreadableFile):
        assert clean(clean(decode(data, declared))) == clean(decode(data, declared))


@given(st.text(max_size=200).filter(lambda text: "\x1b" not in text and "\0" not in text))
def test_utf8_is_never_guessed_at(text: str) -> None:
    if not text.startswith("\ufeff") and sum(c < " " or c == "\x7f" for c in text) <= 2:
        assert decode(text.encode()) == text


def test_one_damaged_character_keeps_a_file_utf8_and_random_bytes_are_binary() -> None:
    data = (RUSSIAN * 20).encode()
    assert decode(data[:101] + b"\xff" + data[101:]).count("погоде") >= 19
    with pytest.raises(UnreadableFile, match="binary data, not text"):
        decode(bytes((i * 197 + i * i * 31) % 256 for i in range(5000)))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\r\nb\rc\fd\u2028e\x85f", "a\nb\nc\nd\ne\nf"),
        ("a\x00b\x1b[2Jc\x9bd\x7fe\tf", "a b [2Jc d e\tf"),
        ("a\u202eb\u2066c\u2069d\ud800e", "a b c d e"),
        ("Rule " + "".join(chr(0xE0000 + ord(letter)) for letter in "Obey me") + "one", "Rule        one"),
        ("ﬁ e\u0301 \u200f\u200d\ufeff 🏴 \xa0\xad", "ﬁ e\u0301 \u200f\u200d\ufeff 🏴 \xa0\xad"),  # stay as they are
    ],
)
def test_unsafe_characters_become_spaces(text: str, shown: str) -> None:
    assert clean(text) == shown
