"""Sentence boundaries: a function of the text alone."""

from __future__ import annotations

import re
from collections.abc import Iterator

from openbook.parsers.characters import lines_of

BLANK_LINES = re.compile(r"\n\s*\n")
VISIBLE = re.compile(r"\S")

_ITEM = re.compile(
    r"[ \t]*(?:[-*+•‣◦▪–—·o][ \t]|\d{1,3}\.[ \t]|[a-z]\.[ \t]|\(?(?:\d{1,3}|[A-Za-z]|[ivx]{1,5})\)[ \t]"
    r"|\.\.[ ]|:[\w -]{1,40}:|[A-Z][\w-]{0,20}:[ \t]|#{1,6}[ \t])"
)
_NUMBERED = re.compile(r"[ \t]*-?\d{1,9}\.[ \t]")
_ROW = re.compile(r"[ \t]*\||[^\n|]{0,300}[ \t]\|[ \t]|[ \t]*\S[^\n]{0,120}?(?:\t| {3,40}|(?:\. ?){5})\S")
_RULE = re.compile(r"[\s=\-~^\"'`*+#:._|]*$")
_WORD = re.compile(r"\S+")
_FLAT = 0.6  # a line shorter than this share of its neighbors was ended on purpose, not wrapped

# The look-behind leaves out the dots of a dotted line, and keeps a long run from being tried once for each dot.
_STOP = re.compile(r"(?<![\s.!?…])[.!?…]++[\"'”’»)\]]*+(?=\s|\Z)|[。！？]++[」』”’）]*+")
_LAST_WORD = re.compile(r"[^\s(\[\"'“‘„«]*\Z")
_OPENERS = "\"'“‘„«([¿¡*_`"
_INITIALS = re.compile(r"(?:[^\W\d_]\.)+\Z")

# No sentence ends after these, whatever follows.
_BEFORE_NAME = frozenset({
    "dr", "mr", "mrs", "ms", "mx", "prof", "st", "rev", "hon", "gen", "col", "capt", "lt", "sgt", "gov", "sen", "rep",
    "pres", "vs", "cf", "ca", "approx", "resp", "viz", "e.g", "i.e", "eg", "ie", "z.b", "d.h", "u.a", "o.ä", "bzw",
    "vgl", "ggf",
})  # fmt: skip
# Nor after these before a number.
_BEFORE_NUMBER = frozenset({
    "no", "nos", "nr", "fig", "figs", "eq", "eqs", "sec", "ch", "vol", "pp", "p", "art", "abb", "tab", "al", "jan",
    "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec",
})  # fmt: skip
_CLOCK = frozenset({"a.m", "p.m"})


def sentence_spans(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """The sentences of `text[start:end]` as offsets into `text`, without outer white space; in order, without overlap.

    List items, table rows and headings are sentences; lines that only draw (`====`) are not. A line break inside a paragraph ends no sentence.
    """
    found: list[tuple[int, int]] = []
    for block_start, block_end in _blocks(text, start, end):
        for segment_start, segment_end in _segments(text, block_start, block_end):
            begin = segment_start
            for stop in _STOP.finditer(text, begin, segment_end):
                if _is_end(text, begin, stop.start(), stop.end(), segment_end):
                    found += _stripped(text, begin, stop.end())
                    begin = stop.end()
            found += _stripped(text, begin, segment_end)
    return found


def _blocks(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    for blank in BLANK_LINES.finditer(text, start, end):
        yield start, blank.start()
        start = blank.end()
    yield start, end


def _segments(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    lines = [(at, at + len(line)) for at, line in lines_of(text, start, end)]
    # Not the longest line, which may be an exception.
    width = sorted(stop - begin for begin, stop in lines)[len(lines) * 3 // 4]
    segment = -1  # start of the current run
    for i, line in enumerate(lines):
        is_rule = _RULE.match(text, *line)
        if segment >= 0 and (is_rule or _line_ends(text, lines[i - 1], line, width)):
            yield segment, lines[i - 1][1]
            segment = -1
        if segment < 0 and not is_rule:
            segment = line[0]
    if segment >= 0:
        yield segment, end


def _line_ends(text: str, line: tuple[int, int], following: tuple[int, int], width: int) -> bool:
    """True if the break between two adjacent lines ends a sentence without a full stop."""
    if _ITEM.match(text, *following) or _ROW.match(text, *following) or _ROW.match(text, *line):
        return True
    if text.startswith("#", line[0]) or (_NUMBERED.match(text, *line) and _NUMBERED.match(text, *following)):
        return True
    # A line so short that the next word would have fitted was not wrapped: a title, an address, a verse.
    word = _WORD.search(text, *following)
    if not word or not (word[0][0].isupper() or word[0][0].isdigit()):
        return False
    last = text[line[0] : line[1]].rstrip()[-1:]
    return last not in ",.;:-–—(&/" and line[1] - line[0] + 1 + len(word[0]) < _FLAT * width


def _stripped(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    first = VISIBLE.search(text, start, end)
    if first:
        while text[end - 1].isspace():
            end -= 1
        yield first.start(), end


def _is_end(text: str, begin: int, stop: int, after: int, end: int) -> bool:
    """True if the punctuation at [stop, after) ends the sentence that began at `begin`."""
    following = VISIBLE.search(text, after, end)
    if not following or text[stop] in "。！？":
        return True
    first = following[0]
    if first in _OPENERS:
        first = text[following.end() : following.end() + 1] or first
    if first.islower():
        return False
    if text[stop] != "." or after - stop > 1:
        return True
    found = _LAST_WORD.search(text, max(begin, stop - 24), stop)
    word = found[0] if found else ""
    lower = word.lower()
    if lower in _BEFORE_NAME or (lower in _BEFORE_NUMBER and first.isdigit()):
        return False
    if _INITIALS.match(word + ".") and word != "I" and lower not in _CLOCK:
        return False
    # "1. First" is a number and its item, "in 1990. Then" two sentences.
    return not (word and _is_number(word) and not text[begin : stop - len(word)].strip())


def _is_number(word: str) -> bool:
    return word.removeprefix("-").isdigit() or (len(word) < 5 and word.strip("ivxIVX") == "")
