"""Is a reader better off with every passage on its own, or with all of them in one prompt?

    python -m benchmarks.reading_strategies --squad FILE SPLITS [--split test] [--questions 300] [--together 60]
        [--ways oracle each ...]

FILE is SQuAD 1.1's dev set, SPLITS the file that divides its articles. The paragraphs of the split become a knowledge base,
one passage each; for every question (a sample) the retriever finds passages in it, and the model is measured with

  oracle    the paragraph that the question was written for, alone, answered whatever the reader is inclined to
  each      the 4 best found, each on its own (`openbook ask` with a trained reader)
  together  the 4 best found in one prompt (fewer questions, for they take long)
  withheld  as `each`, with the 4 best of the other paragraphs: then the right answer is an abstention
  first     the best found, alone
  quote     as `each`, but the answer can only become a verbatim span of the passage

Prints a table with 95 % intervals and one JSON document.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.reader_accuracy import exact_match, squad
from benchmarks.stored import default_embedder, opened
from openbook.answers.reading import PassagePlan, PassageStrategy, final_answer
from openbook.answers.retrieval import Options
from openbook.core.records import Decoding, Embedder, Hit
from openbook.diagnosis.gate import EvalQuestion
from openbook.diagnosis.scoring import Interval, interval, token_f1
from openbook.inference import FrozenModel
from openbook.inference.kv_cache import KVCache
from openbook.knowledge import KnowledgeBase, add
from openbook.knowledge.ingest.splitter import Sizing

READ = 4
WAYS = ("oracle", "first", "each", "withheld", "quote", "together", "oracle of together")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--squad", type=Path, nargs=2, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--together", type=int, default=60)
    parser.add_argument("--model", default="reader")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    options = parser.parse_args()
    embedder = default_embedder()
    probes = squad(options.squad[0], options.squad[1], options.split, 0)
    paragraphs = list(dict.fromkeys((p.title, p.passage) for p in probes))
    asked = random.Random(3).sample(probes, min(options.questions, len(probes)))
    started = time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(opened(options.model, KVCache(None, memory_bytes=4 << 30))) as model,
    ):
        base = knowledge_base(Path(folder), paragraphs, embedder)
        scores: dict[str, list[tuple[float, float, float]]] = {}
        found = 0
        for number, probe in enumerate(asked):
            _, hits = base.search(probe.question, embedder, READ + 1)
            gold = [h for h in hits if h.passage.text == probe.passage]
            found += any(h in gold for h in hits[:READ])
            oracle = gold or [hit_of(base, probe.passage)]
            others = [h for h in hits if h not in gold][:READ]
            ways: dict[str, tuple[PassageStrategy, list[Hit], tuple[str, ...]]] = {
                "oracle": ("together", oracle, probe.answers),
                "first": ("each", hits[:1], probe.answers),
                "each": ("each", hits[:READ], probe.answers),
                "withheld": ("each", others, ()),
                "quote": ("each", hits[:READ], probe.answers),
                "together": ("together", hits[:READ], probe.answers),
                "oracle of together": ("together", oracle, probe.answers),
            }
            for name in options.ways:
                strategy, read, answers = ways[name]
                if "together" in name and number >= options.together:
                    continue
                decoding = replace(Options().decoding, quote=name == "quote")
                scores.setdefault(name, []).append(scored(probe, read, strategy, model, answers, decoding))
            if number % 25 == 24:
                print(f"{number + 1} questions, {time.perf_counter() - started:.0f} s", flush=True)
        base.close()
    report(scores, options, model.identity.digest, len(paragraphs), found / len(asked))


def knowledge_base(folder: Path, paragraphs: Sequence[tuple[str, str]], embedder: Embedder) -> KnowledgeBase:
    for number, (title, text) in enumerate(paragraphs):
        own = folder / "documents" / f"{number:04}"
        own.mkdir(parents=True)
        (own / f"{title.replace('/', '-')}.txt").write_text(text, encoding="utf-8")
    longest = max(len(text) for _, text in paragraphs) + 1
    base = KnowledgeBase.ensure(folder / "kb", embedder.identity, sizing=Sizing(longest))
    add(base, [folder / "documents"], embedder)
    return base


def hit_of(base: KnowledgeBase, text: str) -> Hit:
    for document in base.documents():
        for passage in base.passages(document):
            if passage.text == text:
                return Hit(passage, 0.0, None, None, None)
    raise LookupError(text[:80])


def scored(
    probe: EvalQuestion,
    hits: Sequence[Hit],
    strategy: PassageStrategy,
    model: FrozenModel,
    answers: tuple[str, ...],
    decoding: Decoding,
) -> tuple[float, float, float]:
    """(exact match, token F1, whether it abstained)."""
    text, abstained = final_answer(PassagePlan(strategy, hits).read(probe.question, model, decoding), model)
    if abstained:
        return float(not answers), float(not answers), 1.0
    return (exact_match(text, answers), token_f1(text, answers), 0.0) if answers else (0.0, 0.0, 0.0)


def report(
    scores: dict[str, list[tuple[float, float, float]]],
    options: argparse.Namespace,
    digest: str,
    paragraphs: int,
    found: float,
) -> None:
    print(
        f"\n{options.model} ({digest[:12]}), {options.split} articles, {paragraphs} paragraphs; right one among {READ}: {found:.3f}"
    )
    result: dict[str, dict[str, object]] = {}
    for name, rows in scores.items():
        measures: dict[str, Interval] = {
            label: interval([row[i] for row in rows]) for i, label in enumerate(("exact match", "token F1", "abstains"))
        }
        shown = "  ".join(f"{label} {value}" for label, value in measures.items())
        print(f"  {name:<20} {shown}  (n = {len(rows)})")
        result[name] = {label: asdict(value) for label, value in measures.items()}
    print(json.dumps({"model": digest, "split": options.split, "right passage found": found, "results": result}))


if __name__ == "__main__":
    main()
