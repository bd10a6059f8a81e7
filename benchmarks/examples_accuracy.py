"""How well does the default model answer the example questions: closed-book, open-book, and with the right passage?

    python benchmarks/examples_accuracy.py [--limit N] [--model NAME]

Answerable questions count as right when an accepted answer stands in the answer; unanswerable ones when it abstains.
Every citation's quote is compared with the document's text at its span. Prints a table with 95 % Wilson intervals and,
as its last line, one JSON document.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import unicodedata
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.stored import EXAMPLES, HANDBOOK, base_of, default_embedder, opened
from openbook.answers.answer_text import says_nothing_found, tidy
from openbook.answers.ask import ask
from openbook.answers.prompts import open_book_prompt
from openbook.answers.retrieval import PASSAGES, Corpus, Options
from openbook.core.config import load_settings
from openbook.core.records import Answer, Embedder, Passage
from openbook.diagnosis.scoring import Share, share_of
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase

_WORD = re.compile(r"[0-9]+(?:[.:][0-9]+)*|[^\W_]+")


def words(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).casefold()
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    return f" {' '.join(_WORD.findall(text))} "


def holds(text: str, answers: Iterable[str]) -> bool:
    return any(words(answer) in words(text) for answer in answers)


def share(results: Iterable[bool]) -> Share:
    return share_of(list(results))


def oracle(question: str, passages: list[Passage], model: FrozenModel, options: Options) -> str:
    text = tidy(model.complete(open_book_prompt(question, passages, model.reader), options.decoding).text)
    return "" if says_nothing_found(text, model.reader) else text


def gold_passages(base: KnowledgeBase, gold: dict[str, Any]) -> list[Passage]:
    """The passages that the gold quote touches."""
    document = str(HANDBOOK / gold["document"])
    text = base.text(document) or ""
    start = text.index(gold["quote"])
    end = start + len(gold["quote"])
    return [p for p in base.passages(document) if p.start < end and p.end > start]


def quotes_stand(base: KnowledgeBase, answer: Answer) -> list[bool]:
    return [(base.text(c.document) or "")[c.start : c.end] == c.quote for c in answer.citations]


def run(model: FrozenModel, base: KnowledgeBase, embedder: Embedder, limit: int | None) -> dict[str, Share]:
    lines = (EXAMPLES / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    questions = [json.loads(line) for line in lines][:limit]
    options = Options()
    rows: list[dict[str, Any]] = []
    for q in questions:
        gold = gold_passages(base, q["gold"]) if q["gold"] else []
        closed = ask(q["question"], model, options=options)
        opened = ask(q["question"], model, Corpus(base, embedder), options)
        row = {"kind": q["kind"], "closed": holds(closed.answer, q["answers"])}
        row |= {
            "open": holds(opened.answer, q["answers"]),
            "abstained": opened.declined,
            "confidence": opened.confidence,
        }
        _, found = base.search(q["question"], embedder, PASSAGES)
        row["retrieved"] = any(g.id == h.passage.id for g in gold for h in found)
        row["read"] = len(opened.passages)
        row["oracle"] = holds(oracle(q["question"], gold, model, options), q["answers"]) if gold else False
        row["quotes"] = quotes_stand(base, opened)
        row["cites_gold"] = any(
            g.start <= c.start < g.end and g.document == c.document for g in gold for c in opened.citations
        )
        rows.append(row)
        print(
            f"{q['id']} {q['kind']:<12} closed {row['closed']:d} open {row['open']:d} oracle {row['oracle']:d}  {opened.answer[:90]}"
        )
    answerable = [r for r in rows if r["kind"] == "answerable"]
    unanswerable = [r for r in rows if r["kind"] == "unanswerable"]
    memory = [r for r in rows if r["kind"] == "closed-book"]
    return {
        "answerable, closed-book right": share(r["closed"] for r in answerable),
        "answerable, open-book right": share(r["open"] for r in answerable),
        "answerable, right passage given (oracle) right": share(r["oracle"] for r in answerable),
        "answerable, right passage among those found": share(r["retrieved"] for r in answerable),
        "answerable, no passage read but the first": share(r["read"] == 1 for r in answerable),
        "answerable, wrongly abstained": share(r["abstained"] for r in answerable),
        "answerable, right answers that cite the right passage": share(
            r["cites_gold"] for r in answerable if r["open"]
        ),
        "unanswerable, abstained": share(r["abstained"] for r in unanswerable),
        "unanswerable, called supported": share(r["confidence"] == "supported" for r in unanswerable),
        "world facts, closed-book right": share(r["closed"] for r in memory),
        "world facts, open-book right": share(r["open"] for r in memory),
        "citations whose quote stands at its span": share(stands for r in rows for stands in r["quotes"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--limit", type=int, help="only the first questions")
    parser.add_argument("--model", help="a stored model (default: that of the settings)")
    arguments = parser.parse_args()
    model, embedder = opened(arguments.model or load_settings().model), default_embedder()
    with tempfile.TemporaryDirectory() as folder:
        base = base_of(Path(folder) / "kb", [HANDBOOK], embedder)
        results = run(model, base, embedder, arguments.limit)
        base.close()
    print(f"\nmodel {model.identity.name} {model.identity.digest[:12]}, embedder {embedder.identity.name}")
    for name, value in results.items():
        print(f"{name:<55} {value}")
    print(json.dumps({"model": asdict(model.identity), "results": {k: [v.count, v.of] for k, v in results.items()}}))


if __name__ == "__main__":
    main()
