from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from openbook.core.records import Decoding, sha256_hex
from openbook.inference import decoding as decoding_module
from openbook.inference.decoding import (
    LEAST,
    RANK_PRICE,
    SURE,
    AnswerDecoder,
    Spans,
    TextStream,
    choose,
    choose_token,
    enough,
    log_odds,
    log_softmax,
    request_digest,
    score_of,
    uniform,
)

LOGITS = np.log(np.array([0.5, 0.3, 0.15, 0.05], dtype=np.float32))


def test_greedy_takes_the_lowest_id_among_equals() -> None:
    token, log_prob = choose_token(np.array([1.0, 3.0, 3.0], dtype=np.float32), Decoding(), "r", 0)
    assert token == 1
    assert log_prob == pytest.approx(np.log(np.exp(3) / (np.e + 2 * np.exp(3))))


def test_sampling_follows_the_distribution_and_top_p_cuts_it() -> None:
    decoding = Decoding(temperature=1.0)
    counts = Counter(choose_token(LOGITS, decoding, "request", step)[0] for step in range(4000))
    assert [counts[i] / 4000 for i in range(4)] == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.03)
    tokens = {choose_token(LOGITS, Decoding(temperature=1.0, top_p=0.7), "r", step)[0] for step in range(300)}
    assert tokens == {0, 1}
    for nearly_greedy in (5e-324, 1e-300, 1e-5):
        assert choose_token(LOGITS[::-1], Decoding(temperature=nearly_greedy), "request", 0)[0] == 3


def test_chance_belongs_to_the_request_and_the_step() -> None:
    computations = [("m", "p", 1.0, 1), ("x", "p", 1.0, 1), ("m", "x", 1.0, 1), ("m", "p", 1.0, 2), ("m", "p", 0.9, 1)]
    one, *others = (
        request_digest(model, prompt, Decoding(temperature=temperature, seed=seed))
        for model, prompt, temperature, seed in computations
    )
    assert one == request_digest("m", "p", Decoding(temperature=1.0, seed=1))
    assert len({one, *others}) == 5
    assert uniform(one, 0) != uniform(one, 1)


@given(st.text(), st.integers(0, 2**40))
def test_uniform_is_in_the_half_open_unit_interval(request: str, step: int) -> None:
    assert 0.0 <= uniform(request, step) < 1.0


def by_stable_sort(logits: NDArray[np.float32], decoding: Decoding, request: str, step: int) -> tuple[int, float]:
    """The definition of sampling, which sorts all tokens."""
    wide = logits.astype(np.float64)
    probs = np.exp(log_softmax((wide - wide.max()) / decoding.temperature))
    order = np.argsort(-probs, kind="stable")
    mass = np.cumsum(probs[order])
    kept = min(int(np.searchsorted(mass, decoding.top_p * mass[-1], side="left")) + 1, len(order))
    index = int(np.searchsorted(mass[:kept], uniform(request, step) * mass[kept - 1], side="right"))
    token = int(order[min(index, kept - 1)])
    return token, float(log_softmax(logits)[token])


@given(
    st.lists(st.floats(-50, 50, width=32) | st.sampled_from([1.0, 2.0, -math.inf, math.inf, math.nan]), min_size=1),
    st.sampled_from([1e-5, 0.5, 1.0, 5.0]),
    st.sampled_from([0.001, 0.5, 0.95, 1.0]),
    st.integers(0, 99),
)
def test_the_token_is_that_of_a_stable_sort(values: list[float], temperature: float, top_p: float, step: int) -> None:
    logits, decoding = np.array(values, dtype=np.float32), Decoding(temperature=temperature, top_p=top_p)
    with np.errstate(all="ignore"):
        found, expected = (chosen(logits, decoding, "r", step) for chosen in (choose_token, by_stable_sort))
    np.testing.assert_equal(found, expected)


@given(st.lists(st.sampled_from([0.0, -0.0, 1.0, 2.0, 3.0]), min_size=1, max_size=40), st.integers(1, 9))
def test_a_quote_considers_the_likeliest_and_of_equals_the_lowest_ids(values: list[float], considered: int) -> None:
    logits = np.array(values, dtype=np.float32)
    text = bytes(range(len(values))).decode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding_module, "CONSIDERED", considered)
        found = AnswerDecoder(Bytes(), Decoding(), "r", None)._within_spans(logits, Spans(text))
    assert found is not None
    likeliest = sorted(range(len(values)), key=lambda token: -values[token])[:considered]
    assert set(np.flatnonzero(np.isfinite(found))) == set(likeliest)


def read(data: bytes, stop: tuple[str, ...], cuts: list[int]) -> str:
    stream = TextStream(stop)
    edges = [0, *sorted(c % (len(data) + 1) for c in cuts), len(data)]
    shown = [stream.feed(data[a:b]) for a, b in itertools.pairwise(edges)]
    return "".join([*shown, stream.feed(b"", final=True)])


@given(st.text(), st.lists(st.text(min_size=1, max_size=3), max_size=3), st.lists(st.integers(0, 1000)))
def test_the_text_ends_before_the_first_stop_however_the_bytes_are_cut(
    text: str, stop: list[str], cuts: list[int]
) -> None:
    text = text.encode("utf-8", "replace").decode()
    stop = [s.encode("utf-8", "replace").decode() for s in stop]
    shown = read(text.encode(), tuple(stop), cuts)
    ends = [text.index(s) for s in stop if s in text]
    assert shown == text[: min(ends, default=len(text))]


def test_characters_are_shown_whole_and_invalid_bytes_replaced() -> None:
    stream = TextStream(("\n",))
    shown = [stream.feed(data) for data in ("é".encode()[:1], "é".encode()[1:], b"a\xffb\ntwo", b"three")]
    assert shown == ["", "é", "a\ufffdb", ""]
    assert stream.stopped


LETTERS = "ab é.\n"


class Bytes:
    """A vocabulary of the 256 bytes and an end; every text can be spelled in it."""

    end = 256

    def ends_generation(self, token: int) -> bool:
        return token == self.end

    def piece(self, token: int) -> bytes:
        return b"" if token == self.end else bytes([token])


def written(text: str, rows: list[list[float]], decoding: Decoding) -> AnswerDecoder:
    writing = AnswerDecoder(Bytes(), decoding, sha256_hex(b"request"), Spans(text))
    for row in rows:
        writing.take(np.array(row, dtype=np.float32))
        if writing.finish:
            break
    return writing


@given(
    st.text(LETTERS, min_size=1, max_size=20).filter(lambda text: any(char.isalnum() for char in text)),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 1.5]),
)
def test_a_quote_always_stands_in_the_text(text: str, seed: int, temperature: float) -> None:
    chance = np.random.default_rng(seed)
    rows = [list(map(float, chance.normal(size=257))) for _ in range(12)]
    found = written(text, rows, Decoding(temperature, max_tokens=12, quote=True))
    assert found.text.replace("\ufffd", "") in text  # a letter may be cut by the longest length
    if found.finish == "end":
        assert found.text in text


@pytest.mark.parametrize(
    ("written", "may_end"),
    [("Lila", True), ("Li", True), ("Lil", False), ("190", False), ("1903", True), ("", False), ("met her.", True)],
)
def test_a_quote_ends_with_whole_words(written: str, may_end: bool) -> None:
    assert Spans("Lila Ortega opened it in 1903. Li met her.").may_end(written.encode()) == may_end


# --- the choice of a passage ----------------------------------------------------------------------------------------------

ABSTAINS = -math.inf
SCORES = st.lists(st.just(ABSTAINS) | st.floats(-60.0, 60.0), max_size=12)


def test_log_odds_are_those_of_answering() -> None:
    assert math.isclose(log_odds(-math.log1p(math.exp(1.5))), 1.5, rel_tol=1e-9)
    assert -30 < log_odds(0.0) < -20
    assert 20 < log_odds(-200.0) < 30
    logits = np.array([1.0, 2.0, 1.0], np.float32)
    assert score_of(logits, 1) == ABSTAINS
    assert math.isclose(score_of(logits, 0), math.log(math.e + 1), rel_tol=1e-6)


@pytest.mark.parametrize(
    ("scores", "chosen", "is_enough"),
    [
        ([], None, False),
        ([2.0, 2.0 + RANK_PRICE / 2], 0, True),
        ([2.0, 2.0 + RANK_PRICE * 2], 1, True),
        ([2.0, 2.0], 0, True),
        ([ABSTAINS], None, False),
        ([LEAST - 0.01], None, False),
        ([LEAST + 0.01], 0, False),
        ([SURE + 0.01], 0, True),
        ([SURE - 0.01], 0, False),
        ([0.0, SURE + RANK_PRICE + 0.01], 1, True),
        ([0.0, SURE + RANK_PRICE - 0.01], 1, False),
    ],
)
def test_the_surest_passage_is_chosen_less_a_price_for_its_rank(
    scores: list[float], chosen: int | None, is_enough: bool
) -> None:
    assert (choose(scores), enough(scores)) == (chosen, is_enough)


@given(SCORES, SCORES)
def test_a_chosen_passage_answers_and_enough_is_monotone(scores: list[float], further: list[float]) -> None:
    chosen = choose(scores)
    if chosen is not None:
        assert scores[chosen] - RANK_PRICE * chosen >= LEAST
        assert choose([*scores, ABSTAINS]) == chosen
    if enough(scores):
        assert chosen is not None
        assert enough(scores + further)
