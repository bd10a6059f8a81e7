from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.core.errors import InvalidModelFile
from openbook.core.records import canonical_json
from openbook.models import manifest as module
from openbook.models.digest import EmbeddingSpec, FileEntry, TensorDigest, model_digest, tensors_digest
from openbook.models.manifest import (
    FILES,
    TRAINING_RECORD,
    Kind,
    KnowledgeCutoff,
    Manifest,
    Source,
    TemplateSummary,
    TokenizerSummary,
    Trust,
)

SECTIONS: dict[str, tuple[str, ...]] = dict.fromkeys(
    ("language-model", "adapter"), ("architecture", "template", "tensors", "tokenizer")
)
SECTIONS["embedder"] = ("embedding", "tokenizer", "weights")
GOLDEN = Path(__file__).parent / "golden"

TEXTS = st.text(max_size=20)
DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)
NUMBERS = st.integers(0, (1 << 63) - 1)
TENSORS = st.lists(
    st.builds(TensorDigest, TEXTS, TEXTS, st.lists(NUMBERS, max_size=4).map(tuple), DIGESTS),
    max_size=4,
    unique_by=lambda t: t.name,
).map(lambda rows: tuple(sorted(rows, key=lambda t: t.name)))
SPECS = st.builds(EmbeddingSpec, NUMBERS, NUMBERS, st.just("mean"), st.just(True), TEXTS, TEXTS)
CUTOFFS = st.builds(KnowledgeCutoff, st.none() | st.dates().map(lambda d: d.isoformat()), TEXTS)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    kind: Kind = draw(st.sampled_from(["language-model", "embedder", "adapter"]))
    is_gguf = kind != "embedder"
    trust: Trust = draw(st.sampled_from(["catalogue", "first-use", "local-file", "training"]))
    names = FILES[kind] + ((TRAINING_RECORD,) if is_gguf and draw(st.booleans()) else ())
    files = {name: FileEntry(draw(DIGESTS), draw(NUMBERS)) for name in names}
    tensors = draw(TENSORS) if is_gguf else ()
    sections = {name: draw(DIGESTS) for name in SECTIONS[kind]}
    sections |= {"tensors": tensors_digest(tensors)} if is_gguf else {"weights": files["model.onnx"].sha256}
    return Manifest(
        name=draw(st.from_regex(r"\A[b-z][a-z0-9_-]{3,20}\Z")),
        kind=kind,
        digest=model_digest(sections),
        sections=sections,
        architecture=draw(TEXTS),
        parameter_count=draw(st.none() | NUMBERS),
        context_tokens=draw(st.none() | NUMBERS),
        embedding_length=draw(st.none() | NUMBERS),
        quantisation=draw(TEXTS),
        tokenizer=TokenizerSummary(draw(TEXTS), draw(TEXTS), draw(NUMBERS), sections["tokenizer"]),
        template=TemplateSummary(draw(st.booleans()), sections.get("template")),
        licence=draw(TEXTS),
        knowledge_cutoff=draw(CUTOFFS),
        files=files,
        header_bytes=draw(NUMBERS) if is_gguf else None,
        header_sha256=draw(DIGESTS) if is_gguf else None,
        tensors=tensors,
        source=Source(trust, {name: draw(TEXTS) for name in names}),
        lineage=draw(DIGESTS if kind == "adapter" else st.none() | DIGESTS),
        embedding=None if is_gguf else draw(SPECS),
    )


@given(manifests())
def test_round_trip(manifest: Manifest) -> None:
    data = manifest.to_json()
    assert Manifest.from_json(data) == manifest
    assert canonical_json(json.loads(data)) == data


def golden_value() -> dict[str, Any]:
    value: dict[str, Any] = json.loads((GOLDEN / "manifest-v1.json").read_bytes())
    return value


@pytest.mark.parametrize("name", ["manifest-v1.json", "manifest-v1-embedder.json", "manifest-v2-adapter.json"])
def test_manifests_of_every_past_version_open(name: str) -> None:
    data = (GOLDEN / name).read_bytes()
    assert Manifest.from_json(data).to_json() == data


@given(st.data())
def test_a_value_of_another_type_or_a_missing_or_unknown_key_is_refused(data: st.DataObject) -> None:
    value = golden_value()
    node: Any = value
    while True:
        key = data.draw(st.sampled_from(sorted(node)) if isinstance(node, dict) else st.integers(0, len(node) - 1))
        inner = node[key]
        if not (inner and isinstance(inner, dict | list)) or data.draw(st.booleans()):
            break
        node = inner
    action = data.draw(st.sampled_from(["type", "missing", "unknown"])) if isinstance(node, dict) else "type"
    if action == "type":
        node[key] = 1.5
    elif action == "missing":
        del node[key]
    else:
        node["surprise"] = None
    with pytest.raises(InvalidModelFile, match=r"manifest\.json"):
        Manifest.from_json(json.dumps(value).encode())


@pytest.mark.parametrize(
    ("key", "bad", "match"),
    [
        ("format", 2, "it has format 2, and what it holds is of format 1"),
        ("format", 9, "format 9, made by a development version of OpenBook.*import the model again"),
        ("format", True, "has format True"),
        ("kind", "model", "kind cannot be 'model'"),
        ("name", "../x", "not allowed"),
        ("name", "nul.json", "Windows"),
        ("digest", "A" * 64, "digest must be text matching"),
        ("digest", "0" * 64, "its digest does not follow from its sections"),
        ("tensors", golden_value()["tensors"][1:], "its tensor section does not follow from the tensors it lists"),
        ("template", {"present": True, "digest": "0" * 64}, "template digest is not that of its section"),
        ("parameter_count", -1, "must be an integer >= 0, not -1"),
        ("parameter_count", 1 << 63, "must be an integer <= 9223372036854775807"),
        ("header_bytes", None, "header_bytes is null"),
        ("licence", "\ud800", "surrogate"),
        ("sections", {}, "the sections of the kind language-model are architecture"),
        ("files", {"../x": {"sha256": "0" * 64, "bytes": 1}}, "files of the kind language-model are model.gguf"),
        ("knowledge_cutoff", {"date": "2024-02-30", "claimed_by": ""}, "2024-02-30"),
        ("tensors", golden_value()["tensors"][::-1], "order of their names"),
    ],
)
def test_bad_values_are_named(key: str, bad: object, match: str) -> None:
    with pytest.raises(InvalidModelFile, match=match):
        Manifest.from_json(json.dumps(golden_value() | {key: bad}).encode())


def test_an_embedding_that_the_embedder_cannot_make_is_refused() -> None:
    for key, bad in (("normalize", False), ("normalize", 1), ("pooling", "cls")):
        value = json.loads((GOLDEN / "manifest-v1-embedder.json").read_bytes())
        value["embedding"][key] = bad
        with pytest.raises(InvalidModelFile, match=key):
            Manifest.from_json(json.dumps(value).encode())


def test_other_values_than_objects_and_large_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidModelFile, match=r"manifest\.json has format None"):
        Manifest.from_json(b"[]")
    monkeypatch.setattr(module, "MAX_MANIFEST_BYTES", 100)
    with pytest.raises(InvalidModelFile, match="more than 100"):
        Manifest.from_json((GOLDEN / "manifest-v1.json").read_bytes())
