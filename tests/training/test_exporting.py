"""What the engine computes from an exported file is what the network computed in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from openbook.errors import ConfigError, InvalidModelFile, ModelError, StorageError, UnknownModel
from openbook.inference import load_model
from openbook.inference.llamacpp import LlamaCppEngine
from openbook.inference.tokenizer import open_tokenizer
from openbook.models import ModelReference, ModelStore, import_gguf, read_gguf
from openbook.models.gguf_writer import AdapterUpdates, checked_quantisation, reader_of, write_merged
from openbook.models.importer import merge, store_trained
from openbook.models.manifest import KnowledgeCutoff
from openbook.models.training_record import TrainingRecord, read_training_record, text_digests
from openbook.records import Decoding, ModelIdentity, Prompt, ReaderFormat
from openbook.training.exporting import lora_updates, write_adapter
from openbook.training.network import gguf_name, hf_name, load_network
from openbook.training.recipe import Method
from openbook.training.safetensors_files import write_files
from openbook.training.trainable import prepare

pytestmark = pytest.mark.model

READER = ReaderFormat("Answer from the passage.", "Not stated.")
PROMPT = Prompt(
    READER.instruction, ("Passage:\nThe ferry leaves at noon.\n\n",), "Question: When does the ferry leave?"
)
METHOD = Method(kind="lora", rank=32, alpha=64)


def record(parent: str, **changes: Any) -> TrainingRecord:
    value: dict[str, Any] = {
        "recipe": {"name": "small"},
        "parent": parent,
        "data": (),
        "code": "0",
        "seed": 1,
        "steps": 1,
        "tokens": 1,
        "numeric_class": "test",
        "metrics": {"loss": "0.5"},
        "knowledge_base": None,
        "texts": text_digests(["A text of more than forty characters that the adapter has learned from."]),
    }
    return TrainingRecord(**(value | changes))


@pytest.fixture(scope="module")
def network(model_reference: ModelReference) -> Any:
    """The default model with low-rank updates that change its answers a lot."""
    network = load_network(model_reference.main_file)
    parameters = prepare(network, METHOD, seed=5)
    chance = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in parameters.items():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=chance) * 0.05)
    return network


def logits_of(network: Any, reference: ModelReference) -> np.ndarray[Any, Any]:
    tokens = [t for block in open_tokenizer(reference.vocabulary_file).blocks(PROMPT) for t in block]
    with torch.no_grad():
        found: np.ndarray[Any, Any] = network(torch.tensor([tokens])).logits[0, -1].numpy()
    return found


@pytest.fixture(scope="module")
def home(model_reference: ModelReference, tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    """A store of its own that holds the base."""
    store = ModelStore(tmp_path_factory.mktemp("store"))
    import_gguf(store, model_reference.main_file, name="base")
    return store


@pytest.fixture(scope="module")
def adapter(network: Any, home: ModelStore, tmp_path_factory: pytest.TempPathFactory) -> ModelReference:
    base = home.resolve("base")
    path = tmp_path_factory.mktemp("adapter") / "adapter.gguf"
    write_adapter(path, network, base.main_file, base.digest, alpha=METHOD.alpha, quantisation="Q8_0", reader=READER)
    return store_trained(
        home,
        path,
        record(base.digest),
        kind="adapter",
        name="small",
        licence="CC0",
        cutoff=KnowledgeCutoff("2020-01-01", "test"),
        as_name="small",
    )


def test_the_adapter_on_its_base_computes_what_the_network_computed(network: Any, adapter: ModelReference) -> None:
    expected = logits_of(network, adapter)
    assert adapter.base is not None
    with_adapter, without = load_model(adapter), load_model(adapter.base)
    assert isinstance(with_adapter.engine, LlamaCppEngine)
    assert isinstance(without.engine, LlamaCppEngine)
    found, plain = with_adapter.engine.logits(PROMPT)[0], without.engine.logits(PROMPT)[0]
    assert np.abs(found - expected).mean() < 0.3 * np.abs(plain - expected).mean()  # and it does change something
    assert with_adapter.reader == READER
    assert without.reader is None
    # Without passages it is the base that answers, bit for bit, also in between.
    memory = Prompt("", (), "What is the capital of France?")
    assert with_adapter.engine.logits_digest(memory) == without.engine.logits_digest(memory)
    decoding = Decoding(max_tokens=6)
    mixed = [PROMPT, memory, PROMPT, Prompt(READER.instruction, (), "Why?"), PROMPT]
    answers = [with_adapter.complete(prompt, decoding) for prompt in mixed]
    assert [with_adapter.complete(prompt, decoding) for prompt in reversed(mixed)] == answers[::-1]
    assert with_adapter.complete(memory, decoding).text == without.complete(memory, decoding).text
    assert with_adapter.identity.digest == adapter.digest != adapter.base.digest
    with_adapter.close()
    without.close()


# With weights of 8 bits the engine also rounds activations to 8 bits, which is most of the difference.
@pytest.mark.slow
@pytest.mark.parametrize(("quantisation", "tolerance"), [("F32", 0.02), ("F16", 0.05), ("Q8_0", 0.6)])
def test_merged_it_computes_the_same(
    quantisation: str, tolerance: float, network: Any, adapter: ModelReference, home: ModelStore, tmp_path: Path
) -> None:
    base = adapter.needed_base
    path = tmp_path / "model.gguf"
    write_merged(
        path,
        base.main_file,
        lora_updates(network, METHOD.alpha),
        quantisation=checked_quantisation(quantisation),
        reader=READER,
    )
    name = f"merged-{quantisation.lower()}"
    merged = store_trained(
        home,
        path,
        record(adapter.digest),
        kind="language-model",
        name=name,
        licence="CC0",
        cutoff=KnowledgeCutoff(),
        as_name=name,
    )
    assert merged.manifest.lineage == adapter.digest
    assert merged.manifest.sections["tokenizer"] == base.manifest.sections["tokenizer"]
    assert merged.manifest.sections["architecture"] == base.manifest.sections["architecture"]
    model = load_model(merged)
    assert isinstance(model.engine, LlamaCppEngine)
    assert np.abs(model.engine.logits(PROMPT)[0] - logits_of(network, adapter)).mean() < tolerance
    assert model.reader == READER
    model.close()


def test_on_a_base_that_is_not_quantised_the_adapter_is_exact(network: Any, home: ModelStore, tmp_path: Path) -> None:
    base = home.resolve("base")
    identity = ModelIdentity("test", "", "claimed")
    write_merged(tmp_path / "base.gguf", base.main_file, {}, quantisation="F32", reader=None)
    write_adapter(
        tmp_path / "a.gguf", network, base.main_file, base.digest, alpha=METHOD.alpha, quantisation="F32", reader=None
    )
    engine = LlamaCppEngine(tmp_path / "base.gguf", adapter=tmp_path / "a.gguf", identity=identity)
    assert np.abs(engine.logits(PROMPT)[0] - logits_of(network, base)).mean() < 0.02
    engine.close()


def test_a_stored_adapter_holds_the_updates_that_were_learned(network: Any, adapter: ModelReference) -> None:
    stored = AdapterUpdates(adapter.main_file)
    learned = lora_updates(network, METHOD.alpha)
    assert set(stored) == set(learned)
    assert len(stored) == len(learned)
    for name, values in learned.items():
        assert np.abs(stored[name] - values).max() < 0.05 * np.abs(values).max(), name


def test_names_of_tensors_translate_both_ways(model_reference: ModelReference) -> None:
    for tensor in read_gguf(model_reference.main_file).tensors:
        assert gguf_name(hf_name(tensor.name)) == tensor.name
    with pytest.raises(InvalidModelFile, match="rotary"):
        gguf_name("model.layers.0.self_attn.rotary.weight")


def test_an_adapter_without_its_base_is_refused_by_name(
    adapter: ModelReference, home: ModelStore, tmp_path: Path
) -> None:
    elsewhere = ModelStore(tmp_path / "store")
    copied = store_trained(
        elsewhere,
        adapter.main_file,
        record(adapter.needed_base.digest),
        kind="adapter",
        name="small",
        licence="CC0",
        cutoff=KnowledgeCutoff(),
        as_name="small",
    )
    assert copied.digest == adapter.digest
    with pytest.raises(
        UnknownModel, match=f"adapter of the model {adapter.needed_base.digest[:12]}, which is not here"
    ):
        load_model(copied)
    with pytest.raises(InvalidModelFile, match="its record says"):
        store_trained(
            elsewhere,
            adapter.main_file,
            record("f" * 64),
            kind="adapter",
            name="small",
            licence="CC0",
            cutoff=KnowledgeCutoff(),
        )
    # And the base of an adapter stays while the adapter does.
    assert home.remove("base") == ()
    assert home.resolve("small").base is not None
    home.point("base", adapter.needed_base.digest)


def test_a_changed_byte_of_the_record_is_found(adapter: ModelReference, home: ModelStore, tmp_path: Path) -> None:
    import shutil

    store = ModelStore(tmp_path / "store")
    shutil.copytree(adapter.path, store.root / adapter.digest)
    path = store.root / adapter.digest / "training.json"
    content = path.read_bytes().replace(b"0.5", b"0.9")
    path.unlink()
    path.write_bytes(content)
    assert store.findings(store.resolve(adapter.digest)) == ("training.json differs",)


def test_numbers_that_are_not_finite_are_not_stored(network: Any, home: ModelStore, tmp_path: Path) -> None:
    base = home.resolve("base")
    updates = lora_updates(network, METHOD.alpha)
    name = next(iter(updates))
    updates[name][0, 0] = np.nan
    with pytest.raises(InvalidModelFile, match="not finite"):
        write_merged(tmp_path / "m.gguf", base.main_file, {name: updates[name]}, quantisation="F16", reader=None)
    with pytest.raises(ModelError, match="no layer"):
        write_merged(tmp_path / "m.gguf", base.main_file, {"no layer": updates[name]}, quantisation="F16", reader=None)


def test_merging_stores_a_model_of_its_own(network: Any, adapter: ModelReference, home: ModelStore) -> None:
    merged = merge(home, adapter, checked_quantisation("f16"), "merged-by-name")
    assert merged.manifest.kind == "language-model"
    assert merged.manifest.lineage == adapter.digest
    assert home.findings(merged) == ()
    assert reader_of(merged.main_file) == READER
    model = load_model(merged)
    assert isinstance(model.engine, LlamaCppEngine)
    assert np.abs(model.engine.logits(PROMPT)[0] - logits_of(network, adapter)).mean() < 0.1
    assert model.reader == READER
    model.close()
    smaller = merge(home, merged, checked_quantisation("q4_0"), "smaller")
    assert smaller.manifest.quantisation == "Q4_0"
    assert smaller.manifest.lineage == merged.digest
    for taken in ("smaller", "reader", "smollm2-135m-instruct"):
        with pytest.raises(ConfigError, match="is taken"):
            merge(home, adapter, checked_quantisation("f16"), taken)
    record_of_both = [read_training_record(model.path / "training.json") for model in (adapter, smaller)]
    assert record_of_both[0].texts == record_of_both[1].texts != ()
    with pytest.raises(ConfigError, match="no quantisation that can be written"):
        checked_quantisation("q3_k")


# --- for other programs -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_as_safetensors_a_model_has_the_same_numbers_and_tokens(
    model_reference: ModelReference, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer, LlamaForCausalLM

    write_files(model_reference, tmp_path / "out")
    theirs: Any = LlamaForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    own = load_network(model_reference.main_file)
    words: Any = AutoTokenizer.from_pretrained(tmp_path / "out")
    mine = open_tokenizer(model_reference.main_file)
    for text in ("The ferry leaves at noon.", "Grüße, 12 Kronen\n\nund <b>Æ</b>"):
        tokens = mine.model.tokenize(text, control=False)
        assert words(text, add_special_tokens=False)["input_ids"] == tokens
        with torch.no_grad():
            assert torch.equal(theirs(torch.tensor([tokens])).logits, own(torch.tensor([tokens])).logits)
    with pytest.raises(StorageError, match="is not empty"):
        write_files(model_reference, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # PEFT asks Transformers for it
def test_as_safetensors_an_adapter_on_its_base_is_the_merged_model(
    adapter: ModelReference, home: ModelStore, tmp_path: Path
) -> None:
    from peft import PeftModel

    merged = merge(home, adapter, checked_quantisation("f32"), "whole")
    write_files(adapter, tmp_path / "out")
    base = load_network(adapter.needed_base.main_file)
    tokens = torch.tensor([open_tokenizer(merged.main_file).model.tokenize("The ferry leaves at noon.", control=False)])
    with torch.no_grad():
        expected = load_network(merged.main_file)(tokens).logits
        alone = base(tokens).logits
        found = PeftModel.from_pretrained(base, str(tmp_path / "out")).eval()(tokens).logits
    assert float((found - expected).abs().max()) < 1e-3 * float(expected.abs().max())
    assert float((alone - expected).abs().max()) > 0.1 * float(expected.abs().max())
