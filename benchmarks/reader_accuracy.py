"""Skill against knowledge: what a model reads in a passage, and what it knows without one, before and after training.

    python benchmarks/reader_accuracy.py --squad dev-v1.1.json dev-v2.0.json splits.json [--popqa test.jsonl]
                                         [--split test] [--limits A B C] MODEL [MODEL ...]

MODEL is a name or digest in the model store. All questions of the articles in the split are asked greedily through the
engine: on their passage (SQuAD 1.1: exact match and token F1; SQuAD 2.0: abstention on the unanswerable and on the
answerable), and closed-book, where an answer counts that holds an accepted one. `--limits` asks the questions on so many
passages of SQuAD 1.1 and of 2.0, chosen by chance, and so many closed-book (0: all). Prints a table with 95 % intervals and one JSON document at the end.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.stored import opened
from openbook.diagnosis.gate import EvalQuestion, ask_eval_set
from openbook.diagnosis.scoring import Interval, interval, normalised, squad_contains
from openbook.inference import FrozenModel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--squad", nargs=3, type=Path, required=True)
    parser.add_argument("--popqa", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--limits", nargs=3, type=int, default=(0, 0, 0))
    options = parser.parse_args()
    splits = options.squad[2]
    v1, v2 = (
        squad(path, splits, options.split, limit)
        for path, limit in zip(options.squad[:2], options.limits[:2], strict=True)
    )
    closed = some([EvalQuestion(p.question, p.answers) for p in v1], options.limits[2])
    popqa = some(facts(options.popqa), options.limits[2]) if options.popqa else []
    found: dict[str, dict[str, Any]] = {}
    for name in options.models:
        model = opened(name)
        started = time.perf_counter()
        measured = measure(model, v1, v2, closed, popqa)
        model.close()
        print(f"\n{name} ({model.identity.digest[:12]}), {time.perf_counter() - started:.0f} s")
        for label, value in measured.items():
            print(f"  {label:<44} {value}  (n = {value.n})", flush=True)
        found[name] = {"digest": model.identity.digest, **{label: asdict(value) for label, value in measured.items()}}
    print(json.dumps(found))


def measure(
    model: FrozenModel,
    v1: list[EvalQuestion],
    v2: list[EvalQuestion],
    closed: list[EvalQuestion],
    popqa: list[EvalQuestion],
) -> dict[str, Interval]:
    read = ask_eval_set(model, v1)
    hard = ask_eval_set(model, v2)
    alone = ask_eval_set(model, closed)
    known = ask_eval_set(model, popqa)
    unanswerable = [o for o in hard if not o.asked.answers]
    answerable = [o for o in hard if o.asked.answers]
    return {
        "SQuAD 1.1, passage given: exact match": interval([exact_match(o.answer, o.asked.answers) for o in read]),
        "SQuAD 1.1, passage given: token F1": interval([o.f1 for o in read]),
        "SQuAD 1.1, passage given: holds the answer": interval(
            [squad_contains(o.answer, o.asked.answers) for o in read]
        ),
        "SQuAD 1.1, passage given: abstains": interval([float(o.abstained) for o in read]),
        "SQuAD 2.0, unanswerable: abstains": interval([float(o.abstained) for o in unanswerable]),
        "SQuAD 2.0, answerable: abstains": interval([float(o.abstained) for o in answerable]),
        "SQuAD 2.0, answerable: token F1": interval([o.f1 for o in answerable]),
        "SQuAD 1.1, closed-book: holds the answer": interval(
            [squad_contains(o.answer, o.asked.answers) for o in alone]
        ),
        "PopQA, closed-book: holds the answer": interval([squad_contains(o.answer, o.asked.answers) for o in known]),
    }


def exact_match(answer: str, accepted: Sequence[str]) -> float:
    """As the evaluation script of SQuAD 1.1 scores it."""
    return float(normalised(answer) in map(normalised, accepted))


def squad(path: Path, splits: Path, split: str, limit: int) -> list[EvalQuestion]:
    content = path.read_bytes()
    articles = json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)["data"]
    titles = set(json.loads(splits.read_text(encoding="utf-8"))[split])
    paragraphs = [(a["title"], p) for a in articles if a["title"] in titles for p in a["paragraphs"]]
    if limit and limit < len(paragraphs):
        paragraphs = random.Random(1).sample(paragraphs, limit)
    return [
        EvalQuestion(
            q["question"].strip(),
            tuple(dict.fromkeys(x["text"] for x in q["answers"])),
            title.replace("_", " "),
            p["context"],
        )
        for title, p in paragraphs
        for q in p["qas"]
    ]


def some(probes: list[EvalQuestion], limit: int) -> list[EvalQuestion]:
    return random.Random(1).sample(probes, limit) if 0 < limit < len(probes) else probes


def facts(path: Path) -> list[EvalQuestion]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [EvalQuestion(row["question"], tuple(row["golden_answers"])) for row in rows]


if __name__ == "__main__":
    main()
