"""A model from nothing: its vocabulary, its run, and that the engine computes what the network did."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from openbook.errors import ConfigError
from openbook.inference import load_model
from openbook.inference.llamacpp import LlamaCppEngine
from openbook.inference.tokenizer import open_tokenizer
from openbook.models import ModelStore
from openbook.records import Decoding, Prompt
from openbook.training.network import load_network
from openbook.training.recipe import Recipe
from openbook.training.running import Watcher, train
from openbook.training.scratch import write_vocabulary
from tests.conftest import ROOT

ARCHITECTURE = {"vocabulary": 500, "width": 32, "layers": 2, "heads": 4, "key_value_heads": 2, "feed_forward": 64}
QUIET = Watcher(lambda _: None, lambda _: None, lambda _: None)


def recipe(folder: Path, **changes: Any) -> Recipe:
    text = (ROOT / "docs" / "architecture.md").read_bytes()
    (folder / "text.md").write_bytes(text)
    files = [{"file": "text.md", "sha256": hashlib.sha256(text).hexdigest()}]
    value: dict[str, Any] = {
        "name": "tiny",
        "licence": "MIT",
        "knowledge_cutoff": "2025-06-30",
        "architecture": ARCHITECTURE,
        "objective": {"kind": "language-modeling"},
        "train": files,
        "dev": files,
        "method": {"kind": "full"},
        "optimiser": {"learning_rate": 3e-3, "warmup_steps": 2, "schedule": "constant"},
        "loop": {
            "seed": 1,
            "steps": 12,
            "sequence_tokens": 64,
            "step_tokens": 512,
            "call_tokens": 512,
            "precision": "f32",
        },
        "evaluation": {"every_steps": 6},
        "export": {"quantisation": "F32"},
    }
    return Recipe.model_validate(value | changes)


def test_a_model_from_nothing_learns_and_runs_in_the_engine(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "store")
    said: list[float] = []
    watcher = Watcher(lambda _: None, lambda evaluated: said.append(evaluated.numbers["loss"]), lambda _: None)
    found = train(recipe(tmp_path), tmp_path, store, tmp_path / "run", watcher)
    assert said[-1] < said[0] - 0.4  # it learned
    assert found.manifest.lineage is None
    assert found.manifest.licence == "MIT"
    assert found.manifest.tokenizer.vocabulary_size == 500
    again = train(recipe(tmp_path), tmp_path, store, tmp_path / "again", QUIET)
    assert again.digest == found.digest

    model = load_model(found)
    assert isinstance(model.engine, LlamaCppEngine)
    prompt = Prompt("The frozen side", (), "only computes")
    network = load_network(found.main_file)
    tokens = [token for block in open_tokenizer(found.main_file).blocks(prompt) for token in block]
    with torch.no_grad():
        here = network(torch.tensor([tokens])).logits[0, -1].numpy()
    assert np.abs(model.engine.logits(prompt)[0] - here).max() < 0.02
    assert model.complete(prompt, Decoding(max_tokens=5)).answer_tokens
    model.close()


def test_the_vocabulary_can_spell_anything(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    first, second = tmp_path / "a.gguf", tmp_path / "b.gguf"
    for path in (first, second):
        write_vocabulary(path, [text], recipe(tmp_path).architecture, name="tiny")  # type: ignore[arg-type]
    assert first.read_bytes() == second.read_bytes()
    model = open_tokenizer(first).model
    for sample in (text[:500], "ünïcödé 漢字 \U0001f600\n\n  x=1", "It's 'the' end<|endoftext|>"):
        tokens = model.tokenize(sample, control=False)
        assert b"".join(map(model.piece, tokens)).decode() == sample
        assert model.end_token not in tokens
    assert model.tokenize("<|endoftext|>", control=True) == [model.end_token]


def test_too_little_text_for_the_vocabulary_is_said(tmp_path: Path) -> None:
    architecture = recipe(tmp_path).architecture
    assert architecture is not None
    with pytest.raises(ConfigError, match=r"give only \d+ tokens\. Lower architecture\.vocabulary"):
        write_vocabulary(tmp_path / "a.gguf", ["few words"], architecture, name="tiny")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"base": {"model": "x", "digest": "0" * 64}}, "either base"),
        ({"architecture": None}, "either base"),
        ({"method": {"kind": "lora"}}, "needs method.kind"),
        ({"architecture": ARCHITECTURE | {"width": 30}}, "even multiple"),
        ({"architecture": ARCHITECTURE | {"key_value_heads": 3}}, "multiple of key_value_heads"),
        ({"export": {"kind": "adapter"}}, "full training gives no adapter"),
    ],
)
def test_what_does_not_fit_together_is_said(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=reason):
        recipe(tmp_path, **changes)
