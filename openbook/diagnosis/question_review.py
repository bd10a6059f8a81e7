"""The review of drafted questions: each decision is on the disk before the next one is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openbook.diagnosis.questions import content_of, file_content, json_lines, question_of, repeated_id
from openbook.errors import StorageError
from openbook.files import replace_file, storage_errors
from openbook.knowledge import KnowledgeBase


@dataclass(slots=True)
class Review:
    """The questions of a file as they stand there, those that a person wrote included."""

    path: Path
    questions: list[dict[str, Any]]
    _saved: bytes  # the file's content as this review knows it

    @classmethod
    def open(cls, path: Path) -> Review:
        """Raises ConfigError that names the line that is no valid question, StorageError."""
        path = path.resolve()  # a link stays one
        questions: dict[str, dict[str, Any]] = {}
        for number, where, value in json_lines(file_content(path), path.name):
            identity = question_of(value, where, f"line-{number}").id
            if identity in questions:
                raise repeated_id(where, identity)
            questions[identity] = value
        with storage_errors(f"read {path}"):
            return cls(path, list(questions.values()), path.read_bytes())

    def drafts(self) -> list[dict[str, Any]]:
        """Those that are still to be decided."""
        return [each for each in self.questions if each.get("reviewed") is False]

    def accept(self, draft: dict[str, Any]) -> None:
        """Raises StorageError."""
        draft["reviewed"] = True
        self._save()

    def reject(self, draft: dict[str, Any]) -> None:
        """Take it out of the file. Raises StorageError."""
        self.questions = [each for each in self.questions if each is not draft]
        self._save()

    def edit(self, draft: dict[str, Any], question: str, answers: list[str]) -> None:
        """Change it and keep it a draft; without answers it becomes unanswerable. Raises ConfigError, StorageError."""
        changed = draft | {"question": question, "answers": answers}
        changed.pop("unanswerable", None)
        if not answers or changed.get("kind") == "unanswerable":
            changed["kind"] = "answerable" if answers else "unanswerable"
        question_of(changed, "The draft", "draft")
        draft.clear()
        draft.update(changed)
        self._save()

    def _save(self) -> None:
        content = content_of(self.path, self.questions)
        with storage_errors(f"write {self.path}"):
            if not self.path.exists() or self.path.read_bytes() != self._saved:
                raise StorageError(
                    f"{self.path} was changed by something else while it was reviewed, so your last decision was not "
                    "written. Run the review again: it goes on with the file as it is now."
                )
            replace_file(self.path, content)
        self._saved = content


def around(base: KnowledgeBase, draft: dict[str, Any]) -> tuple[str, str] | None:
    """What stands before and behind the quote in its passage. None: the quote does not stand where the draft says."""
    gold = draft["gold"]
    name, start, end, quote = gold.get("document"), gold.get("start", 0), gold.get("end", 0), gold.get("quote")
    for document in base.documents():
        if name and (document == name or document.replace("\\", "/").endswith(f"/{name}")):
            for passage in base.passages(document):
                inside = slice(start - passage.start, end - passage.start)
                if passage.start <= start and passage.text[inside] == quote:
                    return passage.text[: inside.start].lstrip(), passage.text[inside.stop :].rstrip()
    return None
