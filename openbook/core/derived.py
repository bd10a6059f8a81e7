"""Data that can be made again, in `<home>/derived`: model states, knowledge bases of `--docs`, answers of standing questions.

    .purge-mark   a random word that each purge changes; before it, the mark of another machine whose purges this one follows
    .writing      locked shared by writers, exclusively by a purge
    states/       see `openbook.inference.kv_cache`
    docs/         see `openbook.knowledge.docs_cache`
    questions/    see `openbook.answers.standing_questions`
    uploads/      uploaded PDFs, for pictures of their pages; to make them again, upload them again

A purge deletes all of it, except uploads that its knowledge base holds. A process may still hold, or be computing, states of a purged text. So it reads the mark
before it looks up any passage, and keeps nothing if the mark has changed.

Methods that write raise OSError.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from openbook.core.errors import KnowledgeBaseBusy
from openbook.core.files import delete, delete_left_over, make_folder, replace_file
from openbook.core.locks import exclusive_lock, shared_lock

MARK, LOCK = ".purge-mark", ".writing"
STATES, DOCS, QUESTIONS, UPLOADS = "states", "docs", "questions", "uploads"
_FOLLOW_S = 30.0


@dataclass(frozen=True, slots=True)
class DerivedFolder:
    """`purging` and `follow` raise KnowledgeBaseBusy after their timeout."""

    path: Path

    def purge_mark(self) -> str:
        """Empty before the first purge. If it cannot be read, a new word each time, so that nothing is kept."""
        try:
            return (self.path / MARK).read_text(encoding="ascii")
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except (OSError, ValueError):
            return secrets.token_hex(8)

    @contextmanager
    def writing(self, timeout_s: float = 0.0) -> Iterator[bool]:
        """Hold the right to write here. Yields False if a purge was still under way after `timeout_s`."""
        make_folder(self.path)
        with shared_lock(self.path / LOCK, timeout_s, 0o666) as held:
            if held:
                delete_left_over(self.path)  # from a killed purge
            yield held

    @contextmanager
    def purging(self, timeout_s: float) -> Iterator[None]:
        """Keep other processes from writing here. The mark has changed when the block ends, even by an error."""
        make_folder(self.path)
        with exclusive_lock(self.path / LOCK, timeout_s, 0o666) as held:
            if not held:
                raise KnowledgeBaseBusy(
                    f"Another process has been writing to {self.path} for {timeout_s:g} s, such as a run on files without a "
                    "knowledge base. End it, or wait for it, then run this again. Nothing is deleted yet."
                )
            before = self.purge_mark()
            try:
                yield
            finally:
                if self.purge_mark() == before:
                    self.change_mark()

    def change_mark(self, follows: str | None = None) -> None:
        """From here on, nothing is kept of requests that have begun. A purge calls this after the documents are gone."""
        prefix = "" if follows is None else f"{follows} "
        replace_file(self.path / MARK, f"{prefix}{secrets.token_hex(8)}".encode())

    def contents(self) -> list[Path]:
        """The folders that there are."""
        return [self.path / name for name in (DOCS, STATES, QUESTIONS, UPLOADS) if (self.path / name).exists()]

    def follow(self, mark: str) -> None:
        """Delete everything unless this home has that mark, or follows it and had no purge of its own since.

        Afterwards the mark here is `mark`, a space and a new word.
        """
        own = self.purge_mark()
        if own != mark and not own.startswith(f"{mark} "):
            with self.purging(_FOLLOW_S):
                delete_left_over(self.path)
                for each in self.contents():
                    delete(each)
                self.change_mark(follows=mark)
