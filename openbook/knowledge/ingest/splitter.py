"""Documents split into passages, by the text and its marks alone.

Passages are packed greedily. The best end within reach wins: before a heading, after a blank line, before a sentence, list item or table row,
after a line, after a space, anywhere. A passage ends with its page, since it is cited with one page.
"""

from __future__ import annotations

import json
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from openbook.core.errors import ConfigError
from openbook.core.records import Content, HeadingMark, PassageSpan
from openbook.knowledge.ingest.sentences import BLANK_LINES, VISIBLE, sentence_spans

SPLITTER_VERSION = "3"

PASSAGE_CHARS = 450  # about 110 tokens; a small reader answers better from little text (research/log.md)

_SMALL = 1 / 3  # a passage below this share of the limit is worth joining with what follows


@dataclass(frozen=True, slots=True)
class Sizing:
    """At most `size` characters a passage, fixed and recorded in a new knowledge base."""

    size: int = PASSAGE_CHARS

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError(f"Passages of {self.size} characters make no sense: the size must be at least 1.")

    def to_json(self) -> str:
        return json.dumps({"overlap": 0, "size": self.size, "unit": "characters"})


def split(content: Content, passage_chars: int = PASSAGE_CHARS) -> list[PassageSpan]:
    """Spans that cover the text exactly, in order, of 1 to `passage_chars` characters. Linear in the text.

    No passage begins inside a paragraph that would fit into one passage. A span is all white space only where a run of it is at least
    `passage_chars` long, or one less before the last visible character of the text, which keeps the white space after it.
    """
    packer = _Packer(content, passage_chars)
    found: list[PassageSpan] = []
    for start, end in packer.spans():
        visible = packer.visible(start, end)
        at = start if visible is None else visible
        section = packer.section(at)
        number = content.pages[packer.page(at)].number if content.pages else None
        found.append(PassageSpan(start, end, number, packer.paths[section] if section >= 0 else ()))
    return found


def _paths(headings: Sequence[HeadingMark]) -> list[tuple[str, ...]]:
    """For each heading the titles in force under it, outermost first."""
    paths = []
    open_marks: list[HeadingMark] = []
    for mark in headings:
        while open_marks and open_marks[-1].level >= mark.level:
            open_marks.pop()
        open_marks.append(mark)
        paths.append(tuple(each.title for each in open_marks if each.title))
    return paths


class _Packer:
    """A document's text with its headings and pages, looked up by offset in logarithmic time."""

    def __init__(self, content: Content, limit: int) -> None:
        self.text = content.text
        self.limit = limit
        self.headings = content.headings
        self.heading_starts = [mark.start for mark in self.headings]
        self.page_starts = [page.start for page in content.pages]
        self.paths = _paths(self.headings)
        self.end = self.visible_end(0, len(content.text))  # start of the final white space

    def page(self, at: int) -> int:
        return max(bisect_right(self.page_starts, at) - 1, 0)

    def section(self, at: int) -> int:
        """The index of the last heading at or before `at`; -1 before the first."""
        return bisect_right(self.heading_starts, at) - 1

    def visible(self, start: int, end: int) -> int | None:
        found = VISIBLE.search(self.text, start, end)
        return found.start() if found else None

    def visible_end(self, start: int, end: int) -> int:
        while end > start and self.text[end - 1].isspace():
            end -= 1
        return end

    def spans(self) -> Iterator[tuple[int, int]]:
        start = end = 0  # the current passage
        for atom_start, atom_end in self._atoms():
            visible_end = self.visible_end(atom_start, atom_end)
            if atom_end == len(self.text) and atom_end - visible_end < self.limit:
                visible_end = atom_end  # nothing follows that could take the last white space
            if end > start and self._ends_before(start, end, atom_start, visible_end):
                yield start, end
                start = end
            end = atom_end
            while visible_end - start > self.limit:
                # Something visible is left for the last passage.
                cut = self._cut(start, max(min(start + self.limit, self.end - 1), start + 1))
                yield start, cut
                start = cut
            while end - start > self.limit:  # white space that does not fit goes to the next passage
                yield start, start + self.limit
                start += self.limit
        if end > start:
            yield start, end

    def _atoms(self) -> Iterator[tuple[int, int]]:
        """Paragraphs with the blank lines after them, cut at headings and pages. The first begins at 0."""
        forced = {at for at in (*self.heading_starts, *self.page_starts) if 0 < at < self.end}
        start = 0
        for stop in sorted({*forced, len(self.text)}):
            for blank in BLANK_LINES.finditer(self.text, start, stop):
                if self.visible(start, blank.start()) is not None:
                    yield start, blank.end()
                    start = blank.end()
            if stop > start:
                yield start, stop
            start = stop

    def _ends_before(self, start: int, end: int, atom: int, visible_end: int) -> bool:
        first, following = self.visible(start, end), self.visible(atom, visible_end)
        if visible_end <= atom or first is None:
            return False
        if following is not None and self.page(following) != self.page(first):
            return True
        small = end - start < self.limit * _SMALL
        if visible_end - start > self.limit and not (small and visible_end - atom > self.limit):
            return True  # it does not fit, unless it has to be cut somewhere anyway
        section = self.section(atom)
        begins = section >= 0 and self.heading_starts[section] == atom
        return begins and not (small and self._joins(start, end, self.section(first), section))

    def _joins(self, start: int, end: int, first: int, section: int) -> bool:
        """True if a small passage of the section `first` continues into `section`: its sibling or descendant."""
        if first >= 0 and self.headings[section].level < self.headings[first].level:
            return False
        is_last = section + 1 == len(self.headings)
        section_end = self.visible_end(end, len(self.text) if is_last else self.heading_starts[section + 1])
        # Or it is not much more than the headings in it, each perhaps with lines over and under it.
        inside = self.headings[bisect_right(self.heading_starts, start - 1) : section]
        only_headings = end - start <= sum(3 * len(mark.title) + 12 for mark in inside)
        return section_end - start <= self.limit or only_headings

    def _cut(self, start: int, end: int) -> int:
        """The best cut in (start, end], with more text after `end`."""
        visible = self.visible(start, end)
        if visible is None:
            return end
        low = max(start + int(self.limit * _SMALL), visible) + 1
        if low < end:
            sentences = [at for at, _ in sentence_spans(self.text, low - 1, end) if at >= low]
            if sentences:
                return self._line_start(sentences[-1], low)
            line = self.text.rfind("\n", low, end)
            if line >= 0:
                return line + 1
            for at in range(end, low, -1):
                if self.text[at - 1].isspace():
                    return at
        # Anywhere, but not inside what is one character to the eye, if that is not the whole passage.
        cut = end
        while cut > start + 1 and _belongs(self.text[cut - 1], self.text[cut]):
            cut -= 1
        return cut if cut > start + 1 else end

    def _line_start(self, at: int, low: int) -> int:
        """`at`, or the start of its line if only indentation lies between."""
        back = at
        while back > low and self.text[back - 1] in " \t":
            back -= 1
        return back if back >= low and self.text[back - 1] == "\n" else at


def _belongs(before: str, after: str) -> bool:
    """True if two characters must stay together: combining marks, joined emoji, surrogate pairs, CR LF."""
    if after < "\u0300":
        return before == "\r" and after == "\n"
    if unicodedata.category(after) in {"Mn", "Me", "Mc"} or "\U0001f3fb" <= after <= "\U0001f3ff":
        return True
    return after == "\u200d" or before == "\u200d" or ("\ud800" <= before <= "\udbff" and "\udc00" <= after <= "\udfff")
