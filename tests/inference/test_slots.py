"""Answers in slots, with the real engine and the small model: the same bits whoever else is there, and nobody disturbs anybody."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
import pytest

from openbook.cli import serve
from openbook.errors import EngineError
from openbook.inference import FrozenModel
from openbook.inference.llamacpp import LlamaCppEngine, slots_of
from openbook.inference.llamalib import Context, library
from openbook.inference.slots import MAX_SLOTS, Batcher, Turns, state_apart, usable_widths
from openbook.models import ModelReference
from openbook.records import Decoding, Prompt, sha256_hex
from openbook.testing import PROMPT, EngineSuite
from tests.conftest import open_engine
from tests.inference.test_llamacpp import in_time

pytestmark = pytest.mark.model

SLOTS = 4
TEXTS = ("The ferry leaves at nine. ", "The captain keeps the map in the lamp room. ", "A ticket costs four coins. ")
PROMPTS = [
    Prompt("Answer.", (TEXTS[n % 3] * (1 + n % 4),), f"{'Why so? ' * (n % 3)}When does it leave, and why? {n}")
    for n in range(6)
]


open_slots = partial(open_engine, context_tokens=512)


@pytest.fixture(scope="module")
def slots(model_reference: ModelReference) -> Iterator[LlamaCppEngine]:
    with closing(open_slots(model_reference, slots=SLOTS)) as engine:
        yield engine


@pytest.fixture
def batcher(slots: LlamaCppEngine) -> Batcher:
    assert slots._batcher is not None
    return slots._batcher


class TestEngineWithSlots(EngineSuite):
    @pytest.fixture(autouse=True)
    def reference(self, model_reference: ModelReference) -> None:
        self.model_reference = model_reference

    def make_engine(self) -> LlamaCppEngine:
        return open_slots(self.model_reference, slots=2)


Written = tuple[str, str]


def written(engine: LlamaCppEngine, prompt: Prompt, tokens: int = 5) -> Written:
    """(text, digest of all logits)."""
    rows: list[bytes] = []
    pieces = engine.generate(prompt, Decoding(max_tokens=tokens), look=lambda row: rows.append(row.tobytes()))
    return "".join(pieces), sha256_hex(b"".join(rows))


@pytest.fixture(scope="module")
def alone(slots: LlamaCppEngine) -> list[Written]:
    return [written(slots, prompt) for prompt in PROMPTS]


@pytest.mark.parametrize("seed", range(3))
def test_companions_arrivals_and_cancellations_change_no_bit(
    slots: LlamaCppEngine, alone: list[Written], seed: int
) -> None:
    rng = random.Random(seed)
    order = [rng.randrange(len(PROMPTS)) for _ in range(10)]
    gone = {place: rng.randrange(1, 5) for place in range(10) if rng.random() < 0.3}

    def request(place: int) -> Written | None:
        if place not in gone:
            return written(slots, PROMPTS[order[place]])
        stream = slots.generate(PROMPTS[order[place]], Decoding(max_tokens=12))
        for _ in range(gone[place]):
            next(stream, None)
        stream.close()
        return None

    with ThreadPoolExecutor(rng.randint(2, 9)) as pool:
        found = list(pool.map(request, range(10)))
    assert found == [None if place in gone else alone[number] for place, number in enumerate(order)]


def test_the_number_of_slots_belongs_to_the_numeric_class_and_not_to_what_is_kept(
    slots: LlamaCppEngine, engine: LlamaCppEngine, model_reference: ModelReference
) -> None:
    with closing(open_slots(model_reference, slots=2)) as two:
        classes = [each.numeric_class for each in (engine, two, slots)]
        assert [slots_of(each) for each in classes] == [0, 2, SLOTS]
        assert len(set(classes)) == 3
        completion = FrozenModel(two).complete(PROMPT, Decoding(max_tokens=1))
        assert completion.numeric_class == two.numeric_class
        keys = [each._request(PROMPT, Decoding()).prefixes[0].keys for each in (engine, two, slots)]
        assert keys[0] == keys[1] == keys[2]


def test_a_request_that_is_too_long_for_a_slot_is_written_alone(
    slots: LlamaCppEngine, engine: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openbook.inference.llamacpp.SLOT_TOKENS", 8)
    assert slots.logits_digest(PROMPTS[2]) == engine.logits_digest(PROMPTS[2])


def test_passages_side_by_side_are_written_in_a_slot_and_mean_what_they_mean_outside(
    slots: LlamaCppEngine, engine: LlamaCppEngine
) -> None:
    prompt = Prompt("Answer.", TEXTS, "When does the ferry leave, and what does it cost?", side_by_side=True)
    first = written(slots, prompt)
    with ThreadPoolExecutor(SLOTS) as pool:
        found = list(pool.map(lambda each: written(slots, each), [PROMPTS[3], prompt, prompt, PROMPTS[4]]))
    assert found[1] == found[2] == first
    inside, outside = slots.logits(prompt, 4), engine.logits(prompt, 4)
    assert np.argmax(inside[:2], axis=1).tolist() == np.argmax(outside[:2], axis=1).tolist()
    assert np.corrcoef(inside[1], outside[1])[0, 1] > 0.999


class Trouble(Exception):
    pass


def test_an_error_in_one_request_reaches_its_reader_and_nobody_else(
    slots: LlamaCppEngine, alone: list[Written]
) -> None:
    calls = 0

    def fails(_row: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Trouble

    def broken() -> str:
        with pytest.raises(Trouble):
            list(slots.generate(PROMPTS[0], Decoding(max_tokens=30), look=fails))
        return "failed"

    with ThreadPoolExecutor(4) as pool:
        bad, good = pool.submit(broken), [pool.submit(written, slots, PROMPTS[n]) for n in range(3)]
        assert bad.result(60) == "failed"
        assert [each.result(60) for each in good] == alone[:3]


def test_numbers_that_overflow_end_the_answer_and_nobody_joins_before_the_cells_are_cleared(
    slots: LlamaCppEngine, batcher: Batcher, alone: list[Written], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate, cleared = batcher._context.evaluate, list[int]()

    def overflow(blocks: list[tuple[int, list[int]]]) -> list[object]:
        rows = evaluate(blocks)
        if not cleared:
            rows[0][7] = np.nan
        return [*rows]

    clear = batcher._context.clear

    def clear_and_tell() -> None:
        cleared.append(1)
        clear()

    monkeypatch.setattr(batcher._context, "evaluate", overflow)
    monkeypatch.setattr(batcher._context, "clear", clear_and_tell)
    with pytest.raises(EngineError, match="not a number"):
        written(slots, PROMPTS[0])
    assert written(slots, PROMPTS[0]) == alone[0]
    assert cleared == [1]


@pytest.mark.parametrize("call", ["evaluate", "restore", "remove"])
def test_an_error_of_the_engine_ends_what_is_in_slots_and_the_next_request_is_answered(
    slots: LlamaCppEngine, batcher: Batcher, alone: list[Written], monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    with monkeypatch.context() as patched:

        def fail(*_: object) -> None:
            raise EngineError("no memory")

        patched.setattr(batcher._context, call, fail)
        with pytest.raises(EngineError, match="no memory"):
            written(slots, PROMPTS[5])
    assert written(slots, PROMPTS[5]) == alone[5]
    assert not batcher._holders


def test_an_error_while_a_gap_is_closed_ends_the_answer_that_was_to_move(
    slots: LlamaCppEngine, batcher: Batcher, alone: list[Written], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate, started, joining = batcher._context.evaluate, threading.Event(), threading.Event()

    def beside_another(*arguments: Any) -> Any:
        started.set()
        assert joining.wait(60)
        return evaluate(*arguments)

    def fail(*_: object) -> None:
        raise EngineError("no memory")

    with monkeypatch.context() as patched, ThreadPoolExecutor(2) as pool:
        patched.setattr(batcher._context, "evaluate", beside_another)
        patched.setattr(batcher._context, "state", fail)
        first = pool.submit(written, slots, PROMPTS[0], 3)
        assert started.wait(60)
        second = pool.submit(written, slots, PROMPTS[0], 12)
        deadline = time.monotonic() + 60
        while not batcher._joining and time.monotonic() < deadline:
            time.sleep(0.01)
        joining.set()
        assert first.result(60)
        with pytest.raises(EngineError, match="no memory"):
            second.result(60)
    assert written(slots, PROMPTS[5]) == alone[5]
    assert not batcher._holders


def test_waiting_for_a_slot_ends_with_a_cancel_and_with_the_engine(model_reference: ModelReference) -> None:
    engine = open_slots(model_reference, slots=1)
    batcher = engine._batcher
    assert batcher is not None
    batcher._slots = 0  # as if somebody wrote for ever
    cancelled = threading.Event()
    threading.Timer(0.5, cancelled.set).start()
    decoding = Decoding(max_tokens=8)
    completion = in_time(lambda: FrozenModel(engine).complete(PROMPT, decoding, cancelled.is_set))
    assert getattr(completion, "finish_reason", "") == "cancelled"

    def refused() -> str:
        threading.Timer(0.5, engine.close).start()
        with pytest.raises(EngineError, match="was closed"):
            FrozenModel(engine).complete(PROMPT, decoding)
        return "refused"

    assert in_time(refused) == "refused"
    assert engine._model.handle == library().ffi.NULL


def test_closing_leaves_answers_under_way_their_memory(model_reference: ModelReference) -> None:
    engine = open_slots(model_reference, slots=2)
    stream = engine.generate(PROMPTS[0], Decoding(max_tokens=6))
    first = next(stream)
    in_time(engine.close)
    with pytest.raises(EngineError, match="was closed"):
        next(engine.generate(PROMPT, Decoding(max_tokens=6)))
    text = first + "".join(stream)
    again = open_slots(model_reference, slots=2)
    assert text == "".join(again.generate(PROMPTS[0], Decoding(max_tokens=6)))
    again.close()


@pytest.fixture
def contexts(engine: LlamaCppEngine) -> Iterator[tuple[Context, Context]]:
    model = engine._model
    reading = Context(model, context_tokens=256, call_tokens=256, sequences=1, threads=1)
    apart = Context(model, context_tokens=256, call_tokens=3, sequences=3, threads=1, apart=True)
    yield reading, apart
    reading.close()
    apart.close()


TRIED = list(range(100, 124))


class Tampered:
    """A context whose logits depend on what `wrong` says of a call's width and its last companion's token."""

    def __init__(self, context: Context, wrong: Callable[[int, int], float]) -> None:
        self._context, self._wrong = context, wrong

    def __getattr__(self, name: str) -> object:
        return getattr(self._context, name)

    def evaluate(self, blocks: list[tuple[int, list[int]]]) -> list[object]:
        rows = self._context.evaluate(blocks)
        wrong = self._wrong(len(blocks), blocks[-1][1][0])
        return [row + np.float32(wrong) * np.arange(len(row), dtype=np.float32) for row in rows]


@pytest.mark.parametrize(
    ("wrong", "widths"),
    [
        (lambda width, last: 0.0, (1, 3)),
        (lambda width, last: 1e-6 * (width == 1), (2, 3)),
        (lambda width, last: 1e-6 * (width == 3), (1, 2)),
    ],
)
def test_calls_have_widths_between_which_there_is_no_difference(
    contexts: tuple[Context, Context], wrong: Callable[[int, int], float], widths: tuple[int, int]
) -> None:
    reading, apart = contexts
    assert usable_widths(reading, Tampered(apart, wrong), 3, TRIED) == widths  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [(lambda width, last: 1e-6 * last, "change each other"), (lambda width, last: 1.0, "other numbers in slots")],
)
def test_there_are_no_slots_where_columns_depend_on_each_other(
    contexts: tuple[Context, Context], wrong: Callable[[int, int], float], message: str
) -> None:
    reading, apart = contexts
    with pytest.raises(EngineError, match=message):
        usable_widths(reading, Tampered(apart, wrong), 3, TRIED)  # type: ignore[arg-type]


def test_calls_are_filled_up_with_dummies_and_answers_stay_the_same(
    slots: LlamaCppEngine, batcher: Batcher, alone: list[Written], monkeypatch: pytest.MonkeyPatch
) -> None:
    widths: list[int] = []
    evaluate = batcher._context.evaluate

    def counted(blocks: list[tuple[int, list[int]]]) -> list[object]:
        widths.append(len(blocks))
        return [*evaluate(blocks)]

    monkeypatch.setattr(batcher._context, "evaluate", counted)
    monkeypatch.setattr(batcher, "_least", 3)
    assert written(slots, PROMPTS[4]) == alone[4]
    assert set(widths) == {3}


def test_a_state_of_another_form_is_refused(contexts: tuple[Context, Context]) -> None:
    reading, apart = contexts
    reading.read(TRIED)
    state = reading.state()
    for damaged in (state[:-1], state + b"\0", state[:8] + b"\x02" + state[9:], b"", state[:20]):
        with pytest.raises(EngineError, match="form that slots cannot use"):
            state_apart(damaged, 3)
    apart.restore(state_apart(state, 3), len(TRIED), 0)
    assert apart.position(0) == len(TRIED)


def test_more_slots_than_were_shown_to_be_safe_are_refused(model_reference: ModelReference) -> None:
    assert serve.MAX_SLOTS == MAX_SLOTS
    with pytest.raises(EngineError, match=f"at most {MAX_SLOTS} slots, not {MAX_SLOTS + 1}"):
        open_slots(model_reference, slots=MAX_SLOTS + 1)


def test_turns_are_taken_in_the_order_of_asking() -> None:
    turns, order = Turns(), list[int]()

    def take(number: int) -> None:
        with turns:
            order.append(number)

    with ThreadPoolExecutor(5) as pool, turns:
        for number in range(5):
            pool.submit(take, number)
            while len(turns._asking) < number + 2:
                pass
    assert order == [0, 1, 2, 3, 4]
