"""One number for how likely an answer is right, and its word."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.answers.certainty import MEANING, CertaintyLimits, Fit, Signals, certainty, fits

SHARE = st.floats(0, 1)
SIGNALS = st.builds(Signals, SHARE, SHARE, st.none() | SHARE, st.none() | st.floats(-40, 0))


def fitted(monkeypatch: pytest.MonkeyPatch, **found: Fit) -> None:
    monkeypatch.setattr("openbook.answers.certainty.fits", lambda: found)


def test_the_fits_are_for_signals_that_there_are() -> None:
    named = {each.name for each in fields(Signals)}
    assert set(fits()) == {"probed", "other"}
    assert set(fits()["probed"].weights) <= named
    assert set(fits()["other"].weights) <= named - {"stated", "least_logprob"}
    for fit in fits().values():
        assert 0 < fit.likely_from < fit.supported_from


@pytest.mark.parametrize(("bias", "word"), [(1.0, "supported"), (0.0, "likely"), (-1.0, "check it")])
def test_a_word_is_for_certainties_from_its_limit_on(monkeypatch: pytest.MonkeyPatch, bias: float, word: str) -> None:
    fitted(monkeypatch, other=Fit(bias, {}, 0.731, 0.5))  # of 1 / (1 + exp(-1)), in three digits
    assert certainty(Signals(0, 1))[1] == word


@given(SIGNALS, st.floats(0, 1), st.floats(0, 1))
def test_own_limits_change_the_word_and_never_the_number(signals: Signals, one: float, other: float) -> None:
    low, high = sorted((one, other))
    sure, word = certainty(signals, CertaintyLimits(high, low))
    assert 0 <= sure == certainty(signals)[0] <= 1
    assert certainty(signals)[1] in set(MEANING) - {"not found"}
    assert word == ("check it" if sure < low else "supported" if sure >= high and signals.asked else "likely")


@pytest.mark.parametrize(
    ("stated", "least_logprob", "name"),
    [(0.0, 0.0, "probed"), (None, 0.0, "other"), (0.0, None, "other"), (None, None, "other")],
)
def test_a_model_that_does_not_tell_all_has_a_fit_of_its_own(
    monkeypatch: pytest.MonkeyPatch, stated: float | None, least_logprob: float | None, name: str
) -> None:
    fitted(monkeypatch, probed=Fit(9.0, {"stated": 1.0}, 0.8, 0.5), other=Fit(-9.0, {"backed": 1.0}, 0.8, 0.5))
    assert certainty(Signals(0, 1, stated, least_logprob))[1] == {"probed": "supported", "other": "check it"}[name]
