"""A whole run: from a recipe to the best parameters, with checkpoints and `metrics.jsonl` in its folder."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from openbook.errors import ModelNotVerified
from openbook.inference.tokenizing import open_tokenizer
from openbook.models import ModelReference, ModelStore
from openbook.training import checkpoints
from openbook.training.evaluating import evaluate
from openbook.training.examples import Tree, fitted
from openbook.training.jsonl import read_lines
from openbook.training.loop import Evaluated, Progress, Run
from openbook.training.network import load_network
from openbook.training.reader import PassageLine, reader_trees
from openbook.training.recipe import Data, Recipe
from openbook.training.trainable import prepare


def base_of(recipe: Recipe, store: ModelStore) -> ModelReference:
    """The base, verified. Raises UnknownModel, ModelNotVerified."""
    reference = store.resolve(recipe.base.digest)
    store.check_fast(reference)
    if reference.digest != recipe.base.digest:
        raise ModelNotVerified(f"The base is {reference.digest}, the recipe says {recipe.base.digest}.")
    return reference


def trees_of(
    recipe: Recipe, files: Sequence[Data], folder: Path, base: ModelReference, *, measuring: bool
) -> tuple[list[Tree], list[str]]:
    tokenizer = open_tokenizer(base.path / "model.gguf")
    lines = [line for data in files for line in read_lines(data, folder, PassageLine)]
    trees = reader_trees(lines, recipe.objective, tokenizer, recipe.loop.seed, every_answer=measuring)
    return fitted(trees, recipe.loop.sequence_tokens)


def train(
    recipe: Recipe,
    recipe_folder: Path,
    store: ModelStore,
    run_folder: Path,
    *,
    show: Callable[[Progress], None],
    report: Callable[[Evaluated], None],
    warn: Callable[[str], None],
) -> Run:
    torch.use_deterministic_algorithms(True)
    base = base_of(recipe, store)
    trees, problems = trees_of(recipe, recipe.train, recipe_folder, base, measuring=False)
    dev, dev_problems = trees_of(recipe, recipe.dev, recipe_folder, base, measuring=True) if recipe.dev else ([], [])
    dev = sample(dev, recipe.evaluation.questions, recipe.loop.seed)
    for line in (*problems, *dev_problems):
        warn(line)
    dtype = torch.bfloat16 if recipe.loop.precision == "bf16" else torch.float32
    network = load_network(base.path / "model.gguf", dtype=dtype)
    run = Run(recipe, network, prepare(network, recipe.method, recipe.loop.seed), trees)
    folder = run_folder / "checkpoints"
    if (found := checkpoints.newest(folder, recipe.digest, warn)) is not None:
        run.restore(found)
    metrics = run_folder / "metrics.jsonl"
    run_folder.mkdir(parents=True, exist_ok=True)

    def log(value: dict[str, object]) -> None:
        with metrics.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(value) + "\n")

    def look() -> None:
        evaluated = evaluate(network, dev, recipe, run.state.step)
        run.note(evaluated)
        log({"step": evaluated.step, **evaluated.numbers})
        report(evaluated)

    if dev and run.state.step == 0 and run.state.best_metric is None:
        look()
    for progress in run.steps_to_go():
        log(asdict(progress))
        show(progress)
        due = progress.step % recipe.evaluation.every_steps == 0 or progress.step == run.steps
        if due:
            if dev:
                look()
            checkpoints.save(folder, run.checkpoint())
    run.keep_best()
    return run


def sample(trees: Sequence[Tree], questions: int, seed: int) -> list[Tree]:
    """Whole trees in random order until they hold so many questions."""
    order = list(range(len(trees)))
    random.Random(f"{seed}/dev").shuffle(order)  # noqa: S311  an order, not a secret
    chosen: list[Tree] = []
    count = 0
    for i in order:
        if count >= questions:
            break
        chosen.append(trees[i])
        count += len({branch.key for branch in trees[i].branches})
    return chosen
