"""A small language model from nothing, against a 5-gram model on the same tokens.

    python -m benchmarks.from_scratch FOLDER [--minutes 10] [--step-tokens 4096] [--width 288] [--layers 6] [--plot FILE.png]

FOLDER holds text files (the Python documentation: .txt, .rst, .md, searched in all subfolders). Of every 20 documents, by
the digest of their text, one is held out. Both models learn from the same tokens of the same vocabulary (which is made from
the training part) and are measured by the mean negative logarithm of the probability of the held-out tokens.

The 5-gram model is interpolated and smoothed by modified Kneser-Ney (Chen and Goodman 1999), discounts from the counts of
counts, with a uniform share below the unigrams. It sees whole documents; the network sees sequences of at most 256 tokens,
and is measured on the tokens that have at least one before them there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SUFFIXES = (".txt", ".rst", ".md")
ORDER = 5
SEQUENCE = 256
ARCHITECTURE = {
    "vocabulary": 4096,
    "context_tokens": SEQUENCE,
}


class KneserNey:
    """Modified, interpolated. `tables[n]` holds the adjusted counts of the words after each context of n tokens."""

    def __init__(self, documents: Sequence[Sequence[int]], vocabulary: int, order: int = ORDER) -> None:
        self.vocabulary, self.order = vocabulary, order
        raw: list[dict[tuple[int, ...], Counter[int]]] = [defaultdict(Counter) for _ in range(order)]
        for document in documents:
            for i, token in enumerate(document):
                for length in range(min(order - 1, i) + 1):
                    raw[length][tuple(document[i - length : i])][token] += 1
        # Below the highest order what counts is in how many contexts a word was met, except where a document begins.
        self.tables: list[dict[tuple[int, ...], Counter[int]]] = [defaultdict(Counter) for _ in range(order)]
        self.tables[order - 1] = raw[order - 1]
        for length in range(order - 1):
            for context, words in raw[length + 1].items():
                for token in words:
                    self.tables[length][context[1:]][token] += 1
            for document in documents:
                if len(document) > length:
                    self.tables[length][tuple(document[:length])][document[length]] += 1
        self.discounts = [self._discounts(table) for table in self.tables]
        self.shares = [
            {context: self._share(words, self.discounts[length]) for context, words in table.items()}
            for length, table in enumerate(self.tables)
        ]

    @staticmethod
    def _discounts(table: dict[tuple[int, ...], Counter[int]]) -> tuple[float, float, float]:
        n = Counter(count for words in table.values() for count in words.values() if count <= 4)
        y = n[1] / max(1, n[1] + 2 * n[2])
        found = [k - (k + 1) * y * n[k + 1] / max(1, n[k]) for k in (1, 2, 3)]
        return (min(max(found[0], 0.0), 1.0), min(max(found[1], 0.0), 2.0), min(max(found[2], 0.0), 3.0))

    @staticmethod
    def _share(words: Counter[int], discounts: tuple[float, float, float]) -> tuple[int, float]:
        """(the sum of the counts, the probability that is left for the shorter context)."""
        total = sum(words.values())
        taken = sum(discounts[min(count, 3) - 1] for count in words.values())
        return total, taken / total

    def probability(self, context: tuple[int, ...], token: int) -> float:
        found = 1.0 / self.vocabulary
        for length in range(min(len(context), self.order - 1) + 1):
            part = context[len(context) - length :]
            words = self.tables[length].get(part)
            if words is None:
                break
            total, left = self.shares[length][part]
            count = words.get(token, 0)
            own = max(0.0, count - self.discounts[length][min(count, 3) - 1]) / total if count else 0.0
            found = own + left * found
        return found

    def loss(self, documents: Sequence[Sequence[int]]) -> float:
        """Nats a token."""
        total, count = 0.0, 0
        for document in documents:
            for i in range(1, len(document)):
                context = tuple(document[max(0, i - self.order + 1) : i])
                total -= math.log(self.probability(context, document[i]))
                count += 1
        return total / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--step-tokens", type=int, default=4096)
    parser.add_argument("--width", type=int, default=288)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    train, held_out = split(options.folder)
    architecture = ARCHITECTURE | {
        "width": options.width,
        "layers": options.layers,
        "heads": options.width // 48,
        "feed_forward": options.width * 8 // 3,
    }
    print(
        f"{len(train)} documents to learn from, {sum(map(len, train)):,} characters; {len(held_out)} held out",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as scrap:
        curve, documents, vocabulary, parameters = learn(
            train, held_out, options.minutes * 60, architecture, options.step_tokens, Path(scrap)
        )
    started = time.perf_counter()
    grams = KneserNey(documents[0], vocabulary)
    five = grams.loss(documents[1])
    print(f"{ORDER}-gram: {five:.3f} nats a token ({time.perf_counter() - started:.0f} s)")
    print(f"network of {parameters:,} parameters: {curve[-1][1]:.3f} after {curve[-1][0] / 60:.1f} minutes")
    if options.plot:
        plot(curve, five, parameters, options.plot)
    print(json.dumps({"curve": curve, "five_gram": five, "parameters": parameters}))


def split(folder: Path) -> tuple[list[str], list[str]]:
    train: list[str] = []
    held_out: list[str] = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix in SUFFIXES and p.is_file()):
        text = path.read_text(encoding="utf-8", errors="replace")
        number = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)
        (held_out if number % 20 == 0 else train).append(text)
    return train, held_out


def learn(
    train: list[str], held_out: list[str], seconds: float, architecture: dict[str, int], step_tokens: int, scrap: Path
) -> tuple[list[tuple[float, float]], tuple[list[list[int]], list[list[int]]], int, int]:
    """((seconds, held-out loss) along the way, (training, held-out) documents as tokens, vocabulary, parameters)."""
    import torch

    from openbook.core.config import available_cores
    from openbook.models import ModelStore
    from openbook.training.evaluation import evaluate
    from openbook.training.loop import Learner
    from openbook.training.recipe import Recipe
    from openbook.training.run import build_network, load_inputs

    torch.set_num_threads(available_cores())
    files = {name: _write(scrap / f"{name}.jsonl", texts) for name, texts in (("train", train), ("dev", held_out))}
    value: dict[str, Any] = {
        "name": "from-scratch",
        "architecture": architecture,
        "objective": {"kind": "language-modeling"},
        "train": [files["train"]],
        "dev": [files["dev"]],
        "method": {"kind": "full"},
        "optimiser": {
            "learning_rate": 3e-3,
            "warmup_steps": 50,
            "schedule": "linear",
            "weight_decay": 0.1,
            "betas": [0.9, 0.95],
        },
        "loop": {
            "seed": 1,
            "steps": 10,
            "sequence_tokens": SEQUENCE,
            "step_tokens": step_tokens,
            "call_tokens": step_tokens,
        },
        "evaluation": {"every_steps": 10_000_000, "questions": 1_000_000},
    }
    inputs = load_inputs(Recipe.model_validate(value), scrap, ModelStore(scrap / "store"), scrap)
    # How many steps fit into the time is measured first, since the learning rate falls towards the last one.
    probe = Learner(
        Recipe.model_validate(value), *build_network(Recipe.model_validate(value), inputs, "cpu"), inputs.trees
    )
    times = [progress.seconds for progress in probe.steps_to_go()]
    value["loop"]["steps"] = max(20, int(seconds / (sum(times[2:]) / len(times[2:]))))
    recipe = Recipe.model_validate(value)
    run = Learner(recipe, *build_network(recipe, inputs, "cpu"), inputs.trees)
    curve: list[tuple[float, float]] = []
    spent = 0.0
    for progress in run.steps_to_go():
        spent += progress.seconds
        if (
            progress.step % max(1, recipe.loop.steps // 12 if recipe.loop.steps else 1) == 0
            or progress.step == run.steps
        ):
            loss = evaluate(run.network, inputs.dev, recipe, progress.step).numbers["loss"]
            curve.append((spent, loss))
            print(
                f"step {progress.step} of {run.steps}, {spent:.0f} s, training {progress.loss:.3f}, held out {loss:.3f}",
                flush=True,
            )
    model = inputs.tokenizer.model
    documents = tuple(
        [[*model.tokenize(text, control=False), model.end_token] for text in texts] for texts in (train, held_out)
    )
    parameters = sum(value.numel() for value in run.learned.values())
    return curve, (documents[0], documents[1]), model.vocabulary_size, parameters


def _write(path: Path, texts: Sequence[str]) -> dict[str, str]:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts if text.strip()), encoding="utf-8")
    return {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def plot(curve: Sequence[tuple[float, float]], five_gram: float, parameters: int, path: Path) -> None:
    from importlib import import_module

    import_module("matplotlib").use("Agg")
    plt = import_module("matplotlib.pyplot")
    figure, axes = plt.subplots(figsize=(7, 4))
    axes.plot(
        [s / 60 for s, _ in curve],
        [loss for _, loss in curve],
        marker="o",
        label=f"network, {parameters / 1e6:.1f} M parameters",
    )
    axes.axhline(five_gram, color="tab:red", linestyle="--", label="5-gram, modified Kneser-Ney")
    axes.set_xlabel("minutes of training on two cores")
    axes.set_ylabel("held-out loss, nats a token")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
