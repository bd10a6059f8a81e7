"""How should one score be made of a passage's cosine and its BM25 score?

    python benchmarks/fusion.py DATA

DATA holds `scifact` and `squad`. Weights were chosen on the training claims of SciFact and on questions about SQuAD's
train and dev articles; SciFact's dev claims are only reported. A document is one passage. Prints nDCG@10 with 95 %
bootstrap intervals for each way, then what the weight and BM25's parameters do on training queries, and as its last line
one JSON document. Embeds 7,000 texts and 2,100 queries with the default embedder (about three minutes).
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import contender_data
from benchmarks.contender_data import interval, ndcg
from benchmarks.stored import default_embedder
from openbook.core.records import Embedder
from openbook.knowledge.index import bm25, search
from openbook.knowledge.index.bm25 import Bm25
from openbook.knowledge.index.segment_builder import SegmentBuilder
from openbook.knowledge.index.segments import PassageIdentity, RowsInScope
from openbook.knowledge.index.words import query_terms

CANDIDATES, SQUAD_QUESTIONS = 100, 1000
Floats = NDArray[np.float64]
Way = Callable[[Floats, Floats, float], Floats]


@dataclass(frozen=True, slots=True)
class Task:
    name: str
    documents: list[str]  # title and text
    queries: list[tuple[str, set[int]]]  # query, numbers of the relevant documents


def scifact(data: Path, split: str) -> Task:
    asked = contender_data.scifact(data, split)
    places = {name: i for i, name in enumerate(asked.units)}
    queries = [(asked.questions[key], {places[unit] for unit in units}) for key, units in asked.relevant.items()]
    return Task(f"scifact {split}", [f"{title}\n{text}" for title, text in asked.units.values()], queries)


def squad(data: Path) -> Task:
    splits = json.loads((data / "squad/splits.json").read_text(encoding="utf-8"))
    articles = json.loads(gzip.decompress((data / "squad/dev-v1.1.from-explorer.json.gz").read_bytes()))
    articles = articles if isinstance(articles, list) else articles["data"]
    chosen = [a for a in articles if a["title"] in {*splits["train"], *splits["dev"]}]
    paragraphs = [(a["title"].replace("_", " "), p) for a in chosen for p in a["paragraphs"]]
    questions = [(q["question"], {i}) for i, (_, p) in enumerate(paragraphs) for q in p["qas"]]
    random.Random(0).shuffle(questions)
    return Task("squad train", [f"{title}\n{p['context']}" for title, p in paragraphs], questions[:SQUAD_QUESTIONS])


def vectors(task: Task, embedder: Embedder) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    documents = embedder.embed_passages(task.documents)
    return documents.astype(np.float16).astype(np.float32), np.stack([embedder.embed_query(q) for q, _ in task.queries])


def word_index(texts: Sequence[str]) -> Bm25:
    """As a knowledge base has it, of texts that are one passage each."""
    builder = SegmentBuilder(1)
    builder.begin(1)
    for number, text in enumerate(texts):
        builder.add(PassageIdentity(number, number, 0), text, np.ones(1, dtype="<f2").tobytes())
    return Bm25([RowsInScope(builder.segment(), None, 0)])


def standardised(values: Floats) -> Floats:
    scaled: Floats = (values - values.mean()) / (values.std() or 1.0)
    return scaled


def stretched(values: Floats) -> Floats:
    scaled: Floats = (values - values.min()) / (float(np.ptp(values)) or 1.0)
    return scaled


def reciprocal(cosine: Floats, words_: Floats, ceiling: float) -> Floats:
    """Reciprocal rank fusion, k = 60, each ranking cut at CANDIDATES."""
    ranks = [np.argsort(np.argsort(-v, kind="stable"), kind="stable") + 1 for v in (cosine, words_)]
    total: Floats = sum((np.where(r <= CANDIDATES, 1 / (60 + r), 0.0) for r in ranks), np.zeros(len(cosine)))
    return total


WAYS: dict[str, Way] = {
    "BM25": lambda cosine, words_, ceiling: words_,
    "dense": lambda cosine, words_, ceiling: cosine,
    "reciprocal ranks": reciprocal,
    "sum of standardised": lambda cosine, words_, ceiling: standardised(cosine) + standardised(words_),
    "sum of min-max": lambda cosine, words_, ceiling: stretched(cosine) + stretched(words_),
    "chosen: shares of the possible": search.fuse,
}


@dataclass(frozen=True, slots=True)
class Scored:
    """What is known of one query's candidates."""

    rows: NDArray[np.intp]
    cosine: Floats
    words: Floats
    ceiling: float
    relevant: set[int]

    def ndcg(self, way: Way) -> float:
        scores = way(self.cosine, self.words, self.ceiling)
        return ndcg(self.rows[np.argsort(-scores, kind="stable")].tolist(), self.relevant)


def scored(task: Task, index: Bm25, documents: NDArray[np.float32], asked: NDArray[np.float32]) -> list[Scored]:
    every, found = np.arange(len(documents)), []
    for (query, relevant), vector in zip(task.queries, asked, strict=True):
        terms = query_terms(query)
        weights = index.statistics(terms).weights(terms)
        cosine, words_ = (documents @ vector).astype(np.float64), index.scores(weights, every)
        rows = np.union1d(*(np.argsort(-v, kind="stable")[:CANDIDATES] for v in (cosine, words_)))
        found.append(Scored(rows, cosine[rows], words_[rows], weights.ceiling, relevant))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    arguments = parser.parse_args()
    embedder = default_embedder()
    tasks = [scifact(arguments.data, "train"), squad(arguments.data), scifact(arguments.data, "dev")]
    embedded = [vectors(task, embedder) for task in tasks]
    indexes = [word_index(task.documents) for task in tasks]
    queries = [scored(t, i, *e) for t, i, e in zip(tasks, indexes, embedded, strict=True)]
    result: dict[str, dict[str, tuple[float, float, float]]] = {}
    print("| nDCG@10 | " + " | ".join(f"{t.name} ({len(t.queries)})" for t in tasks) + " |")
    print("|---" * (len(tasks) + 1) + "|")
    for name, way in WAYS.items():
        result[name] = {t.name: interval([q.ndcg(way) for q in asked]) for t, asked in zip(tasks, queries, strict=True)}
        print(f"| {name} | " + " | ".join(f"{m:.3f} ({a:.3f} to {b:.3f})" for m, a, b in result[name].values()) + " |")
    print("\nWeight of the words, training queries only:\n")
    for weight in (0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7):
        search.WORDS_WEIGHT = weight
        print(
            f"- {weight}: "
            + ", ".join(
                f"{t.name} {np.mean([q.ndcg(search.fuse) for q in a]):.4f}"
                for t, a in zip(tasks[:2], queries, strict=False)
            )
        )
    print("\nBM25 alone, k1 and b, training queries only:\n")
    for k1, b in ((0.9, 0.4), (1.0, 0.5), (1.2, 0.6), (1.2, 0.75), (1.5, 0.75)):
        bm25.K1, bm25.B = k1, b
        again = [scored(t, i, *e) for t, i, e in zip(tasks[:2], indexes, embedded, strict=False)]
        print(
            f"- {k1}, {b}: "
            + ", ".join(
                f"{t.name} {np.mean([q.ndcg(WAYS['BM25']) for q in a]):.4f}" for t, a in zip(tasks, again, strict=False)
            )
        )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
