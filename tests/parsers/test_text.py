"""Encodings, cleaning, Markdown, reStructuredText, source code, Rich Text Format."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.core.errors import UnreadableFile
from openbook.parsers.characters import clean, decode
from openbook.parsers.formats.text import parse_markdown, parse_plain, parse_rst, parse_rtf, parse_source

from .samples import titles

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


def test_every_parser_cleans() -> None:
    for parse in (parse_plain, parse_markdown, parse_rst, parse_source):
        assert parse(b"a\x00b\r\nc\x0cd\xe2\x80\xaee", "n").text == "a b\nc\nd e"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "# One #\n\nbody\n\nTwo\n===\n\n### Three ###  \nbody\n\nFour\n----\n\n#no\n####### no\n#\n",
            [(1, "One"), (1, "Two"), (3, "Three"), (2, "Four")],
        ),
        (
            "```sh\n# no\n~~~\n# no\n```\n# yes\n~~~~\n# no\n~~~\n# no\n~~~~\n# yes\n    ```\n# no\n",
            [(1, "yes"), (1, "yes")],
        ),
        ("- item\n---\n\na | b\n--- | ---\n\nlong\nparagraph\n---\n\n---\n\n> quote\n---\n", []),
        ("# **Bold** `code` [link](http://x) {#id}\n## <a name='x'></a>C#\n", [(1, "Bold code link"), (2, "C#")]),
        ("text\n\n## Second\n", [(2, "Second")]),
        ("text", []),
        ("# " + "a" * 1_000_000, [(1, "a" * 200)]),
    ],
    ids=lambda value: str(value)[:20],
)
def test_markdown_headings(text: str, expected: list[tuple[int, str]]) -> None:
    content = parse_markdown(text.encode(), "winter memo.md")
    assert titles(content) == expected
    assert content.title == (expected[0][1] if expected else "winter memo")


def test_front_matter_gives_the_title_and_is_no_text() -> None:
    text = '---\ntitle: "Fares: 2025"\nid: fares\n---\n\n# Overview\n'
    content = parse_markdown(text.encode(), "a.md")
    assert (content.title, content.text, content.source_chars) == ("Fares: 2025", "# Overview\n", len(text))
    assert titles(content) == [(1, "Overview")]
    assert dict(content.metadata) == {"title": "Fares: 2025", "id": "fares"}
    alone = "---\ntitle: Fares\n---\n"
    content = parse_markdown(alone.encode(), "a.md")
    assert (content.text, content.title) == (alone, "Fares")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "=====\nTitle\n=====\n\nOne\n===\n\ntext\n\nTwo\n---\n\n.. _label:\n\nThree\n=====\n\nFour ``x``\n~~~~~~~~~~\n",
            [(1, "Title"), (2, "One"), (3, "Two"), (2, "Three"), (4, "Four x")],
        ),
        (
            "Text\n\n====  ====\na     b\n====  ====\n\n----------\n\nA paragraph of\ntwo lines\n---------\n\n+---+\n| a |\n+---+\n",
            [],
        ),
    ],
)
def test_rst_headings(text: str, expected: list[tuple[int, str]]) -> None:
    content = parse_rst(text.encode(), "a.rst")
    assert [(mark.level, mark.title) for mark in content.headings] == expected
    assert content.title == (expected[0][1] if expected else "a")


def test_underlined_lines_in_plain_text() -> None:
    text = (
        "1. Scope\n********\n\nbody\n\n1.1. Rules\n==========\n\nname  age\n---------------\n\nshort\n--------------\n"
    )
    content = parse_plain(text.encode(), "policy.txt")
    assert titles(content) == [(1, "1. Scope"), (2, "1.1. Rules")]
    assert content.title == "policy"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "class A:\n    async def b(self):\n        pass\ndef c(): x",
            [(1, "class A"), (2, "async def b"), (1, "def c")],
        ),
        ("export class A<T> {\n  go() {}\n}\nfunction g() {}\n", [(1, "export class A"), (1, "function g")]),
        ("impl Go for A {\n    pub async fn go(&self) {}\n}\n", [(1, "impl Go"), (2, "pub async fn go")]),
        ("package a\ntype S struct {\n}\nfunc go(x int) {\n}\n", [(1, "type S"), (1, "func go")]),
        ("go() {\n  ls\n}\n", [(1, "go() {")]),
        ("CREATE TABLE users (id INT);\n", [(1, "CREATE TABLE users")]),
        ("[project]\nname = 1\n[[tool.a]]\n", [(1, "[project]"), (1, "[[tool.a]]")]),
        ("\\section{Fares}\ntext\n", [(1, "\\section{Fares}")]),
        ("a=b\n# def no\nx = [1]\n", []),
    ],
)
def test_definitions_are_headings(text: str, expected: list[tuple[int, str]]) -> None:
    content = parse_source(text.encode(), "a.x")
    assert (content.text, content.title) == (text, "a")
    assert titles(content) == expected


def test_rich_text() -> None:
    body = (
        r"{\rtf1\ansi\ansicpg1252{\fonttbl{\f0 Arial;}}{\stylesheet{\s1 heading 1;}}{\info{\title T}}{\*\unknown junk}"
        r"Scope\par 20 \'80, na\'efve, \u8364?\par\trowd\intbl to\cell fare\cell\row End.}"
    )
    content = parse_rtf(body.encode(), "memo.rtf")
    assert content.text == "Scope\n20 €, naïve, €\nto | fare\nEnd."
    assert content.title == "memo"


TOKENS = ["{", "}", "\\", "'", "*", "e9", "\\par ", "\\u8 ", "\\bin3 ", "\\f9", "x", "\\cell "]


@given(st.lists(st.sampled_from(TOKENS)))
def test_any_rich_text_is_text_or_a_reason(tokens: list[str]) -> None:
    with contextlib.suppress(UnreadableFile):
        parse_rtf(f"{{\\rtf1 {''.join(tokens)}".encode(), "a.rtf")
