from __future__ import annotations

import pytest

from openbook.core.errors import ModelError
from openbook.inference import FrozenModel, load_embedder, load_model
from openbook.models import ModelReference
from openbook.testing import EchoEngine
from tests.conformance.models import PROMPT


class Interrupted:
    """A stream in the middle of which Ctrl-C arrives, outside the engine's own code."""

    closed = False

    def __next__(self) -> str:
        raise KeyboardInterrupt

    def close(self) -> None:
        self.closed = True


def test_complete_closes_the_stream_when_it_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, stream = EchoEngine(), Interrupted()
    monkeypatch.setattr(engine, "generate", lambda *_: stream)
    with pytest.raises(KeyboardInterrupt):
        FrozenModel(engine).complete(PROMPT)
    assert stream.closed


@pytest.mark.model
def test_an_embedder_is_no_language_model_and_the_reverse(
    embedder_reference: ModelReference, model_reference: ModelReference
) -> None:
    with pytest.raises(
        ModelError, match=r"^'minilm-l6-int8' is an embedder, not a language model\. To list the models: "
    ):
        load_model(embedder_reference)
    with pytest.raises(ModelError, match=r"is a language model, not an embedder; set OPENBOOK_EMBEDDER to"):
        load_embedder(model_reference)
