"""The embedder: the default model in int8, another model as it is, and what cannot be opened."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from openbook.errors import EngineError
from openbook.inference import int8bert as int8
from openbook.inference import load_embedder
from openbook.inference.embedder import OnnxEmbedder, model_digest_of
from openbook.models import EmbeddingSpec, ModelReference
from openbook.records import Embedder
from openbook.testing import EmbedderSuite

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
    writer = int8.Writer()
    rows = writer.op("Gather", writer.tensor("table", table), writer.input("input_ids", "int64"))
    writer.output(rows, "last_hidden_state", "float32")
    (folder / "model.onnx").write_bytes(writer.finished().data)


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

    def test_it_runs_as_it_is_so_its_identity_is_that_of_the_file(self) -> None:
        assert self.make_embedder().identity.digest == "d1"

    def test_the_tokens_that_are_read_are_counted(self) -> None:
        assert open_embedder(self.model_folder).count_tokens("the ferry") == len(["[CLS]", "the", "ferry", "[SEP]"])
        assert open_embedder(self.model_folder, passage_prefix="boats ").count_tokens("the ferry") == 5
        assert open_embedder(self.model_folder, max_tokens=4).count_tokens("the ferry leaves at nine") == 4

    def test_a_prefix_goes_before_the_text(self) -> None:
        plain = open_embedder(self.model_folder)
        prefixed = open_embedder(self.model_folder, query_prefix="ferry ", passage_prefix="boats ")
        assert np.array_equal(prefixed.embed_query("leave"), plain.embed_query("ferry leave"))
        assert np.array_equal(prefixed.embed_passages(["leave"]), plain.embed_passages(["boats leave"]))

    def test_text_after_the_last_token_is_not_read(self) -> None:
        short = open_embedder(self.model_folder, max_tokens=4)
        assert np.array_equal(short.embed_query("the ferry leaves at nine"), short.embed_query("the ferry"))


@pytest.mark.parametrize("content", [None, b"", b"\x08\x07", b"not a model at all", b"\x3a\xff\xff\xff\xff\x0f"])
def test_what_is_no_model_is_refused_with_its_name(tmp_path: Path, content: bytes | None) -> None:
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


# --- the default model ------------------------------------------------------------------------------------------------


@pytest.mark.model
class TestOnnxEmbedder(EmbedderSuite):
    @pytest.fixture(autouse=True)
    def reference(self, embedder_reference: ModelReference) -> None:
        self.embedder_reference = embedder_reference

    def make_embedder(self) -> Embedder:
        return load_embedder(self.embedder_reference)


@pytest.fixture(scope="module")
def file(embedder_reference: ModelReference) -> bytes:
    return (embedder_reference.path / "model.onnx").read_bytes()


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


def session_of(model: int8.Model) -> Any:
    options = onnxruntime.SessionOptions()
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in model.apart.values()]
    options.add_external_initializers(list(model.apart), values)
    return onnxruntime.InferenceSession(model.data, options, providers=["CPUExecutionProvider"])


@pytest.mark.model
def test_int8_vectors_are_near_those_of_the_file_as_it_is(embedder_reference: ModelReference, file: bytes) -> None:
    plain = vectors_of(onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]), embedder_reference)
    rows = load_embedder(embedder_reference).embed_passages(TEXTS)
    similarities = [float(row @ vector) for row, vector in zip(rows, plain, strict=True)]
    assert min(similarities) > 0.99, similarities
    assert max(similarities) < 0.99999, "the file was run as it is"
    assert np.array_equal([load_embedder(embedder_reference).embed_query(text) for text in TEXTS[:3]], rows[:3])


@pytest.mark.model
def test_signed_and_unsigned_weights_give_the_same_bits(embedder_reference: ModelReference, file: bytes) -> None:
    """Where int8 is exact. Elsewhere the embedder takes the unsigned ones, which are exact everywhere."""
    bert = int8.Bert(file)
    models_ = {signed: int8.int8_model(bert, signed=signed) for signed in (True, False)}
    vectors = {signed: vectors_of(session_of(model), embedder_reference) for signed, model in models_.items()}
    if int8.int8_is_exact(session_of(int8.probe_model())):
        assert np.array_equal(vectors[True], vectors[False])
    rows = load_embedder(embedder_reference).embed_passages(TEXTS)
    assert np.allclose(rows, vectors[False], atol=1e-6)


@pytest.mark.model
def test_the_identity_names_the_computation_and_needs_no_session(embedder_reference: ModelReference) -> None:
    embedder = load_embedder(embedder_reference)
    assert embedder.identity.digest not in ("", embedder_reference.digest)
    assert embedder.identity == load_embedder(embedder_reference, threads=1).identity
    assert "_passage_session" not in vars(embedder)
    stored = ["another", embedder_reference.digest]
    assert embedder.model_digest == model_digest_of(embedder.identity, stored) == embedder_reference.digest
    assert model_digest_of(embedder.identity, ["another"]) == embedder.identity.digest  # not in the store any more


@pytest.mark.model
def test_the_weights_are_those_of_the_file(file: bytes) -> None:
    bert = int8.Bert(file)
    assert (bert.layers, bert.heads) == (6, 12)
    apart = int8.int8_model(bert).apart
    assert len([name for name in apart if name.endswith("dense")]) == 3 * bert.layers
    assert all(np.array_equal(bert.linear(name)[0], array) for name, array in apart.items() if name.endswith("dense"))
    query = bert.linear("encoder.layer.0.attention.self.query")[0]
    assert np.array_equal(apart["encoder.layer.0.attention.self."][:, : query.shape[1]], query)


@pytest.mark.model
def test_another_graph_is_not_taken_for_bert(file: bytes) -> None:
    other = int8.message_class().FromString(file)
    other.graph.node.add(op_type="CumSum", output=["position_ids"])
    with pytest.raises(int8.NotThisBert, match="operators"):
        int8.Bert(other.SerializeToString())
    del other.graph.node[-1]
    erf = next(i for i, node in enumerate(other.graph.node) if node.op_type == "Erf")
    del other.graph.node[erf]
    with pytest.raises(int8.NotThisBert, match="operators"):
        int8.Bert(other.SerializeToString())
    with pytest.raises(int8.NotThisBert, match="no int8 word embeddings"):
        int8.Bert(int8.probe_model().data)


@pytest.mark.model
@pytest.mark.parametrize(
    "part", ["embeddings.position_embeddings.weight_scale", "encoder.layer.3.output.LayerNorm.bias"]
)
def test_a_missing_part_is_named(file: bytes, part: str) -> None:
    other = int8.message_class().FromString(file)
    next(tensor for tensor in other.graph.initializer if tensor.name.endswith(part)).name = "another"
    with pytest.raises(int8.NotThisBert, match=part):
        int8.int8_model(int8.Bert(other.SerializeToString()))


@pytest.mark.model
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999999])
def test_a_file_that_is_cut_short_is_not_taken_for_bert(file: bytes, share: float) -> None:
    with pytest.raises(int8.NotThisBert):
        int8.Bert(file[: int(len(file) * share)])


@given(st.integers(0, len(int8.probe_model().data) - 1), st.integers(0, 255))
def test_any_changed_byte_gives_another_model_or_none(place: int, byte: int) -> None:
    changed = bytearray(int8.probe_model().data)
    changed[place] = byte
    with pytest.raises(int8.NotThisBert):
        int8.Bert(bytes(changed))


class Saturating:
    """A processor that adds two products in 16 bits."""

    def run(self, _: None, inputs: dict[str, Any]) -> list[Any]:
        rows = inputs["rows"].astype(np.int64)
        pairs = np.clip((rows * 127).reshape(len(rows), -1, 2).sum(axis=2), -32768, 32767)
        return [np.repeat(pairs.sum(axis=1)[:, None], rows.shape[1], axis=1)]


def test_a_processor_that_saturates_is_found_out() -> None:
    assert not int8.int8_is_exact(Saturating())
