"""Which size of passages finds the answer, and do title and headings help?

    python -m benchmarks.passage_retrieval DATA [--sizes 300 450 600 900] [--questions N] [--sets excerpts squad docs]

DATA holds `chunking_evaluation` (five texts; all excerpts of a question must be found), `squad` (Wikipedia articles, each one
document; the first annotated answer must be found) and `anthropic_docs_rag` (pages made of sections; a section that answers is
found by any passage of it). Passages are searched as a knowledge base searches them: the same index, words and vectors fused. A
span counts as found when the first 4 or 10 passages hold all of it together; `2,000 chars` takes as many passages as fit into so
many characters, so that sizes can be compared. Prints one table with 95 % bootstrap intervals over questions, and one JSON line.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from benchmarks.splitting import Span, interval, load, union
from benchmarks.stored import default_embedder
from openbook.core.records import Content, Embedder, HeadingMark
from openbook.knowledge.index import boilerplate
from openbook.knowledge.index.search import best_passages
from openbook.knowledge.index.segment_builder import SegmentBuilder
from openbook.knowledge.index.segment_set import SegmentSet
from openbook.knowledge.index.segments import PassageIdentity
from openbook.knowledge.ingest.embeddings import embedding_text
from openbook.knowledge.ingest.splitter import split

FIRST = (4, 10)
BUDGET = 2_000
SQUAD_ARTICLES = 16

Place: TypeAlias = tuple[int, Span]  # document, characters in it


@dataclass(frozen=True, slots=True)
class Question:
    """Found when all of `spans` are; or, with `touched`, when some passage holds a part of one of them."""

    text: str
    spans: tuple[Place, ...]
    touched: bool = False


@dataclass(frozen=True, slots=True)
class Dataset:
    name: str
    documents: list[Content]
    questions: list[Question]


def excerpts(folder: Path) -> Dataset:
    corpora, questions = load(folder)
    documents = [Content(text, "text/plain", name.replace("_", " ")) for name, text in corpora.items()]
    ends = np.cumsum([len(text) for text in corpora.values()]).tolist()

    def place(span: Span) -> Place:
        number = next(i for i, end in enumerate(ends) if span[0] < end)
        begin = ends[number] - len(documents[number].text)
        return number, (span[0] - begin, span[1] - begin)

    return Dataset("excerpts", documents, [Question(q.text, tuple(map(place, q.excerpts))) for q in questions])


def squad(file: Path) -> Dataset:
    documents, questions = list[Content](), list[Question]()
    for number, article in enumerate(json.loads(gzip.decompress(file.read_bytes()))["data"][:SQUAD_ARTICLES]):
        text = ""
        for paragraph in article["paragraphs"]:
            for qa in paragraph["qas"]:
                answer = qa["answers"][0]
                start = len(text) + answer["answer_start"]
                if answer["answer_start"] >= 0:
                    questions.append(Question(qa["question"], ((number, (start, start + len(answer["text"]))),)))
            text += paragraph["context"] + "\n\n"
        documents.append(Content(text, "text/plain", article["title"].replace("_", " ")))
    return Dataset("SQuAD", documents, questions)


def docs(folder: Path) -> Dataset:
    pages: dict[str, str] = {}
    headings: dict[str, list[HeadingMark]] = {}
    places: dict[str, tuple[str, Span]] = {}
    for chunk in json.loads((folder / "anthropic_docs.json").read_text()):
        page, text = chunk["chunk_link"].split("#")[0], pages.get(chunk["chunk_link"].split("#")[0], "")
        body = chunk["text"].strip() + "\n\n"
        pages[page] = text + body
        headings.setdefault(page, []).append(HeadingMark(len(text), 2, chunk["chunk_heading"]))
        places[chunk["chunk_link"]] = (page, (len(text), len(text) + len(body)))
    names = list(pages)
    titles = [page.rsplit("/", 1)[-1].replace("-", " ") for page in names]
    documents = [
        Content(pages[page], "text/plain", title, headings=tuple(headings[page]))
        for page, title in zip(names, titles, strict=True)
    ]
    questions = [
        Question(
            row["question"],
            tuple(
                (names.index(page), span)
                for link in row["correct_chunks"]
                if link in places
                for page, span in [places[link]]
            ),
            touched=True,
        )
        for row in json.loads((folder / "docs_evaluation_dataset.json").read_text())
    ]
    return Dataset("docs", documents, [question for question in questions if question.spans])


# --- search -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    document: int
    span: Span
    searched: str  # the text, with what stands before it


def rows_of(documents: Sequence[Content], chars: int, *, headings: bool) -> Iterator[Row]:
    for number, content in enumerate(documents):
        spans = split(content, passage_chars=chars)
        holds = boilerplate.with_content(content.text, content.title, spans)
        for span, has_content in zip(spans, holds, strict=True):
            if has_content:
                title, path = (content.title, span.headings) if headings else ("", ())
                searched = embedding_text(title, path, content.text, span.start, span.end)
                yield Row(number, (span.start, span.end), searched)


def rankings(rows: Sequence[Row], questions: Sequence[Question], embedder: Embedder) -> list[list[int]]:
    """The first rows for each question, by the index of a knowledge base."""
    dimensions = embedder.identity.dimensions
    builder = SegmentBuilder(dimensions)
    builder.begin(1)
    for begin in range(0, len(rows), 256):
        some = rows[begin : begin + 256]
        vectors = embedder.embed_passages([row.searched for row in some]).astype("<f2")
        for number, (row, vector) in enumerate(zip(some, vectors, strict=True), begin):
            builder.add(PassageIdentity(number, number, 0), row.searched, vector.tobytes())
    view = SegmentSet([builder.segment()], dimensions).shard(np.array([1]))
    return [
        [r.passage for r in best_passages(view, q.text, embedder.embed_query(q.text), max(FIRST))] for q in questions
    ]


def found(question: Question, rows: Sequence[Row]) -> bool:
    held = {(document, span) for document, span in ((row.document, row.span) for row in rows)}
    if question.touched:
        return any(d == e and s[0] < t[1] and t[0] < s[1] for d, s in held for e, t in question.spans)
    for document, (start, end) in question.spans:
        joined = union([span for number, span in held if number == document])
        if not any(begin <= start and end <= stop for begin, stop in joined):
            return False
    return True


def within(rows: Sequence[Row], budget: int) -> list[Row]:
    taken, left = list[Row](), budget
    for row in rows:
        left -= row.span[1] - row.span[0]
        if left < 0:
            break
        taken.append(row)
    return taken


def measure(data: Dataset, chars: int, embedder: Embedder, *, headings: bool) -> dict[str, object]:
    rows = list(rows_of(data.documents, chars, headings=headings))
    ranked = [[rows[i] for i in ranking] for ranking in rankings(rows, data.questions, embedder)]
    result: dict[str, object] = {"set": data.name, "chars": chars, "headings": headings, "passages": len(rows)}
    rules = {f"first {n}": [r[:n] for r in ranked] for n in FIRST}
    for name, read in {**rules, f"{BUDGET:,} chars": [within(r, BUDGET) for r in ranked]}.items():
        values = np.array([found(q, r) for q, r in zip(data.questions, read, strict=True)], dtype=np.float64)
        result[name] = [round(value, 4) for value in interval(values)]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[300, 450, 600, 900])
    parser.add_argument("--questions", type=int, default=500, help="of each set, evenly")
    parser.add_argument("--sets", nargs="+", default=["excerpts", "squad", "docs"])
    arguments = parser.parse_args()
    embedder = default_embedder()
    made = {
        "excerpts": lambda: excerpts(arguments.data / "chunking_evaluation"),
        "squad": lambda: squad(arguments.data / "squad" / "dev-v1.1.from-explorer.json.gz"),
        "docs": lambda: docs(arguments.data / "anthropic_docs_rag"),
    }
    names = [*(f"first {n}" for n in FIRST), f"{BUDGET:,} chars"]
    print(f"| set | questions | size | title and headings | passages | {' | '.join(names)} |")
    print("|---|---:|---:|---|---:|" + "---|" * len(names))
    results = []
    for name in arguments.sets:
        data = made[name]()
        chosen = np.unique(np.linspace(0, len(data.questions) - 1, arguments.questions).astype(int))
        data = Dataset(data.name, data.documents, [data.questions[i] for i in chosen])
        for chars in arguments.sizes:
            for headings in (False, True):
                each = measure(data, chars, embedder, headings=headings)
                results.append(each)
                cells = " | ".join("{:.3f} ±{:.3f}".format(*each[name]) for name in names)  # type: ignore[misc]
                shown = "yes" if headings else "no"
                print(f"| {data.name} | {len(chosen)} | {chars} | {shown} | {each['passages']} | {cells} |", flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
