"""How fast does the loop learn, compared with TRL's SFTTrainer on the same base, data, sequence length and precision?

    PYTHON -m benchmarks.training_throughput [--examples 96] [--rounds 3] [--tasks reader text]

PYTHON is that of an environment with openbook[train], trl, datasets and accelerate; the base is pulled if it is missing.

  reader  passages with their questions from the reader's training data, single passages, without hard negatives; LoRA of
          rank 32 on all matrices, bf16, answer tokens only. One "example" is a passage, a question and its answer.
  text    the same passages as plain text, one document each, every token learned. There are about five questions to a
          passage: take --examples 600, or there is one step to measure.

Each run is a process of its own, contenders alternate within a round, and the first step, which allocates, is not counted.
Ratios are taken within a round. The machine's peak is measured as a 2048 x 2048 x 2048 product in the same precision;
GFLOP/s count what has to be done for LoRA: two operations a parameter and token forward and two backward, without
attention, on the tokens that an example has when it stands alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from typing import Any

from benchmarks.processes import ROOT, result_of

DATA = ROOT / "recipes" / "data" / "reader-train.jsonl.gz"
INSTRUCTION = "Answer from the passage in its own words, or say: Not stated."
ABSTENTION = "Not stated."
TASKS = ("reader", "text")
SEQUENCE = 1024
STEP_EXAMPLES = 8  # of TRL, padded to the longest
STEP_TOKENS = 2304  # of ours, about what eight examples have


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--child", nargs=2)
    options = parser.parse_args()
    if options.child:
        contender, task = options.child
        print(json.dumps(child(contender, task, options.examples)))
        return
    results: list[dict[str, Any]] = []
    for number in range(options.rounds):
        for task in options.tasks:
            for contender in ("openbook", "trl") if number % 2 == 0 else ("trl", "openbook"):
                words = ("--examples", options.examples, "--child", contender, task)
                found = result_of("benchmarks.training_throughput", *words) | {"round": number}
                results.append(found)
                print(
                    f"round {number} {task:<7} {contender:<9} {found['examples_per_s']:6.2f} examples/s, "
                    f"{found['gflops']:5.0f} of {found['peak_gflops']:.0f} GFLOP/s",
                    flush=True,
                )
    for task in options.tasks:
        ratios = []
        for number in range(options.rounds):
            speed = {r["contender"]: r["examples_per_s"] for r in results if r["round"] == number and r["task"] == task}
            ratios.append(speed["openbook"] / speed["trl"])
        print(
            f"{task}: {statistics.median(ratios):.2f} times as many examples/s as TRL, from {min(ratios):.2f} to {max(ratios):.2f}"
        )
    print(json.dumps(results))


def child(contender: str, task: str, count: int) -> dict[str, Any]:
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    from benchmarks.stored import stored
    from openbook.inference.tokenizer import open_tokenizer

    base = stored("smollm2-135m-instruct")
    lines = _lines(count)
    tokenizer = open_tokenizer(base.main_file)
    trees = _trees(lines, task, tokenizer)
    # As separate examples, which is what TRL gets and what the operations are counted on.
    examples = [(tree.beginning, branch) for tree in trees for branch in tree.branches]
    tokens = sum(len(beginning) + len(branch.tokens) for beginning, branch in examples)
    run = _openbook if contender == "openbook" else _trl
    seconds, share = run(base, trees, examples, task)
    parameters = (
        base.manifest.parameter_count or 0
    ) - 49_152 * 576  # the vocabulary's matrix does no product on the way in
    return {
        "contender": contender,
        "task": task,
        "examples": len(examples),
        "tokens": tokens,
        "examples_per_s": len(examples) * share / seconds,
        "gflops": 4 * parameters * tokens * share / seconds / 1e9,
        "peak_gflops": _peak(),
    }


def _openbook(base: Any, trees: Any, examples: Any, task: str) -> tuple[float, float]:
    """(seconds, the share of the examples learned in them)."""
    import torch

    from openbook.training.loop import Learner
    from openbook.training.network import load_network, make_trainable
    from openbook.training.recipe import Recipe
    from openbook.training.trees import epoch_steps

    recipe = Recipe.model_validate(
        {
            "name": "throughput",
            "base": {"model": "smollm2-135m-instruct", "digest": base.digest},
            "objective": {"kind": "language-modeling"},
            "train": [{"file": "x.jsonl", "sha256": "0" * 64}],
            "method": {"kind": "lora", "rank": 32, "alpha": 64},
            "optimiser": {"learning_rate": 4e-4},
            "loop": {
                "seed": 1,
                "epochs": 1,
                "sequence_tokens": SEQUENCE,
                "step_tokens": STEP_TOKENS,
                "call_tokens": STEP_TOKENS,
            },
        }
    )
    network = load_network(base.main_file, dtype=torch.bfloat16)
    run = Learner(recipe, network, make_trainable(network, recipe.method, 1), trees)
    first = epoch_steps(trees, STEP_TOKENS, 1, 0)[0]
    seconds = [progress.seconds for progress in run.steps_to_go()]
    learned_first = sum(len(trees[i].branches) for i in first)
    return sum(seconds[1:]), 1 - learned_first / len(examples)


def _trl(base: Any, trees: Any, examples: Any, task: str) -> tuple[float, float]:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from openbook.training.network import load_network

    network = load_network(base.main_file, dtype=torch.bfloat16)
    network.config.use_cache = False
    # Tokens are ours, so that both learn the very same; TRL takes them as they are.
    rows = [
        {
            "input_ids": [*beginning, *branch.tokens],
            "completion_mask": [0] * (len(beginning) + branch.learn_start)
            + [1] * (len(branch.tokens) - branch.learn_start),
        }
        for beginning, branch in examples
    ]
    if task == "text":
        rows = [{"input_ids": row["input_ids"]} for row in rows]
    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as scrap:
        options = SFTConfig(
            output_dir=scrap,
            per_device_train_batch_size=STEP_EXAMPLES,
            num_train_epochs=1,
            learning_rate=4e-4,
            bf16=True,
            use_cpu=True,
            logging_steps=1000,
            save_strategy="no",
            report_to=[],
            max_length=SEQUENCE,
            completion_only_loss=task == "reader",
            gradient_checkpointing=False,
            disable_tqdm=True,
        )
        targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        trainer = SFTTrainer(
            model=network,
            args=options,
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(base.path, gguf_file="model.gguf"),
            peft_config=LoraConfig(r=32, lora_alpha=64, target_modules=targets, task_type="CAUSAL_LM"),
            callbacks=[Clock()],
        )
        trainer.train()
    steps = -(-len(examples) // STEP_EXAMPLES)
    return times[-1] - times[0], (steps - 1) * STEP_EXAMPLES / len(examples)


def _lines(count: int) -> list[Any]:
    """Whole passages until their questions are at least `count`."""
    import gzip
    import random

    from openbook.training.reader_objective import PassageLine

    rows = [PassageLine.model_validate_json(line) for line in gzip.decompress(DATA.read_bytes()).splitlines()]
    random.Random(1).shuffle(rows)
    chosen: list[PassageLine] = []
    while sum(len(row.questions) for row in chosen) < count:
        chosen.append(rows[len(chosen)])
    return chosen


def _trees(lines: list[Any], task: str, tokenizer: Any) -> Any:
    from openbook.training.datasets import document_trees
    from openbook.training.reader_objective import reader_trees
    from openbook.training.recipe import ReaderObjective

    places = [(f"line {i}", line) for i, line in enumerate(lines)]
    if task == "reader":
        objective = ReaderObjective(kind="reader", instruction=INSTRUCTION, abstention=ABSTENTION)
        return reader_trees(places, objective, tokenizer, seed=1)
    return document_trees([(place, line.passage) for place, line in places], tokenizer, SEQUENCE)


def _peak() -> float:
    import torch

    size = 2048
    a, b = (torch.randn(size, size).to(torch.bfloat16) for _ in range(2))
    best = 0.0
    for _ in range(10):
        started = time.perf_counter()
        a @ b
        best = max(best, 2 * size**3 / (time.perf_counter() - started) / 1e9)
    return best


if __name__ == "__main__":
    main()
