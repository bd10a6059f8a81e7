"""The review of drafted questions: each decision is on the disk before the next one is asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from openbook.diagnosis.drafts import answers_of, content_of, is_draft, read_questions
from openbook.diagnosis.questions import KINDS, asked, question_of, texts
from openbook.errors import ConfigError, StorageError
from openbook.knowledge import KnowledgeBase
from openbook.models.durable import replace_file, storage_errors
from openbook.records import Digest, sha256_hex

AROUND_CHARS = 400  # shown where no passage holds the whole quote
_REPAIRED = {"question": "What?", "answers": ["this"], "kind": "answerable", "unanswerable": False}


@dataclass(slots=True)
class Review:
    """The questions of a file, by position. What is rejected leaves the file when the next thing is saved."""

    path: Path
    questions: list[dict[str, Any]]
    rejected: set[int]
    _saved: Digest | None  # of the file as this review knows it

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[Review]:
        """Until it ends nobody else can review the file.

        Raises ConfigError for a line that is no question and cannot become one by a review, StorageError.
        """
        path = Path(os.path.realpath(path))  # a link stays one
        with _alone(path):
            saved = _digest(path)
            yield cls(path, _checked(path), set(), saved)

    def waiting(self) -> list[int]:
        """Positions of the drafts that are still to be decided."""
        return [i for i, each in enumerate(self.questions) if is_draft(each) and i not in self.rejected]

    def accept(self, at: int) -> str:
        """What forbids it, as a sentence; empty when it is done. Raises StorageError."""
        problem = self._problem(at)
        if not problem:
            self._put(at, self.questions[at] | {"reviewed": True})
        return problem

    def reject(self, at: int) -> None:
        """Raises StorageError."""
        self.rejected.add(at)
        self._save()

    def edit(self, at: int, *, question: str | None = None, answers: Sequence[str] | None = None) -> str:
        """Change it and keep it a draft. What forbids the change, as a sentence; empty when it is done. Raises StorageError.

        With answers an unanswerable question becomes answerable, without them any becomes unanswerable.
        """
        changed = dict(self.questions[at])
        try:
            if question is not None:
                changed["question"] = asked(question)
            if answers is not None:
                changed["answers"] = list(texts(list(answers), "answers"))
                changed["kind"] = _kind(changed)
                changed.pop("unanswerable", None)
        except ValueError as error:
            return f"It stays as it is: {error}"
        self._put(at, changed)
        return ""

    def _problem(self, at: int) -> str:
        question = self.questions[at]
        try:
            question_of(question, "line-1")
        except ValueError as error:
            if answers_of(question) or question.get("unanswerable") or question.get("kind") == "unanswerable":
                return f"It cannot be accepted: {error}. Change it, or reject it."
            return "It has no accepted answer. Give one with w, or reject it."
        same = [q for i, q in enumerate(self.questions) if i != at and i not in self.rejected and not is_draft(q)]
        if any(q["question"].casefold() == question["question"].casefold() for q in same):
            return "The same question is there already. Change it, or reject it."
        return ""

    def _put(self, at: int, question: dict[str, Any]) -> None:
        self.questions[at] = question
        self._save()

    def _save(self) -> None:
        """Raises StorageError, also when the file is not what this review read or wrote last."""
        content = content_of(self.path, (each for i, each in enumerate(self.questions) if i not in self.rejected))
        with storage_errors(f"write {self.path}"):
            if _digest(self.path) != self._saved:
                beside = _unused(self.path)
                replace_file(beside, content)
                raise StorageError(
                    f"{self.path} was changed by something else while it was reviewed, so it was left as it is. The "
                    f"questions with all that you decided are in {beside.name} beside it: bring the two together, then "
                    "review again."
                )
            replace_file(self.path, content)
        self._saved = sha256_hex(content)


def _kind(question: dict[str, Any]) -> str:
    """What it is with the answers that it has now."""
    if not question["answers"]:
        return "unanswerable"
    kind = question.get("kind")
    return str(kind) if isinstance(kind, str) and KINDS.get(kind) == "world" else "answerable"


def _checked(path: Path) -> list[dict[str, Any]]:
    """The questions of a file. Of drafts the wording and the answers may be wrong, because a review can change them."""
    seen: set[str] = set()
    found = []
    for number, question in read_questions(path):
        try:
            valid = question_of(question | _REPAIRED if is_draft(question) else question, f"line-{number}")
            if valid.id in seen:
                raise ValueError(f"the id {valid.id!r} stands there a second time. Give each question its own")
        except ValueError as error:
            raise ConfigError(f"{path.name} line {number} is no valid question: {error}. Correct it there.") from error
        seen.add(valid.id)
        found.append(question)
    return found


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Raises StorageError when the file is being reviewed elsewhere."""
    import filelock

    place = path.with_name(f".{path.name}.lock")
    lock: filelock.BaseFileLock = filelock.FileLock(place)
    with storage_errors(f"lock {path}"):
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout as error:
            raise StorageError(
                f"{path} is being reviewed already. End that review with x, then run this again."
            ) from error
    try:
        yield
    finally:
        with suppress(OSError):  # of two that slip in here, the second to save sees that the file has changed
            place.unlink()
        lock.release()


def _digest(path: Path) -> Digest | None:
    """None: there is no file."""
    try:
        return sha256_hex(path.read_bytes())
    except FileNotFoundError:
        return None


def _unused(path: Path) -> Path:
    """A name beside it that nothing has."""
    names = (path.with_name(f"review-{number}-of-{path.name}") for number in count(1))
    return next(name for name in names if not name.exists())


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
