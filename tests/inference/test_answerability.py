"""The probe that tells how likely passages state an answer, and the engine that looks for it while it evaluates."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.core.errors import EngineError
from openbook.core.records import Decoding
from openbook.inference import FrozenModel, load_model
from openbook.inference.answerability import AnswerabilityProbe, probe_of, probes
from openbook.inference.llamacpp import LlamaCppEngine
from openbook.models import ModelReference
from openbook.models.catalogue import KNOWN_FILES
from tests.conformance.models import PROMPT
from tests.conftest import open_engine

WIDTH = 64  # of the small model
FIRST = Decoding(max_tokens=4)


@pytest.fixture(scope="module")
def probe() -> AnswerabilityProbe:
    return AnswerabilityProbe(1, 0.1, tuple(np.random.default_rng(0).normal(0, 0.01, WIDTH).tolist()), 0.3)


@pytest.fixture(scope="module")
def base(small_reader: ModelReference) -> ModelReference:
    return small_reader.needed_base


@pytest.fixture(scope="module")
def probing(base: ModelReference, probe: AnswerabilityProbe) -> Iterator[LlamaCppEngine]:
    with closing(open_engine(base, probe=probe)) as engine:
        yield engine


@given(st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=3), st.floats(-5, 5))
def test_a_probe_is_a_logistic_regression(state: list[float], bias: float) -> None:
    found = AnswerabilityProbe(1, bias, (0.5, -1.0, 2.0), 0.3).probability(np.array(state, np.float32))
    assert found == pytest.approx(1 / (1 + np.exp(-np.clip(np.dot(state, (0.5, -1.0, 2.0)) + bias, -30, 30))))
    with pytest.raises(ValueError, match="shorter"):
        AnswerabilityProbe(1, bias, (1.0,), 0.3).probability(np.array(state, np.float32))


def test_the_probes_are_those_of_models_of_the_catalogue() -> None:
    assert set(probes()) <= KNOWN_FILES
    for probe in probes().values():
        assert probe.layer > 0
        assert 0 < probe.declines_below < 1
        assert math.isfinite(sum(probe.weights))


def test_looking_changes_no_bit(base: ModelReference, probing: LlamaCppEngine) -> None:
    with closing(open_engine(base)) as engine:
        assert np.array_equal(engine.logits(PROMPT, 8), probing.logits(PROMPT, 8))
        assert probing.numeric_class.startswith(engine.numeric_class + "; answerability by layer 1, ")
        assert FrozenModel(engine).complete(PROMPT, FIRST).stated is None


def test_the_state_is_the_same_cold_and_warm_and_in_another_engine(
    base: ModelReference, probe: AnswerabilityProbe, probing: LlamaCppEngine
) -> None:
    other = replace(PROMPT, question="Why?")
    found = [probing.hidden_state(each) for each in (PROMPT, other, PROMPT)]
    assert np.array_equal(found[0], found[2])
    assert not np.array_equal(found[0], found[1])
    with closing(open_engine(base, probe=probe)) as fresh:
        assert FrozenModel(fresh).complete(PROMPT, FIRST).stated == probe.probability(found[0])
        assert np.array_equal(fresh.hidden_state(PROMPT), found[0])
    assert FrozenModel(probing).complete(replace(PROMPT, passages=()), FIRST).stated is None


def test_a_prompt_that_may_decline_gets_no_answer_below_the_threshold(
    base: ModelReference, probe: AnswerabilityProbe, probing: LlamaCppEngine
) -> None:
    likely = probe.probability(probing.hidden_state(PROMPT))
    for declines_below in (0.0, likely, math.nextafter(likely, 1.0)):
        limited = replace(probe, declines_below=declines_below)
        with closing(FrozenModel(open_engine(base, probe=limited))) as model:
            written, declining = (model.complete(replace(PROMPT, declines=each), FIRST) for each in (False, True))
        assert written.stated == declining.stated == likely
        assert written.answer_tokens
        if declines_below > likely:
            assert (declining.text, declining.answer_tokens, declining.finish_reason) == ("", 0, "end")
            assert declining.prompt_digest == written.prompt_digest
        else:
            assert declining == written


def test_a_missing_layer_is_an_error_and_no_answer(base: ModelReference, probe: AnswerabilityProbe) -> None:
    with closing(FrozenModel(open_engine(base, probe=replace(probe, layer=99)))) as model:
        for _ in range(2):
            with pytest.raises(EngineError, match="no numbers of layer 99"):
                model.complete(PROMPT, FIRST)
        assert model.complete(replace(PROMPT, passages=()), FIRST).answer_tokens


def test_an_interrupt_during_the_probe_ends_only_its_request(
    probing: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = FrozenModel(probing).complete(PROMPT, FIRST)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("openbook.inference.answerability.np", SimpleNamespace(empty=interrupt, float32=np.float32))
        with pytest.raises(KeyboardInterrupt):
            FrozenModel(probing).complete(PROMPT, FIRST)
    assert FrozenModel(probing).complete(PROMPT, FIRST) == before


def test_a_stored_model_is_opened_with_its_probe(
    base: ModelReference, probe: AnswerabilityProbe, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "answerability" not in load_model(base).engine.numeric_class
    assert probe_of(base) is None
    weights = base.manifest.files["model.gguf"].sha256
    monkeypatch.setattr("openbook.inference.answerability.probes", lambda: {weights: probe})
    assert probe.digest[:12] in load_model(base).engine.numeric_class
