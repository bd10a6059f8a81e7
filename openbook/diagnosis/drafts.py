"""Files of questions, one JSON object a line, and those in them that nobody has reviewed yet.

A draft has `"reviewed": false`. A line without that key was written by a person and counts as reviewed.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openbook.diagnosis.questions import lines_in, parsed, shown, texts
from openbook.errors import ConfigError
from openbook.models.durable import replace_file, storage_errors


@dataclass(frozen=True, slots=True)
class Gold:
    """`quote` stands at `[start, end)` of the document's text and holds the answer. `document`: the end of its path."""

    document: str
    page: int | None
    start: int
    end: int
    quote: str


@dataclass(frozen=True, slots=True)
class Draft:
    """A proposed question. `kind` is `answerable`, or `unanswerable` with no answers and no gold."""

    id: str
    question: str
    kind: str
    answers: tuple[str, ...]
    gold: Gold | None
    tags: tuple[str, ...]
    reviewed: bool = False

    def to_json(self) -> dict[str, Any]:
        """As one line of a file of questions."""
        value: dict[str, Any] = asdict(self)
        return value | {"answers": list(self.answers), "tags": list(self.tags)}


def write_questions(path: Path, questions: Iterable[Mapping[str, Any]]) -> None:
    """Put them there in one step, one a line. Raises StorageError."""
    with storage_errors(f"write {path}"):
        replace_file(path, content_of(path, questions))


def content_of(path: Path, questions: Iterable[Mapping[str, Any]]) -> bytes:
    """What a file of that name holds with these questions: compressed where it ends in .gz."""
    content = b"".join(map(line_of, questions))
    return gzip.compress(content, mtime=0) if path.suffix == ".gz" else content


def line_of(question: Mapping[str, Any]) -> bytes:
    return f"{json.dumps(question, ensure_ascii=False)}\n".encode("utf-8", "replace")


def read_questions(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """(number of its line, question) for each question of a file, as it stands there.

    Raises ConfigError with the number of a line that is none, StorageError.
    """
    return list(_lines(path))


def unreviewed(path: Path) -> int:
    """How many questions of a file are drafts that nobody has reviewed. Raises ConfigError, StorageError."""
    return sum(is_draft(question) for _, question in _lines(path))


def is_draft(question: Mapping[str, Any]) -> bool:
    return question.get("reviewed", True) is False


def answers_of(question: Mapping[str, Any]) -> tuple[str, ...]:
    """The accepted answers, given as a list, as one text, or not at all. Raises ValueError."""
    return texts(question.get("answers"), "answers")


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in lines_in(path):
        yield number, _question(line, f"{path.name} line {number}")


def _question(line: str, where: str) -> dict[str, Any]:
    value = parsed(line, where)
    if not isinstance(value, dict) or not isinstance(value.get("question"), str):
        raise ConfigError(
            f'{where}: an object with "question" is expected, not {shown(value)}. Each line is one question; other files '
            "become such with openbook questions import."
        )
    try:
        answers_of(value)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}.") from error
    return value
