"""The words that differ between two texts: lines are compared first, then the words of the changed lines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import accumulate
from typing import Literal, NamedTuple, TypeAlias

from openbook.knowledge.index.words import UNSPACED

CONTEXT_CHARS = 120
WORK = 2_000_000  # comparisons of lines, and of words
_ISLAND_CHARS = 12  # shorter equal text between longer changes counts as changed: it would only tear them apart
_UNSPACED = UNSPACED.pattern[1:-2]  # characters of scripts without spaces between words: each is a word here
# White space belongs to what is before it: alone, it would match everywhere.
_LINE = re.compile(r"[^\n]*\n(?:[ \t]*\n)*|[^\n]+")
_WORD = re.compile(rf"(?:[{_UNSPACED}]|[^\s{_UNSPACED}]+)\s*|\s+")


Kind: TypeAlias = Literal["same", "removed", "added", "skipped"]


@dataclass(frozen=True, slots=True)
class Piece:
    """`skipped`: text left out, which is equal on both sides unless it is the last piece. `chars`: its length, or what it stands for."""

    kind: Kind
    text: str
    chars: int


class _Change(NamedTuple):
    removed: str
    added: str
    same: str  # after it


def word_diff(
    before: str, after: str, *, context_chars: int = CONTEXT_CHARS, max_chars: int | None = None
) -> list[Piece]:
    """The changes from `before` to `after` in order, each with up to `context_chars` characters of equal text around it.

    At most `max_chars` characters are shown; one `skipped` piece stands for the rest. Texts that would take more than `WORK`
    comparisons give coarser pieces. Law: without skipped pieces, those that are the same or removed join to `before`, those
    that are the same or added to `after`.
    """
    whole = _joined(_pieces(before, after))
    shown = [piece for at, each in enumerate(whole) for piece in _shortened(each, at, len(whole), context_chars)]
    return shown if max_chars is None else list(_bounded(shown, max_chars))


def _pieces(before: str, after: str) -> Iterator[Piece]:
    left = [WORK, WORK]
    for lines in _changes(_LINE.findall(before), _LINE.findall(after), left, 0):
        words = [lines]
        if lines.removed and lines.added:
            words = _changes(_WORD.findall(lines.removed), _WORD.findall(lines.added), left, 1)
            words.append(_Change("", "", lines.same))
        for each in words:
            yield Piece("removed", each.removed, len(each.removed))
            yield Piece("added", each.added, len(each.added))
            yield Piece("same", each.same, len(each.same))


def _changes(before: Sequence[str], after: Sequence[str], left: list[int], level: int) -> list[_Change]:
    """The changes between two lists of tokens. `left[level]`: comparisons that may be made."""
    most = min(len(before), len(after))
    start = next((i for i in range(most) if before[i] != after[i]), most)
    end = next((i for i in range(most - start) if before[-1 - i] != after[-1 - i]), most - start)
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    often = Counter(after)
    costs = [0, *accumulate(1 + often[token] for token in before)]
    blocks = [(0, 0, start), (len(before) - end, len(after) - end, end)]
    ranges = [(start, len(before) - end, start, len(after) - end)]
    while ranges:
        a, a_end, b, b_end = ranges.pop()
        cost = costs[a_end] - costs[a]
        if a < a_end and b < b_end and cost <= left[level]:
            left[level] -= cost
            found = matcher.find_longest_match(a, a_end, b, b_end)
            if found.size:
                blocks.append(found)
                ranges += [(a, found.a, b, found.b), (found.a + found.size, a_end, found.b + found.size, b_end)]
    changes = [_Change("", "", "")]
    a = b = 0
    for at, other, size in sorted(blocks):
        removed, added, same = ("".join(each) for each in (before[a:at], after[b:other], before[at : at + size]))
        a, b = at + size, other + size
        space = removed[len(removed.rstrip()) :]
        if space and space == added[len(added.rstrip()) :]:
            removed, added, same = removed.removesuffix(space), added.removesuffix(space), space + same
        last = changes[-1]
        is_island = len(last.same) < min(_ISLAND_CHARS, *(len(r) + len(d) for r, d in (last[:2], (removed, added))))
        if not (removed or added):
            changes[-1] = last._replace(same=last.same + same)
        elif is_island:
            changes[-1] = _Change(last.removed + last.same + removed, last.added + last.same + added, same)
        else:
            changes.append(_Change(removed, added, same))
    return changes


def _joined(pieces: Iterable[Piece]) -> list[Piece]:
    """Without empty pieces, and one piece for each run of a kind."""
    found: list[Piece] = []
    for each in pieces:
        if each.text and found and found[-1].kind == each.kind:
            found[-1] = Piece(each.kind, found[-1].text + each.text, found[-1].chars + each.chars)
        elif each.text:
            found.append(each)
    return found


def _shortened(piece: Piece, number: int, pieces: int, context_chars: int) -> Iterator[Piece]:
    """The piece; of long equal text only what is near a change, in whole words."""
    text = piece.text
    head = text[:context_chars] if number > 0 else ""
    tail = text[len(text) - context_chars :] if number < pieces - 1 else ""
    if piece.kind != "same" or len(text) <= len(head) + len(tail):
        yield piece
        return
    head = head[: next((i for i in range(len(head), 0, -1) if head[i - 1].isspace()), len(head))]
    tail = tail[next((i for i, character in enumerate(tail, 1) if character.isspace()), 0) :]
    kinds: list[tuple[Kind, str]] = [
        ("same", head),
        ("skipped", text[len(head) : len(text) - len(tail)]),
        ("same", tail),
    ]
    for kind, part in kinds:
        if part:
            yield Piece(kind, part if kind == "same" else "", len(part))


def _bounded(pieces: Sequence[Piece], max_chars: int) -> Iterator[Piece]:
    left = max_chars
    for number, each in enumerate(pieces):
        if len(each.text) > left:
            if left:
                yield Piece(each.kind, each.text[:left], left)
            yield Piece("skipped", "", sum(rest.chars for rest in pieces[number:]) - left)
            return
        left -= len(each.text)
        yield each
