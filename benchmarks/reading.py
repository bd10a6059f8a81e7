"""How well models read passages of each kind, as `openbook ask` has them read what it found.

    python -m benchmarks.reading [MODEL ...] [--strategy each|parallel|together|checked] [--beside N] [--limit N]
                                 [--squad V1 V2 SPLITS]

Asked are questions of `recipes/data/reading-dev.jsonl.gz`: spans, sentences, long answers, yes and no with a reason, tables, finance,
policies. It is the development part of the reader's data, so nothing of it is a result for others. `--squad`: also the test articles
of SQuAD 1.1 and 2.0, on which nothing was trained or chosen. `--beside`: so many other passages are read too, those that BM25 finds
for the question. `--limit`: so many questions of each kind, drawn by chance.

Token F1 and exact match with an accepted answer, whether the answer holds one, and whether the model declines, each with a 95 %
interval; the mean over the kinds; one JSON document at the end.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from benchmarks.reader_accuracy import exact_match, squad
from benchmarks.stored import opened
from openbook.answers.reading import PassagePlan, decoding_for, final_answer, strategy_of
from openbook.answers.retrieval import Options
from openbook.core.config import STRATEGIES, load_settings
from openbook.core.records import Hit, Passage
from openbook.diagnosis.scoring import interval, squad_contains, token_f1
from openbook.inference import FrozenModel
from openbook.training.reader_objective import Passage as Text
from openbook.training.reader_objective import PassageLine, Question, WordIndex, number_passages

DATA = Path(__file__).parent.parent / "recipes" / "data" / "reading-dev.jsonl.gz"
MEASURES = ("F1", "exact", "holds", "declined")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="stored models (default: that of the settings)")
    parser.add_argument("--strategy", choices=STRATEGIES, default="auto")
    parser.add_argument("--beside", type=int, default=0)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--squad", nargs=3, type=Path)
    options = parser.parse_args()
    lines = [PassageLine.model_validate_json(line) for line in gzip.decompress(DATA.read_bytes()).splitlines()]
    if options.squad:
        *versions, splits = options.squad
        for kind, path in zip(("SQuAD 1.1", "SQuAD 2.0"), versions, strict=True):
            lines += squad_lines(kind, path, splits)
    asked = list(questions(lines, options.beside, options.limit))
    results = {}
    for name in options.models or [load_settings().model]:
        with closing(opened(name)) as model:
            results[name] = measured(model, asked, Options(strategy=options.strategy))
    print(json.dumps(results))


def squad_lines(kind: str, path: Path, splits: Path) -> Iterator[PassageLine]:
    for (title, passage), probes in groupby(squad(path, splits, "test", 0), lambda probe: (probe.title, probe.passage)):
        asked = tuple(Question(question=each.question, answers=each.answers) for each in probes)
        yield PassageLine(passage=passage, title=title, kind=kind, questions=asked)


def questions(lines: list[PassageLine], beside: int, limit: int | None) -> Iterator[tuple[str, Question, list[Hit]]]:
    """(kind, what is asked, the passages to read: at last those that hold the answer)."""
    by_kind: defaultdict[str, list[tuple[Question, PassageLine]]] = defaultdict(list)
    for line in lines:
        for each in line.questions:
            by_kind[line.kind if each.answers else f"{line.kind}, no answer"].append((each, line))
    texts, _ = number_passages(lines)
    index = WordIndex([text.text for text in texts])
    for kind, asked in by_kind.items():
        for each, line in random.Random(1).sample(asked, min(limit or len(asked), len(asked))):
            near = [texts[i] for i in index.best(each.question, beside + len(line.all_passages))]
            others = [text for text in near if text not in line.all_passages][:beside]
            yield kind, each, [as_hit(text) for text in (*others, *line.all_passages)]


def as_hit(text: Text) -> Hit:
    passage = Passage("", "", text.title, 0, len(text.text), None, (), text.text)
    return Hit(passage, 0.0, None, None, None)


def measured(
    model: FrozenModel, asked: Sequence[tuple[str, Question, list[Hit]]], options: Options
) -> dict[str, dict[str, object]]:
    decoding = decoding_for(model, options.decoding)
    strategy = strategy_of(options.strategy, model, decoding)
    rows: defaultdict[str, list[tuple[float, ...]]] = defaultdict(list)
    for kind, question, hits in asked:
        text, declined = final_answer(PassagePlan(strategy, hits).read(question.question, model, decoding), model)
        answers = question.answers
        scores = (0.0, 0.0, 0.0) if declined or not answers else (
            token_f1(text, answers), exact_match(text, answers), squad_contains(text, answers))  # fmt: skip
        rows[kind].append((*scores, float(declined)))
        print(f"{kind}: {question.question} -> {'' if declined else text!r} ({', '.join(answers[:1])!r})", flush=True)
    table = {
        kind: {label: interval([row[i] for row in found]) for i, label in enumerate(MEASURES)}
        for kind, found in rows.items()
    }
    print(f"\n{model.identity.name}, read {strategy}")
    for kind, measures in table.items():
        labels = MEASURES[3:] if kind.endswith("no answer") else MEASURES
        print(f"{kind:<24} n = {len(rows[kind]):<4} {'  '.join(f'{label} {measures[label]}' for label in labels)}")
    means = [measures["F1"].mean for kind, measures in table.items() if not kind.endswith("no answer")]
    print(f"mean F1 over {len(means)} kinds {sum(means) / len(means):.3f}", flush=True)
    return {kind: {label: asdict(value) for label, value in measures.items()} for kind, measures in table.items()}


if __name__ == "__main__":
    main()
