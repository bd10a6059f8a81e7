"""txtai in the comparison: faiss and its own BM25 with its default weights, content in SQLite, chonkie's chunker."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.contender_openbook import CountedEmbedder, counted_embedder

if TYPE_CHECKING:
    from benchmarks.contender_child import Job

PASSAGE_CHARS = 450


@functools.cache
def _openbook_embedder() -> CountedEmbedder:
    return counted_embedder()


def embed(texts: Sequence[str]) -> Any:
    """What txtai calls by its name, so that a saved index can name it too."""
    return _openbook_embedder().embed_passages(list(texts))


class Txtai:
    def __init__(self, embedder: str, model: str) -> None:
        # Its condition for a function that is named in a saved index.
        os.environ["ALLOW_RESOLVE_TRANSFORM"] = "True"
        from txtai import Embeddings  # type: ignore[import-not-found]
        from txtai.pipeline import Segmentation  # type: ignore[import-not-found]

        self._plugged = embedder == "openbook"
        dense = {"method": "external", "transform": f"{__name__}.embed"} if self._plugged else {"path": model}
        models: dict[str, Any] = {}  # shared, so that the model is loaded once and not for each index
        Embeddings(models=models, hybrid=True, content=True, **dense).index([("warm", "Loaded and warm.", None)])
        self._embeddings = Embeddings(models=models, hybrid=True, content=True, **dense)
        self._split = Segmentation(
            chunker="recursive", tokenizer="character", chunk_size=PASSAGE_CHARS, cleantext=False
        )

    def ingest(self, documents: Path, store: Path) -> int:
        self._embeddings.index(
            row for path in sorted(documents.rglob("*")) if path.is_file() for row in self._rows(documents, path)
        )
        self._embeddings.save(str(store))
        return int(self._embeddings.count())

    def _rows(self, documents: Path, path: Path) -> Iterator[tuple[str, str, None]]:
        name = str(path.relative_to(documents))
        for i, text in enumerate(self._split(path.read_text(encoding="utf-8", errors="replace"))):
            yield f"{name}#{i}", text, None

    def open(self, store: Path) -> None:
        self._embeddings.load(str(store))

    def refresh(self, documents: Path, store: Path) -> bool:
        return False

    def update(self, documents: Path, store: Path, changed: Path) -> None:
        rows = list(self._rows(documents, changed))
        name = str(changed.relative_to(documents)).replace("'", "''")
        old = self._embeddings.search(f"select id from txtai where id like '{name}#%'", 100_000)
        self._embeddings.upsert(rows)
        if gone := {row["id"] for row in old} - {key for key, _, _ in rows}:
            self._embeddings.delete(sorted(gone))
        self._embeddings.save(str(store))

    def texts(self, query: str, limit: int) -> Sequence[str]:
        return [str(row["text"]) for row in self._embeddings.search(query, limit)]

    def index(self, units: Mapping[str, tuple[str, str]], store: Path) -> None:
        self._embeddings.index(
            (key, f"{title}\n\n{text}" if title else text, None) for key, (title, text) in units.items()
        )
        self._embeddings.save(str(store))

    def rank(self, query: str, limit: int) -> Sequence[str]:
        return [str(row["id"]) for row in self._embeddings.search(query, limit)]

    def embedding_s(self) -> float | None:
        return _openbook_embedder().seconds if self._plugged else None

    def versions(self) -> dict[str, str]:
        return {name: version(name) for name in ("txtai", "faiss-cpu", "transformers", "torch", "chonkie")}


def open_contender(job: Job) -> Txtai:
    return Txtai(job.embedder, job.model)
