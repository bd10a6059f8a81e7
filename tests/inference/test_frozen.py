from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from openbook.errors import ModelError
from openbook.inference import FrozenModel, load_embedder, load_model
from openbook.inference.frozen import Cancelled
from openbook.models import (
    EmbeddingSpec,
    KnowledgeCutoff,
    Manifest,
    ModelReference,
    Source,
    TemplateSummary,
    TokenizerSummary,
)
from openbook.models.manifest import Kind
from openbook.records import Completion, Decoding, Prompt
from openbook.testing import PROMPT, EchoEngine


class Interrupted(Generator[str, None, Completion]):
    """A stream in the middle of which Ctrl-C arrives, outside the engine's own code."""

    closed = False

    def send(self, value: None) -> str:
        raise KeyboardInterrupt

    def throw(self, typ: Any, val: BaseException | object = None, tb: TracebackType | None = None) -> str:
        raise typ

    def close(self) -> None:
        self.closed = True


class InterruptedEngine(EchoEngine):
    def __init__(self) -> None:
        super().__init__()
        self.stream = Interrupted()

    def generate(
        self, prompt: Prompt, decoding: Decoding, cancelled: Cancelled = lambda: False
    ) -> Generator[str, None, Completion]:
        return self.stream


def test_complete_closes_the_stream_when_it_is_interrupted() -> None:
    engine = InterruptedEngine()
    with pytest.raises(KeyboardInterrupt):
        FrozenModel(engine).complete(PROMPT)
    assert engine.stream.closed


def reference(name: str, kind: Kind) -> ModelReference:
    manifest = Manifest(
        name=name,
        kind=kind,
        digest="0" * 64,
        sections={},
        architecture="",
        parameter_count=None,
        context_tokens=None,
        embedding_length=None,
        quantisation="",
        tokenizer=TokenizerSummary("", "", 0, ""),
        template=TemplateSummary(present=False, digest=None),
        licence="",
        knowledge_cutoff=KnowledgeCutoff(),
        files={},
        header_bytes=None,
        header_sha256=None,
        tensors=(),
        source=Source("local-file", {}),
        embedding=EmbeddingSpec(dimensions=3, max_tokens=9) if kind == "embedder" else None,
    )
    return ModelReference(name, manifest.digest, Path("/nowhere"), manifest)


def test_an_embedder_is_no_language_model() -> None:
    with pytest.raises(
        ModelError, match=r"^'minilm' is an embedder, not a language model; choose another with --model\.$"
    ):
        load_model(reference("minilm", "embedder"))


def test_a_language_model_is_no_embedder() -> None:
    with pytest.raises(ModelError, match=r"^'smollm' is a language model, not an embedder; set OPENBOOK_EMBEDDER to"):
        load_embedder(reference("smollm", "language-model"))
