"""The engine computes from an exported file what the network computed in training, for each family of models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from openbook.core.errors import InvalidModelFile, StorageError
from openbook.core.records import Decoding, ModelIdentity, Prompt, ReaderFormat
from openbook.inference import load_model
from openbook.inference.answerability import AnswerabilityProbe
from openbook.inference.frozen import FrozenModel
from openbook.inference.llamacpp import LlamaCppEngine
from openbook.inference.tokenizer import open_tokenizer
from openbook.models import ModelReference, ModelStore, import_gguf, read_gguf
from openbook.models.gguf_writer import AdapterUpdates, Quantisation
from openbook.models.importer import merge, store_trained
from openbook.models.lineage import TrainingRecord
from openbook.models.manifest import KnowledgeCutoff
from openbook.models.reader_metadata import reader_of
from openbook.training.attention import Batch, batch_of
from openbook.training.export import lora_updates, write_adapter, write_safetensors
from openbook.training.network import (
    FAMILIES,
    config_of,
    gguf_name,
    gguf_rows,
    hf_name,
    hf_rows,
    learned_logits,
    load_network,
    make_trainable,
)
from openbook.training.recipe import Method
from openbook.training.trees import Branch, Tree, row_of
from tests.conftest import llama_engine
from tests.training.networks import SHAPE, write_tiny_model

pytestmark = pytest.mark.laws

PASSAGES = ("The ferry to Holm leaves at nine.\n", "Dogs are welcome.\n", "The train leaves at noon, and at five.\n")
PROMPT = Prompt("Answer.", PASSAGES, "When does it leave?", side_by_side=True)
MEMORY = Prompt("", (), "What is the capital of France?")
READER = ReaderFormat("Answer.", "Not stated.", 4, 0.25)
METHOD = Method(rank=4, alpha=8, first_layer=1)


@pytest.fixture(scope="module", params=FAMILIES)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    folder = tmp_path_factory.mktemp(request.param)
    write_tiny_model(folder / "base.gguf", request.param)
    store = ModelStore(folder / "store")
    import_gguf(store, folder / "base.gguf", name="base")
    return store


@pytest.fixture(scope="module")
def base(store: ModelStore) -> ModelReference:
    return store.resolve("base")


@pytest.fixture(scope="module")
def network(base: ModelReference) -> Any:
    """The base with updates that change its answers a lot."""
    network = load_network(base.main_file)
    for name, parameter in make_trainable(network, METHOD, seed=2).items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return network


@pytest.fixture(scope="module")
def adapter(
    network: Any, base: ModelReference, store: ModelStore, tmp_path_factory: pytest.TempPathFactory
) -> ModelReference:
    path = tmp_path_factory.mktemp("adapter") / "adapter.gguf"
    write_adapter(path, network, base.digest, alpha=METHOD.alpha, quantisation="F32", reader=READER)
    record = TrainingRecord({"name": "small"}, base.digest, (), "0", 1, 1, 1, "test", {}, None, ())
    said: dict[str, Any] = {"kind": "adapter", "manifest_name": "small", "licence": "CC0", "name": "small"}
    return store_trained(store, path, record, cutoff=KnowledgeCutoff(), **said)


def engine(path: Path, adapter: Path | None = None) -> LlamaCppEngine:
    return LlamaCppEngine(path, adapter=adapter, identity=ModelIdentity("small", "", "claimed"))


def batch_for(engine: LlamaCppEngine) -> Batch:
    beginning, *passages, question = map(tuple, engine.tokenize(PROMPT))
    branch = Branch((*question, 1), len(question), reads=tuple(range(len(passages))))
    tree = Tree(beginning, (branch,), passages=tuple(passages))
    return batch_of([row_of(tree)])


@torch.no_grad()
def logits_of(network: Any, engine: LlamaCppEngine) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = learned_logits(network, batch_for(engine)).numpy()[0]
    return found


def test_the_engine_computes_what_the_network_does(base: ModelReference) -> None:
    opened = engine(base.main_file)
    here = logits_of(load_network(base.main_file), opened)
    together, apart = opened.logits(PROMPT)[0], opened.logits(replace(PROMPT, side_by_side=False))[0]
    # The engine keeps keys and values in 16 bits.
    assert np.abs(here - together).mean() < 0.01 * here.std()
    assert np.abs(here - apart).mean() > 0.05 * here.std()
    opened.close()


@torch.no_grad()
def test_a_probe_reads_the_layer_at_the_last_token_of_the_question(base: ModelReference) -> None:
    network, given = load_network(base.main_file), []
    network.model.layers[1].register_forward_hook(lambda _layer, _in, out: given.append(out))
    probe = AnswerabilityProbe(1, 0.0, (0.0,) * (SHAPE.width - 1) + (1.0,), 0.3)
    opened = LlamaCppEngine(base.main_file, identity=ModelIdentity("small", "", "claimed"), probe=probe)
    batch = batch_for(opened)
    learned_logits(network, batch)
    here = given[0].flatten(0, 1)[batch.predictors[0]].numpy()
    seen = opened.hidden_state(PROMPT)
    assert np.abs(here - seen).mean() < 0.01 * here.std()
    assert probe.probability(seen) == pytest.approx(1 / (1 + np.exp(-here[-1])), abs=0.01)
    opened.close()


def test_an_adapter_changes_the_engine_as_it_changed_the_network(network: Any, adapter: ModelReference) -> None:
    base = adapter.needed_base
    adapted, plain = engine(base.main_file, adapter.main_file), engine(base.main_file)
    here = logits_of(network, adapted)
    assert adapted.reader_format == READER
    assert np.abs(here - adapted.logits(PROMPT)[0]).mean() < 0.01 * here.std()
    assert np.abs(here - plain.logits(PROMPT)[0]).mean() > 0.1 * here.std()
    adapted.close()
    plain.close()


@pytest.mark.parametrize("store", ["llama"], indirect=True)
def test_without_passages_the_base_answers_bit_for_bit(adapter: ModelReference) -> None:
    with_adapter, without = load_model(adapter), load_model(adapter.needed_base)
    assert (with_adapter.reader, without.reader) == (READER, None)
    assert (with_adapter.reads_each, without.reads_each) == (True, False)
    assert llama_engine(with_adapter).logits_digest(MEMORY) == llama_engine(without).logits_digest(MEMORY)
    decoding = Decoding(max_tokens=6)
    mixed = [PROMPT, MEMORY, PROMPT, Prompt(READER.instruction, (), "Why?"), PROMPT]
    answers = [with_adapter.complete(prompt, decoding) for prompt in mixed]
    assert [with_adapter.complete(prompt, decoding) for prompt in reversed(mixed)] == answers[::-1]
    assert with_adapter.complete(MEMORY, decoding).text == without.complete(MEMORY, decoding).text
    assert with_adapter.identity.digest == adapter.digest != adapter.needed_base.digest
    with_adapter.close()
    without.close()


@pytest.mark.parametrize("store", ["llama"], indirect=True)
def test_a_reader_declines_by_its_threshold_alone(base: ModelReference, tmp_path: Path) -> None:
    network = load_network(base.main_file)
    make_trainable(network, METHOD, seed=2)
    texts = {}
    for threshold in (1e-6, 0.999, None):
        path = tmp_path / f"{threshold}.gguf"
        reader = replace(READER, declines_above=threshold)
        write_adapter(path, network, "0" * 64, alpha=8, quantisation="F32", reader=reader)
        opened = engine(base.main_file, path)
        texts[threshold] = FrozenModel(opened).complete(PROMPT, Decoding(max_tokens=3)).text
        opened.close()
    assert texts[1e-6].strip().startswith("N")
    assert texts[0.999] == texts[None] != texts[1e-6]


def test_a_stored_adapter_holds_the_updates_that_were_learned(
    network: Any, adapter: ModelReference, base: ModelReference
) -> None:
    found, learned = AdapterUpdates(adapter.main_file, base.main_file), lora_updates(network, METHOD.alpha)
    assert set(found) == set(learned)
    assert len(found) == len(learned)
    for name, values in learned.items():
        assert np.abs(found[name] - values).max() < 1e-5 * np.abs(values).max(), name


# With weights of 8 bits the engine also rounds activations to 8 bits, which is most of the difference.
@pytest.mark.parametrize(("quantisation", "tolerance"), [("F32", 0.01), ("Q8_0", 0.1)])
def test_merged_it_computes_the_same(
    quantisation: Quantisation, tolerance: float, network: Any, adapter: ModelReference, store: ModelStore
) -> None:
    merged = merge(store, adapter, quantisation, f"merged-{quantisation}")
    assert merged.manifest.kind == "language-model"
    assert merged.manifest.lineage == adapter.digest
    for section in ("tokenizer", "architecture"):
        assert merged.manifest.sections[section] == adapter.needed_base.manifest.sections[section]
    assert store.findings(merged) == ()
    opened = engine(merged.main_file)
    assert opened.reader_format == READER == reader_of(merged.main_file)
    here = logits_of(network, opened)
    assert np.abs(here - opened.logits(PROMPT)[0]).mean() < tolerance * here.std()
    opened.close()


def test_names_and_rows_translate_both_ways(base: ModelReference) -> None:
    header = read_gguf(base.main_file)
    config = config_of(header)
    rows = np.arange(config.hidden_size * 5).reshape(-1, 5)
    for tensor in header.tensors:
        name = hf_name(tensor.name)
        assert gguf_name(name) == tensor.name
        if "q_proj" in name:
            assert np.array_equal(gguf_rows(config, name, rows), rows) == (config.model_type != "llama")
            assert np.array_equal(hf_rows(config, name, gguf_rows(config, name, rows)), rows)
    for translate in (gguf_name, hf_name):
        with pytest.raises(InvalidModelFile, match=r"model.layers.0.self_attn.rotary.weight"):
            translate("model.layers.0.self_attn.rotary.weight")
    entry = header.metadata["general.architecture"]
    with pytest.raises(InvalidModelFile, match="llama and qwen2 can be trained, not 'gemma3'"):
        config_of(replace(header, metadata={**header.metadata, "general.architecture": replace(entry, value="gemma3")}))


def test_as_safetensors_a_model_has_the_same_numbers_and_tokens(base: ModelReference, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    write_safetensors(base, tmp_path / "out")
    theirs: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "out")
    own, own_tokenizer = load_network(base.main_file), open_tokenizer(base.main_file)
    for text in ("The ferry leaves at noon.", "Grüße, 12 Kronen\n\nund <b>Æ</b>"):
        tokens = own_tokenizer.model.tokenize(text, control=False)
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == tokens
        with torch.no_grad():
            assert torch.equal(theirs(torch.tensor([tokens])).logits, own(torch.tensor([tokens])).logits)
    with pytest.raises(StorageError, match="is not empty"):
        write_safetensors(base, tmp_path / "out")


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # PEFT asks Transformers for it
def test_as_safetensors_an_adapter_on_its_base_is_the_trained_network(
    network: Any, adapter: ModelReference, tmp_path: Path
) -> None:
    from peft import PeftModel

    write_safetensors(adapter, tmp_path / "out")
    base, tokens = load_network(adapter.needed_base.main_file), torch.tensor([range(40)])
    with torch.no_grad():
        expected, plain = network(tokens).logits, base(tokens).logits
        found = PeftModel.from_pretrained(base, str(tmp_path / "out")).eval()(tokens).logits
    assert float((found - expected).abs().max()) < 1e-3 * float(expected.abs().max())
    assert float((plain - expected).abs().max()) > 0.1 * float(expected.abs().max())
