"""Documents to passages, passages to sentences. Everything here is a function of the text and its marks alone.

Passages are packed greedily, by characters or by the tokens of a model that is to read them. Where one must end, the best place within reach wins: before a heading, after a blank
line, before a sentence or a list item or a table row, after a line, after a space, anywhere. One always ends where a
page does, since it is cited with one page.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Protocol, TypeAlias

from openbook.knowledge.sentences import sentence_spans
from openbook.records import Content, HeadingMark, PageSpan, PassageSpan

__all__ = ["SPLITTER_VERSION", "TokenCounter", "remembering", "sentence_spans", "split"]

SPLITTER_VERSION = "2"

Span: TypeAlias = tuple[int, int]
TokenCounter: TypeAlias = Callable[[Sequence[str]], Sequence[int]]  # how many tokens each text has

_SMALL = 1 / 3  # a passage below this share of the limit is worth joining with what follows

_BLANK_LINES = re.compile(r"\n\s*\n")
_VISIBLE = re.compile(r"\S")
_SPACE = re.compile(r"\s")


def split(
    content: Content,
    *,
    passage_chars: int = 900,
    overlap_chars: int = 0,
    passage_tokens: int | None = None,
    overlap_tokens: int = 0,
    count: TokenCounter | None = None,
) -> list[PassageSpan]:
    """Spans that cover the text, in order, each of 1 to `passage_chars` characters. Takes time linear in the text.

    A passage never begins inside a paragraph that would fit into a passage whole. A span is white space alone only
    inside a run of it that is at least `passage_chars` long, or one less before the text's last visible character, where
    that must keep the white space after it.

    With `passage_tokens` and `count` no span has more tokens than that, counted whole and without the white space
    around it, unless it is one character; characters then do not count. Each text is counted about twice.

    Without overlap the spans cover the text exactly. With `overlap_chars` or `overlap_tokens` a span begins up to that
    much earlier, at a sentence of the same page and section, and still keeps the limit; starts still rise strictly.
    """
    tokens = passage_tokens is not None
    limit, overlap = (passage_tokens or 0, overlap_tokens) if tokens else (passage_chars, overlap_chars)
    name = "passage_tokens" if tokens else "passage_chars"
    if limit < 1:
        raise ValueError(f"{name} is {limit}, it must be at least 1")
    if not 0 <= overlap < limit:
        raise ValueError(f"the overlap is {overlap}, it must be at least 0 and below {name} ({limit})")
    if tokens != (count is not None):
        raise ValueError("passage_tokens and count need each other")
    ruler: _Ruler = _Tokens(content.text, count) if count else _Characters()
    marks = _Marks(content)
    packer = _Packer(content.text, marks, limit - overlap, _visible_end(content.text, 0, len(content.text)), ruler)
    spans = list(packer.spans())
    if count:
        spans = _within(spans, packer, limit - overlap, count)
    if overlap:
        spans = _overlapping(spans, packer, overlap, limit, count)
    return [marks.passage(start, end) for start, end in spans]


# --- sizes ------------------------------------------------------------------------------------------------------------


class _Ruler(Protocol):
    """How large a span of the text is; what it says of two spans side by side is the sum of what it says of each."""

    def size(self, start: int, end: int) -> float: ...

    def reach(self, start: int, size: float) -> int:
        """The largest `end` with `size(start, end) <= size`, or past the end of the text."""
        ...


class _Characters:
    def size(self, start: int, end: int) -> float:
        return end - start

    def reach(self, start: int, size: float) -> int:
        return start + int(size)


# Small enough to be cut between: words with the space before them, parts of long ones, and of scripts that are written
# without spaces.
_CJK = r"\u2e80-\ua4cf\uac00-\ud7ff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
_PIECE = re.compile(rf"\s{{0,16}}(?:[{_CJK}]{{1,8}}|[^\s{_CJK}]{{1,24}})|\s{{1,16}}")


class _Tokens:
    """Tokens, estimated: each different piece of the text is counted once, and a part of a piece in proportion.

    The sum over the pieces of a text differs from its own count by little (docs/log.md); `_within` sees to the rest.
    """

    def __init__(self, text: str, count: TokenCounter) -> None:
        pieces = _PIECE.findall(text)
        different = list(dict.fromkeys(pieces))
        tokens = dict(zip(different, count(different), strict=True))
        self._ends: array[int] = array("q", accumulate(map(len, pieces), initial=0))
        self._sums: array[int] = array("q", accumulate(map(tokens.__getitem__, pieces), initial=0))

    def size(self, start: int, end: int) -> float:
        return self._to(end) - self._to(start)

    def _to(self, at: int) -> float:
        piece = bisect_right(self._ends, at) - 1
        if piece + 1 == len(self._ends):
            return self._sums[piece]
        share = (at - self._ends[piece]) / (self._ends[piece + 1] - self._ends[piece])
        return self._sums[piece] + share * (self._sums[piece + 1] - self._sums[piece])

    def reach(self, start: int, size: float) -> int:
        wanted = self._to(start) + size
        piece = bisect_right(self._sums, wanted) - 1
        if piece + 1 == len(self._sums):
            return self._ends[piece]
        share = (wanted - self._sums[piece]) / (self._sums[piece + 1] - self._sums[piece])
        return self._ends[piece] + int(share * (self._ends[piece + 1] - self._ends[piece]))


def _within(spans: list[Span], packer: _Packer, limit: int, count: TokenCounter) -> list[Span]:
    """Counts each span whole, and cuts those over the limit again until none is."""
    fit: list[Span] = []
    while spans:
        counts = _whole(packer.text, spans, count)
        large = [
            (start, end, tokens)
            for (start, end), tokens in zip(spans, counts, strict=True)
            if tokens > limit and end - start > 1
        ]
        known = {(start, end) for start, end, _ in large}
        fit += [span for span in spans if span not in known]
        spans = [part for start, end, tokens in large for part in packer.parts(start, end, -(-tokens // limit))]
    return sorted(fit)


def _overlapping(
    spans: list[Span], packer: _Packer, overlap: int, limit: int, count: TokenCounter | None
) -> list[Span]:
    befores = [0, *(start for start, _ in spans)]
    longer = [
        (packer.sentence_before(before, start, end, overlap), end)
        for before, (start, end) in zip(befores, spans, strict=False)
    ]
    if count is None:
        return longer
    counts = _whole(packer.text, longer, count)
    return [span if tokens > limit else long for span, long, tokens in zip(spans, longer, counts, strict=True)]


def _whole(text: str, spans: Sequence[Span], count: TokenCounter) -> Sequence[int]:
    return count([text[start:end].strip() for start, end in spans])


def remembering(count: TokenCounter, *, longest: int = 40, most: int = 500_000) -> TokenCounter:
    """The same counter, which asks once for each short text: the words of many documents are mostly the same."""
    known: dict[str, int] = {}

    def counted(texts: Sequence[str]) -> Sequence[int]:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        fresh = dict(zip(new, count(new), strict=True))
        found = [known[text] if text in known else fresh[text] for text in texts]
        short = {text: tokens for text, tokens in fresh.items() if len(text) <= longest}
        if len(known) + len(short) > most:
            known.clear()
        known.update(short)
        return found

    return counted


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
    limit: float
    visible: int  # where the white space at the end of the text begins
    ruler: _Ruler

    def spans(self) -> Iterator[Span]:
        start = end = 0  # the passage under way
        for atom_start, atom_end in self._atoms():
            visible_end = _visible_end(self.text, atom_start, atom_end)
            if atom_end == len(self.text) and self.ruler.size(visible_end, atom_end) < self.limit:
                visible_end = atom_end  # nothing follows that could take the last white space
            if end > start and self._ends_before(start, end, atom_start, visible_end):
                yield start, end
                start = end
            end = atom_end
            if self._too_large(start, visible_end):
                for cut in self._cuts(start, visible_end):
                    yield start, cut
                    start = cut
            while self._too_large(start, end):  # white space that does not fit goes to the next passage
                cut = max(self.ruler.reach(start, self.limit), start + 1)
                yield start, cut
                start = cut
        if end > start:
            yield start, end

    def _too_large(self, start: int, end: int) -> bool:
        return self.ruler.size(start, end) > self.limit

    def _atoms(self) -> Iterator[Span]:
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
        small = self.ruler.size(start, end) < self.limit * _SMALL
        if self._too_large(start, visible_end) and not (small and self._too_large(atom, visible_end)):
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
        return not self._too_large(start, section_end) or self._only_headings(start, end, section)

    def _only_headings(self, start: int, end: int, section: int) -> bool:
        """Whether [start, end) is not much more than the headings in it, each perhaps with lines over and under it."""
        first = bisect_right(self.marks.heading_starts, start - 1)
        room = sum(3 * len(mark.title) + 12 for mark in self.marks.headings[first:section])
        return end - start <= room

    def _cuts(self, start: int, end: int) -> Iterator[int]:
        """Where to cut text that does not fit, until the rest does."""
        while self._too_large(start, end):
            # Something visible is left for the last passage.
            start = self._cut(start, max(min(self.ruler.reach(start, self.limit), self.visible - 1), start + 1))
            yield start

    def _cut(self, start: int, end: int) -> int:
        """The best cut in (start, end]. At `end` the text goes on."""
        visible = _VISIBLE.search(self.text, start, end)
        if not visible:
            return end
        low = max(self.ruler.reach(start, self.limit * _SMALL), visible.start()) + 1
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

    def parts(self, start: int, end: int, number: int) -> Iterator[Span]:
        """[start, end), of two or more characters, cut into at least `number` parts of about one length."""
        room = max((end - start - 1) // number + 1, 1) if number < end - start else 1
        smaller = replace(self, limit=self.limit / number)
        visible = _visible_end(self.text, start, end)
        while end - start > room:
            cut = smaller._cut(start, max(min(start + room, visible - 1), start + 1))
            yield start, cut
            start = cut
        yield start, end

    def sentence_before(self, low: int, start: int, end: int, overlap: float) -> int:
        """The first sentence after `low` that is at most `overlap` before `start` and in its page and section."""
        visible = _VISIBLE.search(self.text, start, end)
        if not visible:
            return start
        section, page = self.marks.section(visible.start()), self.marks.page(visible.start())
        first = max(
            low + 1,
            self.marks.heading_starts[section] if section >= 0 else 0,
            self.marks.page_starts[page] if self.marks.pages else 0,
        )
        fitting = (
            at
            for at, _ in sentence_spans(self.text, low, start)
            if at >= first and self.ruler.size(at, start) <= overlap
        )
        return next(fitting, start)

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
