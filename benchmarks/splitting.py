"""Which splitting finds the evidence, when the same number of characters is read?

    python benchmarks/splitting.py FOLDER [--sizes 300 450 700 1000] [--splitters openbook fixed ...]

FOLDER is chunking_evaluation (corpora/*.md and questions_df.csv): 472 questions with the exact spans of the excerpts
that answer them. All corpora are searched at once. Passages are read in the order of their rank until the budget is
used up, the last one in part; with k=5 five passages are read whole, however long they are. They are ranked by BM25 and
vectors together.

  recall     share of the excerpts' characters that were read
  precision  share of the characters read that belong to an excerpt

Means over the questions with half the width of a 95 % bootstrap interval. The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import collections
import csv
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from benchmarks import contender_data
from benchmarks.stored import default_embedder
from openbook.core.records import Content, Embedder
from openbook.knowledge.index.words import query_words
from openbook.knowledge.ingest.sentences import sentence_spans
from openbook.knowledge.ingest.splitter import split

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Shape legend: N passages, Q questions, D dimensions.

Span: TypeAlias = tuple[int, int]
BUDGETS = (900, 2000)
K = 5
CANDIDATES = 100  # of each ranking, before they are fused
REFERENCE = ("openbook", 450)  # what the differences are taken to


# --- contenders -------------------------------------------------------------------------------------------------------


def openbook(text: str, limit: int) -> list[Span]:
    return [(span.start, span.end) for span in split(Content(text, "text/plain"), passage_chars=limit)]


def fixed(text: str, limit: int) -> list[Span]:
    return [(start, min(start + limit, len(text))) for start in range(0, len(text), limit)]


def sentences(text: str, limit: int) -> list[Span]:
    """Whole sentences, as many as fit; one that does not fit is cut every `limit` characters."""
    packed: list[Span] = []
    for begin, stop in sentence_spans(text, 0, len(text)):
        if packed and stop - packed[-1][0] <= limit:
            packed[-1] = (packed[-1][0], stop)
        else:
            packed += [(start, min(start + limit, stop)) for start in range(begin, stop, limit)]
    return packed


def recursive(text: str, limit: int) -> list[Span]:
    """RecursiveCharacterTextSplitter of langchain-text-splitters with its defaults and no overlap."""
    return list(_recursive(text, 0, len(text), limit, ("\n\n", "\n", " ", "")))


def _recursive(text: str, start: int, end: int, limit: int, separators: Sequence[str]) -> Iterator[Span]:
    chosen = next(i for i, separator in enumerate(separators) if not separator or text.find(separator, start, end) >= 0)
    small: list[Span] = []
    for piece in _pieces(text, start, end, separators[chosen]):
        if piece[1] - piece[0] < limit:
            small.append(piece)
            continue
        yield from _merged(text, small, limit)
        small = []
        if chosen + 1 < len(separators):
            yield from _recursive(text, *piece, limit, separators[chosen + 1 :])
        else:
            yield piece
    yield from _merged(text, small, limit)


def _pieces(text: str, start: int, end: int, separator: str) -> Iterator[Span]:
    """Cut before each separator."""
    begin = start
    while begin < end:
        stop = text.find(separator, begin + 1, end) if separator else begin + 1
        if begin == start and separator and text.startswith(separator, start):
            stop = text.find(separator, start + len(separator), end)
        stop = end if stop < 0 else stop
        yield begin, stop
        begin = stop


def _merged(text: str, pieces: Sequence[Span], limit: int) -> Iterator[Span]:
    """Neighbours joined while they fit, without the white space around them."""
    open_span: Span | None = None
    for begin, stop in [*pieces, (-1, -1)]:
        if open_span and begin >= 0 and stop - open_span[0] <= limit:
            open_span = (open_span[0], stop)
            continue
        if open_span:
            yield from _stripped(text, open_span)
        open_span = (begin, stop)


def _stripped(text: str, span: Span) -> Iterator[Span]:
    inside = text[slice(*span)]
    if inside.strip():
        left = len(inside) - len(inside.lstrip())
        yield span[0] + left, span[0] + left + len(inside.strip())


SPLITTERS: dict[str, Callable[[str, int], list[Span]]] = {
    "openbook": openbook,
    "recursive": recursive,
    "sentences": sentences,
    "fixed": fixed,
}


# --- data -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Question:
    """`excerpts` in characters of all corpora one after the other."""

    text: str
    excerpts: tuple[Span, ...]


def load(folder: Path) -> tuple[dict[str, str], list[Question]]:
    corpora = {path.stem: path.read_bytes().decode() for path in sorted((folder / "corpora").glob("*.md"))}
    starts = _starts(corpora)
    questions = []
    with (folder / "questions_df.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            at = starts[row["corpus_id"]]
            spans = [(at + e["start_index"], at + e["end_index"]) for e in json.loads(row["references"])]
            questions.append(Question(row["question"], tuple(union(spans))))
    return corpora, questions


def _starts(corpora: dict[str, str]) -> dict[str, int]:
    starts, at = {}, 0
    for name, text in corpora.items():
        starts[name] = at
        at += len(text)
    return starts


def union(spans: Sequence[Span]) -> list[Span]:
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


# --- retrieval and scores ---------------------------------------------------------------------------------------------


def dense_rankings(texts: Sequence[str], queries: NDArray[np.float32], embedder: Embedder) -> list[list[int]]:
    passages = embedder.embed_passages(texts).astype(np.float16).astype(np.float32)  # as a knowledge base keeps them
    scores = queries @ passages.T  # [Q, N]
    return [np.argsort(-row, kind="stable")[:CANDIDATES].tolist() for row in scores]


def bm25_rankings(texts: Sequence[str], questions: Sequence[Question]) -> list[list[int]]:
    """Plain BM25 (k1 1.2, b 0.75) over lower-case words without stop words."""
    counts = [collections.Counter(query_words(text)) for text in texts]
    lengths = [sum(count.values()) for count in counts]
    mean = sum(lengths) / len(lengths)
    postings: dict[str, list[tuple[int, float]]] = collections.defaultdict(list)
    for i, count in enumerate(counts):
        for word, times in count.items():
            postings[word].append((i, times * 2.2 / (times + 1.2 * (0.25 + 0.75 * lengths[i] / mean))))
    rankings = []
    for question in questions:
        scores: dict[int, float] = collections.defaultdict(float)
        for word in sorted(set(query_words(question.text))):
            found = postings.get(word, [])
            idf = math.log(1 + (len(texts) - len(found) + 0.5) / (len(found) + 0.5))
            for i, weight in found:
                scores[i] += idf * weight
        rankings.append(sorted(scores, key=lambda i: (-scores[i], i))[:CANDIDATES])
    return rankings


def fused(first: Sequence[int], second: Sequence[int]) -> list[int]:
    """Reciprocal rank fusion."""
    scores: dict[int, float] = collections.defaultdict(float)
    for ranking in (first, second):
        for rank, i in enumerate(ranking, start=1):
            scores[i] += 1 / (60 + rank)
    return sorted(scores, key=lambda i: (-scores[i], i))


def read(spans: Sequence[Span], budget: int) -> list[Span]:
    taken, left = [], budget
    for start, end in spans:
        if left <= 0:
            break
        taken.append((start, min(end, start + left)))
        left -= taken[-1][1] - start
    return taken


def scores(question: Question, taken: Sequence[Span]) -> tuple[float, float, float]:
    """(recall, precision, characters read)."""
    size = sum(end - start for start, end in taken)
    wanted = sum(end - start for start, end in question.excerpts)
    both = sum(max(0, min(e, f) - max(s, b)) for s, e in union(taken) for b, f in question.excerpts)
    return both / wanted, both / max(size, 1), float(size)


@dataclass(frozen=True, slots=True)
class Result:
    """`values[rule]` holds (recall, precision, characters read) of each question: [Q, 3]."""

    splitter: str
    chars: int
    passages: int
    values: dict[str, NDArray[np.float64]]


def measure(
    splitter: str,
    chars: int,
    corpora: dict[str, str],
    questions: list[Question],
    queries: NDArray[np.float32],
    embedder: Embedder,
) -> Result:
    starts = _starts(corpora)
    spans: list[Span] = []
    texts: list[str] = []
    for name, text in corpora.items():
        for start, end in (inner for span in SPLITTERS[splitter](text, chars) for inner in _stripped(text, span)):
            spans.append((starts[name] + start, starts[name] + end))
            texts.append(text[start:end])
    dense = dense_rankings(texts, queries, embedder)
    rankings = [fused(a, b) for a, b in zip(dense, bm25_rankings(texts, questions), strict=True)]
    values = {f"{budget} chars": _all_scores(questions, rankings, spans, budget=budget) for budget in BUDGETS}
    values[f"k={K}"] = _all_scores(questions, [ranking[:K] for ranking in rankings], spans, budget=10**9)
    return Result(splitter, chars, len(spans), values)


def _all_scores(
    questions: Sequence[Question], rankings: Sequence[Sequence[int]], spans: Sequence[Span], *, budget: int
) -> NDArray[np.float64]:
    taken = [read([spans[i] for i in ranking], budget) for ranking in rankings]
    return np.array([scores(q, t) for q, t in zip(questions, taken, strict=True)])


# --- report -----------------------------------------------------------------------------------------------------------


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and half the width of its 95 % bootstrap interval, over questions."""
    mean, low, high = contender_data.interval(values)
    return mean, (high - low) / 2


def table(results: Sequence[Result]) -> str:
    rules = list(results[0].values)
    names = [f"{metric}, {rule}" for rule in rules for metric in ("recall", "precision")]
    reference = next((r for r in results if (r.splitter, r.chars) == REFERENCE), None)
    lines = [f"| splitter | size | passages | {' | '.join(names)} | read, k={K} | recall against ours 450 |"]
    lines.append("|" + "---|" * (len(names) + 5))
    for r in sorted(results, key=lambda r: (r.chars, r.splitter)):
        cells = [interval(r.values[rule][:, column]) for rule in rules for column in range(2)]
        shown = " | ".join(f"{mean:.3f} ±{half:.3f}" for mean, half in cells)
        size = r.values[f"k={K}"][:, 2].mean()
        against = _difference(r, reference, f"{BUDGETS[0]} chars")
        lines.append(f"| {r.splitter} | {r.chars} | {r.passages} | {shown} | {size:.0f} | {against} |")
    return "\n".join(lines)


def _difference(result: Result, reference: Result | None, rule: str) -> str:
    """Paired, question by question."""
    if reference is None or reference is result:
        return ""
    mean, half = interval(result.values[rule][:, 0] - reference.values[rule][:, 0])
    return f"{mean:+.3f} ±{half:.3f}"


def as_json(result: Result) -> dict[str, object]:
    metrics = ("recall", "precision", "chars_read")
    return {
        "splitter": result.splitter,
        "passage_chars": result.chars,
        "passages": result.passages,
    } | {
        f"{metric}, {rule}": [round(x, 4) for x in interval(values[:, i])]
        for rule, values in result.values.items()
        for i, metric in enumerate(metrics)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[300, 450, 700, 1000])
    parser.add_argument("--splitters", nargs="+", choices=list(SPLITTERS), default=list(SPLITTERS))
    arguments = parser.parse_args()
    embedder = default_embedder()
    corpora, questions = load(arguments.folder)
    queries = np.stack([embedder.embed_query(question.text) for question in questions])
    results = [
        measure(splitter, chars, corpora, questions, queries, embedder)
        for chars in arguments.sizes
        for splitter in arguments.splitters
    ]
    print(table(results))
    print(json.dumps({"questions": len(questions), "results": [as_json(r) for r in results]}))


if __name__ == "__main__":
    main()
