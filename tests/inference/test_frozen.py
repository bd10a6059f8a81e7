from __future__ import annotations

from collections.abc import Generator
from types import TracebackType
from typing import Any

import pytest

from openbook.errors import ModelError
from openbook.inference import FrozenModel, load_embedder, load_model
from openbook.inference.frozen import Cancelled
from openbook.models import ModelReference
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


@pytest.mark.model
def test_an_embedder_is_no_language_model_and_the_reverse(
    embedder_reference: ModelReference, model_reference: ModelReference
) -> None:
    with pytest.raises(ModelError, match=r"^'minilm-l6-int8' is an embedder, not a language model; choose another"):
        load_model(embedder_reference)
    with pytest.raises(ModelError, match=r"is a language model, not an embedder; set OPENBOOK_EMBEDDER to"):
        load_embedder(model_reference)
