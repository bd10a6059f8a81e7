"""The review of drafted questions: each decision is on the disk before the next one is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openbook.diagnosis.drafts import is_draft, read_questions, write_questions
from openbook.knowledge import KnowledgeBase

AROUND_CHARS = 400  # shown where no passage holds the whole quote


@dataclass(slots=True)
class Review:
    """The questions of a file, by position. What is rejected leaves the file when the next thing is saved."""

    path: Path
    questions: list[dict[str, Any]]
    rejected: set[int]

    @classmethod
    def open(cls, path: Path) -> Review:
        """Raises ConfigError for a line that is no question, StorageError."""
        return cls(path, read_questions(path), set())

    def waiting(self) -> list[int]:
        """Positions of the drafts that are still to be decided."""
        return [i for i, each in enumerate(self.questions) if is_draft(each) and i not in self.rejected]

    def accept(self, at: int) -> None:
        self._put(at, {"reviewed": True})

    def reject(self, at: int) -> None:
        self.rejected.add(at)
        self._save()

    def edit(self, at: int, *, question: str | None = None, answers: Sequence[str] | None = None) -> None:
        """Change it and keep it a draft. With answers an unanswerable question becomes answerable, without them the other way round."""
        change: dict[str, Any] = {}
        if question is not None:
            change["question"] = question
        if answers is not None:
            change |= {"answers": list(answers), "kind": "answerable" if answers else "unanswerable"}
        self._put(at, change)

    def problem(self, at: int) -> str:
        """What forbids to accept it as it is, as a sentence; empty when nothing does."""
        question = self.questions[at]
        answers = question.get("answers", [])
        if not answers and question.get("kind") != "unanswerable":
            return "It has no accepted answer. Give one with w, or reject it."
        same = [q for i, q in enumerate(self.questions) if i != at and i not in self.rejected and not is_draft(q)]
        if any(q["question"].casefold() == question["question"].casefold() for q in same):
            return "The same question is there already. Change it, or reject it."
        return ""

    def _put(self, at: int, change: dict[str, Any]) -> None:
        self.questions[at] = self.questions[at] | change
        self._save()

    def _save(self) -> None:
        write_questions(self.path, [each for i, each in enumerate(self.questions) if i not in self.rejected])


@dataclass(frozen=True, slots=True)
class Place:
    """A quote with what stands around it. `note`: that it could not be found where it should be."""

    document: str
    page: int | None
    before: str
    quote: str
    after: str
    note: str = ""


def place(base: KnowledgeBase | None, question: dict[str, Any]) -> Place | None:
    """Where the answer stands; None for a question without a gold span."""
    gold = question.get("gold")
    if not isinstance(gold, dict) or not isinstance(gold.get("quote"), str):
        return None
    document, page, quote = str(gold.get("document", "")), gold.get("page"), gold["quote"]
    page = page if isinstance(page, int) else None
    start, end = gold.get("start"), gold.get("end")
    path = None if base is None else document_of(base, document)
    if base is None or path is None:
        note = "" if base is None else "This knowledge base has no such document; only the quote is shown."
        return Place(document, page, "", quote, "", note)
    text = base.text(path) or ""
    if not isinstance(start, int) or not isinstance(end, int) or not 0 <= start < end or text[start:end] != quote:
        return Place(
            document, page, "", quote, "", "The document has changed: the quote does not stand there any more."
        )
    passage = next((p for p in base.passages(path) if p.start <= start and end <= p.end), None)
    low, high = (passage.start, passage.end) if passage else (max(0, start - AROUND_CHARS), end + AROUND_CHARS)
    return Place(document, page, text[low:start].lstrip(), quote, text[end:high].rstrip())


def document_of(base: KnowledgeBase, name: str) -> str | None:
    """The document whose path is `name` or, of one alone, ends with it."""
    documents = base.documents()
    if name in documents:
        return name
    ending = [path for path in documents if path.replace("\\", "/").endswith("/" + name)]
    return ending[0] if name and len(ending) == 1 else None
