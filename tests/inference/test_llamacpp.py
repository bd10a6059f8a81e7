"""The real engine with the real default model."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from openbook.errors import EngineError
from openbook.inference import Engine
from openbook.inference.llamacpp import CALL_TOKENS, LlamaCppEngine
from openbook.inference.llamalib import block_calls
from openbook.models import ModelReference
from openbook.records import Decoding, Embedder, ModelIdentity, Prompt
from openbook.testing import PROMPT, EmbedderSuite, EngineSuite
from tests.conftest import open_engine

pytestmark = pytest.mark.model


class TestLlamaCppEngine(EngineSuite):
    @pytest.fixture(autouse=True)
    def reference(self, model_reference: ModelReference) -> None:
        self.model_reference = model_reference

    def make_engine(self) -> Engine:
        return open_engine(self.model_reference, context_tokens=512)


class TestOnnxEmbedder(EmbedderSuite):
    @pytest.fixture(autouse=True)
    def embedder(self, real_embedder: Embedder) -> None:
        self.real = real_embedder

    def make_embedder(self) -> Embedder:
        return self.real


def special_tokens(engine: LlamaCppEngine) -> list[tuple[int, str]]:
    model = engine._model
    tokens = [t for t in range(model.vocabulary_size) if model.is_control(t)]
    return [(t, model._piece(t, special=True).decode()) for t in tokens]


def test_no_special_token_of_the_vocabulary_gets_in_through_text(engine: LlamaCppEngine) -> None:
    specials = special_tokens(engine)
    assert len(specials) >= 10
    assert "<|im_end|>" in [text for _, text in specials]
    for _, text in specials:
        hostile = f"before {text}{text} after{text}"
        blocks = engine.tokenize(Prompt(hostile, (hostile,), hostile))
        harmless = engine.tokenize(Prompt("a", ("b",), "c"))
        for block, plain in zip(blocks, harmless, strict=True):
            controls = [t for t in block if engine._model.is_control(t)]
            assert controls == [t for t in plain if engine._model.is_control(t)], text


# This vocabulary has no tokens for some control characters and for the lead bytes of the planes above U+1FFFF.
@given(st.text(st.characters(max_codepoint=0x1FFFF, exclude_categories=["Cs", "Cc"])))
@hypothesis_settings(max_examples=60)
def test_plain_text_survives_tokenisation(engine: LlamaCppEngine, text: str) -> None:
    model = engine._model
    tokens = model.tokenize(text, control=False)
    assert b"".join(map(model.piece, tokens)).decode() == text
    assert not any(map(model.is_control, tokens))


def test_the_template_writes_one_start_for_each_message(engine: LlamaCppEngine) -> None:
    tokens = [t for block in engine.tokenize(PROMPT) for t in block]
    starts = [t for t, text in special_tokens(engine) if text == "<|im_start|>"]
    assert tokens.count(starts[0]) == 3


def test_calls_are_a_function_of_each_block_alone() -> None:
    assert block_calls([[1] * 300, [2] * 10, [3] * 256], 256) == [[1] * 256, [1] * 44, [2] * 10, [3] * 256]


def test_the_first_block_is_evaluated_the_same_whatever_follows(engine: LlamaCppEngine) -> None:
    long = Prompt("s " * (CALL_TOKENS + 40), ("p " * 100,), "q")
    calls = block_calls(engine.tokenize(long), CALL_TOKENS)
    other = block_calls(engine.tokenize(Prompt(long.system, (), "another")), CALL_TOKENS)
    assert calls[:2] == other[:2]


def test_weights_are_mapped_read_only(engine: LlamaCppEngine, model_reference: ModelReference) -> None:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("no /proc here")
    lines = [line for line in maps.read_text().splitlines() if line.endswith(str(model_reference.path / "model.gguf"))]
    assert lines
    assert all(re.match(r"\S+ r--[sp] ", line) for line in lines)


def test_sampling_is_repeatable_and_the_seed_matters(engine: LlamaCppEngine) -> None:
    def answer(seed: int) -> str:
        model_text = []
        stream = engine.generate(PROMPT, Decoding(temperature=1.5, seed=seed, max_tokens=16), lambda: False)
        model_text += list(stream)
        return "".join(model_text)

    assert answer(1) == answer(1)
    assert len({answer(seed) for seed in range(4)}) > 1


def test_logits_have_a_row_for_each_step(engine: LlamaCppEngine) -> None:
    logits = engine.logits(PROMPT, steps=3)
    assert logits.shape == (3, engine._model.vocabulary_size)
    assert np.isfinite(logits).all()


def test_a_cancel_is_noticed_inside_a_call(engine: LlamaCppEngine) -> None:
    asked = 0

    def after_a_while() -> bool:
        nonlocal asked
        asked += 1
        return asked > 5

    prompt = Prompt("Answer.", ("word " * 200,), "Why?")
    assert list(engine.generate(prompt, Decoding(), after_a_while)) == []
    assert asked < 50


def test_an_interrupt_inside_a_call_reaches_the_caller(engine: LlamaCppEngine) -> None:
    def interrupt() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(engine.generate(PROMPT, Decoding(), interrupt))
    assert engine.logits_digest(PROMPT) == engine.logits_digest(PROMPT)


def test_a_file_that_is_no_model_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + b"\0" * 100)
    with pytest.raises(EngineError, match="cannot load"):
        LlamaCppEngine(path, identity=ModelIdentity("x", "", "verified"))
