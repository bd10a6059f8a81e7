"""Which verdicts do questions of public sets get, and does a person agree with them?

    python -m benchmarks.verdicts run DATA OUT [--models smollm2-135m-instruct reader] [--sets ...] [--questions 60]
    python -m benchmarks.verdicts hand-check OUT [--records 50]
    python -m benchmarks.verdicts agreement OUT

`run` asks the first questions of each set (in an order drawn once) alone, with documents and with the right passage, as
`openbook diagnose` does, and prints the shares of the verdicts with 95 % intervals over the questions (Wilson's), as Markdown, and one JSON document. What was asked stands in OUT and is not asked again; OUT/records.jsonl holds every
question with its answers, passages and verdict. `hand-check` writes some of them, without the verdict, into
OUT/hand-check.md for a person to judge, or adds to those that are there; `agreement` reads it back. A model that knows nothing but
the documents of one set: benchmarks/data/from-scratch.toml. PopQA and WebQuestions come without documents: they are
asked with those of the other sets, which hold few of the answers.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import hand_check
from benchmarks.stored import base_of, default_embedder, opened
from benchmarks.verdict_sets import SETS, Set, sets
from openbook.answers.retrieval import Options
from openbook.core.records import Embedder
from openbook.diagnosis.questions import questions_digest
from openbook.diagnosis.report import OBSERVATIONS, observations_path
from openbook.diagnosis.run_log import read_observations
from openbook.diagnosis.runner import Bench, run_questions
from openbook.diagnosis.scoring import Interval, interval
from openbook.diagnosis.verdicts import (
    CONTROLS,
    VERDICTS,
    Verdict,
    by_chance,
    reason,
    reply_is_right,
    verdict_of,
    with_neighbours,
)
from openbook.inference.kv_cache import KVCache
from openbook.knowledge import KnowledgeBase

RECORDS, HAND_CHECK = "records.jsonl", "hand-check.md"
STATES_BYTES = 256 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run")
    run.add_argument("data", type=Path)
    run.add_argument("out", type=Path)
    run.add_argument("--models", nargs="+", default=["smollm2-135m-instruct", "reader"])
    run.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    run.add_argument("--questions", type=int, default=60)
    check = verbs.add_parser("hand-check")
    check.add_argument("out", type=Path)
    check.add_argument("--records", type=int, default=50)
    verbs.add_parser("agreement").add_argument("out", type=Path)
    options = parser.parse_args()
    {"run": run_sets, "hand-check": write_hand_check, "agreement": print_agreement}[options.verb](options)


# --- asking -----------------------------------------------------------------------------------------------------------


def run_sets(options: argparse.Namespace) -> None:
    embedder = default_embedder()
    for each in sets(options.sets, options.data, options.out / "documents"):
        base = base_of(options.out / "kb" / each.name, each.documents, embedder)
        for model in options.models:
            ask_set(each, model, base, embedder, options)
        base.close()
    records = list(all_records(options.out))
    content = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    (options.out / RECORDS).write_text(content, encoding="utf-8")
    print_table(records)


def ask_set(each: Set, name: str, base: KnowledgeBase, embedder: Embedder, options: argparse.Namespace) -> None:
    states = KVCache(None, memory_bytes=STATES_BYTES)
    started = time.perf_counter()
    with closing(opened(name, states)) as model:
        bench = Bench(model, base, embedder, options=Options()).pinned()
        path = observations_path(options.out / each.name, model.identity)
        run_questions(each.questions[: options.questions], bench, questions_digest(each.questions), path=path)
    print(f"{each.name}, {name}: {time.perf_counter() - started:.0f} s", flush=True)


# --- what was seen ----------------------------------------------------------------------------------------------------


def all_records(out: Path) -> Iterator[dict[str, Any]]:
    """Each question of each set and model in OUT, with its verdict."""
    for name in SETS:
        for path in sorted((out / name).glob(f"{OBSERVATIONS}*.jsonl")):
            header, observations = read_observations(path)
            for observation, others in with_neighbours(observations, CONTROLS):
                question, found = observation.question, verdict_of(observation, others)
                right_alone = all(reply_is_right(each.closed, question) for each in observation.asked)
                yield {
                    "set": name,
                    "model": header.model.name,
                    "verdict": found.verdict,
                    "silence": found.without_passage,
                    "right": found.right,
                    "by_chance": right_alone and by_chance(question, others),
                    "reason": reason(observation, found),
                    **asdict(observation),
                }


def print_table(records: Sequence[dict[str, Any]]) -> None:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault((record["set"], record["model"]), []).append(record)
    shown = [v for v in VERDICTS if any(record["verdict"] == v for record in records)]
    nowhere: Verdict = "not_in_the_knowledge_base"
    shown = [*(v for v in shown if v != nowhere), nowhere]  # beside the share that says how many were silent
    heads = [
        "set",
        "model",
        "n",
        *(v.replace("_", " ") for v in shown),
        "of these: said so",
        "right, or abstained rightly",
    ]
    print(f"\n| {' | '.join(heads)} |\n|---|---|{'---:|' * (len(heads) - 2)}")
    numbers = []
    for (name, model), group in groups.items():
        shares = {verdict: _share([r["verdict"] == verdict for r in group]) for verdict in shown}
        silent = _share([r["silence"] == "abstained" for r in group if r["verdict"] == nowhere])
        right = _share([r["right"] for r in group])
        cells = [name, model, str(len(group)), *map(_cell, shares.values()), _cell(silent), _cell(right)]
        print(f"| {' | '.join(cells)} |")
        numbers.append(
            {"set": name, "model": model, "shares": {v: asdict(s) for v, s in shares.items()}, "right": asdict(right)}
        )
    print(json.dumps(numbers))


def _share(found: Sequence[bool]) -> Interval:
    return interval([float(each) for each in found])


def _cell(share: Interval) -> str:
    low, high = max(0.0, share.low), min(1.0, share.high)
    return f"{100 * share.mean:.0f} % ({100 * low:.0f} to {100 * high:.0f})" if share.n else "no data"


# --- by hand ----------------------------------------------------------------------------------------------------------


def _named(out: Path) -> dict[str, dict[str, Any]]:
    records = [json.loads(line) for line in (out / RECORDS).read_text(encoding="utf-8").splitlines()]
    return {f"{record['set']}/{record['model']}/{record['question']['id']}": record for record in records}


def write_hand_check(options: argparse.Namespace) -> None:
    """So many records, as evenly as can be from each set and model. Those that are in the file already stay as they are."""
    path, records = options.out / HAND_CHECK, _named(options.out)
    text = path.read_text(encoding="utf-8") if path.exists() else hand_check.HEAD
    there = hand_check.names(text)
    more = _evenly([name for name in records if name not in there], there)[: max(0, options.records - len(there))]
    path.write_text(text + hand_check.written({name: records[name] for name in more}), encoding="utf-8")
    print(f"{len(there) + len(more)} of {len(records)} records are in {path}.")


def _evenly(names: Sequence[str], there: Sequence[str]) -> list[str]:
    """In an order by chance in which sets and models take turns, after those that are there."""
    taken = Counter(name.rpartition("/")[0] for name in there)
    order = random.Random(0).sample(sorted(names), len(names))
    turns = []
    for name in order:
        group = name.rpartition("/")[0]
        turns.append((taken[group], name))
        taken[group] += 1
    return [name for _, name in sorted(turns, key=lambda turn: turn[0])]


def print_agreement(options: argparse.Namespace) -> None:
    records = _named(options.out)
    judged = hand_check.read((options.out / HAND_CHECK).read_text(encoding="utf-8"))
    pairs = [(records[name]["verdict"], verdict) for name, verdict in judged.items()]
    print(f"The program and the person agree on {hand_check.agreement(pairs)}.")
    for (program, person), name in zip(pairs, judged, strict=True):
        if program != person:
            print(f"- {name}: program {program}, person {person}. {records[name]['reason']}")


if __name__ == "__main__":
    main()
