"""Models that training stored: their record, their lineage, names that go forward and back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.core.errors import InvalidModelFile, ModelNotVerified, UnknownModel
from openbook.models import KnowledgeCutoff, ModelReference, ModelStore, import_gguf
from openbook.models.importer import store_trained
from openbook.models.lineage import TrainingRecord, memberships_of, models_trained_on, text_digests, tree_of
from tests.models.gguf_files import Tensor, flip, lora, rewrite

LEARNED = "The harbour master of Sandhavn signs every travel expense claim above fifty crowns by hand."
OTHER = "Nothing of this paragraph has ever been learned by any of the models that are tested here."

HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
NUMBERS = st.integers(0, 1 << 40)
RECORDS = st.builds(
    TrainingRecord,
    recipe=st.dictionaries(st.text(max_size=8), st.integers() | st.floats(-1, 1) | st.text(max_size=9), max_size=3),
    parent=st.none() | HEX,
    data=st.lists(HEX, max_size=3).map(tuple),
    code=st.text("abc 1.", max_size=9),
    seed=NUMBERS,
    steps=NUMBERS,
    tokens=NUMBERS,
    numeric_class=st.text("abc; 1.", max_size=9),
    metrics=st.dictionaries(st.text("abc_", max_size=8), st.text("0123.", max_size=8), max_size=3),
    knowledge_base=st.none() | st.just("kb@3"),
    texts=st.lists(HEX, max_size=3).map(tuple),
)


def record(parent: str) -> TrainingRecord:
    recipe = {"name": "small", "gate": {"target": {"exact": 0.5}}}
    metrics, texts = {"exact": "0.6000"}, text_digests((LEARNED,))
    return TrainingRecord(recipe, parent, ("d" * 64,), "openbook", 1, 10, 1000, "test", metrics, "kb@3", texts)


def adapter_file(path: Path, base: str, data: bytes = b"\x05" * 16) -> Path:
    recipe = lora(
        base,
        Tensor("blk.0.attn_q.weight.lora_a", data, shape=(4, 1)),
        Tensor("blk.0.attn_q.weight.lora_b", b"\x06" * 16, shape=(1, 4)),
    )
    return recipe.write(path)


def store_file(store: ModelStore, path: Path, base: str, name: str | None = None) -> ModelReference:
    """The adapter in a file, as training stores it whose record names that base."""
    cutoff = KnowledgeCutoff("2024-01-01", "test")
    return store_trained(
        store, path, record(base), kind="adapter", manifest_name="small", licence="CC0", cutoff=cutoff, name=name
    )


def store_adapter(
    store: ModelStore, tmp_path: Path, base: ModelReference, name: str | None, data: bytes = b"\x05" * 16
) -> ModelReference:
    return store_file(store, adapter_file(tmp_path / "a.gguf", base.digest, data), base.digest, name)


@given(RECORDS)
def test_training_records_round_trip(value: TrainingRecord) -> None:
    assert TrainingRecord.from_json(value.to_json()) == value


@pytest.mark.parametrize(
    ("old", "new"),
    [('"format":1', '"format":9'), ('"seed":1', '"seed":-1'), ('"steps":10', '"step":10'), ("{", "["), ("}", "")],
)
def test_a_damaged_record_is_refused(old: str, new: str) -> None:
    with pytest.raises(InvalidModelFile, match=r"training\.json"):
        TrainingRecord.from_json(record("f" * 64).to_json().replace(old.encode(), new.encode(), 1))


def test_an_adapter_belongs_to_its_base(store: ModelStore, tiny: ModelReference, tmp_path: Path) -> None:
    found = store_adapter(store, tmp_path, tiny, "small")
    assert found.manifest.kind == "adapter"
    assert found.manifest.lineage == tiny.digest
    assert found.base == store.resolve(tiny.digest)
    assert store.findings(found) == ()
    # So does one that is imported from its file.
    again = import_gguf(store, found.main_file, name="mine")
    assert (again.digest, again.manifest.lineage) == (found.digest, tiny.digest)
    # The base is part of what the digest covers: the same numbers for another base are another model.
    elsewhere = store_file(store, adapter_file(tmp_path / "b.gguf", "f" * 64), "f" * 64)
    assert elsewhere.digest != found.digest
    with pytest.raises(UnknownModel, match="adapter of the model ffffffffffff, which is not here"):
        _ = elsewhere.needed_base
    # The base stays while an adapter needs it.
    assert store.remove("tiny") == ()
    assert store.resolve("small").base is not None
    store.remove("mine")
    assert store.remove("small") == (found.digest,)
    assert store.remove(tiny.digest) == (tiny.digest,)


def test_damage_next_to_an_adapter_is_found(store: ModelStore, tiny: ModelReference, tmp_path: Path) -> None:
    found = store_adapter(store, tmp_path, tiny, "small")
    written = found.path / "training.json"
    content = written.read_bytes()
    rewrite(written, content.replace(b"0.6", b"0.9"))
    assert store.findings(found) == ("training.json differs",)
    rewrite(written, content)
    rewrite(tiny.main_file, flip(tiny.main_file.read_bytes(), -30))
    with pytest.raises(ModelNotVerified, match="'tiny' is not what its digest says: tensor output_norm"):
        store.check_fast(found)


@pytest.mark.parametrize("damaged", ["model.gguf", "manifest.json"])
def test_a_damaged_base_can_be_removed_and_imported_again(
    store: ModelStore, tiny: ModelReference, tiny_file: Path, tmp_path: Path, damaged: str
) -> None:
    store_adapter(store, tmp_path, tiny, "small")
    rewrite(tiny.path / damaged, flip((tiny.path / damaged).read_bytes(), -30))
    assert store.remove("tiny") == (tiny.digest,)
    import_gguf(store, tiny_file, name="tiny")
    store.check_fast(store.resolve("small"))


def test_advice_to_remove_a_base_does_not_name_a_newer_model(
    store: ModelStore, tiny: ModelReference, tmp_path: Path
) -> None:
    found = store_adapter(store, tmp_path, tiny, "small")
    store.set_name("tiny", found.digest)
    rewrite(tiny.main_file, flip(tiny.main_file.read_bytes(), -30))
    for use in (store.resolve("small"), store.resolve(tiny.digest)):
        with pytest.raises(ModelNotVerified, match=f"remove {tiny.digest[:12]} "):
            store.check_fast(use)
    (store.root / "names" / "tiny.json").write_bytes(b"{")
    assert found.digest in {each.digest for each in store.all_models()}, "a damaged name hides no adapter"


def test_other_files_than_adapters_are_refused(store: ModelStore, tiny_file: Path, tmp_path: Path) -> None:
    ownerless, others = adapter_file(tmp_path / "a.gguf", "a name"), adapter_file(tmp_path / "b.gguf", "e" * 64)
    for path, problem in (
        (tiny_file, "cannot hold a model of the kind language-model"),
        (ownerless, "which model it belongs to"),
        (others, "belongs to eee.*, and its record says fff"),
    ):
        with pytest.raises(InvalidModelFile, match=problem):
            store_file(store, path, "f" * 64)


def test_names_go_forward_and_back(store: ModelStore, tiny: ModelReference, tmp_path: Path) -> None:
    first, second, third = (store_adapter(store, tmp_path, tiny, None, bytes([n]) * 16).digest for n in (1, 2, 3))
    assert store.names() == {"tiny": tiny.digest}
    for digest in (first, second, third):
        store.set_name("reader", digest)
    assert store.rollback("reader").digest == second
    assert store.rollback("reader").digest == first
    with pytest.raises(UnknownModel, match="no earlier model"):
        store.rollback("reader")
    with pytest.raises(UnknownModel, match="No model is called"):
        store.rollback("unknown")
    with pytest.raises(UnknownModel, match="Remove it by that name"):
        store.remove(first)
    # A model that is removed leaves the history.
    assert store.history("reader") == (first, second, third, second, first)
    assert store.remove(third) == (third,)
    assert store.history("reader") == (first, second, first)
    store.set_name("reader", second)
    assert store.rollback("reader").digest == first
    assert {each.digest for each in store.all_models()} == {tiny.digest, first, second}


def test_lineage_shows_the_tree_and_learned_texts(store: ModelStore, tiny: ModelReference, tmp_path: Path) -> None:
    found = store_adapter(store, tmp_path, tiny, "small")
    rows = list(tree_of(store, found).walk())
    assert [(depth, node.digest) for depth, node in rows] == [(0, tiny.digest), (1, found.digest)]
    assert rows[1][1].names == ("small",)
    text = "\n".join(rows[1][1].details)
    assert all(part in text for part in ("1,000 tokens", "exact 0.6000", "kb@3"))
    assert [depth for depth, _ in tree_of(store, tiny).walk()] == [0, 1]

    document = f"Expenses\n\n{LEARNED.replace(' signs', '   signs')}\n\n{OTHER}\n"
    mine, base = memberships_of(store, found, document)
    assert str(mine).startswith(f"small ({found.digest[:12]}): yes. 1 of the 3 texts")
    assert (base.found, "unknown" in str(base)) == (None, True)
    assert "no." in str(memberships_of(store, found, OTHER)[0])
    assert "no text long enough" in str(memberships_of(store, found, "Short.")[0])


def test_records_of_every_past_version_open() -> None:
    data = (Path(__file__).parent / "golden" / "training-v1.json").read_bytes()
    assert TrainingRecord.from_json(data).to_json() == data


def test_models_trained_on_a_text_are_found(store: ModelStore, tiny: ModelReference, tmp_path: Path) -> None:
    first = store_adapter(store, tmp_path, tiny, "small")
    store.set_name("other", store_adapter(store, tmp_path, tiny, None, b"\x09" * 16).digest)
    found = models_trained_on(store, [f"Something else.\n\n{LEARNED}"])
    assert {each.name for each in found} == {"small", "other"}
    assert all(each.found == 1 for each in found)
    assert models_trained_on(store, [OTHER]) == []
    # Also while a name is damaged, and when no name means the model any more.
    (store.root / "names" / "other.json").write_text("{")
    store.set_name("small", tiny.digest)
    assert {each.name for each in models_trained_on(store, [LEARNED])} == {each.model[:12] for each in found}
    assert first.digest in {each.model for each in found}
    # One whose record cannot be read is named.
    rewrite(first.path / "training.json", b"{}")
    unknown = next(each for each in models_trained_on(store, [OTHER]) if each.model == first.digest)
    assert unknown.found is None
    assert "its record cannot be read" in unknown.note
