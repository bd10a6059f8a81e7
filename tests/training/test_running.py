"""The real base model: its numbers, its tokens, and a run of a few steps."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from openbook.inference.llamacpp import LlamaCppEngine
from openbook.inference.tokenizing import open_tokenizer
from openbook.models import ModelReference, ModelStore
from openbook.testing import PROMPT
from openbook.training.network import load_network, permuted, unpermuted
from openbook.training.reader import PassageLine, Question, negatives, reader_prompt, reader_trees
from openbook.training.recipe import Recipe
from openbook.training.running import train
from tests.training.networks import small_recipe

LINES = [
    PassageLine(
        title="Ferries",
        passage=f"The ferry to Sandhavn number {i} leaves at {i} o'clock from pier {i + 3}.",
        questions=(
            Question(question=f"When does ferry {i} leave?", answers=(f"{i} o'clock",)),
            Question(question="Who is the captain?"),
        ),
    )
    for i in range(1, 7)
]


def test_permuting_back_gives_what_was_there() -> None:
    rows = np.arange(48 * 5).reshape(48, 5)
    assert not np.array_equal(permuted(rows, 6), rows)
    assert np.array_equal(unpermuted(permuted(rows, 6), 6), rows)


@pytest.mark.model
def test_the_network_gives_the_logits_of_the_engine(model_reference: ModelReference, engine: LlamaCppEngine) -> None:
    network = load_network(model_reference.path / "model.gguf")
    tokens = [token for block in engine.tokenize(PROMPT) for token in block]
    with torch.no_grad():
        here = network(torch.tensor([tokens])).logits[0, -1].numpy()
    there = engine.logits(PROMPT)[0]
    # The engine rounds activations to 8 bits and its cache to 16; the scale of the logits is about 3.
    assert float(np.abs(here - there).mean()) < 0.3
    assert float(np.corrcoef(here, there)[0, 1]) > 0.995
    assert int(here.argmax()) == int(there.argmax())


@pytest.mark.model
def test_a_tree_holds_the_tokens_that_the_engine_would_read(
    model_reference: ModelReference, engine: LlamaCppEngine
) -> None:
    tokenizer = open_tokenizer(model_reference.path / "model.gguf")
    objective = small_recipe().objective
    tree = reader_trees([("line 1", LINES[0])], objective, tokenizer, seed=1)[0]
    for branch, question in zip(tree.branches, LINES[0].questions, strict=True):
        prompt = reader_prompt(objective.instruction, LINES[0], question.question)
        read = [token for block in engine.tokenize(prompt) for token in block]
        assert [*tree.beginning, *branch.tokens[: branch.answer_start]] == read
        answer = b"".join(tokenizer.model.piece(token) for token in branch.tokens[branch.answer_start :])
        assert answer.decode() == (question.answers[0] if question.answers else "Not stated.")
        assert tokenizer.model.ends_generation(branch.tokens[-1])


def test_negatives_share_words_with_the_question_and_hold_no_answer() -> None:
    asked = [(i, q) for i, line in enumerate(LINES) for q in line.questions]
    from openbook.training.reader import asked_of

    found = negatives(LINES, asked_of(LINES), 1.0, seed=2)
    assert len(found) == sum(bool(q.answers) for _, q in asked)
    for each in found:
        own = next(i for i, q in asked if q.question == each.question)
        assert each.answers == ()
        assert each.passage != own
        assert f"at {own + 1} o'clock" not in LINES[each.passage].passage
    assert negatives(LINES, asked_of(LINES), 1.0, seed=2) == found


@pytest.mark.model
def test_a_run_that_is_stopped_and_resumed_ends_with_the_same_bytes(
    tmp_path: Path, model_reference: ModelReference, model_store: ModelStore
) -> None:
    content = "".join(line.model_dump_json() + "\n" for line in LINES).encode()
    (tmp_path / "lines.jsonl").write_bytes(content)
    files = [{"file": "lines.jsonl", "sha256": hashlib.sha256(content).hexdigest()}]

    def recipe(steps: int) -> Recipe:
        return small_recipe(
            base={"model": model_reference.name, "digest": model_reference.digest},
            train=files,
            dev=files,
            method={"first_layer": 26, "targets": ["q_proj", "down_proj"]},
            optimiser={"learning_rate": 1e-3, "schedule": "constant", "warmup_steps": 0},
            loop={"steps": steps, "step_tokens": 250, "call_tokens": 200, "precision": "bf16"},
            evaluation={"every_steps": 1, "metric": "score"},
        )

    said: list[str] = []

    class Stopped(Exception):
        pass

    def run(folder: str, stop_after: int = 99) -> dict[str, bytes]:
        steps = iter(range(stop_after))

        def show(_: object) -> None:
            if next(steps, None) is None:
                raise Stopped

        done = train(
            recipe(3), tmp_path, model_store, tmp_path / folder, show=show, report=lambda _: None, warn=said.append
        )
        return {name: value.numpy().tobytes() for name, value in done.learned.items()}

    whole = run("whole")
    with pytest.raises(Stopped):
        run("parts", stop_after=1)
    assert run("parts") == whole
    assert not said
    metrics = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert [m["step"] for m in metrics] == [0, 1, 1, 2, 2, 3, 3]
    assert {"exact", "abstained_rightly", "abstained_wrongly", "score", "loss"} <= metrics[0].keys()
