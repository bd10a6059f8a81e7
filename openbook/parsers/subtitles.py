"""WebVTT and SubRip: what is said, in paragraphs that begin with their time, `[1:05]` or `[1:01:05]`."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass

from openbook.errors import UnreadableFile
from openbook.parsers.cleaning import one_line, title_from_name
from openbook.parsers.text import read_text
from openbook.records import Content

_CLOCK = r"(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
_TIMES = re.compile(rf"[ \t]*{_CLOCK}[ \t]*-->[ \t]*{_CLOCK}(?:[ \t].*)?")
_VOICE = re.compile(r"<v[.\w-]*[ \t]+([^<>]{1,100})>")
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,200}>|<\d[\d:.]{0,20}>|\{\\[^{}]{0,50}\}")
_LONG_CHARS = 400  # then a paragraph ends with its sentence
_LONGEST_CHARS = 800
_PAUSE_S = 3.0


@dataclass(frozen=True, slots=True)
class _Cue:
    start_s: float
    end_s: float
    speaker: str
    text: str


def read_subtitles(data: bytes, name: str) -> Content:
    text, damage = read_text(data)
    cues = list(_cues(text))
    if not cues:
        raise UnreadableFile("subtitles without any text")
    paragraphs = [_written(group) for group in _grouped(cues)]
    media_type = "text/vtt" if text.lstrip("\ufeff").startswith("WEBVTT") else "application/x-subrip"
    written = "\n\n".join(paragraphs) + "\n"
    return Content(written, media_type, _title(text) or title_from_name(name), source_chars=len(text), metadata=damage)


def _title(text: str) -> str:
    first = text.lstrip("\ufeff").split("\n", 1)[0]
    return one_line(first[6:].strip(" \t-")) if first.startswith("WEBVTT") else ""


def _cues(text: str) -> Iterator[_Cue]:
    """Each cue is a line of times and what follows it up to a blank line."""
    for block in re.split(r"\n[ \t]*\n", text):
        lines = block.split("\n")
        found = next(((i, times) for i, line in enumerate(lines[:3]) if (times := _TIMES.fullmatch(line))), None)
        if found is None:
            continue  # a header, a note or a style
        at, times = found
        body = "\n".join(lines[at + 1 :])
        voice = _VOICE.search(body)
        said = " ".join(html.unescape(_TAG.sub("", body)).split())
        if said:
            start_s, end_s = _seconds(*times.group(1, 2, 3, 4)), _seconds(*times.group(5, 6, 7, 8))
            yield _Cue(start_s, end_s, one_line(html.unescape(voice[1])) if voice else "", said)


def _seconds(hours: str | None, minutes: str, seconds: str, fraction: str) -> float:
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + int(fraction.ljust(3, "0")) / 1000


def _grouped(cues: list[_Cue]) -> Iterator[list[_Cue]]:
    """Paragraphs: a new one for another speaker, after a pause, and where a sentence ends in a long one."""
    group: list[_Cue] = []
    size = 0
    for cue in cues:
        if group:
            last = group[-1]
            if cue.text == last.text and cue.speaker == last.speaker:
                continue  # live captions say each line twice
            long = size > _LONGEST_CHARS or (size > _LONG_CHARS and last.text.endswith((".", "!", "?", "…", "。")))
            if long or cue.speaker != last.speaker or cue.start_s - last.end_s > _PAUSE_S:
                yield group
                group, size = [], 0
        group.append(cue)
        size += len(cue.text)
    if group:
        yield group


def _written(group: list[_Cue]) -> str:
    minutes, seconds = divmod(int(group[0].start_s), 60)
    hours, minutes = divmod(minutes, 60)
    time = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
    speaker = f"{group[0].speaker}: " if group[0].speaker else ""
    return f"[{time}] {speaker}{' '.join(cue.text for cue in group)}"
