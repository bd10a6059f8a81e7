"""Questions about whole documents: "summarise FILE" and "compare FILE with FILE".

The windows of a document are read in groups, in order, and the main points of each group are written down. A summary is these points; a
comparison is written from them. Every sentence is then cited from the windows like that of any answer.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from openbook.inference import FrozenModel
from openbook.knowledge.passages import in_windows
from openbook.parallel import Cancelled, Progress
from openbook.prompts import excerpt_block
from openbook.records import Completion, Decoding, Hit, Passage, Prompt, canonical_json, sha256_hex

MAX_WINDOWS = 32  # of all documents together
GROUPED = 3  # windows whose points are written down together
POINTS = Decoding(max_tokens=130)

_POINTS = (
    "You write the main points of a part of a document, for a summary. Write two to four short points, each a sentence on a "
    "line of its own. Keep exact names, numbers and dates, and what must or must not be done. Write nothing else."
)
_COMPARE = (
    "You compare documents from notes on their parts. Write a list: first what is the same, then what is different, with the "
    "name of the document each time. Keep exact names, numbers and dates. Write only what the notes say."
)
_MARK = re.compile(r"\s*(?:[-*\u2022]+\s+)*(?:\d+[.)]\s+)?")  # of an item of a list
_ASKED = {
    "summary": r"(?:please\s+)?(?:summari[sz]e|sum up|give me a summary of|a? ?summary of)\s+(.+?)[.?!]*",
    "comparison": r"(?:please\s+)?compare\s+(.+?)\s+(?:with|and|to)\s+(.+?)[.?!]*",
}
KINDS = tuple(_ASKED)


def overview_of(
    question: str, documents: Callable[[], Iterable[str]], found: Callable[[str], str | None] = lambda topic: None
) -> tuple[str, list[str]] | None:
    """(one of `KINDS`, the documents that are meant) for a question about whole documents.

    `found`: the best document for a topic; a summary may be asked of one that is not named. None for any other question, and where
    a name fits no document or several.
    """
    for kind, pattern in _ASKED.items():
        if match := re.fullmatch(pattern, question.strip(), re.IGNORECASE):
            known = list(documents())
            named = [document for name in match.groups() if (document := _named(name, known)) is not None]
            if not named and kind == "summary" and (best := found(match[1])) is not None:
                named = [best]
            return (kind, named) if len(set(named)) == len(match.groups()) else None
    return None


def _named(name: str, documents: Iterable[str]) -> str | None:
    name = re.sub(r"^(?:the\s+)?(?:file|document)\s+", "", name.strip(), flags=re.IGNORECASE)
    wanted = _plain(name.strip(" \"'`\u201c\u201d"))
    found = [
        d for d in documents if wanted in (_plain(d), _plain(PurePosixPath(d).name), _plain(PurePosixPath(d).stem))
    ]
    found = found or [d for d in documents if _plain(d).endswith("/" + wanted)]
    return found[0] if len(found) == 1 else None


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name.replace("\\", "/")).casefold().strip()


def windows_of(passages: Sequence[Sequence[Passage]]) -> tuple[list[Hit], list[str]]:
    """(the windows to read, spread over each document, whose passages are given; a note when those are not all)."""
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
    hits: Sequence[Hit], model: FrozenModel, progress: Progress, cancelled: Cancelled
) -> Generator[str, None, Completion]:
    """The points of each group of windows, one a line, as they are written. Raises ContextOverflow, EngineError."""
    parts: list[Completion] = []
    points: list[str] = []
    groups = groups_of(hits)
    for number, group in enumerate(groups):
        progress(number, len(groups))
        parts.append(_read(group, model, cancelled))
        for point in points_of(parts[-1]):
            if point not in points:
                yield ("\n" if points else "") + point
                points.append(point)
    progress(len(groups), len(groups))
    cancelled_at = next((part for part in parts if part.finish_reason == "cancelled"), None)
    return replace(combined(parts), text="\n".join(points), finish_reason="cancelled" if cancelled_at else "end")


def comparison(
    question: str, hits: Sequence[Hit], model: FrozenModel, decoding: Decoding, progress: Progress, cancelled: Cancelled
) -> Generator[str, None, Completion]:
    """What the points of both documents have in common, and what not. Raises ContextOverflow, EngineError."""
    parts: list[Completion] = []
    lines: list[str] = []
    groups = groups_of(hits)
    for number, group in enumerate(groups):
        progress(number, len(groups))
        parts.append(_read(group, model, cancelled))
        name = group[0].passage.document.rpartition("/")[2]
        lines.append(f"{name}: {' '.join(point.removeprefix('- ') for point in points_of(parts[-1]))}")
    progress(len(groups), len(groups))
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


def _read(group: Sequence[Hit], model: FrozenModel, cancelled: Cancelled) -> Completion:
    windows = [hit.passage for hit in group]
    blocks = tuple(excerpt_block(n, window.title, window.text) for n, window in enumerate(windows, 1))
    labels = tuple(sorted({label for window in windows for label in window.labels}))
    prompt = Prompt(_POINTS, blocks, "The main points of this part:", tuple(w.origins for w in windows), labels)
    return model.complete(prompt, POINTS, cancelled)


def points_of(completion: Completion) -> list[str]:
    """Each line as an item of a list, without one that was cut off behind others."""
    lines = [_MARK.sub("", line, count=1).replace("**", "").strip() for line in completion.text.splitlines()]
    lines = [line for line in lines if line]
    if completion.finish_reason == "length" and len(lines) > 1:
        lines.pop()
    return [f"- {line}" for line in lines]


def combined(completions: Sequence[Completion]) -> Completion:
    """The last of them, with the tokens of all, and one digest over all their prompts."""

    def total(counts: list[int | None]) -> int | None:
        return None if None in counts else sum(filter(None, counts))

    return replace(
        completions[-1],
        prompt_tokens=total([each.prompt_tokens for each in completions]),
        answer_tokens=total([each.answer_tokens for each in completions]),
        prompt_digest=sha256_hex(canonical_json([each.prompt_digest for each in completions])),
    )
