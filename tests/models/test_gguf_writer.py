"""An adapter and its base as one model: what it holds, and when it is made."""

from __future__ import annotations

import shutil
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from gguf.quants import dequantize

from openbook.core.errors import ConfigError, InvalidModelFile, ModelNotVerified, StorageError
from openbook.core.records import ReaderFormat
from openbook.models import ModelReference, ModelStore, ensure, import_gguf
from openbook.models.gguf import ValueType
from openbook.models.gguf_writer import AdapterUpdates, checked_quantisation, write_merged
from openbook.models.importer import merge
from openbook.models.lineage import TrainingRecord
from openbook.models.reader_metadata import reader_of
from tests.models.gguf_files import Recipe, Tensor, flip, lora, rewrite
from tests.models.test_trained import store_file

CHANCE = np.random.default_rng(3)
W = CHANCE.standard_normal((6, 32)).astype("<f4")
EMBEDDING = CHANCE.standard_normal((3, 32)).astype("<f4")
A = CHANCE.standard_normal((4, 32)).astype("<f2")
B = CHANCE.standard_normal((6, 4)).astype("<f2")
ALPHA = 8.0
READER = ReaderFormat("Answer.", "Not stated.")


def base_file(path: Path) -> Path:
    tensors = (
        Tensor("token_embd.weight", EMBEDDING.tobytes(), shape=(32, 3)),
        Tensor("blk.0.attn_q.weight", W.tobytes(), shape=(32, 6)),
        Tensor("output_norm.weight", struct.pack("<5e", *range(5)), type="F16", shape=(5,)),
    )
    return Recipe(tensors=tensors).with_value("llama.embedding_length", ValueType.UINT32, 32).write(path)


def adapter_file(path: Path, base: str, reader: bool = True) -> Path:
    recipe = lora(
        base,
        Tensor("blk.0.attn_q.weight.lora_a", A.tobytes(), type="F16", shape=(32, 4)),
        Tensor("blk.0.attn_q.weight.lora_b", B.tobytes(), type="F16", shape=(4, 6)),
        alpha=ALPHA,
        reader=(READER.instruction, READER.abstention) if reader else None,
    )
    return recipe.write(path)


@pytest.fixture
def base(store: ModelStore, tmp_path: Path) -> ModelReference:
    return import_gguf(store, base_file(tmp_path / "base.gguf"), name="base")


def stored_adapter(store: ModelStore, base: ModelReference, tmp_path: Path, *, reader: bool = True) -> ModelReference:
    return store_file(store, adapter_file(tmp_path / "a.gguf", base.digest, reader=reader), base.digest, "small")


def tensors(path: Path) -> dict[str, np.ndarray]:
    return {t.name: dequantize(t.data, t.tensor_type) for t in GGUFReader(path).tensors}


def test_a_merged_matrix_is_base_plus_update(tmp_path: Path) -> None:
    base, adapter = base_file(tmp_path / "base.gguf"), adapter_file(tmp_path / "a.gguf", "f" * 64)
    updates = AdapterUpdates(adapter, base)
    assert list(updates) == ["blk.0.attn_q.weight"]
    assert len(updates) == 1
    for quantisation, tolerance in (("F32", 0.0), ("F16", 2e-2), ("Q8_0", 0.2)):
        path = tmp_path / quantisation
        write_merged(path, base, updates, quantisation=quantisation, reader=READER)  # type: ignore[arg-type]
        found = tensors(path)
        expected = W + (B.astype(float) @ A.astype(float) * ALPHA / 4).astype(np.float32)
        assert np.abs(found["blk.0.attn_q.weight"] - expected).max() <= tolerance
        assert np.abs(found["token_embd.weight"] - EMBEDDING).max() <= tolerance
        assert found["output_norm.weight"].tolist() == [0, 1, 2, 3, 4]
    write_merged(tmp_path / "again", base, updates, quantisation="Q8_0", reader=READER)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "Q8_0").read_bytes()


@pytest.mark.parametrize(
    ("name", "update", "message"),
    [
        ("blk.0.attn_q.weight", np.zeros((6, 31), np.float32), "shape"),
        ("blk.7.attn_q.weight", np.zeros((6, 32), np.float32), "no blk.7.attn_q.weight"),
        ("blk.0.attn_q.weight", np.full((6, 32), np.nan, np.float32), "not finite"),
    ],
)
def test_updates_that_do_not_fit_are_refused(name: str, update: np.ndarray, message: str, tmp_path: Path) -> None:
    base = base_file(tmp_path / "base.gguf")
    with pytest.raises(InvalidModelFile, match=message):
        write_merged(tmp_path / "m", base, {name: update}, quantisation="F16", reader=None)


LORA_A = Tensor("blk.0.attn_q.weight.lora_a", b"\0" * 128, shape=(32, 1))
LORA_B = Tensor("blk.0.attn_q.weight.lora_b", b"\0" * 24, shape=(1, 6))
WIDE = Tensor(LORA_B.name, b"\0" * (1 << 20), shape=(1, 1 << 18))


@pytest.mark.parametrize(
    ("parts", "alpha", "message"),
    [
        ((LORA_A, WIDE), 8.0, r"shapes \(32, 1\) and \(1, 262144\); in its base that has the shape \(32, 6\)"),
        ((LORA_A,), 8.0, r"shapes \(32, 1\) and \(\)"),
        ((LORA_A, LORA_B, Tensor("x.weight", b"\0" * 16)), 8.0, r"changes x\.weight .* has the shape None"),
        ((LORA_A, replace(LORA_B, shape=(2, 3))), 8.0, r"shapes \(32, 1\) and \(2, 3\)"),
        ((replace(LORA_A, shape=(32,)), LORA_B), 8.0, r"shapes \(32,\) and \(1, 6\)"),
        ((LORA_A, LORA_B), None, r"no number adapter\.lora\.alpha"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_first(
    parts: tuple[Tensor, ...], alpha: float | None, message: str, tmp_path: Path
) -> None:
    base = base_file(tmp_path / "base.gguf")
    assert list(AdapterUpdates(lora("f" * 64, LORA_A, LORA_B).write(tmp_path / "a.gguf"), base))
    with pytest.raises(InvalidModelFile, match=message):
        AdapterUpdates(lora("f" * 64, *parts, alpha=alpha).write(tmp_path / "a.gguf"), base)


@pytest.mark.parametrize(
    ("key", "kind", "value"),
    [
        ("passages", ValueType.UINT32, 9),
        ("passages", ValueType.STRING, "two"),
        ("declines_above", ValueType.FLOAT32, 1.5),
        ("declines_above", ValueType.FLOAT32, 0.0),
        ("declines_above", ValueType.FLOAT32, float("nan")),
        ("instruction", ValueType.STRING, "1" * 5000),
    ],
)
def test_invalid_reader_keys_are_refused(key: str, kind: ValueType, value: object, tmp_path: Path) -> None:
    recipe = lora("f" * 64, LORA_A, LORA_B, reader=(READER.instruction, READER.abstention))
    assert reader_of(recipe.write(tmp_path / "a.gguf")) == READER
    with pytest.raises(InvalidModelFile, match="asked as a reader"):
        reader_of(recipe.with_value(f"openbook.reader.{key}", kind, value).write(tmp_path / "a.gguf"))


def test_a_reader_is_merged_once(store: ModelStore, base: ModelReference, tmp_path: Path) -> None:
    adapter = stored_adapter(store, base, tmp_path)
    assert adapter.merged is None
    said: list[str] = []
    merged = ensure(store, "small", announce=said.append).merged
    assert merged is not None
    assert "Merging small" in said[0]
    assert (merged.manifest.lineage, merged.manifest.quantisation) == (adapter.digest, "Q8_0")
    assert store.findings(merged) == ()
    assert ensure(store, "small", announce=said.append).merged == merged == store.resolve("small").merged
    assert len(said) == 1
    # The file is the same on another machine.
    elsewhere = ModelStore(tmp_path / "elsewhere")
    import_gguf(elsewhere, base.main_file, name="base")
    shutil.copytree(adapter.path, elsewhere.root / adapter.digest)
    again = ensure(elsewhere, adapter.digest).merged
    assert again is not None
    assert again.digest == merged.digest
    # It goes with the adapter.
    assert set(store.remove("small")) == {adapter.digest, merged.digest}
    assert store.all_models() == (store.resolve("base"),)
    assert list((store.root / "merged").iterdir()) == []


def test_a_merged_model_can_have_a_name(store: ModelStore, base: ModelReference, tmp_path: Path) -> None:
    adapter = stored_adapter(store, base, tmp_path)
    merged = ensure(store, "small").merged
    assert merged is not None
    named = merge(store, adapter, "Q8_0", "named")
    assert named.digest == merged.digest, "the same file, asked for by name"
    smaller = merge(store, named, checked_quantisation("q4_0"), "smaller")
    assert (smaller.manifest.quantisation, smaller.manifest.lineage) == ("Q4_0", named.digest)
    written = [(model.path / "training.json").read_bytes() for model in (adapter, smaller)]
    first, second = map(TrainingRecord.from_json, written)
    assert first.texts == second.texts != ()
    assert first.recipe["gate"] == second.recipe["gate"]
    assert store.remove("small") == (adapter.digest,)
    assert store.findings(named) == ()
    for taken in ("named", "reader"):
        with pytest.raises(ConfigError, match="is taken"):
            merge(store, named, "F16", taken)
    with pytest.raises(ConfigError, match="cannot write the quantisation"):
        checked_quantisation("q3_k")


def test_a_damaged_merged_file_is_refused_and_remade(store: ModelStore, base: ModelReference, tmp_path: Path) -> None:
    adapter = stored_adapter(store, base, tmp_path)
    merged = ensure(store, "small").merged
    assert merged is not None
    rewrite(merged.main_file, flip(merged.main_file.read_bytes(), -1))
    with pytest.raises(ModelNotVerified, match="openbook models remove"):
        ensure(store, "small")
    store.remove(merged.digest)
    assert ensure(store, "small").merged == merged
    # A note that leads to no merged model is as none.
    for note in (b"", b"x" * 64, b"f" * 64, base.digest.encode(), b"\xe4"):
        (store.root / "merged" / adapter.digest).write_bytes(note)
        assert store.resolve("small").merged is None
    assert ensure(store, "small").merged == merged


def test_an_adapter_that_is_no_reader_or_finds_no_room_stays_on_its_base(
    store: ModelStore, base: ModelReference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise StorageError("Cannot write: the disk is full.")

    monkeypatch.setattr("openbook.models.importer.write_merged", full)
    stored_adapter(store, base, tmp_path, reader=False)
    assert ensure(store, "small").merged is None
    stored_adapter(store, base, tmp_path)
    said: list[str] = []
    assert ensure(store, "small", announce=said.append).merged is None
    assert "It will be slower: Cannot write: the disk is full." in said[1]
