from __future__ import annotations

import json
import os
import re
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from unittest import mock

import filelock
import pytest

from openbook.core.errors import ConfigError, ModelNotVerified, StorageError, UnknownModel
from openbook.core.files import replace_file
from openbook.models import ModelReference, ModelStore, aliases, import_gguf
from openbook.models.describe import describe
from openbook.models.digest import hash_file
from openbook.models.gguf import ValueType, read_gguf
from openbook.models.verify import stamp_path
from tests.models.gguf_files import Recipe, Tensor, flip, rewrite

SMALL = Recipe().build()


def other_model(store: ModelStore, name: str, tmp_path: Path, template: str = "other") -> ModelReference:
    recipe = Recipe().with_value("tokenizer.chat_template", ValueType.STRING, template)
    return import_gguf(store, recipe.write(tmp_path / f"{template}.gguf"), name=name)


# --- names ------------------------------------------------------------------------------------------------------------


def test_an_empty_store(store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (store.names(), store.named_models()) == ({}, {})
    with pytest.raises(UnknownModel, match=r"No model is called 'x'\. Known are .*minilm-l6-int8"):
        store.resolve("x")
    with pytest.raises(UnknownModel, match=r"'reader' is not stored yet\. Fetch it: openbook models pull reader"):
        store.resolve("reader")
    assert not store.root.exists()
    monkeypatch.chdir(tmp_path)
    assert ModelStore(Path("models")).root == tmp_path / "models", "it stays there wherever the program goes"


def test_resolves_names_and_digests(store: ModelStore, tiny: ModelReference) -> None:
    assert store.names() == {"tiny": tiny.digest}
    assert store.named_models() == {"tiny": tiny}
    for known in ("tiny", tiny.digest, tiny.digest[:6]):
        assert store.resolve(known) == tiny
    shutil.copytree(tiny.path, store.root / (tiny.digest[:8] + "0" * 56))
    for unknown, said in (
        *((each, "") for each in (tiny.digest[:5], "0" * 64, "../names/tiny", "*", "tiny/..", "tin y")),
        ("tinny", "Did you mean 'tiny'"),
        ("smollm2-135m", "Did you mean 'smollm2-135m-instruct'"),
        (tiny.digest[:8], "2 models have a digest that begins with"),
    ):
        with pytest.raises(UnknownModel) as raised:
            store.resolve(unknown)
        assert said in str(raised.value)


def test_points_and_keeps_the_history(store: ModelStore, tiny: ModelReference, tmp_path: Path) -> None:
    other = other_model(store, "tiny", tmp_path)
    assert store.resolve("tiny").digest == other.digest
    store.set_name("tiny", tiny.digest)
    store.set_name("tiny", tiny.digest)
    value = json.loads((store.root / "names" / "tiny.json").read_bytes())
    assert value == {"format": 1, "name": "tiny", "history": [tiny.digest, other.digest, tiny.digest]}
    with pytest.raises(UnknownModel):
        store.set_name("tiny", "0" * 64)
    for name in (*". .. a/b a\\b .hidden -flag nul COM1.gguf end. é".split(), "", "a b", "x" * 101, "0" * 64):
        with pytest.raises(ConfigError, match="cannot be a model's name"):
            store.set_name(name, tiny.digest)


def test_remove_deletes_models_without_another_name(store: ModelStore, tiny: ModelReference, tmp_path: Path) -> None:
    store.set_name("second", tiny.digest)
    assert store.remove("tiny") == ()
    assert tiny.path.is_dir()
    with pytest.raises(UnknownModel, match="Remove it by that name"):
        store.remove(tiny.digest)
    other = other_model(store, "second", tmp_path)
    assert set(store.remove("second")) == {tiny.digest, other.digest}
    assert sorted(path.name for path in store.root.iterdir()) == ["names", "stamps"]
    assert list((store.root / "stamps").iterdir()) == []
    with pytest.raises(UnknownModel):
        store.remove("second")


def test_removes_a_model_without_a_name_a_manifest_or_a_folder(store: ModelStore, tiny_file: Path) -> None:
    tiny = import_gguf(store, tiny_file, name="tiny")
    (store.root / "names" / "tiny.json").unlink()
    rewrite(tiny.path / "manifest.json", b"{")
    assert store.remove(tiny.digest[:12]) == (tiny.digest,)
    assert not tiny.path.exists()
    import_gguf(store, tiny_file, name="tiny")
    shutil.rmtree(tiny.path)
    with pytest.raises(UnknownModel, match="Pull it again"):
        store.resolve("tiny")
    assert "Pull it again" in str(store.named_models()["tiny"])
    assert store.remove("tiny") == (tiny.digest,)


@pytest.mark.parametrize(
    "data", ["", "{}", '{"format":1,"history":["x"],"name":"a"}', '{"format":1,"history":[],"name":"a"}']
)
def test_a_damaged_name_resolves_to_nothing_and_keeps_models(
    store: ModelStore, tiny: ModelReference, data: str
) -> None:
    store.set_name("second", tiny.digest)
    other = store.root / "names" / "second.json"
    other.write_text(data)
    second, found = store.named_models().values()
    assert (found, type(second)) == (tiny, str)
    for use in (store.resolve, store.remove):
        with pytest.raises(ModelNotVerified, match=r"second\.json is damaged"):
            use("second")
    assert store.remove("tiny") == ()
    assert not (store.root / "names" / "tiny.json").exists()
    with pytest.raises(ModelNotVerified, match=r"second\.json is damaged"):
        store.remove(tiny.digest)
    assert tiny.path.is_dir(), "`second` might mean it"
    other.unlink()
    assert store.remove(tiny.digest) == (tiny.digest,)


def test_concurrent_renames_lose_no_history(
    store: ModelStore, tiny: ModelReference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [other_model(store, f"other{i}", tmp_path, f"template {i}") for i in range(2)]
    both_have_read = threading.Barrier(2)

    def replace_late(path: Path, data: bytes) -> None:
        with suppress(threading.BrokenBarrierError):  # never met where only one at a time may read and write
            both_have_read.wait(0.5)
        replace_file(path, data)

    monkeypatch.setattr(aliases, "replace_file", replace_late)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda other: store.set_name("tiny", other.digest), others))
    history = store.history("tiny")
    assert history[0] == tiny.digest
    assert set(history[1:]) == {other.digest for other in others}


@pytest.mark.parametrize("way", ["held by another process", "a folder in the way, as on a read-only disk"])
def test_while_names_cannot_be_changed_they_can_be_read(
    way: str, store: ModelStore, tiny: ModelReference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = other_model(store, "other", tmp_path)
    monkeypatch.setattr(aliases, "LOCK_TIMEOUT_S", 0.05)
    lock = store.root / "names" / ".lock"
    held = filelock.FileLock(lock)
    if way.startswith("held"):
        held.acquire()
    else:
        lock.unlink(missing_ok=True)
        lock.mkdir()
    assert tuple(store.named_models().values()) == (other, tiny)
    assert store.set_name("tiny", tiny.digest) == tiny, "it means that already"
    message = "Another process is changing the models" if held.is_locked else "Cannot change the models in"
    for change in (lambda: store.set_name("tiny", other.digest), lambda: store.remove("tiny")):
        with pytest.raises(StorageError, match=message):
            change()
    assert store.names() == {"other": other.digest, "tiny": tiny.digest}
    held.release()


# --- verification -----------------------------------------------------------------------------------------------------


def with_tensor(data: bytes) -> bytes:
    """The small file with other numbers in its tensor blk.0.attn_q.weight."""
    rows = tuple(replace(t, data=data) if "attn_q" in t.name else t for t in Recipe().tensors)
    return replace(Recipe(), tensors=rows).build()


LAYOUT = "model.gguf differs, in descriptive keys or padding only"


@pytest.mark.parametrize(
    ("data", "findings"),
    [
        (with_tensor(flip(b"\x01" * 16, 9)), ("tensor blk.0.attn_q.weight differs",)),
        (SMALL[:123], ("model.gguf: the file is truncated: 123 of 928 bytes",)),
        (SMALL + b"x", ("model.gguf: the file has 929 bytes instead of 928", LAYOUT)),
        (SMALL.replace(b"{{ messages }}", b"{{ massages }}"), ("chat template differs",)),
        (SMALL.replace(b"a b", b"b a"), ("tokenizer differs",)),
        (SMALL.replace(b"\x00\x40\x1c\x46", b"\x00\x40\x1c\x47"), ("architecture differs",)),
        (SMALL.replace(b"apache-2.0", b"apache-3.0"), (LAYOUT,)),
        (flip(SMALL, -1), (LAYOUT,)),
        (
            SMALL.replace(b"output_norm.weight", b"output_nurm.weight"),
            ("tensor output_norm.weight is missing", "tensor output_nurm.weight is not in the manifest"),
        ),
    ],
)
def test_findings_name_what_differs(
    store: ModelStore, tiny: ModelReference, data: bytes, findings: tuple[str, ...]
) -> None:
    rewrite(tiny.path / "model.gguf", data)
    assert store.findings(tiny) == findings
    with pytest.raises(ModelNotVerified, match="models remove tiny") as raised:
        store.check_fast(tiny)
    assert findings[0] in str(raised.value)


def test_a_damaged_header_manifest_and_a_missing_file(store: ModelStore, tiny: ModelReference) -> None:
    path = tiny.path / "model.gguf"
    rewrite(path, b"GGML" + SMALL[4:])
    assert "begins with b'GGML'" in store.findings(tiny)[0]
    path.unlink()
    for _ in range(2):
        assert store.findings(tiny) == ("model.gguf is missing, or not a file",)
        path.mkdir(exist_ok=True)
    rewrite(tiny.path / "manifest.json", b"not json")
    assert store.findings(tiny)[0].startswith("manifest.json is damaged: ")
    assert "manifest.json is damaged" in str(store.named_models()["tiny"])


def test_many_findings_are_counted(store: ModelStore, tmp_path: Path) -> None:
    tensors = tuple(Tensor(f"t{n:03}.weight", b"\x01" * 16) for n in range(50))
    path = replace(Recipe(), tensors=tensors).write(tmp_path / "many.gguf")
    reference = import_gguf(store, path, name="many")
    rewrite(reference.path / "model.gguf", path.read_bytes().replace(b"\x01" * 16, b"\x03" * 16))
    found = store.findings(reference)
    assert (found[0], found[-1], len(found)) == ("tensor t000.weight differs", "and 30 more tensors", 21)


def test_a_manifest_edited_to_match_a_swapped_file_is_detected(store: ModelStore, tiny: ModelReference) -> None:
    rewrite(tiny.path / "model.gguf", with_tensor(b"\x07" * 16))
    full = describe(tiny.path, name="tiny", source=tiny.manifest.source)
    hashed = replace(tiny.manifest, files={"model.gguf": hash_file(tiny.path / "model.gguf")})
    other = f"it is for the model {full.digest[:12]}, and the folder holds {tiny.digest[:12]}"
    for manifest, finding in (
        (hashed, "tensor blk.0.attn_q.weight differs"),
        (full, f"manifest.json is damaged: {other}"),
        (replace(full, digest=tiny.digest), "manifest.json is damaged: its digest does not follow from"),
        (replace(hashed, tensors=full.tensors), "manifest.json is damaged: its tensor section does not"),
    ):
        rewrite(tiny.path / "manifest.json", manifest.to_json())
        assert store.findings(tiny)[0].startswith(finding)
        with pytest.raises(ModelNotVerified, match=re.escape(finding)):
            store.check_fast(tiny)


# --- stamps -----------------------------------------------------------------------------------------------------------


def full_checks(store: ModelStore, reference: ModelReference) -> int:
    """How often `check_fast` reads every byte when asked once."""
    with mock.patch.object(store, "findings", wraps=store.findings) as findings:
        store.check_fast(reference)
        return findings.call_count


def test_the_fast_check_reads_every_byte_only_without_a_stamp(store: ModelStore, tiny: ModelReference) -> None:
    stamp, path = stamp_path(store.root, tiny.digest), tiny.path / "model.gguf"
    changes: list[Callable[[], object]] = [stamp.unlink, lambda: stamp.write_bytes(b"["), lambda: os.utime(path)]
    for change in changes:
        assert full_checks(store, tiny) == 0
        change()
        assert full_checks(store, tiny) > 0
    assert full_checks(store, tiny) == 0
    before = path.stat()
    rewrite(path, flip(SMALL, read_gguf(path).tensors[0].start))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # of the same size and time: found all the same
    with pytest.raises(ModelNotVerified, match=r"tensor token_embd\.weight differs"):
        store.check_fast(tiny)
    rewrite(path, SMALL)
    shutil.rmtree(stamp.parent)
    stamp.parent.write_bytes(b"a file in the way, as a read-only disk would be")
    for _ in range(2):
        assert full_checks(store, tiny) > 0
