"""Each family of models that can be trained: the engine computes from the exported file what the network did."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFWriter

from openbook.errors import InvalidModelFile
from openbook.inference.frozen import FrozenModel
from openbook.inference.llamacpp import LlamaCppEngine
from openbook.models import read_gguf
from openbook.models.gguf_writer import copy_metadata
from openbook.records import Decoding, ModelIdentity, Prompt, ReaderFormat
from openbook.training.batches import batch_of
from openbook.training.examples import Branch, Tree, row_of
from openbook.training.exporting import write_adapter, write_full
from openbook.training.network import FAMILIES, config_of, load_network
from openbook.training.objective import answer_logits
from openbook.training.recipe import Architecture, Method
from openbook.training.scratch import write_vocabulary
from openbook.training.trainable import prepare
from tests.conftest import ROOT

SHAPE = Architecture(vocabulary=500, width=64, layers=3, heads=4, key_value_heads=2, feed_forward=96)
PASSAGES = ("The ferry to Holm leaves at nine.\n", "Dogs are welcome.\n", "The train leaves at noon, and at five.\n")
PROMPT = Prompt("Answer.", PASSAGES, "When does it leave?", side_by_side=True)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The file of a small model with random numbers, and its network."""
    from transformers import LlamaForCausalLM, Qwen2ForCausalLM

    folder = tmp_path_factory.mktemp(request.param)
    write_vocabulary(folder / "llama.gguf", [(ROOT / "docs" / "architecture.md").read_text()], SHAPE, name="small")
    described = folder / "described.gguf"
    header = read_gguf(folder / "llama.gguf")
    renamed = {key.replace("llama.", f"{request.param}."): value for key, value in header.metadata.items()}
    writer = GGUFWriter(described, request.param)
    copy_metadata(writer, replace(header, metadata=renamed))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    torch.manual_seed(3)
    made = (LlamaForCausalLM if request.param == "llama" else Qwen2ForCausalLM)(config_of(read_gguf(described)))
    with torch.no_grad():
        for name, value in made.named_parameters():
            value.add_(torch.randn_like(value) * (0.5 if name.endswith("bias") else 0.1))
    state = {name: value.detach().numpy() for name, value in made.named_parameters()}
    write_full(folder / "model.gguf", described, state, quantisation="F32", reader=None)
    return folder / "model.gguf", load_network(folder / "model.gguf")


def engine(path: Path, adapter: Path | None = None) -> LlamaCppEngine:
    return LlamaCppEngine(path, adapter=adapter, identity=ModelIdentity("small", "", "claimed"))


def tree_of(engine: LlamaCppEngine, prompt: Prompt) -> Tree:
    beginning, *passages, question = map(tuple, engine.tokenize(prompt))
    branch = Branch((*question, 1), len(question), reads=tuple(range(len(passages))))
    return Tree(beginning, (branch,), passages=tuple(passages))


@torch.no_grad()
def logits_of(network: Any, tree: Tree) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = answer_logits(network, batch_of([row_of(tree)])).numpy()
    return found


def test_the_engine_computes_what_the_network_does(model: tuple[Path, Any]) -> None:
    path, network = model
    opened = engine(path)
    beside, behind = opened.logits(PROMPT)[0], opened.logits(replace(PROMPT, side_by_side=False))[0]
    here = logits_of(network, tree_of(opened, PROMPT))[0]
    # The engine keeps keys and values in 16 bits.
    assert np.abs(here - beside).mean() < 0.01 * here.std()
    assert np.abs(here - behind).mean() > 0.05 * here.std()
    opened.close()


def test_an_adapter_changes_the_engine_as_it_changed_the_network(model: tuple[Path, Any], tmp_path: Path) -> None:
    path, _ = model
    network = load_network(path)
    for name, parameter in prepare(network, Method(rank=4, alpha=8, first_layer=1), seed=2).items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    reader = ReaderFormat("Answer.", "Not stated.", 4, 0.25)
    write_adapter(tmp_path / "a.gguf", network, path, "0" * 64, alpha=8, quantisation="F32", reader=reader)
    adapted, plain = engine(path, tmp_path / "a.gguf"), engine(path)
    assert adapted.reader_format == reader
    here = logits_of(network, tree_of(adapted, PROMPT))[0]
    assert np.abs(here - adapted.logits(PROMPT)[0]).mean() < 0.01 * here.std()
    assert np.abs(here - plain.logits(PROMPT)[0]).mean() > 0.1 * here.std()
    adapted.close()
    plain.close()


def test_other_families_are_refused_by_name(model: tuple[Path, Any]) -> None:
    header = read_gguf(model[0])
    entry = header.metadata["general.architecture"]
    with pytest.raises(InvalidModelFile, match="llama and qwen2 can be trained, not 'gemma3'"):
        config_of(replace(header, metadata={**header.metadata, "general.architecture": replace(entry, value="gemma3")}))


def test_a_reader_with_a_threshold_declines_by_it_alone(model: tuple[Path, Any], tmp_path: Path) -> None:
    path, _ = model
    said = {}
    for threshold in (1e-6, 0.999, None):
        network = load_network(path)
        prepare(network, Method(rank=4, alpha=8), seed=2)
        reader = ReaderFormat("Answer.", "Not stated.", 4, threshold)
        target = tmp_path / f"{threshold}.gguf"
        write_adapter(target, network, path, "0" * 64, alpha=8, quantisation="F32", reader=reader)
        opened = engine(path, target)
        said[threshold] = FrozenModel(opened).complete(PROMPT, Decoding(max_tokens=3)).text
        again = replace(PROMPT, passages=())
        assert FrozenModel(opened).complete(again).text == FrozenModel(engine(path)).complete(again).text
        opened.close()
    assert said[1e-6].strip().startswith("N")
    assert said[0.999] == said[None] != said[1e-6]
