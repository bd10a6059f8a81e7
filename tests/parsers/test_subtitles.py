from __future__ import annotations

import contextlib

import pytest

from openbook.errors import UnreadableFile
from openbook.parsers.subtitles import read_subtitles

VTT = """WEBVTT - Harbour talk

NOTE not said

STYLE
::cue { color: red }

1
00:01.000 --> 00:03.000 align:start
<v.loud Ada>The ferry <i>leaves</i>

00:03.000 --> 00:05.000
<v Ada>at nine &amp; returns.</v>

01:01:05.000 --> 01:01:07.000
<v Bob>Thank <00:00:05.500>you.
"""


def test_paragraphs_by_speaker_with_their_time() -> None:
    content = read_subtitles(VTT.encode(), "a.vtt")
    assert content.text == "[0:01] Ada: The ferry leaves at nine & returns.\n\n[1:01:05] Bob: Thank you.\n"
    assert content.title == "Harbour talk"
    assert content.source_chars == len(VTT)


def test_subrip() -> None:
    text = "\ufeff1\r\n00:00:01,000 --> 00:00:03,500\r\n{\\an8}<b>The ferry</b>\r\nleaves.\r\n\r\n2\r\n00:00:10,000 --> 00:00:12,000\r\nAt nine.\r\n"
    content = read_subtitles(text.encode(), "talk.srt")
    assert content.text == "[0:01] The ferry leaves.\n\n[0:10] At nine.\n"
    assert (content.title, content.media_type) == ("talk", "application/x-subrip")


def test_long_talks_break_at_sentences() -> None:
    cues = [
        f"{i // 60:02}:{i % 60:02}.000 --> {i // 60:02}:{i % 60:02}.900\nThis is the sentence number {i}.\n"
        for i in range(100)
    ]
    paragraphs = read_subtitles(("WEBVTT\n\n" + "\n".join(cues)).encode(), "a.vtt").text.strip().split("\n\n")
    assert len(paragraphs) > 4
    assert all(len(paragraph) < 900 and paragraph.endswith(".") for paragraph in paragraphs)


def test_a_line_that_is_said_twice_in_live_captions_comes_once() -> None:
    text = "WEBVTT\n\n00:01.000 --> 00:02.000\nNine.\n\n00:02.000 --> 00:03.000\nNine.\n"
    assert read_subtitles(text.encode(), "a.vtt").text == "[0:01] Nine.\n"


@pytest.mark.parametrize("text", ["WEBVTT\n", "words only\n", "00:99 --> x\n", "1\n00:00:01,000 --> 00:00:02,000\n\n"])
def test_no_cues(text: str) -> None:
    with pytest.raises(UnreadableFile, match="subtitles without any text"):
        read_subtitles(text.encode(), "a.vtt")


def test_hostile_lines_take_linear_time() -> None:
    for text in ("0" * 1_000_000, "<v " * 300_000, "00:00.000 --> 00:01.000\n" + "<a" * 500_000, "\n \n" * 300_000):
        with contextlib.suppress(UnreadableFile):
            read_subtitles(text.encode(), "a.vtt")
