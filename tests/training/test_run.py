"""Whole runs: of a small stored base, and from nothing."""

from __future__ import annotations

import re
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch

from openbook.core.errors import ConfigError, ModelNotVerified, TrainingError
from openbook.core.records import Decoding, Prompt
from openbook.inference import load_model
from openbook.inference.llamacpp import LlamaCppEngine
from openbook.inference.tokenizer import open_tokenizer
from openbook.models import ModelReference, ModelStore, import_gguf
from openbook.models.lineage import TrainingRecord, text_digests
from openbook.models.manifest import Manifest
from openbook.models.runs import read_run
from openbook.training.distributed import Processes
from openbook.training.loop import EvalResult
from openbook.training.network import load_network, write_vocabulary
from openbook.training.recipe import Recipe, load_recipe
from openbook.training.report import report
from openbook.training.run import (
    Event,
    RunStopped,
    _explained_out_of_memory,
    choose_device,
    dry_run,
    load_inputs,
    numeric_class,
    slow_precision,
    train,
)
from tests.cli.test_train import write_recipe
from tests.conformance.models import PROMPT
from tests.conftest import ROOT, flip, llama_engine
from tests.training.examples import small_recipe
from tests.training.networks import SHAPE, write_tiny_model
from tests.training.test_datasets import data
from tests.training.test_reader_objective import LINES

pytestmark = pytest.mark.laws


def quiet(event: Event) -> None:
    pass


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    store = ModelStore(tmp_path / "store")
    write_tiny_model(tmp_path / "base.gguf")
    import_gguf(store, tmp_path / "base.gguf", name="base")
    return store


@pytest.fixture
def recipe(store: ModelStore, tmp_path: Path) -> Recipe:
    lines = data(tmp_path, "".join(line.model_dump_json() + "\n" for line in LINES).encode())
    return small_recipe(
        base={"model": "base", "digest": store.resolve("base").digest},
        train=[lines],
        dev=[lines],
        method={"first_layer": 1, "targets": ["q_proj", "down_proj"]},
        optimiser={"learning_rate": 1e-3, "schedule": "constant", "warmup_steps": 0},
        loop={"steps": 3, "step_tokens": 250, "call_tokens": 200, "precision": "bf16"},
        evaluation={"every_steps": 2, "metric": "loss"},
        gate={"target": {"exact": 1.0}},
        knowledge_cutoff="2025-01-31",
        licence="CC BY-SA 4.0",
    )


def test_a_processor_without_bf16_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    bf16, exact = (small_recipe(loop={"precision": each}) for each in ("bf16", "f32"))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    for units in (False, True):
        for check in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
            monkeypatch.setattr(torch.cpu, check, lambda units=units: units)
        assert ['precision = "f32"' in sentence for sentence in slow_precision(bf16, "cpu")] == [True] * (not units)
        assert not slow_precision(exact, "cpu")
        assert not slow_precision(bf16, "cuda")


def test_a_run_that_is_stopped_and_resumed_stores_the_same_model(
    recipe: Recipe, store: ModelStore, tmp_path: Path
) -> None:
    events: list[Event] = []
    whole = train(recipe, tmp_path, store, tmp_path / "whole", events.append)
    with pytest.raises(RunStopped, match="Stopped after step 1 of 3"):
        train(recipe, tmp_path, store, tmp_path / "parts", events.append, should_stop=lambda: True)
    with pytest.raises(TrainingError, match="already holds a run"):
        train(recipe, tmp_path, store, tmp_path / "parts", events.append)
    parts = train(recipe, tmp_path, store, tmp_path / "parts", events.append, resume=True)
    told = [event for event in events if isinstance(event, str) and event not in slow_precision(recipe, "cpu")]
    assert told == ["Continuing after step 1 of 3."]
    assert parts.digest == whole.digest == store.resolve("small-candidate").digest

    # The manifest and the record say where the model came from.
    assert whole.manifest.kind == "adapter"
    assert whole.manifest.lineage == store.resolve("base").digest
    assert whole.manifest.licence == "CC BY-SA 4.0"
    assert whole.manifest.knowledge_cutoff.date == "2025-01-31"
    assert Manifest.from_json(whole.manifest.to_json()) == whole.manifest
    record = TrainingRecord.from_json((whole.path / "training.json").read_bytes())
    assert record.recipe_digest == recipe.digest
    assert TrainingRecord.from_json(record.to_json()) == record
    assert set(text_digests([LINES[0].passage])) <= set(record.texts)

    # So do the files of the run.
    first, second = (read_run(tmp_path / name) for name in ("whole", "parts"))
    assert [e["step"] for e in first.evaluations] == [0, 2, 3] == [e["step"] for e in second.evaluations]
    assert [s["loss"] for s in first.steps] == [s["loss"] for s in second.steps]
    assert len(first.steps) == 3
    assert first.result is not None
    assert first.result["model"] == whole.digest
    assert first.result["missed"] == ["exact is 0.000, the recipe asks for 1.000"]
    assert {"question", "expected", "answer", "after"} <= first.samples[0].keys()
    page = report(first)
    assert page.count("<svg") == 1 + len(first.evaluations[0].keys() - {"kind", "step"})
    assert whole.digest in page
    assert "http" not in page


def test_a_folder_in_use_and_a_damaged_base_are_refused(recipe: Recipe, store: ModelStore, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with filelock.FileLock(tmp_path / "run" / ".lock"), pytest.raises(TrainingError, match="Another process trains in"):
        train(recipe, tmp_path, store, tmp_path / "run", quiet)
    flip(store.resolve("base").main_file, -100)
    with pytest.raises(ModelNotVerified, match="is not what its digest says"):
        train(recipe, tmp_path, store, tmp_path / "run", quiet)


def test_lengths_that_do_not_fit_and_no_data_are_refused(recipe: Recipe, store: ModelStore, tmp_path: Path) -> None:
    short, long = (recipe.loop.model_copy(update={"sequence_tokens": tokens}) for tokens in (16, 4096))
    for change, reason in (
        ({"loop": short}, "There is nothing to learn from"),
        ({"loop": long}, "reads at most 1024"),
        ({"train": []}, r"names no \[\[train\]\] data"),
    ):
        with pytest.raises((ConfigError, TrainingError), match=reason):
            load_inputs(recipe.model_copy(update=change), tmp_path, store, tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried ..."),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
)
def test_out_of_memory_it_says_what_to_lower(error: Exception) -> None:
    with (
        pytest.raises(TrainingError, match=r"Lower loop\.call_tokens \(now 64\) or loop\.sequence_tokens \(now 1024\)"),
        _explained_out_of_memory(small_recipe()),
    ):
        raise error
    with pytest.raises(RuntimeError, match="shapes"), _explained_out_of_memory(small_recipe()):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def test_a_dry_run_without_enough_memory_says_what_to_lower(
    recipe: Recipe, store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*arguments: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")

    monkeypatch.setattr("openbook.training.run.build_network", too_large)
    with pytest.raises(TrainingError, match=r"Lower loop\.call_tokens .*\.sequence_tokens \(now \d+\)\.$"):
        dry_run(recipe, tmp_path, store, quiet, "cpu")


def test_the_device_is_a_gpu_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [choose_device(wanted) for wanted in ("auto", "cpu")] == ["cpu", "cpu"]
    with pytest.raises(ConfigError, match="finds no GPU here"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [choose_device(wanted) for wanted in ("auto", "cpu", "cuda")] == ["cuda", "cpu", "cuda"]
    assert choose_device("auto", Processes(0, 2)) == "cpu"
    with pytest.raises(ConfigError, match="Several processes train on CPUs only"):
        choose_device("cuda", Processes(0, 2))


@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="no list of the processor's features")
def test_the_numeric_class_names_what_multiplies_in_bf16() -> None:
    flags = set(re.findall(r"\w+", Path("/proc/cpuinfo").read_text(encoding="utf-8")))
    found = numeric_class(small_recipe(), Processes(), "cpu").split("; ")[2].split()
    assert ("AMX" in found) == ("amx_tile" in flags)
    assert ("BF16" in found) == ("avx512_bf16" in flags)


@pytest.mark.slow
@pytest.mark.model
def test_the_network_of_the_default_base_gives_the_logits_of_the_engine(
    model_reference: ModelReference, engine: LlamaCppEngine
) -> None:
    network = load_network(model_reference.main_file)
    tokens = [token for block in engine.tokenize(PROMPT) for token in block]
    with torch.no_grad():
        here = network(torch.tensor([tokens])).logits[0, -1].numpy()
    there = engine.logits(PROMPT)[0]
    # The engine rounds activations to 8 bits and its cache to 16. The scale of the logits is about 3.
    assert float(np.abs(here - there).mean()) < 0.3
    assert float(np.corrcoef(here, there)[0, 1]) > 0.995
    assert int(here.argmax()) == int(there.argmax())


def test_a_model_from_nothing_learns_and_runs_in_the_engine(tmp_path: Path) -> None:
    store, recipe, events = ModelStore(tmp_path / "store"), load_recipe(write_recipe(tmp_path, steps=12)), list[Event]()
    found = train(recipe, tmp_path, store, tmp_path / "run", events.append)
    losses = [event.numbers["loss"] for event in events if isinstance(event, EvalResult)]
    assert losses[-1] < losses[0] - 0.4
    assert found.manifest.lineage is None
    assert found.manifest.licence == "MIT"
    assert found.manifest.tokenizer.vocabulary_size == 500

    model = load_model(found)
    prompt = Prompt("The frozen side", (), "only computes")
    tokens = [token for block in open_tokenizer(found.main_file).blocks(prompt) for token in block]
    with torch.no_grad():
        here = load_network(found.main_file)(torch.tensor([tokens])).logits[0, -1].numpy()
    assert np.abs(llama_engine(model).logits(prompt)[0] - here).max() < 0.02
    assert model.complete(prompt, Decoding(max_tokens=5)).answer_tokens
    model.close()


def test_the_vocabulary_can_spell_anything_if_there_is_enough_text(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    first, second = tmp_path / "a.gguf", tmp_path / "b.gguf"
    for path in (first, second):
        write_vocabulary(path, [text], SHAPE, name="tiny")
    assert first.read_bytes() == second.read_bytes()
    model = open_tokenizer(first).model
    for sample in (text[:500], "ünïcödé 漢字 \U0001f600\n\n  x=1", "It's 'the' end<|endoftext|>"):
        tokens = model.tokenize(sample, control=False)
        assert b"".join(map(model.piece, tokens)).decode() == sample
        assert model.end_token not in tokens
    assert model.tokenize("<|endoftext|>", control=True) == [model.end_token]
    with pytest.raises(ConfigError, match=r"give only \d+ tokens\. Lower architecture\.vocabulary"):
        write_vocabulary(tmp_path / "a.gguf", ["few words"], SHAPE, name="tiny")
