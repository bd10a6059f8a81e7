from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.errors import UnreadableFile
from openbook.parsers.rtf import read_rtf

FONTS = r"{\fonttbl{\f0\fcharset0 Arial;}{\f1\fcharset204 Times;}{\f2\fcharset128 Gothic;}{\f3\fcharset2 Symbol;}}"
STYLES = r"{\stylesheet{\s0 Normal;}{\s1\outlinelevel0 heading 1;}{\s2\outlinelevel1 heading 2;}}"


def rtf(body: str) -> bytes:
    return rf"{{\rtf1\ansi\ansicpg1252\deff0{FONTS}{STYLES}{body}}}".encode("latin-1")


def text_of(body: str) -> str:
    return read_rtf(rtf(body), "a.rtf").text


def escaped(text: str) -> str:
    """As word processors write it: every unit of UTF-16 as a signed number, with one byte for older readers."""
    units = text.encode("utf-16-le")
    numbers = (int.from_bytes(units[i : i + 2], "little", signed=True) for i in range(0, len(units), 2))
    return "".join(rf"\u{number}?" for number in numbers)


def test_paragraphs_and_headings_by_style_or_level() -> None:
    content = read_rtf(
        rtf(r"\pard\s1 Scope\par\pard\plain One {\b two}.\par\pard\outlinelevel2 Deep\par\pard End"), "a.rtf"
    )
    assert content.text == "Scope\n\nOne two.\n\nDeep\n\nEnd"
    assert [(mark.level, mark.title) for mark in content.headings] == [(1, "Scope"), (3, "Deep")]
    assert content.title == "Scope"
    assert content.source_chars == len("ScopeOne two.DeepEnd")


def test_characters() -> None:
    assert (
        text_of(r"20 \'80, na\'efve, \u8364?, a\~b \{c\} \\ d\_e\emdash\tab f\line g")
        == "20 €, naïve, €, a\xa0b {c} \\ d-e—\tf\ng"
    )
    assert text_of(r"{\f1 \'cf\'f0\'e8\'e2\'e5\'f2} {\f2 \'93\'fa\'96\'7b}") == "Привет 日本"
    assert text_of(r"\uc2 \u8364ab!\uc0 \u8364!") == "€!€!"
    assert text_of("one\r\ntwo") == "onetwo"


@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf", "Zl", "Zp", "Zs", "Co", "Cn"]), min_size=1, max_size=30)
)
def test_any_text_survives(text: str) -> None:
    assert text_of(escaped(text)) == text.strip()


def test_what_is_no_text_of_the_body_is_left_out() -> None:
    body = (
        r"{\header Head\par}{\pict\bin5 }}}}}}{\*\unknown junk{\b deep}}{\field{\*\fldinst HYPERLINK x}{\fldrslt link}}"
        r"{\v hidden}{\deleted gone}\v also\v0 .{\*\shpinst{\sp{\sn a}{\sv b}}{\shptxt boxed}}"
    )
    assert text_of(body).replace("boxed", "") == "link."


def test_lists_tables_and_notes() -> None:
    body = (
        r"{\listtext 1.\tab}one\par{\listtext\'b7\tab}two\par"
        r"\trowd\pard\intbl to\cell fare\cell\row\pard\intbl Kil\par verry\cell 8.90\cell\row"
        r"\pard Text{\footnote See {\i law}.\par} on."
    )
    content = read_rtf(rtf(body), "a.rtf")
    assert content.text == "1. one\n- two\n\nto | fare\nKil verry | 8.90\n\nText[1] on.\n\nNotes\n\n[1] See law."
    assert [mark.title for mark in content.headings] == ["Notes"]


def test_information() -> None:
    info = (
        r"{\info{\title Winter \'e9t\'e9}{\author Ada}{\creatim\yr2020\mo1\dy2}{\revtim\yr2024\mo2\dy3\hr4\min5}}Text."
    )
    content = read_rtf(rtf(info), "a.rtf")
    assert content.text == "Text."
    assert content.title == "Winter été"
    assert content.metadata == (("author", "Ada"), ("date", "2024-02-03T04:05:00"))
    assert read_rtf(rtf("Text."), "memo.rtf").title == "memo"


def test_not_rtf() -> None:
    for data in (b"", b"text", b"{\\html1 x}"):
        with pytest.raises(UnreadableFile, match="not an RTF document"):
            read_rtf(data, "a.rtf")


def test_depth_and_length_are_bounded() -> None:
    assert text_of("{" * 50_000 + "deep" + "}" * 50_000) == "deep"
    with pytest.raises(UnreadableFile, match="nested too deep"):
        text_of("{" * 200_000)
    assert text_of(r"One.\par\bin9999999999 x") == "One."
    assert text_of(r"\u99999999?\f999999999 a\uc9999 b") == text_of(r"\u99999999?ab")


def test_a_cut_off_file_is_read_as_far_as_it_goes() -> None:
    assert read_rtf(rtf(r"One\par Two \'e9 three")[:-8], "a.rtf").text.startswith("One\n\nTwo")


@given(
    st.lists(
        st.sampled_from(
            ["{", "}", "\\", "'", "*", "e9", r"\par ", r"\cell ", r"\row ", r"\u8 ", r"\footnote ", r"\bin3 ", "x"]
        )
    )
)
def test_any_tokens_are_text_or_a_reason(tokens: list[str]) -> None:
    with contextlib.suppress(UnreadableFile):
        read_rtf(rtf("".join(tokens)), "a.rtf")
