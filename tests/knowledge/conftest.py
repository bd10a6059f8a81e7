"""A folder of documents and a knowledge base of it, as most tests here need them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import pytest

from openbook.core.records import Hit, Vectors
from openbook.knowledge import KnowledgeBase, Report, Scope, add, sync
from openbook.knowledge.index.scope import UNLABELLED
from openbook.knowledge.ingest.contents import RunOptions
from openbook.knowledge.ingest.discovery import Rules
from openbook.testing import HashEmbedder

Act: TypeAlias = Callable[[], object]


class Library:
    """`docs` is taken into `base` by `sync` or `add`, with `embedder`."""

    def __init__(self, place: Path, embedder: HashEmbedder) -> None:
        self.docs, self.embedder = place / "docs", embedder
        self.docs.mkdir()
        self.base = KnowledgeBase.ensure(place / "kb", embedder.identity)

    def write(self, name: str, text: str | bytes) -> Path:
        path = self.docs / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def path(self, name: str) -> str:
        return str(self.docs / name)

    def sync(self, rules: Rules = Rules(), options: RunOptions = RunOptions()) -> Report:
        return sync(self.base, self.docs, self.embedder, rules, options)

    def add(self, *names: str, options: RunOptions = RunOptions()) -> Report:
        """The whole folder unless some of it is named."""
        return add(self.base, [self.docs / name for name in names or ("",)], self.embedder, options)

    def hits(self, query: str, scope: Scope = UNLABELLED, limit: int = 10) -> list[Hit]:
        return self.base.search(query, self.embedder, limit, scope)[1]

    def texts(self, query: str, scope: Scope = UNLABELLED) -> set[str]:
        return {hit.passage.text for hit in self.hits(query, scope)}

    def names(self, scope: Scope | None = None) -> list[str]:
        return [Path(path).name for path in self.base.documents(scope)]

    def reopened(self) -> KnowledgeBase:
        """As another process has it open."""
        return KnowledgeBase.open(self.base.folder)

    def all_bytes(self) -> bytes:
        return bytes_below(self.base.folder)


class Interrupted(HashEmbedder):
    """Does one act for each batch, before it embeds that batch: what others do meanwhile, or an end."""

    def __init__(self, *acts: Act, dimensions: int = 64, name: str = "hash") -> None:
        super().__init__(dimensions, name)
        self._acts = list(acts)

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        if self._acts:
            self._acts.pop(0)()
        return super().embed_passages(texts)


def killed() -> None:
    raise KeyboardInterrupt


def bytes_below(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def vectors_of(base: KnowledgeBase, beginning: str) -> list[bytes]:
    """Of all passages of the texts that begin like this, as they are stored."""
    sql = (
        "SELECT e.vector FROM embeddings e JOIN passages USING (embedding_key) JOIN contents c ON c.id = content_id "
        "WHERE c.text LIKE ? || '%'"
    )
    return [vector for (vector,) in base.connection.execute(sql, (beginning,))]


@pytest.fixture
def library(tmp_path: Path, embedder: HashEmbedder) -> Library:
    return Library(tmp_path, embedder)
