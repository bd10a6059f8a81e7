"""Questions about whole documents: "summarize FILE" and "compare FILE with FILE".

The model reads a document's windows in groups, in order, and writes the main points of each. These points are the
summary; a comparison is written from them.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

from openbook.answers.answer_text import says_nothing_found
from openbook.answers.prompts import excerpt_block
from openbook.core.parallel import Cancelled, Progress
from openbook.core.records import Completion, Decoding, FinishReason, Hit, Passage, Prompt, canonical_json, sha256_hex
from openbook.inference import FrozenModel
from openbook.knowledge.cite.windows import in_windows

MAX_WINDOWS = 32  # of all documents together
GROUPED = 3  # windows that the model reads together
POINTS = Decoding(max_tokens=130)

_POINTS = (
    "You write the main points of a part of a document, for a summary. Write two to four short points, each a sentence on a "
    "line of its own. Keep exact names, numbers and dates, and what must or must not be done. Write nothing else."
)
_ASK = "The main points of this part:"
_COMPARE = (
    "You compare documents from notes on their parts. Write a list: first what is the same, then what is different, with the "
    "name of the document each time. Keep exact names, numbers and dates. Write only what the notes say."
)
_BULLETS = re.compile(r"\A(?:[-*\u2022]+\s+)+")
_NUMBER = re.compile(r"(\d+)[.)]\s+")
_BOLD = re.compile(r"(?<!\w)\*\*(\S(?:.*?\S)?)\*\*(?!\w)")
Kind: TypeAlias = Literal["summary", "comparison"]
KINDS: tuple[Kind, ...] = ("summary", "comparison")


def windows_of(passages: Sequence[Sequence[Passage]]) -> tuple[list[Hit], list[str]]:
    """Return (the windows to read, spread over each document; a note if some are left out)."""
    room = MAX_WINDOWS // max(len(passages), 1)
    hits: list[Hit] = []
    left_out = 0
    for of_document in passages:
        visible = [window for window in in_windows(of_document) if window.text.strip()]
        step = max(len(visible) / room, 1.0)
        chosen = [visible[int(number * step)] for number in range(min(len(visible), room))]
        left_out += len(visible) - len(chosen)
        hits += [Hit(window) for window in chosen]
    note = f"{len(hits)} of {len(hits) + left_out} parts were read, spread over the text."
    return hits, [note] if left_out else []


def summary(
    question: str, hits: Sequence[Hit], model: FrozenModel, decoding: Decoding, progress: Progress, cancelled: Cancelled
) -> Generator[str, None, Completion]:
    """Write the points of each group of windows, one per line.

    `decoding` is for each group. Repeated points, and points that say that nothing is said, are dropped.
    """
    parts: list[Completion] = []
    points: list[str] = []
    for part in _read(hits, f"{question}\n\n{_ASK}", model, decoding, progress, cancelled):
        parts.append(part)
        for point in points_of(part):
            if point not in points and not says_nothing_found(point):
                yield ("\n" if points else "") + point
                points.append(point)
    finish: FinishReason = "cancelled" if parts[-1].finish_reason == "cancelled" else "end"
    return replace(combined(parts), text="\n".join(points), finish_reason=finish)


def comparison(
    question: str, hits: Sequence[Hit], model: FrozenModel, decoding: Decoding, progress: Progress, cancelled: Cancelled
) -> Generator[str, None, Completion]:
    parts: list[Completion] = []
    lines: list[str] = []
    for part, group in zip(_read(hits, _ASK, model, POINTS, progress, cancelled), groups_of(hits), strict=False):
        parts.append(part)
        name = group[0].passage.document.rpartition("/")[2]
        lines.append(f"{name}: {' '.join(point.removeprefix('- ') for point in points_of(part))}")
    prompt = Prompt(_COMPARE, (), "\n".join([*lines, "", question]))
    parts.append((yield from model.stream(prompt, decoding, cancelled)))
    return combined(parts)


def groups_of(hits: Sequence[Hit]) -> list[list[Hit]]:
    """Runs of at most `GROUPED` windows of one document."""
    return [
        list(group[at : at + GROUPED])
        for _, of_document in itertools.groupby(hits, lambda hit: hit.passage.document)
        for group in [list(of_document)]
        for at in range(0, len(group), GROUPED)
    ]


def _read(
    hits: Sequence[Hit], asked: str, model: FrozenModel, decoding: Decoding, progress: Progress, cancelled: Cancelled
) -> Iterator[Completion]:
    """The model's points for each group, until cancelled. Windows are numbered across groups."""
    numbers, prompts = itertools.count(1), list[Prompt]()
    decoding = replace(decoding, max_tokens=min(decoding.max_tokens, POINTS.max_tokens))
    for group in groups_of(hits):
        windows = [hit.passage for hit in group]
        blocks = tuple(excerpt_block(next(numbers), window.title, window.text) for window in windows)
        labels = tuple(sorted({label for window in windows for label in window.labels}))
        prompts.append(Prompt(_POINTS, blocks, asked, labels))
    sizes = [model.count_prompt_tokens(prompt) for prompt in prompts]
    before, total = 0, sum(sizes)

    def within(done: int, _: int) -> None:
        progress(before + done, total)

    within(0, total)
    for prompt, size in zip(prompts, sizes, strict=True):
        part = model.complete(prompt, decoding, cancelled, within)
        yield part
        if part.finish_reason == "cancelled":
            return
        within(size, total)
        before += size


def points_of(completion: Completion) -> list[str]:
    """Each line as a list item, without a last item that was cut off."""
    points: list[str] = []
    numbered = 0
    for line in completion.text.splitlines():
        text = _BULLETS.sub("", line.strip(), count=1)
        if (number := _NUMBER.match(text)) and int(number[1]) == numbered + 1:  # an item's number; "28. April" stays
            numbered, text = numbered + 1, text[number.end() :]
        if re.search(r"\w", text):
            points.append(f"- {_BOLD.sub(lambda bold: bold[1], text).strip()}")
    return points[:-1] if completion.finish_reason == "length" and len(points) > 1 else points


def combined(completions: Sequence[Completion]) -> Completion:
    """The last completion, with the tokens of all, and one digest over all their prompts."""

    def total(counts: list[int | None]) -> int | None:
        return None if None in counts else sum(filter(None, counts))

    return replace(
        completions[-1],
        prompt_tokens=total([each.prompt_tokens for each in completions]),
        answer_tokens=total([each.answer_tokens for each in completions]),
        prompt_digest=sha256_hex(canonical_json([each.prompt_digest for each in completions])),
    )
