"""Fixtures. No test sees the user's own settings or home; tests marked `model` share one home inside the clone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from openbook.inference import load_embedder
from openbook.inference.llamacpp import LlamaCppEngine
from openbook.models import ModelReference, ModelStore, ensure
from openbook.records import Embedder, ModelIdentity
from openbook.testing import HashEmbedder

ROOT = Path(__file__).parent.parent
MODEL_HOME = ROOT / ".cache" / "test-home"

# No deadline: a time limit on a shared machine fails for reasons that are not in the code.
settings.register_profile("openbook", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("openbook")


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("OPENBOOK_"):
            monkeypatch.delenv(name)
    home = tmp_path / "openbook-home"
    monkeypatch.setenv("OPENBOOK_HOME", str(home))
    return home


@pytest.fixture
def embedder() -> HashEmbedder:
    return HashEmbedder()


@pytest.fixture(scope="session")
def model_store() -> ModelStore:
    return ModelStore(MODEL_HOME / "models")


@pytest.fixture(scope="session")
def model_reference(model_store: ModelStore) -> ModelReference:
    return ensure(model_store, "smollm2-135m-instruct")


@pytest.fixture(scope="session")
def reader_reference(model_store: ModelStore) -> ModelReference:
    return ensure(model_store, "reader")


@pytest.fixture(scope="session")
def instruct_reference(model_store: ModelStore) -> ModelReference:
    return ensure(model_store, "qwen2.5-coder-1.5b-instruct")


@pytest.fixture(scope="session")
def embedder_reference(model_store: ModelStore) -> ModelReference:
    return ensure(model_store, "minilm-l6-int8")


@pytest.fixture(scope="session")
def real_embedder(embedder_reference: ModelReference) -> Embedder:
    return load_embedder(embedder_reference)


@pytest.fixture(scope="session")
def engine(model_reference: ModelReference) -> Iterator[LlamaCppEngine]:
    engine = open_engine(model_reference)
    yield engine
    engine.close()


def open_engine(reference: ModelReference, context_tokens: int = 2048) -> LlamaCppEngine:
    identity = ModelIdentity(reference.name, reference.digest, "verified")
    return LlamaCppEngine(reference.path / "model.gguf", identity=identity, context_tokens=context_tokens)
