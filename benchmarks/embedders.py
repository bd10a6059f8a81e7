"""Which way to embed finds best, and how fast is it? Does late interaction order what was found better?

    python benchmarks/embedders.py DATA [--documents N] [--model NAME=FOLDER ...] [--rounds 3]

DATA holds `scifact` (BEIR's SciFact: 300 dev claims; title and text of each abstract) and `chunking_evaluation` (472
questions on five texts, which are cut into passages of 450 characters; a passage is relevant if it holds part of an
excerpt). Contenders are the default embedder in int8, the same file run as it is in float32, and any folder with a
`model.onnx` and a `tokenizer.json`. Speed is measured on passages of the second set, the contenders in turn, by as many
workers as there are cores. With --documents, SciFact keeps the relevant abstracts and N others.

Then the best 20 by BM25 and vectors together are reranked. Prints two tables in Markdown; intervals are 95 % from
resampled questions, of the difference to the first row of a table. The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks import contender_data
from benchmarks.stored import stored
from openbook.core.config import load_settings
from openbook.core.records import Content
from openbook.inference import load_embedder
from openbook.inference.embedder import OnnxEmbedder
from openbook.knowledge.index.words import query_terms
from openbook.knowledge.ingest.splitter import split
from openbook.models import EmbeddingSpec, ModelReference

CANDIDATES, RERANKED = 100, 20
TIMED_PASSAGES = 200

Scores: TypeAlias = dict[tuple[str, str], NDArray[np.float64]]
"""By contender and set: [questions, texts]."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """`relevant[i]`: the places of the texts that answer question i."""

    name: str
    texts: list[str]
    questions: list[str]
    relevant: list[set[int]]


@dataclass(frozen=True, slots=True)
class Contender:
    name: str
    embedder: OnnxEmbedder
    folder: Path


def scifact(data: Path, others: int | None) -> Dataset:
    asked = contender_data.scifact(data)
    needed = {unit for units in asked.relevant.values() for unit in units}
    names = sorted(asked.units, key=lambda name: name not in needed)[: None if others is None else len(needed) + others]
    places = {name: i for i, name in enumerate(names)}
    relevant = [{places[unit] for unit in units} for units in asked.relevant.values()]
    return Dataset("SciFact", [" ".join(asked.units[name]) for name in names], list(asked.questions.values()), relevant)


def excerpts(folder: Path) -> Dataset:
    texts: list[str] = []
    spans: dict[str, list[tuple[int, int, int]]] = {}
    for path in sorted((folder / "corpora").glob("*.md")):
        text = path.read_text()
        for span in split(Content(text=text, media_type="text/plain"), passage_chars=450):
            spans.setdefault(path.stem, []).append((span.start, span.end, len(texts)))
            texts.append(text[span.start : span.end])
    questions, relevant = [], []
    for row in csv.DictReader((folder / "questions_df.csv").open()):
        found = {
            place
            for excerpt in json.loads(row["references"])
            for start, end, place in spans[row["corpus_id"]]
            if min(end, excerpt["end_index"]) - max(start, excerpt["start_index"]) >= min(30, len(excerpt["content"]))
        }
        questions.append(row["question"])
        relevant.append(found)
    return Dataset("excerpts", texts, questions, relevant)


# --- quality ----------------------------------------------------------------------------------------------------------


def ndcg(scores: NDArray[np.float64], relevant: Sequence[set[int]]) -> NDArray[np.float64]:
    """Of each question. Equal scores rank by place."""
    best = np.argsort(-scores, axis=1, kind="stable").tolist()
    return np.array([contender_data.ndcg(row, places) for row, places in zip(best, relevant, strict=True)])


def bm25(data: Dataset, k1: float = 0.9, b: float = 0.4) -> NDArray[np.float64]:
    counts = [query_terms(text) for text in data.texts]
    lengths = np.array([sum(count.values()) for count in counts], np.float64)
    norms = k1 * (1 - b + b * lengths / lengths.mean())
    postings: dict[int, list[tuple[int, int]]] = {}
    for place, count in enumerate(counts):
        for term, times in count.items():
            postings.setdefault(term, []).append((place, times))
    scores = np.zeros((len(data.questions), len(data.texts)))
    for row, question in zip(scores, data.questions, strict=True):
        for term in query_terms(question):
            if rows := postings.get(term):
                places, times = np.array(rows).T
                row[places] += (
                    math.log(1 + (len(counts) - len(rows) + 0.5) / (len(rows) + 0.5)) * times / (times + norms[places])
                )
    return scores


def standardised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = (values - values.mean()) / (values.std() or 1.0)
    return found


def hybrid(dense: NDArray[np.float64], words: NDArray[np.float64]) -> NDArray[np.float64]:
    """Both scores, standardised over the best candidates of either, in equal parts; all others are far below."""
    scores = np.full_like(dense, -1e9)
    for row, near, fit in zip(scores, dense, words, strict=True):
        places = np.union1d(np.argsort(-near)[:CANDIDATES], np.argsort(-fit)[:CANDIDATES])
        row[places] = standardised(near[places]) + standardised(fit[places])
    return scores


def late_interaction(embedder: OnnxEmbedder, query: str, texts: Sequence[str]) -> list[float]:
    """Each token of the query looks for its nearest in a text; the mean of these cosines (MaxSim, ColBERT, arXiv:2004.12832)."""

    def tokens_of(text: str) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = embedder._hidden(text)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows

    asked = tokens_of(query)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        tokens = pool.map(tokens_of, texts)
        return [float((asked @ passage.T).max(axis=1).mean()) for passage in tokens]


def reranked(
    contender: Contender, data: Dataset, scores: NDArray[np.float64]
) -> tuple[NDArray[np.float64], list[float]]:
    """(scores by late interaction for the best, seconds of each question)"""
    result, seconds = np.full_like(scores, -1e9), list[float]()
    for row, question, first in zip(result, data.questions, scores, strict=True):
        best = np.argsort(-first, kind="stable")[:RERANKED]
        started = time.perf_counter()
        row[best] = late_interaction(contender.embedder, question, [data.texts[place] for place in best])
        seconds.append(time.perf_counter() - started)
    return result, seconds


def fused(first: NDArray[np.float64], late: NDArray[np.float64]) -> NDArray[np.float64]:
    places = np.flatnonzero(late > -1e8)
    result = np.full_like(late, -1e9)
    result[places] = standardised(first[places]) + standardised(late[places])
    return result


def with_interval(values: NDArray[np.float64], base: NDArray[np.float64]) -> str:
    return "{:.4f} ({:+.4f} [{:+.4f}, {:+.4f}])".format(values.mean(), *contender_data.interval(values - base))


# --- speed ------------------------------------------------------------------------------------------------------------


def opening_ms(contender: Contender) -> float:
    """From nothing open to the vector of a first query; the libraries are imported already."""
    embedder = contender.embedder
    spec = EmbeddingSpec(embedder.identity.dimensions, max_tokens=256)
    fresh = type(embedder)(contender.folder, name="fresh", digest="", spec=spec)
    started = time.perf_counter()
    fresh.embed_query("When does the ferry leave?")
    return (time.perf_counter() - started) * 1000


def rates(contenders: Sequence[Contender], texts: Sequence[str], rounds: int) -> dict[str, list[float]]:
    """Passages per second of each contender, in turn."""
    found: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for _ in range(rounds):
        for contender in contenders:
            started = time.perf_counter()
            contender.embedder.embed_passages(texts)
            found[contender.name].append(len(texts) / (time.perf_counter() - started))
    return found


def contenders_of(reference: ModelReference, more: Sequence[str]) -> list[Contender]:
    default = load_embedder(reference)
    assert isinstance(default, OnnxEmbedder)
    found = []
    named = [(name, Path(folder)) for name, _, folder in (pair.partition("=") for pair in more)]
    for name, folder in [("as it is (float32)", reference.path), *named]:
        plain = OnnxEmbedder(
            folder, name=name, digest="", spec=EmbeddingSpec(default.identity.dimensions, max_tokens=256)
        )
        found.append(Contender(name, plain, folder))
    return [found[0], Contender("int8 (the default)", default, reference.path), *found[1:]]


def embedder_table(
    contenders: Sequence[Contender], sets: Sequence[Dataset], dense: Scores, rounds: int
) -> dict[str, object]:
    speed = rates(contenders, sets[1].texts[:TIMED_PASSAGES], rounds)
    result: dict[str, object] = {}
    print(f"| embedder | {' | '.join(f'nDCG@10 {data.name}' for data in sets)} | passages/s | opens, ms | MB |")
    print("|---|---|---|---:|---:|---:|")
    for contender in contenders:
        values = {data.name: ndcg(dense[contender.name, data.name], data.relevant) for data in sets}
        bases = {data.name: ndcg(dense[contenders[0].name, data.name], data.relevant) for data in sets}
        opening = statistics.median(opening_ms(contender) for _ in range(5))
        size, rate = (contender.folder / "model.onnx").stat().st_size / 1e6, speed[contender.name]
        cells = " | ".join(with_interval(values[data.name], bases[data.name]) for data in sets)
        spread = f"{statistics.median(rate):.0f} ({min(rate):.0f} to {max(rate):.0f})"
        print(f"| {contender.name} | {cells} | {spread} | {opening:.0f} | {size:.1f} |", flush=True)
        means = {name: float(value.mean()) for name, value in values.items()}
        result[contender.name] = {"ndcg": means, "passages_per_s": rate, "opening_ms": opening}
    return result


def reranking_table(default: Contender, sets: Sequence[Dataset], dense: Scores) -> dict[str, list[float]]:
    print(f"\n| order of the best {RERANKED} | {' | '.join(f'nDCG@10 {data.name}' for data in sets)} | ms a question |")
    print("|---|---|---|---:|")
    first = {data.name: hybrid(dense[default.name, data.name], bm25(data)) for data in sets}
    base = {data.name: ndcg(first[data.name], data.relevant) for data in sets}
    second = {data.name: reranked(default, data, first[data.name]) for data in sets}
    after = {data.name: ndcg(second[data.name][0], data.relevant) for data in sets}
    both = {
        data.name: ndcg(
            np.stack([fused(*pair) for pair in zip(first[data.name], second[data.name][0], strict=True)]), data.relevant
        )
        for data in sets
    }
    times = [statistics.median(second[data.name][1]) * 1000 for data in sets]
    print(f"| BM25 and vectors | {' | '.join(f'{base[data.name].mean():.4f}' for data in sets)} | 0 |")
    taken = " and ".join(f"{ms:.0f}" for ms in times)
    for name, values in (("late interaction", after), ("both, in equal parts", both)):
        print(f"| {name} | {' | '.join(with_interval(values[d.name], base[d.name]) for d in sets)} | {taken} |")
    return {data.name: [float(each[data.name].mean()) for each in (base, after, both)] for data in sets}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--documents", type=int)
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    contenders = contenders_of(stored(load_settings().embedder), arguments.model)
    sets = [scifact(arguments.data, arguments.documents), excerpts(arguments.data / "chunking_evaluation")]

    dense = {
        (contender.name, data.name): np.stack([contender.embedder.embed_query(q) for q in data.questions]).astype(float)
        @ contender.embedder.embed_passages(data.texts).T.astype(float)
        for contender in contenders
        for data in sets
    }
    embedders = embedder_table(contenders, sets, dense, arguments.rounds)
    print(json.dumps({"embedders": embedders, "rerank": reranking_table(contenders[1], sets, dense)}))


if __name__ == "__main__":
    main()
