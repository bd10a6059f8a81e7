"""What contenders are given: a folder of documents, and two sets of questions with the texts that answer them; and how they
are scored.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import math
import random
import tarfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

ARCHIVES = ("kb_django_docs/django_docs_txt.tar.gz", "kb_peps/peps_rst.tar.gz")
CUTOFF = 10
MAX_QUESTIONS, MAX_PARAGRAPHS = 1000, 2000


@dataclass(frozen=True, slots=True)
class Questions:
    """`relevant[question]` are the ids of the units that answer it. A unit is one text, never split: id -> (title, text)."""

    units: dict[str, tuple[str, str]]
    questions: dict[str, str]
    relevant: dict[str, tuple[str, ...]]

    def texts(self) -> dict[str, str]:
        return {key: f"{title}\n\n{text}" if title else text for key, (title, text) in self.units.items()}


def unpack(data: Path, into: Path, share: float) -> int:
    """Write that share of the documents, chosen by their names alone; how many those are."""
    count = 0
    for archive in ARCHIVES:
        with tarfile.open(data / archive) as tar:
            for member in sorted((m for m in tar.getmembers() if m.isfile()), key=lambda m: m.name):
                if int(hashlib.sha256(member.name.encode()).hexdigest()[:8], 16) >= share * 2**32:
                    continue
                stream = tar.extractfile(member)
                if stream is not None:
                    path = into / Path(archive).parent / member.name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(stream.read())
                    count += 1
    return count


def scifact(data: Path, split: str = "dev") -> Questions:
    """BEIR's SciFact: the claims of the split, all abstracts."""
    folder = data / "scifact"
    with gzip.open(folder / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        units = {str(row["_id"]): (str(row["title"]), str(row["text"])) for row in map(json.loads, lines)}
    relevant: dict[str, tuple[str, ...]] = {}
    with (folder / f"qrels_{split}.tsv").open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines, delimiter="\t"):
            if int(row["score"]) > 0:
                relevant[row["query-id"]] = (*relevant.get(row["query-id"], ()), row["corpus-id"])
    with (folder / "queries.jsonl").open(encoding="utf-8") as lines:
        claims = {str(row["_id"]): str(row["text"]) for row in map(json.loads, lines)}
    return Questions(units, {key: claims[key] for key in relevant}, relevant)


def squad(data: Path) -> Questions:
    """Paragraphs of the development articles of both versions as units; each answerable question is to find its own."""
    units: dict[str, tuple[str, str]] = {}
    found: list[tuple[str, str, str]] = []
    ids: dict[str, str] = {}
    for paragraph in _paragraphs(data / "squad"):
        text = str(paragraph["context"])
        key = ids.setdefault(text, f"p{len(ids):04}")
        units[key] = ("", text)
        found += [(str(q["id"]), str(q["question"]), key) for q in paragraph["qas"] if not q.get("is_impossible")]
    kept = dict(list(units.items())[:MAX_PARAGRAPHS])
    answerable = sorted({each for each in found if each[2] in kept})
    chosen = random.Random(1).sample(answerable, min(MAX_QUESTIONS, len(answerable)))
    return Questions(kept, {key: question for key, question, _ in chosen}, {key: (unit,) for key, _, unit in chosen})


def _paragraphs(folder: Path) -> Iterator[dict[str, Any]]:
    wanted = set(json.loads((folder / "splits.json").read_text(encoding="utf-8"))["dev"])
    for name in ("dev-v1.1.from-explorer.json.gz", "dev-v2.0.from-explorer.json.gz"):
        with gzip.open(folder / name, "rt", encoding="utf-8") as stream:
            for article in json.load(stream)["data"]:
                if article["title"] in wanted:
                    yield from article["paragraphs"]


def ndcg(ranking: Sequence[object], relevant: Collection[object]) -> float:
    """nDCG@10 with one gain for each relevant unit (Järvelin and Kekäläinen, 2002)."""
    gains = (1 / math.log2(i + 2) for i, key in enumerate(ranking[:CUTOFF]) if key in relevant)
    return sum(gains) / sum(1 / math.log2(i + 2) for i in range(min(CUTOFF, len(relevant))))


def interval(values: ArrayLike, resamples: int = 2000) -> tuple[float, float, float]:
    """(mean, low, high): a 95 % bootstrap interval over questions."""
    array = np.asarray(values, dtype=np.float64)
    chosen = np.random.default_rng(0).integers(0, len(array), (resamples, len(array)))
    low, high = np.quantile(array[chosen].mean(axis=1), (0.025, 0.975))
    return float(array.mean()), float(low), float(high)


SETS = {"scifact": scifact, "squad": squad}
