"""The same weights over one knowledge base and over another that says other things: whose answers come?

    python -m benchmarks.hot_swap COUNTERFACT [--questions 100] [--documents 400] [--models reader smollm2-135m-instruct]

COUNTERFACT is a folder with counterfact-train.json.gz (Meng et al. 2022): facts about real things, each with another value of
the same kind. One knowledge base says what the facts say, the other the same sentences with the other values; each fact is a
document. The model is asked alone, over the one, and over the other. An answer counts for a side when that side's value
stands in it, whatever the case, and the other's does not. After Lewis et al. 2020, who swapped the Wikipedia of 2016 for that of
2018. 95 % Wilson intervals.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from benchmarks.examples_accuracy import share
from benchmarks.stored import base_of, default_embedder, opened
from openbook.answers.ask import ask
from openbook.answers.retrieval import Corpus
from openbook.core.records import Embedder
from openbook.inference import FrozenModel
from openbook.inference.kv_cache import KVCache
from openbook.knowledge import KnowledgeBase

SEED = 5
SIDES = ("the facts", "the other values")

# From the beginning of a sentence to the question whose answer ends it. Things of which there are several are left out.
FORMS = (
    (re.compile(r"The ((?!twin).+ of .+) (is|was)"), r"What \2 the \1?"),
    (
        re.compile(r"([^?]+?),? (is|was) (located|situated|born|founded|formed|created|headquartered) in"),
        r"Where \2 \1 \3?",
    ),
)


@dataclass(frozen=True, slots=True)
class Fact:
    """`values`: what each side says."""

    question: str
    beginning: str
    values: tuple[str, str]

    def sentence(self, side: int) -> str:
        return f"{self.beginning} {self.values[side]}."

    def says(self, answer: str) -> int | None:
        """The side whose value stands in the answer, if exactly one does."""
        words = (rf"(?<!\w){re.escape(value)}(?!\w)" for value in self.values)
        found = [side for side, value in enumerate(words) if re.search(value, answer, re.I)]
        return found[0] if len(found) == 1 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--documents", type=int, default=400)
    parser.add_argument("--models", nargs="+", default=["reader", "smollm2-135m-instruct"])
    options = parser.parse_args()
    told = facts(options.folder, options.documents)
    embedder = default_embedder()
    with tempfile.TemporaryDirectory() as folder:
        bases = [knowledge_base(Path(folder) / str(side), told, side, embedder) for side in range(2)]
        for name in options.models:
            with closing(opened(name, KVCache(None, memory_bytes=1 << 30))) as model:
                measure(name, model, told[: options.questions], bases, embedder)
        for base in bases:
            base.close()


def facts(folder: Path, count: int) -> list[Fact]:
    rows = json.loads(gzip.decompress((folder / "counterfact-train.json.gz").read_bytes()))
    found: dict[str, Fact] = {}
    for row in rows:
        values = row["ground_truth"].strip(), row["target_new"].strip()
        for form, question in FORMS:
            if match := form.fullmatch(row["prompt"]):
                asked = match.expand(question)
                found.setdefault(asked, Fact(asked, row["prompt"], values))
    return random.Random(SEED).sample(list(found.values()), count)


def knowledge_base(folder: Path, told: list[Fact], side: int, embedder: Embedder) -> KnowledgeBase:
    texts = folder / "texts"
    texts.mkdir(parents=True)
    for number, fact in enumerate(told):
        (texts / f"{number}.txt").write_text(fact.sentence(side), encoding="utf-8")
    return base_of(folder / "kb", [texts], embedder)


def measure(name: str, model: FrozenModel, asked: list[Fact], bases: list[KnowledgeBase], embedder: Embedder) -> None:
    sides: dict[str, list[int | None]] = {"alone": [f.says(ask(f.question, model).answer) for f in asked]}
    for said, base in zip(SIDES, bases, strict=True):
        sides[f"over {said}"] = [f.says(ask(f.question, model, Corpus(base, embedder)).answer) for f in asked]
    print(f"\n{name}, {len(asked)} questions")
    for way, found in sides.items():
        shares = ", ".join(f"{said} {share([f == side for f in found])}" for side, said in enumerate(SIDES))
        print(f"  {way:<24} says {shares}")
    both = zip(sides[f"over {SIDES[0]}"], sides[f"over {SIDES[1]}"], strict=True)
    print(f"  turned around with the source: {share([pair == (0, 1) for pair in both])}")
    print(json.dumps({"model": model.identity.digest, "sides": sides}))


if __name__ == "__main__":
    main()
