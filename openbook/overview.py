"""Questions about whole documents: "summarise FILE" and "compare FILE with FILE".

The windows of a document are read in groups, a note is taken on each group, and the answer is written from the notes. Every
sentence of it is then cited from the windows like that of any answer.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from openbook.inference import FrozenModel
from openbook.knowledge.passages import in_windows
from openbook.parallel import Cancelled, Progress
from openbook.prompts import excerpt_block
from openbook.records import Completion, Decoding, Hit, Passage, Prompt, canonical_json, sha256_hex

MAX_WINDOWS = 32  # of all documents together
GROUPED = 3  # windows to a note
NOTE = Decoding(max_tokens=90)

_NOTE = (
    "You take notes on a part of a document. Write down in one to three sentences what the part says. Keep exact names, "
    "numbers and dates. Write nothing else."
)
_WRITE = {
    "summary": "You summarise a document from notes on its parts, which are in order. Write three to six sentences. Keep "
    "exact names, numbers and dates. Write only what the notes say.",
    "comparison": "You compare documents from notes on their parts. Write a list: first what is the same, then what is "
    "different, with the name of the document each time. Keep exact names, numbers and dates. Write only what the notes say.",
}
_ASKED = {
    "summary": r"(?:please\s+)?(?:summari[sz]e|give me a summary of|a? ?summary of)\s+(.+?)[.?!]*",
    "comparison": r"(?:please\s+)?compare\s+(.+?)\s+(?:with|and|to)\s+(.+?)[.?!]*",
}
KINDS = tuple(_ASKED)


def overview_of(question: str, documents: Callable[[], Iterable[str]]) -> tuple[str, list[str]] | None:
    """(one of `KINDS`, the documents that are meant) for a question about whole documents.

    None for any other question, and where a name fits no document or several.
    """
    for kind, pattern in _ASKED.items():
        if match := re.fullmatch(pattern, question.strip(), re.IGNORECASE):
            known = list(documents())
            found = [document for name in match.groups() if (document := _named(name, known)) is not None]
            return (kind, found) if len(set(found)) == len(match.groups()) else None
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


def take_notes(
    kind: str,
    question: str,
    hits: Sequence[Hit],
    model: FrozenModel,
    progress: Progress,
    cancelled: Cancelled,
) -> tuple[list[Completion], Prompt]:
    """A note on each group of windows, and the prompt for the answer from all notes. Raises ContextOverflow, EngineError."""
    groups = [
        list(group[at : at + GROUPED])
        for _, of_document in itertools.groupby(hits, lambda hit: hit.passage.document)
        for group in [list(of_document)]
        for at in range(0, len(group), GROUPED)
    ]
    notes: list[Completion] = []
    for number, group in enumerate(groups):
        progress(number, len(groups))
        windows = [hit.passage for hit in group]
        blocks = tuple(excerpt_block(n, window.title, window.text) for n, window in enumerate(windows, 1))
        labels = tuple(sorted({label for window in windows for label in window.labels}))
        prompt = Prompt(_NOTE, blocks, "Your notes on this part:", tuple(w.origins for w in windows), labels)
        notes.append(model.complete(prompt, NOTE, cancelled))
    progress(len(groups), len(groups))
    lines = [
        f"{group[0].passage.document.rpartition('/')[2]}: {' '.join(note.text.split())}"
        for group, note in zip(groups, notes, strict=True)
    ]
    return notes, Prompt(_WRITE[kind], (), "\n".join([*lines, "", question]))


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
