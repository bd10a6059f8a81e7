"""Questions that need several passages: each read on its own, all side by side, or all in one prompt?

    python -m benchmarks.several_passages --data FOLDER [--questions 60] [--model NAME ...]

FOLDER holds `hotpotqa_train.json` and `musique_train.json` with their corpora, as in the HippoRAG repository (100 questions
each, evaluation only). All paragraphs of both corpora are one knowledge base, one passage each. Read are the supporting
paragraphs of each question (gold), and the 4 best found (found), by the strategy that `openbook ask` takes for the model,
side by side where it can, and by a trained reader also each alone and all in one prompt. Exact match and token F1 with an accepted answer, whether the answer holds one and
whether the model declines, by type of question, with 95 % intervals.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.reader_accuracy import exact_match
from benchmarks.reading_strategies import knowledge_base
from benchmarks.stored import default_embedder, opened
from openbook.answers.reading import PassagePlan, PassageStrategy, decoding_for, final_answer, strategy_of
from openbook.answers.retrieval import Options
from openbook.core.records import Embedder, Hit
from openbook.diagnosis.scoring import interval, squad_contains, token_f1
from openbook.inference import FrozenModel
from openbook.inference.kv_cache import KVCache
from openbook.knowledge import KnowledgeBase

READ = 4
MEASURES = ("exact", "F1", "holds", "declined")


@dataclass(frozen=True, slots=True)
class Asked:
    """`gold`: the texts of the paragraphs that are needed."""

    kind: str
    question: str
    answers: tuple[str, ...]
    gold: tuple[str, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=60, help="of each set")
    parser.add_argument("--model", nargs="+", default=["reader"])
    options = parser.parse_args()
    embedder = default_embedder()
    chance = random.Random(3)
    asked = [
        each
        for found in (list(hotpot(options.data)), list(musique(options.data)))
        for each in chance.sample(found, min(options.questions, len(found)))
    ]
    with tempfile.TemporaryDirectory() as folder:
        base = knowledge_base(Path(folder), paragraphs(options.data), embedder)
        hits = {hit.passage.text: hit for hit in all_hits(base)}
        results = {}
        for name in options.model:
            with closing(opened(name, KVCache(None, memory_bytes=1 << 30))) as model:
                results[name] = measured(model, base, embedder, hits, asked)
        base.close()
    print(json.dumps({"question": "each or together, where several passages are needed", "results": results}))


def paragraphs(folder: Path) -> list[tuple[str, str]]:
    found = [(title, "".join(sentences)) for title, sentences in read(folder / "hotpotqa_train_corpus.json").items()]
    found += [(each["title"], each["text"]) for each in read(folder / "musique_train_corpus.json")]
    return list(dict.fromkeys((title, text.strip()) for title, text in found if text.strip()))


def hotpot(folder: Path) -> Iterator[Asked]:
    for row in read(folder / "hotpotqa_train.json"):
        needed = {title for title, _ in row["supporting_facts"]}
        gold = tuple("".join(sentences).strip() for title, sentences in row["context"] if title in needed)
        yield Asked(f"hotpot {row['type']}", row["question"], (row["answer"],), gold)


def musique(folder: Path) -> Iterator[Asked]:
    for row in read(folder / "musique_train.json"):
        if row["answerable"]:
            gold = tuple(p["paragraph_text"].strip() for p in row["paragraphs"] if p["is_supporting"])
            yield Asked(
                f"musique {row['id'][:4]}", row["question"], (row["answer"], *row.get("answer_aliases", ())), gold
            )


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def all_hits(base: KnowledgeBase) -> Iterator[Hit]:
    for document in base.documents():
        for passage in base.passages(document):
            yield Hit(passage, 0.0, None, None, None)


def measured(
    model: FrozenModel, base: KnowledgeBase, embedder: Embedder, hits: dict[str, Hit], asked: list[Asked]
) -> dict[str, Any]:
    scores: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    decoding = decoding_for(model, Options().decoding)
    as_asked = strategy_of("auto", model, decoding)
    possible: dict[PassageStrategy, bool] = {
        as_asked: True,
        "each": model.reads_each,
        "together": model.reader is not None,
        "parallel": bool(model.parallel_passages),
    }
    strategies = [strategy for strategy, can in possible.items() if can or strategy == as_asked]
    for each in asked:
        gold = [hits[text] for text in each.gold if text in hits]
        _, found = base.search(each.question, embedder, READ)
        for given, passages in (("gold", gold), ("found", found)):
            for strategy in strategies:
                text, declined = final_answer(
                    PassagePlan(strategy, passages).read(each.question, model, decoding), model
                )
                text = "" if declined else text
                print(f"{given}, {strategy}: {each.question} -> {text!r} ({each.answers[0]!r})", flush=True)
                scored = (
                    exact_match(text, each.answers),
                    token_f1(text, each.answers),
                    squad_contains(text, each.answers),
                )
                row = (*scored, float(declined))
                for kind in (each.kind, "all"):
                    scores.setdefault((kind, f"{given}, {strategy}"), []).append(row)
    result: dict[str, Any] = {}
    for (kind, how), rows in sorted(scores.items()):
        measures = {label: interval([row[i] for row in rows]) for i, label in enumerate(MEASURES)}
        shown = "  ".join(f"{label} {value}" for label, value in measures.items())
        print(f"{model.identity.name:<22} {kind:<20} {how:<16} {shown}  (n = {len(rows)})", flush=True)
        result[f"{kind}: {how}"] = {label: asdict(value) for label, value in measures.items()}
    return result


if __name__ == "__main__":
    main()
