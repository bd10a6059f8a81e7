"""Does what a reader learned work on documents that it never saw? With the relevant words in front of it, before and after.

    python -m benchmarks.reader_transfer --chunking FOLDER [--questions 100] MODEL [MODEL ...]

FOLDER is the chunking evaluation of Chroma (Smith and Troynikov 2024): questions_df.csv with character spans of the
relevant excerpts, and corpora/. There are no short answers in it, so what is measured is whether the model answers out of
the text: the share of the answer's words that stand in what it was given, the share of answers that stand there
verbatim, and how many words an answer has; and how often it abstains with the relevant text and with one of the same
corpus that is beside the point. Prints a table with 95 % intervals and one JSON document at the end.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from benchmarks.stored import opened
from openbook.diagnosis.gate import EvalQuestion, ask_eval_set
from openbook.diagnosis.scoring import Interval, interval, normalised
from openbook.inference import FrozenModel

CONTEXT_CHARS = 900  # about two passages of a knowledge base


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--chunking", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=100)
    options = parser.parse_args()
    relevant, beside = probes(options.chunking, options.questions)
    found = {}
    for name in options.models:
        model = opened(name)
        measured = measure(model, relevant, beside)
        model.close()
        print(f"\n{name} ({model.identity.digest[:12]})")
        for label, value in measured.items():
            print(f"  {label:<52} {value}  (n = {value.n})", flush=True)
        found[name] = {label: asdict(value) for label, value in measured.items()}
    print(json.dumps(found))


def measure(model: FrozenModel, relevant: list[EvalQuestion], beside: list[EvalQuestion]) -> dict[str, Interval]:
    given, wrong = ask_eval_set(model, relevant), ask_eval_set(model, beside)
    answered = [o for o in given if not o.abstained]
    return {
        "relevant text: words of the answer that stand in it": interval(
            [share(o.answer, o.asked.passage) for o in answered]
        ),
        "relevant text: answers that stand in it verbatim": interval(
            [verbatim(o.answer, o.asked.passage) for o in answered]
        ),
        "relevant text: words of an answer": interval([float(len(o.answer.split())) for o in answered]),
        "relevant text: abstains": interval([float(o.abstained) for o in given]),
        "text beside the point: abstains": interval([float(o.abstained) for o in wrong]),
    }


def share(answer: str, text: str) -> float:
    words, there = Counter(normalised(answer).split()), Counter(normalised(text).split())
    return sum((words & there).values()) / max(1, sum(words.values()))


def verbatim(answer: str, text: str) -> float:
    return float(f" {normalised(answer)} " in f" {normalised(text)} ")


def probes(folder: Path, count: int) -> tuple[list[EvalQuestion], list[EvalQuestion]]:
    """Questions with the text around their first excerpt, and the same questions with text from elsewhere."""
    chance = random.Random(1)
    with (folder / "questions_df.csv").open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if len(json.loads(row["references"])) == 1]
    relevant, beside = [], []
    for row in chance.sample(rows, min(count, len(rows))):
        text = (folder / "corpora" / f"{row['corpus_id']}.md").read_text(encoding="utf-8")
        (excerpt,) = json.loads(row["references"])
        start, end = excerpt["start_index"], excerpt["end_index"]
        room = max(0, CONTEXT_CHARS - (end - start)) // 2
        near = text[max(0, start - room) : end + room]
        while True:
            other = chance.randrange(max(1, len(text) - CONTEXT_CHARS))
            if other + CONTEXT_CHARS < start or other > end:
                break
        title = row["corpus_id"].replace("_", " ")
        # Nobody states the answer; one that is never met keeps an abstention from counting as right.
        relevant.append(EvalQuestion(row["question"], ("\0",), title, near))
        beside.append(EvalQuestion(row["question"], (), title, text[other : other + CONTEXT_CHARS]))
    return relevant, beside


if __name__ == "__main__":
    main()
