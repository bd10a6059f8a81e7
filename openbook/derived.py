"""The folder of what can be made again, `<home>/derived`: states of models and the knowledge bases of `--docs`.

    .purge-mark   a random word, which each purge changes; before it that of another machine whose purges this one follows
    .writing      locked shared by those who write below, exclusively by a purge
    states/       see `openbook.inference.kv_cache`
    docs/         see `openbook.knowledge.docs_cache`

A purge deletes all of it, so nothing here needs to say which text it was made of. A process may still have in memory, or be computing,
what it read of a purged text. So it takes the mark before it looks up any passage, and keeps nothing when the mark has changed.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from openbook.errors import KnowledgeBaseBusy
from openbook.files import delete, delete_left_over, make_folder, replace_file
from openbook.locks import exclusive_lock, shared_lock

MARK, LOCK = ".purge-mark", ".writing"
STATES, DOCS = "states", "docs"
_FOLLOW_S = 30.0


@dataclass(frozen=True, slots=True)
class DerivedFolder:
    """Shared by all processes of a home. `purging` and `follow` raise KnowledgeBaseBusy when another process writes for too long."""

    path: Path

    def purge_mark(self) -> str:
        """Empty before the first purge. Another one each time while it cannot be read, so that nothing is kept."""
        try:
            return (self.path / MARK).read_text(encoding="ascii")
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except (OSError, ValueError):
            return secrets.token_hex(8)

    @contextmanager
    def writing(self, timeout_s: float = 0.0) -> Iterator[bool]:
        """Whether one may write here until the block ends: no purge is under way, or it ended within `timeout_s`. Raises OSError."""
        make_folder(self.path)
        with shared_lock(self.path / LOCK, timeout_s, 0o666) as held:
            if held:
                delete_left_over(self.path)  # of a purge that was killed
            yield held

    @contextmanager
    def purging(self, timeout_s: float) -> Iterator[None]:
        """No other process writes here until the block ends. Then there is another mark, however it ends. Raises OSError."""
        make_folder(self.path)
        with exclusive_lock(self.path / LOCK, timeout_s, 0o666) as held:
            if not held:
                raise KnowledgeBaseBusy(
                    f"Another process has been writing to {self.path} for {timeout_s:g} s, such as a run with --docs. End it, or wait for "
                    "it, then run this again. Nothing is deleted yet."
                )
            before = self.purge_mark()
            try:
                yield
            finally:
                if self.purge_mark() == before:
                    self.change_mark()

    def change_mark(self, follows: str | None = None) -> None:
        """From here on nothing is kept of requests that have begun. A purge does this after the documents are gone. Raises OSError."""
        prefix = "" if follows is None else f"{follows} "
        replace_file(self.path / MARK, f"{prefix}{secrets.token_hex(8)}".encode())

    def contents(self) -> list[Path]:
        """What a purge deletes. A folder of another name is not OpenBook's."""
        return [self.path / name for name in (DOCS, STATES) if (self.path / name).exists()]

    def follow(self, mark: str) -> None:
        """Delete everything unless this is the home of that mark, or has followed it and had no purge of its own since.

        Then the mark here begins with that one and a space. Raises OSError.
        """
        own = self.purge_mark()
        if own != mark and not own.startswith(f"{mark} "):
            with self.purging(_FOLLOW_S):
                delete_left_over(self.path)
                for each in self.contents():
                    delete(each)
                self.change_mark(follows=mark)


def of_older_layout(home: Path) -> list[Path]:
    """The folders in which OpenBook 0.1.0 kept what can be made again."""
    states = [home / "states"] if (home / "states" / "writing").exists() else []
    docs = [path for path in (home / "cache" / "docs").glob("*/") if re.fullmatch("[0-9a-f]{32}", path.name)]
    return [*states, *docs, *(path.parent for path in (home / "cache" / "postgresql").glob("*/index"))]
