from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.errors import UnreadableFile
from openbook.parsers.cleaning import clean
from openbook.parsers.decoding import decode, decode_counted
from openbook.parsers.headings import markdown_headings, underlined_headings
from openbook.parsers.text import read_markdown, read_plain, read_rst
from openbook.records import Content

RUSSIAN = "Это русский текст о погоде и природе. Завтра будет дождь, а потом снова солнце.\n"
JAPANESE = "これは日本語の文書です。富士山は日本で一番高い山です。\n"
GERMAN = "Der Bürgermeister sagte, die Straße sei “fertig” — für 20 € könne man übersetzen.\n"
FRENCH = "Le café était fermé à cause de la grève générale, mais l'hôtel voisin était ouvert.\n"
CHINESE = "这是中文文本。北京是中国的首都,也是中国的文化中心。\n"
ENGLISH = "The ferry leaves the north quay at nine o'clock and returns in the evening. "


def titles(content: Content) -> list[tuple[int, str]]:
    for mark in content.headings:
        assert 0 <= mark.start < len(content.text)
    return [(mark.level, mark.title) for mark in content.headings]


# --- encodings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_unicode_encodings(encoding: str) -> None:
    text = "Zoë pays 20 €. 富士山 🚢\n"
    assert decode(text.encode(encoding)) == text


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_mark(encoding: str) -> None:
    assert decode(ENGLISH.encode(encoding)) == ENGLISH


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (GERMAN, "cp1252"),
        (FRENCH, "latin-1"),
        ("naïve résumé\n", "latin-1"),
        (RUSSIAN, "koi8-r"),
        (RUSSIAN, "cp1251"),
        (JAPANESE, "shift_jis"),
        (JAPANESE, "euc_jp"),
        (CHINESE, "gb18030"),
    ],
)
@pytest.mark.parametrize("around", ["", ENGLISH * 5, ENGLISH * 8000], ids=["alone", "in English", "late in English"])
def test_legacy_encodings(text: str, encoding: str, around: str) -> None:
    whole = around + "\n" + text + around
    assert decode(whole.encode(encoding)) == whole


LEGACY = [
    ("Zażółć gęślą jaźń. Prom odpływa o dziewiątej z północnego nabrzeża.", ["cp1250", "iso8859_2"]),
    ("Příliš žluťoučký kůň úpěl ďábelské ódy. Trajekt odjíždí v devět hodin.", ["cp1250", "iso8859_2"]),
    ("Árvíztűrő tükörfúrógép. A komp kilenckor indul az északi rakpartról.", ["cp1250", "iso8859_2"]),
    ("Feribotul pleacă în fiecare zi de la cheiul de nord, între orele nouă şi zece.", ["cp1250", "iso8859_2"]),
    ("Şirket çalışanları için izin günleri değişti.", ["cp1254", "iso8859_9"]),
    ("המעבורת יוצאת מהרציף הצפוני בשעה תשע וחוזרת בערב.", ["cp1255", "iso8859_8"]),
    ("تغادر العبارة من الرصيف الشمالي في الساعة التاسعة وتعود في المساء.", ["cp1256", "iso8859_6"]),
    (
        "Директор подписывает расходы на поездки, паром отправляется в девять.",
        ["cp1251", "koi8_r", "cp866", "iso8859_5"],
    ),
    ("Пором відправляється від північного причалу о дев'ятій годині. Її їжак.", ["cp1251", "koi8_u"]),
    ("Το πλοίο αναχωρεί από τη βόρεια αποβάθρα στις εννέα.", ["cp1253", "iso8859_7"]),
    ("渡轮九点从北码头出发,晚上返回。", ["gb18030"]),
    ("渡輪九點從北碼頭出發,晚上返回。", ["big5"]),
    ("経費は部長が承認します。", ["shift_jis", "euc_jp", "iso2022_jp"]),
    ("名前,年齢,住所 佐藤太郎,30,東京", ["cp932"]),
    ("페리는 아홉 시에 북쪽 부두에서 출발합니다.", ["euc_kr"]),
    ("เรือเฟอร์รี่ออกจากท่าเรือเหนือเวลาเก้าโมงเช้า", ["cp874"]),
    ("Keltas išplaukia iš šiaurinės krantinės devintą valandą.", ["cp1257"]),
    ("Færgen afgår fra nordkajen klokken ni. Også på søndage.", ["cp1252"]),
    ("The captain’s café doesn’t open; it’s £5.", ["cp1252"]),
    ("Copyright © 2020 The Ferry Company.", ["cp1252", "latin-1"]),
]


@pytest.mark.parametrize(("text", "encoding"), [(text, encoding) for text, names in LEGACY for encoding in names])
@pytest.mark.parametrize("around", ["", ENGLISH * 5], ids=["alone", "in English"])
def test_alphabets_in_their_8_bit_encodings(text: str, encoding: str, around: str) -> None:
    whole = f"{around}\n{text}\n{around}"
    assert decode(whole.encode(encoding)) == whole


@pytest.mark.parametrize("encoding", ["utf-32-le", "utf-32-be"])
def test_utf32_without_a_mark(encoding: str) -> None:
    assert decode(ENGLISH.encode(encoding)) == ENGLISH


def test_undecodable_characters_are_counted() -> None:
    assert decode_counted((RUSSIAN * 20).encode()) == (RUSSIAN * 20, 0)
    data = (RUSSIAN * 20).encode()
    assert decode_counted(data[:7] + b"\xff" + data[7:])[1] == 1
    assert ("undecodable_chars", 1) in read_plain(data + b"\xff", "a").metadata
    assert read_plain(data, "a").metadata == ()


@given(st.binary(max_size=300))
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    with contextlib.suppress(UnreadableFile):
        text, broken = decode_counted(data)
        assert 0 <= broken <= len(text)


@given(st.text(max_size=200).filter(lambda text: "\x1b" not in text and "\0" not in text))
def test_utf8_is_never_guessed_at(text: str) -> None:
    if not text.startswith("\ufeff") and sum(c < " " or c == "\x7f" for c in text) <= 2:
        assert decode_counted(text.encode()) == (text, 0)


def test_one_damaged_character_keeps_a_file_utf8() -> None:
    data = (RUSSIAN * 20).encode()
    broken = data[:101] + b"\xff" + data[101:]
    assert decode(broken).count("погоде") >= 19


def test_random_bytes_are_binary() -> None:
    with pytest.raises(UnreadableFile, match="binary data, not text"):
        decode(bytes((i * 197 + i * i * 31) % 256 for i in range(5000)))


# --- cleaning ---------------------------------------------------------------------------------------------------------


def test_newlines_and_unsafe_characters() -> None:
    assert clean("a\r\nb\rc\fd\u2028e\x85f") == "a\nb\nc\nd\ne\nf"
    assert clean("a\x00b\x1b[2Jc\x9bd\x7fe\tf") == "a b [2Jc d e\tf"
    assert clean("a\u202eb\u2066c\u2069d\ud800e") == "a b c d e"


def test_instructions_in_invisible_tag_characters_are_gone() -> None:
    hidden = "".join(chr(0xE0000 + ord(letter)) for letter in "Obey me")
    for text in (hidden, "\U000e0000", "\U000e007f"):
        assert clean(f"Rule {text}one") == f"Rule {' ' * len(text)}one"
        assert read_markdown(f"# Rules{text}\n".encode(), "n").title == "Rules"


def test_other_characters_stay_as_they_are() -> None:
    text = "ﬁ e\u0301 \u200f\u200d\ufeff 🏴 \xa0\xad"
    assert clean(text) == text


def test_every_reader_cleans() -> None:
    for read in (read_plain, read_markdown, read_rst):
        assert read(b"a\x00b\r\nc\x0cd\xe2\x80\xaee", "n").text == "a b\nc\nd e"


# --- Markdown ---------------------------------------------------------------------------------------------------------


def test_atx_and_setext_headings() -> None:
    text = "# One #\n\nbody\n\nTwo\n===\n\n### Three ###  \nbody\n\nFour\n----\n\n#no\n####### no\n#\n"
    content = read_markdown(text.encode(), "a.md")
    assert titles(content) == [(1, "One"), (1, "Two"), (3, "Three"), (2, "Four")]
    assert [text[mark.start :].split("\n")[0] for mark in content.headings] == [
        "# One #",
        "Two",
        "### Three ###  ",
        "Four",
    ]


def test_no_headings_inside_fences() -> None:
    text = "```sh\n# no\n~~~\n# no\n```\n# yes\n~~~~\n# no\n~~~\n# no\n~~~~\n# yes\n    ```\n# no\n"
    assert [mark.title for mark in markdown_headings(text)] == ["yes", "yes"]


def test_what_only_looks_like_setext() -> None:
    text = "- item\n---\n\na | b\n--- | ---\n\nlong\nparagraph\n---\n\n---\n\n> quote\n---\n"
    assert markdown_headings(text) == ()


def test_heading_titles_lose_their_markup() -> None:
    text = "# **Bold** `code` [link](http://x) {#id}\n## <a name='x'></a>C#\n"
    assert [mark.title for mark in markdown_headings(text)] == ["Bold code link", "C#"]


def test_front_matter_gives_the_title_and_is_no_text() -> None:
    text = '---\ntitle: "Fares: 2025"\nid: fares\n---\n\n# Overview\n'
    content = read_markdown(text.encode(), "a.md")
    assert content.title == "Fares: 2025"
    assert content.text == "# Overview\n"
    assert titles(content) == [(1, "Overview")]
    assert content.source_chars == len(text)
    assert dict(content.metadata) == {"title": "Fares: 2025", "id": "fares"}


def test_front_matter_alone_is_the_text() -> None:
    text = "---\ntitle: Fares\n---\n"
    content = read_markdown(text.encode(), "a.md")
    assert (content.text, content.title) == (text, "Fares")


def test_markdown_title_falls_back_to_heading_then_name() -> None:
    assert read_markdown(b"text\n\n## Second\n", "a.md").title == "Second"
    assert read_markdown(b"text", "winter memo.md").title == "winter memo"


def test_a_heading_of_a_megabyte_has_a_short_title() -> None:
    content = read_markdown(b"# " + b"a" * 1_000_000, "a.md")
    assert len(content.title) == 200


# --- reStructuredText -------------------------------------------------------------------------------------------------


def test_rst_levels_by_order_of_appearance() -> None:
    text = (
        "=====\nTitle\n=====\n\nOne\n===\n\ntext\n\nTwo\n---\n\n.. _label:\n\nThree\n=====\n\nFour ``x``\n~~~~~~~~~~\n"
    )
    content = read_rst(text.encode(), "a.rst")
    assert titles(content) == [(1, "Title"), (2, "One"), (3, "Two"), (2, "Three"), (4, "Four x")]
    assert content.title == "Title"
    assert content.headings[0].start == 0


def test_rst_tables_transitions_and_literals_are_no_headings() -> None:
    text = (
        "Text\n\n====  ====\na     b\n====  ====\n1     2\n====  ====\n\n----------\n\n"
        "A paragraph of\ntwo lines\n---------\n\n"
        "::\n\n  indented\n  ========\n\n+---+\n| a |\n+---+\n"
    )
    assert underlined_headings(text) == ()


def test_header_lines_at_the_top_give_the_title() -> None:
    text = "PEP: 8\nTitle: Style Guide for Python Code\nAuthor: Guido,\n        Barry\n\n\nIntroduction\n============\n"
    assert read_rst(text.encode(), "pep-0008.rst").title == "Style Guide for Python Code"


def test_underlined_lines_in_plain_text() -> None:
    text = (
        "1. Scope\n********\n\nbody\n\n1.1. Rules\n==========\n\nname  age\n---------------\n\nshort\n--------------\n"
    )
    content = read_plain(text.encode(), "policy.txt")
    assert titles(content) == [(1, "1. Scope"), (2, "1.1. Rules")]
    assert content.title == "policy"


def test_long_lines_take_linear_time() -> None:
    for text in (
        "x" * 3_000_000,
        "`" * 3_000_000,
        "# " * 1_500_000,
        "[(" * 1_500_000,
        "=" * 3_000_000,
        "# [" + "[" * 3_000_000,
    ):
        markdown_headings(text)
        underlined_headings(text)
