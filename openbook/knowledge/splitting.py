"""Documents to passages, passages to sentences. Everything here is a function of the text and its marks alone.

Passages are packed greedily. Where one must end, the best place within reach wins: before a heading, after a blank
line, before a sentence or a list item or a table row, after a line, after a space, anywhere. One always ends where a
page does, since it is cited with one page.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from openbook.records import Content, HeadingMark, PageSpan, PassageSpan

SPLITTER_VERSION = "2"

_SMALL = 1 / 3  # a passage below this share of the limit is worth joining with what follows

_BLANK_LINES = re.compile(r"\n\s*\n")
_VISIBLE = re.compile(r"\S")
_SPACE = re.compile(r"\s")


def split(content: Content, *, passage_chars: int = 900) -> list[PassageSpan]:
    """Spans that cover the text exactly, in order, each of 1 to `passage_chars` characters.

    A passage never begins inside a paragraph that would fit into a passage whole. A span is white space alone only
    inside a run of it that is at least `passage_chars` long. Takes time linear in the text.
    """
    if passage_chars < 1:
        raise ValueError(f"passage_chars is {passage_chars}, it must be at least 1")
    marks = _Marks(content)
    packer = _Packer(content.text, marks, passage_chars, _visible_end(content.text, 0, len(content.text)))
    return [marks.passage(start, end) for start, end in packer.spans()]


# --- passages ---------------------------------------------------------------------------------------------------------


class _Marks:
    """Headings and pages of a document by offset; answers in logarithmic time."""

    def __init__(self, content: Content) -> None:
        self.text = content.text
        inside = (mark for mark in content.headings if 0 <= mark.start < len(content.text))
        self.headings: list[HeadingMark] = sorted(inside, key=lambda mark: mark.start)
        self.heading_starts = [mark.start for mark in self.headings]
        self.paths = _paths(self.headings)
        self.pages: Sequence[PageSpan] = content.pages
        self.page_starts = [page.start for page in content.pages]

    def passage(self, start: int, end: int) -> PassageSpan:
        visible = _VISIBLE.search(self.text, start, end)
        at = visible.start() if visible else start
        section = self.section(at)
        path = self.paths[section] if section >= 0 else ()
        return PassageSpan(start, end, self.pages[self.page(at)].number if self.pages else None, path)

    def page(self, at: int) -> int:
        """The index of the last page that begins at or before `at`; 0 before the first."""
        return max(bisect_right(self.page_starts, at) - 1, 0)

    def section(self, at: int) -> int:
        """The index of the last heading that begins at or before `at`; -1 before the first."""
        return bisect_right(self.heading_starts, at) - 1

    def section_end(self, section: int) -> int:
        return self.heading_starts[section + 1] if section + 1 < len(self.headings) else len(self.text)


def _paths(headings: list[HeadingMark]) -> list[tuple[str, ...]]:
    """For each heading the titles in force under it, outermost first."""
    paths = []
    open_marks: list[HeadingMark] = []
    for mark in headings:
        while open_marks and open_marks[-1].level >= mark.level:
            open_marks.pop()
        open_marks.append(mark)
        paths.append(tuple(each.title for each in open_marks if each.title))
    return paths


@dataclass(slots=True)
class _Packer:
    text: str
    marks: _Marks
    limit: int
    visible: int  # where the white space at the end of the text begins

    def spans(self) -> Iterator[tuple[int, int]]:
        start = end = 0  # the passage under way
        for atom_start, atom_end in self._atoms():
            visible_end = _visible_end(self.text, atom_start, atom_end)
            if atom_end == len(self.text) and atom_end - visible_end < self.limit:
                visible_end = atom_end  # nothing follows that could take the last white space
            if end > start and self._ends_before(start, end, atom_start, visible_end):
                yield start, end
                start = end
            end = atom_end
            if visible_end - start > self.limit:
                for cut in self._cuts(start, visible_end):
                    yield start, cut
                    start = cut
            while end - start > self.limit:  # white space that does not fit goes to the front of the next passage
                yield start, start + self.limit
                start += self.limit
        if end > start:
            yield start, end

    def _atoms(self) -> Iterator[tuple[int, int]]:
        """Paragraphs with the blank lines after them, cut at headings and pages. The first begins at 0."""
        marked = (at for at in (*self.marks.heading_starts, *self.marks.page_starts) if at < self.visible)
        forced = sorted({*marked, len(self.text)})
        start = at = 0
        for stop in forced:
            if not start < stop <= len(self.text):
                continue
            for blank in _BLANK_LINES.finditer(self.text, start, stop):
                if _VISIBLE.search(self.text, start, blank.start()):
                    at = start
                    start = blank.end()
                    yield at, start
            if stop > start:
                yield start, stop
            start = stop

    def _ends_before(self, start: int, end: int, atom: int, visible_end: int) -> bool:
        """Whether the passage [start, end) ends before the paragraph that begins at `atom`."""
        visible = _VISIBLE.search(self.text, start, end)
        if visible_end <= atom or not visible:
            return False
        if self._other_page(visible.start(), atom, visible_end):
            return True
        small = end - start < self.limit * _SMALL
        if visible_end - start > self.limit and not (small and visible_end - atom > self.limit):
            return True  # it does not fit, unless it has to be cut somewhere anyway
        section = self.marks.section(atom)
        if section >= 0 and self.marks.heading_starts[section] == atom:
            return not (small and self._joins(start, end, section))
        return False

    def _other_page(self, at: int, atom: int, atom_end: int) -> bool:
        """Whether what is visible of the paragraph at `atom` is on another page than the visible character `at`."""
        visible = _VISIBLE.search(self.text, atom, atom_end)
        return visible is not None and self.marks.page(visible.start()) != self.marks.page(at)

    def _joins(self, start: int, end: int, section: int) -> bool:
        """Whether a small passage goes on into `section`: a sibling or descendant of the section it began in."""
        visible = _VISIBLE.search(self.text, start, end)
        first = self.marks.section(visible.start() if visible else start)
        if first >= 0 and self.marks.headings[section].level < self.marks.headings[first].level:
            return False
        section_end = _visible_end(self.text, end, self.marks.section_end(section))
        return section_end - start <= self.limit or self._only_headings(start, end, section)

    def _only_headings(self, start: int, end: int, section: int) -> bool:
        """Whether [start, end) is not much more than the headings in it, each perhaps with lines over and under it."""
        first = bisect_right(self.marks.heading_starts, start - 1)
        room = sum(3 * len(mark.title) + 12 for mark in self.marks.headings[first:section])
        return end - start <= room

    def _cuts(self, start: int, end: int) -> Iterator[int]:
        """Where to cut text that does not fit, until the rest does."""
        while end - start > self.limit:
            # Something visible is left for the last passage.
            start = self._cut(start, max(min(start + self.limit, self.visible - 1), start + 1))
            yield start

    def _cut(self, start: int, end: int) -> int:
        """The best cut in (start, end]. At `end` the text goes on."""
        visible = _VISIBLE.search(self.text, start, end)
        if not visible:
            return end
        low = max(start + int(self.limit * _SMALL), visible.start()) + 1
        if low >= end:
            return self._hard(start, end)
        sentences = [at for at, _ in sentence_spans(self.text, low - 1, end) if at >= low]
        if sentences:
            return self._line_start(sentences[-1], low)
        line = self.text.rfind("\n", low, end)
        if line >= 0:
            return line + 1
        for at in range(end, low, -1):
            if _SPACE.match(self.text[at - 1]):
                return at
        return self._hard(start, end)

    def _line_start(self, at: int, low: int) -> int:
        """`at`, or the start of its line where only its indentation stands between."""
        back = at
        while back > low and self.text[back - 1] in " \t":
            back -= 1
        return back if back >= low and self.text[back - 1] == "\n" else at

    def _hard(self, start: int, end: int) -> int:
        """`end`, moved back out of what is one character to the eye, if that is not the whole passage."""
        cut = end
        while cut > start + 1 and _belongs(self.text[cut - 1], self.text[cut]):
            cut -= 1
        return cut if cut > start + 1 else end


def _visible_end(text: str, start: int, end: int) -> int:
    while end > start and text[end - 1].isspace():
        end -= 1
    return end


def _belongs(before: str, after: str) -> bool:
    """Whether two characters must stay together: combining marks, joined emoji, surrogate pairs, CR LF."""
    if after < "\u0300":
        return before == "\r" and after == "\n"
    if unicodedata.category(after) in {"Mn", "Me", "Mc"} or "\U0001f3fb" <= after <= "\U0001f3ff":
        return True
    return after == "\u200d" or before == "\u200d" or ("\ud800" <= before <= "\udbff" and "\udc00" <= after <= "\udfff")


# --- sentences --------------------------------------------------------------------------------------------------------

_ITEM = re.compile(
    r"[ \t]*(?:[-*+•‣◦▪–—·o][ \t]|\d{1,3}\.[ \t]|[a-z]\.[ \t]|\(?(?:\d{1,3}|[A-Za-z]|[ivx]{1,5})\)[ \t]"
    r"|\.\.[ ]|:[\w -]{1,40}:|[A-Z][\w-]{0,20}:[ \t]|#{1,6}[ \t])"
)
_ROW = re.compile(r"[ \t]*\||[^\n|]{0,300}[ \t]\|[ \t]|[ \t]*\S[^\n]{0,120}?(?:\t| {3,40}|(?:\. ?){5})\S")
_RULE = re.compile(r"[\s=\-~^\"'`*+#:._|]*$")
_WORD = re.compile(r"\S+")
_FLAT = 0.6  # a line shorter than this share of its neighbours was ended on purpose, not wrapped

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
    """The sentences of `text[start:end]` as offsets into `text`, without white space around them.

    In order, without overlap. List items, table rows and headings are sentences; lines that only draw (`====`) are
    not. A line break inside a paragraph ends no sentence.
    """
    found: list[tuple[int, int]] = []
    for block_start, block_end in _blocks(text, start, end):
        for segment_start, segment_end in _segments(text, block_start, block_end):
            found += _in_segment(text, segment_start, segment_end)
    return found


def _blocks(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    for blank in _BLANK_LINES.finditer(text, start, end):
        yield start, blank.start()
        start = blank.end()
    yield start, end


def _segments(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Runs of lines that belong together: a wrapped paragraph, a list item with its further lines, a table row."""
    lines = _lines(text, start, end)
    # Not the longest line, which may be an exception.
    width = sorted(stop - begin for begin, stop in lines)[len(lines) * 3 // 4]
    segment = -1
    for i, (begin, stop) in enumerate(lines):
        if _RULE.match(text, begin, stop):
            if segment >= 0:
                yield segment, lines[i - 1][1]
            segment = -1
            continue
        if segment >= 0 and _line_ends(text, lines[i - 1], (begin, stop), width):
            yield segment, lines[i - 1][1]
            segment = begin
        segment = begin if segment < 0 else segment
    if segment >= 0:
        yield segment, end


def _lines(text: str, start: int, end: int) -> list[tuple[int, int]]:
    lines = []
    while start <= end:
        stop = text.find("\n", start, end)
        stop = end if stop < 0 else stop
        lines.append((start, stop))
        start = stop + 1
    return lines


def _line_ends(text: str, line: tuple[int, int], following: tuple[int, int], width: int) -> bool:
    """Whether the break between two neighbouring lines ends a sentence although no full stop does."""
    if _ITEM.match(text, *following) or _ROW.match(text, *following) or _ROW.match(text, *line):
        return True
    if text.startswith("#", line[0]):
        return True
    # A line so short that the next word would have fitted was not wrapped: a title, an address, a verse.
    word = _WORD.search(text, *following)
    if not word or not (word[0][0].isupper() or word[0][0].isdigit()):
        return False
    last = text[line[0] : line[1]].rstrip()[-1:]
    return last not in ",.;:-–—(&/" and line[1] - line[0] + 1 + len(word[0]) < _FLAT * width


def _in_segment(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    begin = start
    for stop in _STOP.finditer(text, start, end):
        if _is_end(text, begin, stop.start(), stop.end(), end):
            yield from _stripped(text, begin, stop.end())
            begin = stop.end()
    yield from _stripped(text, begin, end)


def _stripped(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    first = _VISIBLE.search(text, start, end)
    if first:
        while text[end - 1].isspace():
            end -= 1
        yield first.start(), end


def _is_end(text: str, begin: int, stop: int, after: int, end: int) -> bool:
    """Whether the punctuation at [stop, after) ends the sentence that began at `begin`."""
    following = _VISIBLE.search(text, after, end)
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
    return word.isdigit() or (len(word) < 5 and word.strip("ivxIVX") == "")
