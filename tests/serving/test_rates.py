"""Requests for each key in a minute, with a clock that the test moves."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.knowledge import KnowledgeBase
from openbook.serving.configuration import Bounds, Configuration
from openbook.serving.rates import Rates
from openbook.serving.refusals import Refusal
from openbook.testing import echo_model
from tests.serving.conftest import running


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def passes(rates: Rates, caller: str = "a") -> bool:
    try:
        rates.take(caller)
    except Refusal:
        return False
    return True


def test_a_minutes_requests_at_once_then_one_as_time_goes_by() -> None:
    clock = Clock()
    rates = Rates(6, clock)
    assert [passes(rates) for _ in range(7)] == [True] * 6 + [False]
    clock.seconds += 10
    assert [passes(rates) for _ in range(2)] == [True, False]
    clock.seconds += 3600
    assert [passes(rates) for _ in range(7)] == [True] * 6 + [False]


def test_callers_do_not_share() -> None:
    rates = Rates(1, Clock())
    assert [passes(rates, each) for each in "abab"] == [True, True, False, False]


def test_without_a_bound_nothing_is_refused() -> None:
    rates = Rates(0, Clock())
    assert all(passes(rates) for _ in range(1000))


@given(st.integers(1, 100), st.lists(st.floats(0, 100), min_size=1, max_size=60))
def test_never_more_than_the_bucket_and_what_time_gave_and_waiting_as_told_helps(
    per_minute: int, pauses: list[float]
) -> None:
    clock = Clock()
    rates, began, passed = Rates(per_minute, clock), clock.seconds, 0
    for pause in pauses:
        clock.seconds += pause
        passed += passes(rates)
        assert passed <= per_minute + (clock.seconds - began) * per_minute / 60 + 1e-6
    while passes(rates):
        pass
    with pytest.raises(Refusal) as refused:
        rates.take("a")
    clock.seconds += float(refused.value.headers["retry-after"])
    assert passes(rates)


def test_over_http_a_key_that_asks_too_often_gets_429_and_others_their_answers(
    configuration: Configuration, base: KnowledgeBase
) -> None:
    bounds = replace(Bounds(), requests_per_minute=1)
    with running(replace(configuration, bounds=bounds), echo_model(), {"kb": base}) as server:
        one, other = server.key(), server.key()
        found = [server.client.get("/v1/models", headers=one) for _ in range(3)]
        assert found[0].status_code == 200
        assert found[-1].status_code == 429
        assert found[-1].json()["error"]["code"] == "rate_limit_exceeded"
        assert 1 <= int(found[-1].headers["retry-after"]) <= 60
        assert server.client.get("/v1/models", headers=other).status_code == 200
        assert server.client.get("/health").status_code == 200
        wrong = {"authorization": "Bearer ob-" + "0" * 8 + "-" + "x" * 43}
        assert [server.client.get("/v1/models", headers=wrong).status_code for _ in range(3)] == [401] * 3
