"""How well a model reads passages of each kind: the development part of the reader's data, passages given.

    python -m benchmarks.reading [--model NAME] [--beside N] [--strategy parallel|together] [--limit N]

Questions of `recipes/data/reading-dev.jsonl.gz`: spans, sentences, long answers, yes and no with a reason, tables, finance,
policies. `--beside`: so many other passages lie beside, those that BM25 finds for the question. Token F1 and exact match with
an accepted answer, and how often the model declines, each with a 95 % interval; the mean over kinds; one JSON document at the
end. Chosen by, so nothing of it is a result for others.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

from openbook.answer import decoding_for
from openbook.answer_text import says_nothing_found, tidy
from openbook.config import load_settings
from openbook.diagnosis.scoring import exact_match, interval, token_f1
from openbook.inference import FrozenModel, load_model
from openbook.models import ModelStore, ensure
from openbook.prompts import reading_prompt
from openbook.records import Decoding
from openbook.training.reader_objective import Passage, PassageLine, Question, WordIndex, number_passages

DATA = Path(__file__).parent.parent / "recipes" / "data" / "reading-dev.jsonl.gz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a stored model (default: that of the settings)")
    parser.add_argument("--beside", type=int, default=0)
    parser.add_argument("--strategy", choices=("parallel", "together"))
    parser.add_argument("--limit", type=int, help="only so many questions of each kind")
    options = parser.parse_args()
    settings = load_settings()
    reference = ensure(ModelStore(settings.models_dir), options.model or settings.model)
    lines = [PassageLine.model_validate_json(line) for line in gzip.decompress(DATA.read_bytes()).splitlines()]
    found: dict[str, list[tuple[float, float, float]]] = {}
    with closing(load_model(reference, threads=settings.threads)) as model:
        parallel = (options.strategy or ("parallel" if model.reads_parallel else "together")) == "parallel"
        for kind, question, passages in questions(lines, options.beside, options.limit):
            text, declined = answered(model, question.question, passages, parallel)
            row = (
                float(declined) if not question.answers else token_f1(text, question.answers),
                float(declined) if not question.answers else exact_match(text, question.answers),
                float(declined),
            )
            name = kind if question.answers else f"{kind}, no answer"
            found.setdefault(name, []).append(row)
            print(f"{name}: {question.question} -> {text!r} ({', '.join(question.answers[:1])!r})", flush=True)
    table = {
        kind: {label: interval([row[i] for row in rows]) for i, label in enumerate(("F1", "exact", "declined"))}
        for kind, rows in found.items()
    }
    print(f"\n{reference.name}, {options.beside} beside, {'parallel' if parallel else 'together'}")
    for kind, measures in table.items():
        print(f"{kind:<24} {'  '.join(f'{label} {value}' for label, value in measures.items())}")
    answerable = [measures["F1"].mean for kind, measures in table.items() if "no answer" not in kind]
    print(f"mean F1 over {len(answerable)} kinds {sum(answerable) / len(answerable):.3f}")
    print(json.dumps({kind: {k: asdict(v) for k, v in measures.items()} for kind, measures in table.items()}))


def questions(
    lines: list[PassageLine], beside: int, limit: int | None
) -> Iterator[tuple[str, Question, list[Passage]]]:
    """(kind, what is asked, the passages to read: at last those that hold the answer)."""
    texts, _ = number_passages(lines)
    index = WordIndex([text.text for text in texts])
    asked: dict[str, int] = {}
    for line in lines:
        for each in line.questions:
            asked[line.kind] = asked.get(line.kind, 0) + 1
            if limit is None or asked[line.kind] <= limit:
                near = [texts[i] for i in index.best(each.question, beside + len(line.texts))]
                others = [text for text in near if text not in line.texts][:beside]
                yield line.kind, each, [*others, *line.texts]


def answered(model: FrozenModel, question: str, passages: list[Passage], parallel: bool) -> tuple[str, bool]:
    """(the answer, whether it is an abstention)."""
    prompt = reading_prompt(question, [(text.title, text.text) for text in passages], model.reader)
    completion = model.complete(replace(prompt, side_by_side=parallel), decoding_for(model, Decoding(max_tokens=160)))
    text = tidy(completion.text)
    declined = says_nothing_found(text, model.reader)
    return ("" if declined else text), declined


if __name__ == "__main__":
    main()
