"""Passages that are read once: whatever was kept, evicted, restarted or asked in between, the bits are the same."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from openbook.errors import ContextOverflow
from openbook.inference import FrozenModel
from openbook.inference.llamacpp import SIDE_BY_SIDE, LlamaCppEngine
from openbook.inference.states import States
from openbook.models import ModelReference
from openbook.records import Completion, Decoding, Prompt
from tests.conftest import open_engine

pytestmark = pytest.mark.model

DECODING = Decoding(max_tokens=6)
PASSAGES = [
    "Passage:\nThe ferry leaves at noon from pier 4.\n\n",
    "Passage:\nThe ferry leaves at noon from pier 4. Tickets cost 9 crowns and are sold on board.\n\n",
    "Passage:\nMount Kessin is 3,412 metres high.\n\n",
    "Passage:\n" + "The library closes on Mondays and was founded in 1874 by the city council. " * 24 + "\n\n",
]
QUESTIONS = [
    "Question: When does the ferry leave?",
    "Question: How high is Mount Kessin?",
    "Question: " + "Who? " * 150,
]


@pytest.fixture
def opened(model_reference: ModelReference) -> Iterator[Callable[[States], LlamaCppEngine]]:
    engines: list[LlamaCppEngine] = []

    def make(states: States) -> LlamaCppEngine:
        engines.append(open_engine(model_reference, context_tokens=1024, states=states))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def prompts(passages: list[str], question: str) -> list[Prompt]:
    return [Prompt("Answer.", (passage,), question) for passage in passages]


def nothing_kept() -> States:
    return States(None, memory_bytes=0)


def each(engine: LlamaCppEngine, passages: list[str], question: str) -> list[Completion]:
    return engine.read_each(prompts(passages, question), DECODING)


def test_states_that_were_kept_give_the_bits_of_reading_anew(
    opened: Callable[[States], LlamaCppEngine], tmp_path: Path
) -> None:
    chance = random.Random(7)
    requests = [
        (chance.sample(PASSAGES, chance.randint(1, 4)), chance.choice(QUESTIONS), chance.random() < 0.5)
        for _ in range(12)
    ]
    small = States(tmp_path / "small", memory_bytes=3_000_000, disk_bytes=6_000_000)  # two or three states
    engines = [opened(s) for s in (nothing_kept(), States(tmp_path / "kept"), small)]

    def answer(engine: LlamaCppEngine, passages: list[str], question: str, together: bool) -> list[bytes]:
        if together:
            return [engine.logits(Prompt("Answer.", tuple(passages), question), 3).tobytes()]
        return [row.tobytes() for row in engine.logits_each(prompts(passages, question), 3)]

    expected = [answer(engines[0], *request) for request in requests]
    for engine in engines[1:]:
        for number in [*range(12), *chance.sample(range(12), 12)]:
            assert answer(engine, *requests[number]) == expected[number]
    restarted = opened(States(tmp_path / "kept"))
    assert [answer(restarted, *request) for request in requests] == expected


def test_one_prompt_alone_is_answered_as_by_generate(opened: Callable[[States], LlamaCppEngine]) -> None:
    engine = opened(nothing_kept())
    for prompt in prompts(PASSAGES, QUESTIONS[0]):
        assert engine.read_each([prompt], DECODING) == [FrozenModel(engine).complete(prompt, DECODING)]


def test_more_passages_than_fit_side_by_side_are_read_in_turn(opened: Callable[[States], LlamaCppEngine]) -> None:
    engine = opened(States())
    many = [f"Passage:\nThe code of door {i} is {i * 37}.\n\n" for i in range(SIDE_BY_SIDE + 3)]
    found = each(engine, many, "Question: What is the code?")
    assert found[:SIDE_BY_SIDE] == each(engine, many[:SIDE_BY_SIDE], "Question: What is the code?")
    assert found[SIDE_BY_SIDE:] == each(engine, many[SIDE_BY_SIDE:], "Question: What is the code?")


def test_requests_side_by_side_do_not_meet(opened: Callable[[States], LlamaCppEngine], tmp_path: Path) -> None:
    engine = opened(States(tmp_path))
    requests = [(PASSAGES[i % 3 :], QUESTIONS[i % 2]) for i in range(8)]
    alone = [each(opened(nothing_kept()), *request) for request in requests[:6]]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda request: each(engine, *request), requests))
    assert found[:6] == alone
    assert found[6:] == alone[:2]


def test_a_damaged_state_is_never_used(opened: Callable[[States], LlamaCppEngine], tmp_path: Path) -> None:
    expected = each(opened(States(tmp_path)), PASSAGES[:2], QUESTIONS[0])
    files = sorted(tmp_path.rglob("*.state"))
    assert len(files) == 3  # the system's and two passages'
    for file in files:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    assert each(opened(States(tmp_path)), PASSAGES[:2], QUESTIONS[0]) == expected


def test_a_whole_state_that_the_library_refuses_is_read_anew(
    opened: Callable[[States], LlamaCppEngine], tmp_path: Path
) -> None:
    states = States(tmp_path)
    expected = each(opened(states), PASSAGES[:1], QUESTIONS[0])
    for file in tmp_path.rglob("*.state"):
        states.put(bytes.fromhex(file.stem), b"not a state", (), 0)
    assert each(opened(states), PASSAGES[:1], QUESTIONS[0]) == expected


def test_cancelling_and_overflow(opened: Callable[[States], LlamaCppEngine]) -> None:
    engine = opened(States())
    asked = prompts(PASSAGES, QUESTIONS[0])
    expected = engine.read_each(asked, DECODING)
    assert [c.finish_reason for c in engine.read_each(asked, DECODING, lambda: True)] == ["cancelled"] * 4
    with pytest.raises(ContextOverflow):
        engine.read_each([*asked, Prompt("", ("word " * 5000,), "?")], DECODING)
    assert engine.read_each(asked, DECODING) == expected
    assert engine.read_each([], DECODING) == []


def test_logits_differ_where_anything_read_differs(opened: Callable[[States], LlamaCppEngine]) -> None:
    engine = opened(States())
    found = engine.logits_each(prompts(PASSAGES[:2], QUESTIONS[0]), 1)
    other = engine.logits_each(prompts(PASSAGES[:2], QUESTIONS[1]), 1)
    assert not np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], other[0])
