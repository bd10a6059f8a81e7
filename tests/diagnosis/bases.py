"""Small knowledge bases for drafting, and an engine that drafts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from openbook.core.records import Prompt, text_of_block
from openbook.diagnosis.question_drafts import REQUEST
from openbook.knowledge import KnowledgeBase
from openbook.testing import EchoEngine, HashEmbedder
from tests.conftest import base_with

EMBEDDER = HashEmbedder(256)

FERRIES = """# Ferries

The Isolde Marr has 14 wheelchair places and a lift to every deck. The evacuation slide of the Isolde Marr takes 95 seconds
to inflate. The nightly backup starts at 01:40 and is usually over by 03:15. Found items are kept for 60 days.
"""
OLD = """# Rules of 2020

It costs €5. A fadder is a colleague from another department. Found items are kept for 30 days.
"""
HARBOUR = """# The harbour

The harbour master works in the red house. The crane lifts 40 tonnes.

## Winter

In winter the harbour is closed to yachts, and the ice breaker comes on each Monday and on each Friday at noon.
"""


def last_words(text: str) -> str:
    """A question on the last sentence of a passage, answered by its last two words."""
    words = text.split()[-8:]
    return f"Question: What follows on {' '.join(words[:-2])}?\nAnswer: {' '.join(words[-2:])}"


class DraftEngine(EchoEngine):
    """Writes what `write` makes of a passage when it is asked for a question. `read`: the passages, in order."""

    def __init__(self, write: Callable[[str], str] = last_words, **options: int) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.write, self.read = write, list[str]()

    def _answer(self, prompt: Prompt) -> str:
        if prompt.question != REQUEST:
            return super()._answer(prompt)
        self.read.append(text_of_block(prompt.passages[0]))
        return self.write(self.read[-1])


def base_of(folder: Path, **files: str) -> KnowledgeBase:
    """A knowledge base of Markdown files, by name."""
    return base_with(folder, {f"docs/{name}.md": text for name, text in files.items()}, EMBEDDER)
