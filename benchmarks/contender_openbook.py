"""OpenBook in the comparison, and its embedder for the others."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openbook.core.records import Embedder, EmbedderIdentity

if TYPE_CHECKING:
    from benchmarks.contender_child import Job
    from openbook.knowledge import KnowledgeBase

_WHOLE = 1_000_000  # characters of a passage that holds a whole text


class CountedEmbedder:
    """The embedder of the settings, with the seconds spent in it."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.seconds = 0.0
        self.embed_passages(["Loaded and warm."])
        self.embed_query("Loaded and warm?")
        self.seconds = 0.0

    @property
    def identity(self) -> EmbedderIdentity:
        return self._embedder.identity

    def embed_passages(self, texts: Sequence[str]) -> Any:
        started = time.perf_counter()
        vectors = self._embedder.embed_passages(texts)
        self.seconds += time.perf_counter() - started
        return vectors

    def embed_query(self, text: str) -> Any:
        started = time.perf_counter()
        vector = self._embedder.embed_query(text)
        self.seconds += time.perf_counter() - started
        return vector


def counted_embedder() -> CountedEmbedder:
    from openbook.core.config import load_settings
    from openbook.inference import load_embedder
    from openbook.models import ModelStore, ensure

    settings = load_settings()
    return CountedEmbedder(load_embedder(ensure(ModelStore(settings.models_dir), settings.embedder)))


class OpenBook:
    """`whole`: units are indexed as one passage each, as the others do; otherwise as files that are split, and a unit's
    rank is that of its best passage.
    """

    def __init__(self, embedder: CountedEmbedder, *, whole: bool) -> None:
        self._embedder, self._whole = embedder, whole
        self._base: KnowledgeBase | None = None

    @property
    def base(self) -> KnowledgeBase:
        assert self._base is not None
        return self._base

    def ingest(self, documents: Path, store: Path) -> int:
        return self._synced(documents, store, passage_chars=0)

    def _synced(self, documents: Path, store: Path, passage_chars: int) -> int:
        """Passages in a new knowledge base; with `passage_chars` 0 of the size that is the default."""
        from openbook.knowledge import KnowledgeBase, sync
        from openbook.knowledge.ingest.splitter import Sizing

        sizing = Sizing(passage_chars) if passage_chars else Sizing()
        self._base = KnowledgeBase.ensure(store, self._embedder.identity, sizing=sizing)
        report = sync(self._base, documents, self._embedder)
        failed = [verdict for verdict in report.verdicts if verdict.outcome == "failed"]
        if failed:
            raise SystemExit(f"OpenBook could not read {len(failed)} files, such as {failed[0]}.")
        return self._base.status().passages

    def open(self, store: Path) -> None:
        from openbook.knowledge import KnowledgeBase

        self._base = KnowledgeBase.open(store)

    def refresh(self, documents: Path, store: Path) -> bool:
        from openbook.knowledge import sync

        sync(self.base, documents, self._embedder)
        return True

    def update(self, documents: Path, store: Path, changed: Path) -> None:
        self.refresh(documents, store)  # it finds what changed by itself

    def texts(self, query: str, limit: int) -> Sequence[str]:
        return [hit.passage.text for hit in self.base.search(query, self._embedder, limit)[1]]

    def index(self, units: Mapping[str, tuple[str, str]], store: Path) -> None:
        folder = store.with_name(f"{store.name}.files")
        folder.mkdir(parents=True)
        for key, (title, text) in units.items():
            if self._whole or not title:
                (folder / f"{key}.txt").write_text(f"{title}\n\n{text}" if title else text, encoding="utf-8")
            else:
                (folder / f"{key}.md").write_text(f"# {title}\n\n{text}\n", encoding="utf-8")
        passages = self._synced(folder, store, _WHOLE if self._whole else 0)
        if self._whole and passages > len(units):
            raise SystemExit(f"OpenBook made {passages} passages of {len(units)} units.")

    def rank(self, query: str, limit: int) -> Sequence[str]:
        wanted = limit if self._whole else 5 * limit
        hits = self.base.search(query, self._embedder, wanted)[1]
        # Equal texts are one content of several documents, all of them found with it.
        paths = (path for hit in hits for path in (hit.passage.document, *hit.passage.also_in))
        return list(_distinct(Path(path).stem for path in paths))[:limit]

    def embedding_s(self) -> float | None:
        return self._embedder.seconds

    def versions(self) -> dict[str, str]:
        return {name: version(name) for name in ("openbook", "onnxruntime")}


def _distinct(keys: Iterable[str]) -> Iterable[str]:
    return dict.fromkeys(keys)


def open_contender(job: Job) -> OpenBook:
    return OpenBook(counted_embedder(), whole="450" not in job.contender)
