from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.inference.sampling import choose_token, log_softmax, request_digest, uniform
from openbook.records import Decoding

LOGITS = np.log(np.array([0.5, 0.3, 0.15, 0.05], dtype=np.float32))


def test_greedy_takes_the_lowest_id_among_equals() -> None:
    token, log_prob = choose_token(np.array([1.0, 3.0, 3.0], dtype=np.float32), Decoding(), "r", 0)
    assert token == 1
    assert log_prob == pytest.approx(np.log(np.exp(3) / (np.e + 2 * np.exp(3))))


def test_sampling_follows_the_distribution() -> None:
    decoding = Decoding(temperature=1.0)
    counts = Counter(choose_token(LOGITS, decoding, "request", step)[0] for step in range(4000))
    assert [counts[i] / 4000 for i in range(4)] == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.03)


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    tokens = {choose_token(LOGITS, Decoding(temperature=1.0, top_p=0.7), "r", step)[0] for step in range(300)}
    assert tokens == {0, 1}


def test_chance_belongs_to_the_request_and_the_step() -> None:
    one = request_digest("m", "p", Decoding(temperature=1.0, seed=1))
    assert one == request_digest("m", "p", Decoding(temperature=1.0, seed=1))
    others = [
        request_digest("x", "p", Decoding(temperature=1.0, seed=1)),
        request_digest("m", "x", Decoding(temperature=1.0, seed=1)),
        request_digest("m", "p", Decoding(temperature=1.0, seed=2)),
        request_digest("m", "p", Decoding(temperature=0.9, seed=1)),
    ]
    assert len({one, *others}) == 5
    assert uniform(one, 0) != uniform(one, 1)


@given(st.text(), st.integers(0, 2**40))
def test_uniform_is_in_the_half_open_unit_interval(request: str, step: int) -> None:
    assert 0.0 <= uniform(request, step) < 1.0


@given(
    st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=40),
    st.floats(0.01, 5),
    st.floats(0.001, 1),
    st.integers(0, 99),
)
def test_any_logits_give_a_token_that_has_mass(
    values: list[float], temperature: float, top_p: float, step: int
) -> None:
    logits = np.array(values, dtype=np.float32)
    token, log_prob = choose_token(logits, Decoding(temperature=temperature, top_p=top_p), "r", step)
    assert 0 <= token < len(values)
    assert log_prob == pytest.approx(float(log_softmax(logits)[token]))
    assert np.exp(log_softmax(logits.astype(np.float64) / temperature))[token] > 0
