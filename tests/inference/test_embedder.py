"""The embedder: the default model in int8, another model as it is, and what cannot be opened."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from openbook.core.errors import EngineError
from openbook.core.records import Embedder
from openbook.inference import embedder as onnx
from openbook.inference import load_embedder
from openbook.inference.embedder import OnnxEmbedder, model_digest_of, opened_graph
from openbook.models import EmbeddingSpec, ModelReference
from scripts.int8_graph import Writer, files_for
from tests.conformance.models import EmbedderSuite

DIMENSIONS = 8
TEXTS = (
    "",
    "ferry",
    "Which boats leave at nine on weekdays?",
    "The bow thruster MUST be isolated before anyone opens its cover; see section 4.2 of the manual. " * 3,
    "Die Fähre fährt um neun Uhr ab. 渡船九点开。",
    "0.1 2 33 444 5,555 " * 200,
)


def write_embedder(folder: Path, *, dimensions: int = DIMENSIONS) -> None:
    """A model of another kind: every word has a vector of its own."""
    words = "[UNK] [CLS] [SEP] a at boats chromodynamics does ferries ferry leave leaves nine of the".split()
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 1), ("[SEP]", 2)])
    tokenizer.save(str(folder / "tokenizer.json"))
    table = np.random.default_rng(0).normal(size=(len(words), dimensions)).astype(np.float32)
    writer = Writer()
    rows = writer.op("Gather", writer.tensor("table", table, inside=True), writer.input("input_ids", "int64"))
    writer.output(rows, "last_hidden_state", "float32")
    (folder / "model.onnx").write_bytes(writer.finished())


def open_embedder(folder: Path, **changes: Any) -> OnnxEmbedder:
    spec = replace(EmbeddingSpec(DIMENSIONS, max_tokens=32), **changes)
    return OnnxEmbedder(folder, name="small", digest="d1", spec=spec)


class TestAnotherModel(EmbedderSuite):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.model_folder = tmp_path
        write_embedder(tmp_path)

    def make_embedder(self) -> Embedder:
        return open_embedder(self.model_folder)

    def test_other_models_run_unchanged_and_count_the_tokens_read(self) -> None:
        assert self.make_embedder().identity.digest == "d1"
        assert open_embedder(self.model_folder).count_tokens("the ferry") == len(["[CLS]", "the", "ferry", "[SEP]"])
        assert open_embedder(self.model_folder, passage_prefix="boats ").count_tokens("the ferry") == 5
        assert open_embedder(self.model_folder, max_tokens=4).count_tokens("the ferry leaves at nine") == 4

    def test_prefixes_precede_texts_and_long_texts_are_cut(self) -> None:
        plain = open_embedder(self.model_folder)
        prefixed = open_embedder(self.model_folder, query_prefix="ferry ", passage_prefix="boats ")
        assert np.array_equal(prefixed.embed_query("leave"), plain.embed_query("ferry leave"))
        assert np.array_equal(prefixed.embed_passages(["leave"]), plain.embed_passages(["boats leave"]))
        short = open_embedder(self.model_folder, max_tokens=4)
        assert np.array_equal(short.embed_query("the ferry leaves at nine"), short.embed_query("the ferry"))


def test_an_embedder_travels_with_its_files(tmp_path: Path) -> None:
    write_embedder(tmp_path)
    before = open_embedder(tmp_path, passage_prefix="boats ")
    travelled = pickle.dumps(before)
    (tmp_path / "model.onnx").unlink()
    (tmp_path / "tokenizer.json").unlink()
    after = pickle.loads(travelled)
    assert (after.identity, after.model_digest) == (before.identity, before.model_digest)
    again = pickle.loads(pickle.dumps(after))
    assert np.array_equal(again.embed_passages(["ferry", "leave"]), after.embed_passages(["ferry", "leave"]))
    assert not np.array_equal(after.embed_passages(["ferry"])[0], after.embed_query("ferry"))


@pytest.mark.parametrize("content", [None, b"", b"\x08\x07", b"not a model at all", b"\x3a\xff\xff\xff\xff\x0f"])
def test_a_broken_model_file_is_refused_with_its_name(tmp_path: Path, content: bytes | None) -> None:
    write_embedder(tmp_path)
    (tmp_path / "model.onnx").unlink()
    if content is not None:
        (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(EngineError, match="The embedder 'small' cannot be loaded"):
        open_embedder(tmp_path).embed_query("ferry")


def test_files_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    write_embedder(tmp_path, dimensions=DIMENSIONS + 1)
    with pytest.raises(EngineError, match="gave 9 numbers, not 8"):
        open_embedder(tmp_path).embed_query("ferry")
    Tokenizer(models.WordLevel({"[UNK]": 99}, unk_token="[UNK]")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(EngineError, match="cannot be evaluated"):
        open_embedder(tmp_path).embed_query("ferry")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(EngineError, match="The tokenizer of the embedder 'small'"):
        open_embedder(tmp_path).embed_query("ferry")


@pytest.mark.model
class TestOnnxEmbedder(EmbedderSuite):
    @pytest.fixture(autouse=True)
    def reference(self, embedder_reference: ModelReference) -> None:
        self.embedder_reference = embedder_reference

    def make_embedder(self) -> Embedder:
        return load_embedder(self.embedder_reference)

    def test_the_identity_names_the_computation_and_is_of_the_stored_model(self) -> None:
        embedder, digest = load_embedder(self.embedder_reference), self.embedder_reference.digest
        assert embedder.identity.digest not in ("", digest)
        assert embedder.model_digest == model_digest_of(embedder.identity, ["another", digest]) == digest
        assert model_digest_of(embedder.identity, ["another"]) == embedder.identity.digest  # not in the store any more


def vectors_of(session: Any, reference: ModelReference) -> list[Any]:
    tokenizer = Tokenizer.from_file(str(reference.path / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    found = []
    for text in TEXTS:
        ids = np.array([tokenizer.encode(text).ids], dtype=np.int64)
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        mean = session.run(None, {i.name: inputs[i.name] for i in session.get_inputs()})[0][0].mean(axis=0)
        found.append(mean / np.linalg.norm(mean))
    return found


@pytest.mark.model
def test_int8_vectors_are_near_those_of_the_original_file(embedder_reference: ModelReference) -> None:
    """Signed and unsigned weights give the same bits where int8 is exact. Elsewhere the embedder takes the unsigned ones."""
    file = embedder_reference.main_file
    rows = load_embedder(embedder_reference).embed_passages(TEXTS)
    plain = vectors_of(opened_graph(file.read_bytes()), embedder_reference)
    similarities = [float(row @ vector) for row, vector in zip(rows, plain, strict=True)]
    assert min(similarities) > 0.99, similarities
    assert max(similarities) < 0.99999, "the file was run as it is"
    exact = onnx.int8_is_exact(opened_graph((onnx.DATA / onnx.INT8_TEST).read_bytes(), {}))
    found = []
    for signed in (False, True)[: 1 + exact]:
        tensors = onnx.int8_tensors(file.read_bytes(), signed=signed)
        found.append(
            vectors_of(opened_graph((onnx.DATA / onnx.GRAPHS[signed]).read_bytes(), tensors), embedder_reference)
        )
    assert np.array_equal(found[0], found[-1])
    assert np.allclose(found[0], rows, atol=1e-6)


@pytest.mark.model
def test_the_graphs_are_those_that_the_script_writes_for_the_file(embedder_reference: ModelReference) -> None:
    assert embedder_reference.digest == onnx.INT8_MODEL
    written = files_for(embedder_reference.main_file.read_bytes())
    assert written == {name: (onnx.DATA / name).read_bytes() for name in written}


class Saturating:
    """A processor that adds two products in 16 bits."""

    def run(self, _: None, inputs: dict[str, Any]) -> list[Any]:
        rows = inputs["rows"].astype(np.int64)
        pairs = np.clip((rows * 127).reshape(len(rows), -1, 2).sum(axis=2), -32768, 32767)
        return [np.repeat(pairs.sum(axis=1)[:, None], rows.shape[1], axis=1)]


def test_a_processor_that_saturates_is_found_out() -> None:
    assert not onnx.int8_is_exact(Saturating())
