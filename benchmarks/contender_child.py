"""One contender and one task in a process of its own: `python -m benchmarks.contender_child JOB`, JOB as JSON.

The last line of its output is one JSON document.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.processes import memory_kb

MARKER = "quokkavane"  # a word that no document holds
CONTENDERS = {
    "openbook": "benchmarks.contender_openbook",
    "openbook, 450 characters": "benchmarks.contender_openbook",
    "txtai": "benchmarks.contender_txtai",
    "LlamaIndex": "benchmarks.contender_llamaindex",
    "LlamaIndex, 100 candidates": "benchmarks.contender_llamaindex",
}


@dataclass(frozen=True, slots=True)
class Job:
    """`embedder`: `own` is the model in `model` as the contender's documentation loads it, `openbook` OpenBook's."""

    task: str
    contender: str
    embedder: str
    store: str
    documents: str = ""
    questions: str = ""
    model: str = ""
    limit: int = 10


class Contender(Protocol):
    """A hybrid index (dense and BM25) that is kept on disk."""

    def ingest(self, documents: Path, store: Path) -> int:
        """All files of a folder, saved; how many passages that are."""
        ...

    def open(self, store: Path) -> None: ...

    def refresh(self, documents: Path, store: Path) -> bool:
        """Bring the saved index to what the folder holds now. False: it has no way but to ingest all again."""
        ...

    def update(self, documents: Path, store: Path, changed: Path) -> None:
        """As `refresh`, when it is known that only the file `changed` is another."""
        ...

    def texts(self, query: str, limit: int) -> Sequence[str]:
        """Passages found, best first."""
        ...

    def index(self, units: Mapping[str, tuple[str, str]], store: Path) -> None:
        """Title and text of each as one passage, saved."""
        ...

    def rank(self, query: str, limit: int) -> Sequence[str]:
        """Ids of units, best first."""
        ...

    def embedding_s(self) -> float | None:
        """Seconds spent in the embedder so far, where they are counted."""
        ...

    def versions(self) -> dict[str, str]: ...


def ingest(contender: Contender, job: Job) -> dict[str, Any]:
    before = contender.embedding_s()
    started = time.perf_counter()
    passages = contender.ingest(Path(job.documents), Path(job.store))
    seconds = time.perf_counter() - started
    after = contender.embedding_s()
    assert contender.texts("When is a database transaction rolled back?", 3)
    embedding = None if before is None or after is None else after - before
    return {"seconds": seconds, "passages": passages, "embedding_s": embedding}


def update(contender: Contender, job: Job) -> dict[str, Any]:
    """In a fresh process: open, refresh with nothing changed, then change one file and wait until that is found."""
    documents, store = Path(job.documents), Path(job.store)
    started = time.perf_counter()
    contender.open(store)
    contender.texts("When is a database transaction rolled back?", 3)
    opened = time.perf_counter()
    can = contender.refresh(documents, store)
    unchanged = time.perf_counter()
    files = sorted((p for p in documents.rglob("*") if p.is_file()), key=lambda p: (p.stat().st_size, p.name))
    changed = files[len(files) // 2]
    text = changed.read_text(encoding="utf-8")
    changed.write_text(f"{text}\n\nThe {MARKER} is painted green on Tuesdays.\n", encoding="utf-8")
    edited = time.perf_counter()
    contender.update(documents, store, changed)
    found = contender.texts(f"When is the {MARKER} painted green?", 3)
    seconds = time.perf_counter() - edited
    changed.write_text(text, encoding="utf-8")
    if not any(MARKER in each for each in found):
        raise SystemExit(f"{job.contender} does not find the changed text.")
    return {
        "open_s": opened - started,
        "unchanged_s": unchanged - opened if can else None,
        "update_s": seconds,
        "changed_kb": len(text) / 1e3,
    }


def rank(contender: Contender, job: Job) -> dict[str, Any]:
    value = json.loads(Path(job.questions).read_text(encoding="utf-8"))
    started = time.perf_counter()
    contender.index({key: (title, text) for key, (title, text) in value["units"].items()}, Path(job.store))
    indexed = time.perf_counter()
    rankings = {key: list(contender.rank(question, job.limit)) for key, question in value["questions"].items()}
    searched = time.perf_counter()
    return {
        "index_s": indexed - started,
        "search_ms": (searched - indexed) / len(rankings) * 1e3,
        "rankings": rankings,
    }


TASKS = {"ingest": ingest, "update": update, "rank": rank}


def main() -> None:
    job = Job(**json.loads(sys.argv[1]))
    started = time.perf_counter()
    contender: Contender = importlib.import_module(CONTENDERS[job.contender]).open_contender(job)
    ready = time.perf_counter() - started
    result = TASKS[job.task](contender, job)
    # Of this program alone: getrusage would count what its parent had when it forked.
    peak_mb = memory_kb("self", "VmHWM") / 1e3
    print(json.dumps({**result, "start_s": ready, "peak_mb": peak_mb, "versions": contender.versions()}))


if __name__ == "__main__":
    main()
