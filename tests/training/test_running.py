"""The real base model: its numbers, its tokens, and a run of a few steps."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from openbook.errors import ConfigError, ModelNotVerified, TrainingError
from openbook.inference.llamacpp import LlamaCppEngine
from openbook.inference.tokenizer import PromptTokenizer, open_tokenizer
from openbook.models import Manifest, ModelReference, ModelStore, import_gguf
from openbook.models.training_record import TrainingRecord, read_training_record, text_digests
from openbook.runs import read_run
from openbook.testing import PROMPT
from openbook.training.network import load_network, permuted, unpermuted
from openbook.training.processes import Processes
from openbook.training.reader import (
    PassageLine,
    Question,
    WordIndex,
    asked_of,
    negatives,
    reader_prompt,
    reader_trees,
)
from openbook.training.recipe import ReaderObjective, Recipe
from openbook.training.report import report
from openbook.training.running import Stopped, Watcher, _out_of_memory, checked_device, numeric_class, train
from tests.training.networks import Letters, small_recipe

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
    assert isinstance(objective, ReaderObjective)
    tree = reader_trees([("line 1", LINES[0])], objective, tokenizer, seed=1)[0]
    for branch, question in zip(tree.branches, LINES[0].questions, strict=True):
        prompt = reader_prompt(objective.instruction, LINES[0].texts, question.question)
        read = [token for block in engine.tokenize(prompt) for token in block]
        assert [*tree.beginning, *tree.passages[0], *branch.tokens[: branch.answer_start]] == read
        answer = b"".join(tokenizer.model.piece(token) for token in branch.tokens[branch.answer_start :])
        assert answer.decode() == (question.answers[0] if question.answers else "Not stated.")
        assert tokenizer.model.ends_generation(branch.tokens[-1])


def test_negatives_share_words_with_the_question_and_hold_no_answer() -> None:
    texts, asked = asked_of(LINES)
    index = WordIndex([text.text for text in texts])
    found = negatives(texts, asked, 1.0, 2, index)
    assert len(found) == sum(bool(each.answers) for each in asked)
    for each in found:
        (own,) = next(other.own for other in asked if other.question == each.question)
        assert each.answers == ()
        assert each.own != (own,)
        assert f"at {own + 1} o'clock" not in texts[each.own[0]].text
    assert negatives(texts, asked, 1.0, 2, index) == found


def test_passages_lie_side_by_side_with_those_that_are_like_them() -> None:
    few: Any = Letters()
    lines = [
        ("line 1", PassageLine.model_validate({"passage": "pier one", "questions": [asks("who at pier", ["ann"])]})),
        (
            "line 2",
            PassageLine.model_validate({"passage": "pier two", "questions": [asks("who at the pier", ["bob"])]}),
        ),
        (
            "line 3",
            PassageLine.model_validate(
                {
                    "passages": [{"text": "pier one"}, {"text": "pier three"}],
                    "questions": [asks("both at pier", ["ann cid"])],
                }
            ),
        ),
    ]
    objective = ReaderObjective(kind="reader", instruction="answer", abstention="not stated", passages=3, negatives=1.0)
    sizes = set()
    for seed in range(20):
        trees = reader_trees(lines, objective, PromptTokenizer(few), seed)
        assert trees == reader_trees(lines, objective, PromptTokenizer(few), seed)
        branches = [(tree, branch) for tree in trees for branch in tree.branches]
        assert sum(branch.kind == "answer" for _, branch in branches) == 3  # each question once
        for tree, branch in branches:
            read = {spelled(few, tree.passages[number]) for number in branch.reads}
            assert 1 <= len(read) == len(branch.reads) <= 3
            answer = spelled(few, branch.tokens[branch.answer_start : -1])
            needed = {"ann": {"pier one"}, "bob": {"pier two"}, "ann cid": {"pier one", "pier three"}}
            assert needed.get(answer, set()) <= read
            sizes.add(len(read))
    assert sizes == {1, 2, 3}


def asks(question: str, answers: list[str]) -> dict[str, Any]:
    return {"question": question, "answers": answers}


def spelled(vocabulary: Any, tokens: Sequence[int]) -> str:
    text = b"".join(map(vocabulary.piece, tokens)).decode()
    return " ".join(text.removeprefix("assage").split())


def test_the_device_is_chosen_by_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [checked_device(wanted) for wanted in ("auto", "cpu")] == ["cpu", "cpu"]
    with pytest.raises(ConfigError, match="finds no GPU here"):
        checked_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [checked_device(wanted) for wanted in ("auto", "cpu", "cuda")] == ["cuda", "cpu", "cuda"]
    two = Processes(0, 2)
    assert checked_device("auto", two) == "cpu"
    with pytest.raises(ConfigError, match="Several processes train on CPUs only"):
        checked_device("cuda", two)


@pytest.fixture
def lines_file(tmp_path: Path) -> dict[str, str]:
    content = "".join(line.model_dump_json() + "\n" for line in LINES).encode()
    (tmp_path / "lines.jsonl").write_bytes(content)
    return {"file": "lines.jsonl", "sha256": hashlib.sha256(content).hexdigest()}


@pytest.fixture
def recipe(lines_file: dict[str, str], model_reference: ModelReference) -> Recipe:
    return small_recipe(
        base={"model": model_reference.name, "digest": model_reference.digest},
        train=[lines_file],
        dev=[lines_file],
        method={"first_layer": 26, "targets": ["q_proj", "down_proj"]},
        optimiser={"learning_rate": 1e-3, "schedule": "constant", "warmup_steps": 0},
        loop={"steps": 3, "step_tokens": 250, "call_tokens": 200, "precision": "bf16"},
        evaluation={"every_steps": 2, "metric": "loss"},
        gate={"target": {"exact": 1.0}},
        knowledge_cutoff="2025-01-31",
        licence="CC BY-SA 4.0",
    )


@pytest.fixture
def store(model_reference: ModelReference, tmp_path: Path) -> ModelStore:
    """A store of its own, so that nothing is left in the shared one."""
    store = ModelStore(tmp_path / "store")
    import_gguf(store, model_reference.main_file, name="base")
    return store


@pytest.mark.model
def test_a_run_that_is_stopped_and_resumed_stores_the_same_model(
    recipe: Recipe, store: ModelStore, tmp_path: Path
) -> None:
    said: list[str] = []
    watcher = Watcher(lambda _: None, lambda _: None, said.append)

    whole = train(recipe, tmp_path, store, tmp_path / "whole", watcher)
    with pytest.raises(Stopped, match="Stopped after step 1 of 3"):
        train(recipe, tmp_path, store, tmp_path / "parts", watcher, should_stop=lambda: True)
    with pytest.raises(TrainingError, match="already holds a run"):
        train(recipe, tmp_path, store, tmp_path / "parts", watcher)
    assert not said
    parts = train(recipe, tmp_path, store, tmp_path / "parts", watcher, resume=True)
    assert said == ["Going on after step 1 of 3."]
    assert parts.digest == whole.digest

    # What was stored says where it came from.
    assert whole.manifest.kind == "adapter"
    assert recipe.base is not None
    assert whole.manifest.lineage == recipe.base.digest
    assert whole.manifest.licence == "CC BY-SA 4.0"
    assert whole.manifest.knowledge_cutoff.date == "2025-01-31"
    assert Manifest.from_json(whole.manifest.to_json()) == whole.manifest
    record = read_training_record(whole.path / "training.json")
    assert record.recipe_digest == recipe.digest
    assert TrainingRecord.from_json(record.to_json()) == record
    assert set(text_digests([LINES[0].passage])) <= set(record.texts)
    assert store.resolve("small-candidate").digest == whole.digest

    # And so does the run.
    first, second = (read_run(tmp_path / name) for name in ("whole", "parts"))
    assert [e["step"] for e in first.evaluations] == [0, 2, 3] == [e["step"] for e in second.evaluations]
    assert [s["loss"] for s in first.steps] == [s["loss"] for s in second.steps]
    assert len(first.steps) == 3
    assert first.result is not None
    assert first.result["model"] == whole.digest
    assert first.result["missed"]
    assert {"question", "expected", "answer", "after"} <= first.samples[0].keys()
    page = report(first)
    assert "<svg" in page
    assert whole.digest in page
    assert "http" not in page.replace("http://www.w3.org", "")


@pytest.mark.model
def test_two_runs_in_one_folder_are_refused(recipe: Recipe, store: ModelStore, tmp_path: Path) -> None:
    import filelock

    (tmp_path / "run").mkdir()
    watcher = Watcher(lambda _: None, lambda _: None, lambda _: None)
    with (
        filelock.FileLock(tmp_path / "run" / ".lock"),
        pytest.raises(TrainingError, match="Another process trains in"),
    ):
        train(recipe, tmp_path, store, tmp_path / "run", watcher)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to ..."
        ),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
)
def test_when_the_memory_is_not_enough_it_says_what_to_lower(error: Exception) -> None:
    with (
        pytest.raises(TrainingError, match=r"Lower loop\.call_tokens \(now 64\) or loop\.sequence_tokens \(now 1024\)"),
        _out_of_memory(small_recipe()),
    ):
        raise error


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    with pytest.raises(RuntimeError, match="shapes"), _out_of_memory(small_recipe()):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


@pytest.mark.model
def test_a_base_that_is_not_what_its_digest_says_is_not_trained(
    recipe: Recipe, store: ModelStore, tmp_path: Path
) -> None:
    base = store.resolve("base").main_file
    base.chmod(0o644)
    with base.open("r+b") as stream:
        stream.seek(-100, 2)
        byte = stream.read(1)
        stream.seek(-100, 2)
        stream.write(bytes([byte[0] ^ 1]))
    watcher = Watcher(lambda _: None, lambda _: None, lambda _: None)
    with pytest.raises(ModelNotVerified, match="is not what its digest says"):
        train(recipe, tmp_path, store, tmp_path / "run", watcher)


@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="no list of the processor's features")
def test_the_numeric_class_names_what_multiplies_in_bf16() -> None:
    flags = set(re.findall(r"\w+", Path("/proc/cpuinfo").read_text(encoding="utf-8")))
    found = numeric_class(small_recipe()).split("; ")[2].split()
    assert ("AMX" in found) == ("amx_tile" in flags)
    assert ("BF16" in found) == ("avx512_bf16" in flags)
