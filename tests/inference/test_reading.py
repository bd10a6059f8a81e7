"""Passages are read once: whatever was kept, evicted, restarted or asked in between, the bits are the same."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from openbook.core.derived import DerivedFolder
from openbook.core.errors import ContextOverflow, EngineError
from openbook.core.parallel import Cancelled, Progress, never
from openbook.core.records import Decoding, Prompt, passage_block
from openbook.inference import FrozenModel, load_model
from openbook.inference.decoding import choose, enough
from openbook.inference.frozen import SIDE_BY_SIDE, ReadEach
from openbook.inference.kv_cache import KVCache
from openbook.inference.llamacpp import CALL_TOKENS, LlamaCppEngine
from openbook.models import ModelReference
from tests.conftest import flip, llama_engine, threads_for

DECODING = Decoding(max_tokens=6)
# Small, since every token is evaluated many times. `LONG` and the last question are longer than a call.
PASSAGES = [
    "Passage:\nThe ferry leaves at noon from pier 4.\n\n",
    "Passage:\nThe ferry leaves at noon from pier 4. Tickets cost 9 crowns and are sold on board.\n\n",
    "Passage:\nMount Kessin is 3,412 metres high.\n\n",
]
LONG = "Passage:\n" + "The library closes on Mondays and was founded in 1874 by the city council. " * 17 + "\n\n"
QUESTIONS = [
    "Question: When does the ferry leave?",
    "Question: How high is Mount Kessin?",
    "Question: " + "Who? " * 130,
]


Opened: TypeAlias = Callable[..., LlamaCppEngine]


@pytest.fixture
def opened(reader: ModelReference) -> Iterator[Opened]:
    models, threads = list[FrozenModel](), threads_for(reader.needed_base)

    def make(states: KVCache) -> LlamaCppEngine:
        models.append(load_model(reader, context_tokens=4096, threads=threads, states=states))
        return llama_engine(models[-1])

    yield make
    for model in models:
        model.close()


TRAINED = pytest.param("trained", marks=[pytest.mark.model, pytest.mark.laws])
needs_trained = pytest.mark.parametrize("reader", [TRAINED], indirect=True)


def prompts(passages: list[str], question: str) -> list[Prompt]:
    return [Prompt("Answer.", (passage,), question) for passage in passages]


def nothing_kept() -> KVCache:
    return KVCache(None, memory_bytes=0)


Choose: TypeAlias = Callable[[Sequence[float]], int | None]


@contextmanager
def selected(by: Choose | None) -> Iterator[None]:
    """All passages are read, and then one is chosen. None: as usual."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("openbook.inference.llamacpp.choose", by or choose)
        patch.setattr("openbook.inference.llamacpp.enough", (lambda scores: False) if by else enough)
        yield


def read(model: FrozenModel, asked: list[Prompt], by: Choose | None = None, cancelled: Cancelled = never) -> ReadEach:
    pieces: list[str] = []
    with selected(by):
        stream = model.stream_each(asked, DECODING, cancelled)
        while True:
            try:
                pieces.append(next(stream))
            except StopIteration as done:
                found: ReadEach = done.value
                assert "".join(pieces) == found.completion.text
                return found


def each(engine: LlamaCppEngine, passages: list[str], question: str, by: Choose | None = None) -> ReadEach:
    return read(FrozenModel(engine), prompts(passages, question), by)


def number(chosen: int) -> Choose:
    return lambda scores: chosen


def bits(engine: LlamaCppEngine, asked: list[Prompt], by: Choose | None = None, steps: int = 6) -> bytes:
    """All logits by which a passage is chosen and then each token: equal bytes, equal computation."""
    rows: list[Any] = []
    with selected(by):
        for _ in engine.generate_each(asked, Decoding(max_tokens=steps), look=rows.append):
            pass
    return b"".join(row.tobytes() for row in rows)


def test_a_state_under_a_label_serves_no_request_without_it(opened: Opened) -> None:
    asked: list[tuple[bytes, bool]] = []

    class Watched(KVCache):
        def get(self, key: bytes) -> bytes | None:
            found = super().get(key)
            asked.append((key, found is not None))
            return found

    engine = opened(Watched())

    def is_found(*labels: str) -> bool:
        """Whether anything of the passage was there already. Then it is."""
        asked.clear()
        engine.read_ahead(Prompt("Answer.", (PASSAGES[0],), "?", labels=labels))
        return any(found for _, found in asked)

    assert not is_found("hr")
    assert not is_found()
    assert not is_found("legal")
    assert not is_found("hr", "legal")
    assert is_found("hr")
    assert is_found()


def test_nothing_is_kept_of_a_passage_purged_since_its_lookup(opened: Opened, tmp_path: Path) -> None:
    states = KVCache(tmp_path)
    model = FrozenModel(opened(states))
    prompt = Prompt("Answer.", (PASSAGES[0],), QUESTIONS[0])
    looked_up = model.for_request()
    with DerivedFolder(tmp_path).purging(1.0):  # in another process
        pass
    looked_up.complete(prompt, DECODING)
    looked_up.read_ahead(prompt)
    assert states.kept().states == 0
    model.for_request().complete(prompt, DECODING)  # the document is there again
    assert states.kept().states > 0


def test_passages_side_by_side_give_the_same_bits_from_kept_states(opened: Opened, tmp_path: Path) -> None:
    chance = random.Random(5)
    asked = [Prompt("Answer.", tuple(chance.sample(PASSAGES, n)), QUESTIONS[n % 2], side_by_side=True) for n in (1, 3)]
    asked.append(Prompt("Answer.", (PASSAGES[0], LONG), QUESTIONS[0], side_by_side=True))
    kept = KVCache(tmp_path / "kept")
    cold, warm = opened(nothing_kept()), opened(kept)
    expected = [cold.logits(prompt, 2).tobytes() for prompt in asked]
    # A passage's state serves reading it alone and with others.
    bits(warm, prompts(PASSAGES, QUESTIONS[1]), choose)
    for engine in (warm, opened(KVCache(tmp_path / "kept"))):
        for prompt, found in zip(asked, expected, strict=True):
            assert engine.logits(prompt, 2).tobytes() == found
    one = replace(asked[0], passages=asked[0].passages[:1])
    assert warm.logits(one).tobytes() == warm.logits(replace(one, side_by_side=False)).tobytes()
    digests = {
        FrozenModel(warm).complete(replace(asked[0], side_by_side=way), DECODING).prompt_digest for way in (False, True)
    }
    assert len(digests) == 2


def test_too_many_passages_or_a_recurrent_model_are_refused_side_by_side(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = opened(nothing_kept())
    short = Prompt("Answer.", ("Passage:\nIt rains.\n\n",) * (SIDE_BY_SIDE + 1), "Why?", side_by_side=True)
    with pytest.raises(EngineError, match="At most 8 passages can lie side by side, not 9"):
        engine.logits(short)
    whole = replace(short, passages=short.passages[:SIDE_BY_SIDE])
    with monkeypatch.context() as patched:
        patched.setattr(engine._model, "is_recurrent", True)
        with pytest.raises(EngineError, match="is a recurrent model, so it cannot read passages side by side"):
            engine.logits(whole)
    system = len(engine.tokenize(whole)[0])
    behind = engine.count_prompt_tokens(replace(whole, side_by_side=False))
    assert engine.count_prompt_tokens(whole) == behind + (SIDE_BY_SIDE - 1) * system
    with pytest.raises(ContextOverflow):
        engine.logits(replace(whole, passages=("Passage:\n" + "It rains. " * 500,) * 3))


@pytest.mark.parametrize(
    ("reader", "chosen"),
    [("small", 4), pytest.param("trained", 1, marks=TRAINED.marks), pytest.param("trained", 4, marks=pytest.mark.slow)],
    indirect=["reader"],
)
def test_kept_states_give_the_same_bits(opened: Opened, tmp_path: Path, chosen: int) -> None:
    chance = random.Random(7)
    requests = [
        (chance.sample(PASSAGES, chance.randint(1, 3)), chance.choice(QUESTIONS[:2]), chance.random() < 0.5)
        for _ in range(chosen)
    ]
    long = [([PASSAGES[2], LONG], QUESTIONS[1]), (PASSAGES[:1], QUESTIONS[2])]
    requests += [(*each, together) for each in long for together in (True, False)[:chosen]]
    count = len(requests)
    one = KVCache(tmp_path / "one")
    opened(one).read_ahead(prompts(PASSAGES[1:2], "?")[0])
    room = 2 * one.kept().bytes
    small = KVCache(tmp_path / "small", memory_bytes=room, disk_bytes=2 * room)
    engines = [opened(s) for s in (nothing_kept(), KVCache(tmp_path / "kept"), small)]

    def answer(engine: LlamaCppEngine, passages: list[str], question: str, together: bool) -> list[bytes]:
        if together:
            return [engine.logits(Prompt("Answer.", tuple(passages), question), 2).tobytes()]
        # As answers are made, and side by side whichever passage is chosen.
        asked = prompts(passages, question)
        return [bits(engine, asked, number(len(passages) - 1), 2), bits(engine, asked, steps=2)]

    expected = [answer(engines[0], *request) for request in requests]
    for engine in engines[1:]:
        for place in [*range(count), *chance.choices(range(count), k=chosen)]:
            assert answer(engine, *requests[place]) == expected[place]
    restarted = opened(KVCache(tmp_path / "kept"))
    assert [answer(restarted, *request) for request in requests] == expected


def test_a_reading_is_of_all_that_decides(opened: Opened) -> None:
    engine = opened(KVCache())
    alone = FrozenModel(engine).complete(prompts(PASSAGES[:1], QUESTIONS[1])[0], DECODING)
    first = read(FrozenModel(engine), prompts(PASSAGES[:1], QUESTIONS[1]), number(0)).completion
    assert replace(first, prompt_digest=alone.prompt_digest) == alone
    asked = prompts(PASSAGES, QUESTIONS[1])
    found = bits(engine, asked, number(1))
    assert found == bits(engine, asked, number(1))
    others = [
        bits(engine, asked[:2], number(1)),
        bits(engine, [*asked[1:], asked[0]], number(1)),
        bits(engine, asked, number(1), steps=1),
        bits(engine, prompts(PASSAGES, QUESTIONS[0]), number(1)),
        bits(engine, asked, number(0)),
    ]
    assert len({found, *others}) == 6


def test_forms_of_a_reader_share_states_and_never_mix_them(reader: ModelReference, tmp_path: Path) -> None:
    """The merged reader, its adapter on the base, and the base alone, in turns on one folder and one memory; the same
    passage under another instruction; and blocks whose texts would become other tokens if they were joined.
    """
    assert reader.base is not None
    forms, threads = [reader, replace(reader, merged=None), reader.base], threads_for(reader.base)
    asked = [
        Prompt(system, passages, QUESTIONS[0])
        for system, passages in (
            ("Answer.", tuple(PASSAGES[:2])),
            ("Answer from the passage.", tuple(PASSAGES[:2])),
            ("Answer from the passage.", ()),  # as the reader is asked, with nothing to read
            ("Answer.", ("Passage:\nThe code is 12", "34.\n\n")),
            ("Answer.", ("Passage:\nThe code is ", "1234.\n\n")),
        )
    ]
    alone, shared = list[Any](), list[Any]()
    states = KVCache(tmp_path)
    for reference in forms:
        models = [
            load_model(reference, context_tokens=1024, threads=threads, states=each)
            for each in (nothing_kept(), states)
        ]
        alone.append(models[0].engine)
        shared.append(models[1].engine)
    expected = [[engine.logits_digest(prompt, 2) for prompt in asked] for engine in alone]
    for _ in range(2):
        for number, prompt in enumerate(asked):
            assert [engine.logits_digest(prompt, 2) for engine in shared] == [each[number] for each in expected]
    for engine in (*alone, *shared):
        engine.close()
    with_passages = [number for number, prompt in enumerate(asked) if prompt.passages]
    for number in with_passages:
        assert len({each[number] for each in expected}) == len(forms)


@needs_trained
def test_the_passage_with_the_answer_is_chosen_and_if_sure_no_other_is_read(opened: Opened, tmp_path: Path) -> None:
    engine = opened(KVCache())
    height = each(engine, PASSAGES, QUESTIONS[1])
    assert height.chosen == 2
    assert "3,412" in height.completion.text
    neither = each(engine, PASSAGES[:2], "Question: Who designed the town hall of Velmo?")
    assert (neither.chosen, neither.completion.text, neither.completion.answer_tokens) == (None, "", 0)
    states = KVCache(tmp_path)
    engine = opened(states)
    asked = [PASSAGES[2], *PASSAGES[:2]]
    found = each(engine, asked, QUESTIONS[1])
    assert (found.read, found.chosen) == (1, 0)
    assert states.kept().states == 2  # the system's and one passage's
    assert found == each(engine, asked[:1], QUESTIONS[1])  # so it can be replayed from what was read
    of_all = each(engine, asked, QUESTIONS[1], choose)
    assert (of_all.read, of_all.chosen, of_all.completion.text) == (3, 0, found.completion.text)
    late = each(engine, [PASSAGES[0], PASSAGES[2], *[PASSAGES[0]] * SIDE_BY_SIDE], QUESTIONS[1])
    assert (late.read, late.chosen, late.completion.text) == (SIDE_BY_SIDE + 1, 1, found.completion.text)


@needs_trained
def test_a_quote_stands_in_the_passage_not_in_its_heading(opened: Opened) -> None:
    model = FrozenModel(opened(KVCache()))
    text = "The ferry to Sandhavn leaves at noon."
    for question in ("What is the title of the passage?", "When does it leave?"):
        prompt = Prompt("Answer.", (passage_block("Harbour > Timetable", text),), f"Question: {question}")
        found = model.complete(prompt, replace(DECODING, quote=True)).text.strip()
        assert found
        assert found in text


def test_more_passages_than_fit_side_by_side_are_read_in_turn(opened: Opened) -> None:
    engine = opened(KVCache())
    many = [f"Passage:\nThe code of door {i} is {i * 37}.\n\n" for i in range(SIDE_BY_SIDE + 3)]
    seen: list[float] = []

    def last(scores: Sequence[float]) -> int:
        seen[:] = scores
        return len(scores) - 1

    question = "Question: What is the code?"
    of_all = each(engine, many, question, last)
    assert (of_all.read, of_all.chosen) == (SIDE_BY_SIDE + 3, SIDE_BY_SIDE + 2)
    scores = list(seen)
    # The first alone, then eight, then the last two; any first passage leaves the others as they are.
    of_rest = each(engine, [PASSAGES[0], *many[SIDE_BY_SIDE + 1 :]], question, last)
    assert of_rest.completion.text == of_all.completion.text
    assert scores[SIDE_BY_SIDE + 1 :] == seen[1:]
    # One that has made room for others is read again, with the bits of the first time.
    for chosen in (0, 2):
        few = each(engine, many[: SIDE_BY_SIDE + 1], question, number(chosen))
        assert each(engine, many, question, number(chosen)).completion.text == few.completion.text


def test_requests_side_by_side_do_not_meet(opened: Opened, tmp_path: Path) -> None:
    engine = opened(KVCache(tmp_path))
    requests = [(PASSAGES[i % 3 :], QUESTIONS[i % 2]) for i in range(6)]
    cold = opened(nothing_kept())
    alone = [each(cold, *request) for request in requests]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda request: each(engine, *request), requests)) == alone


def test_a_damaged_state_is_computed_again_and_a_rejected_one_deleted(opened: Opened, tmp_path: Path) -> None:
    expected = each(opened(KVCache(tmp_path)), PASSAGES[:2], QUESTIONS[0], choose)
    files = sorted(tmp_path.rglob("*.state"))
    assert len(files) == 3  # the system's and two passages'
    for file in files:
        flip(file, file.stat().st_size // 2)
    assert each(opened(KVCache(tmp_path)), PASSAGES[:2], QUESTIONS[0], choose) == expected
    states = KVCache(tmp_path)
    for file in tmp_path.rglob("*.state"):  # whole, but not what the library writes
        states.put(bytes.fromhex(file.stem), b"not a state", states.purge_mark())
    engine = opened(states)
    for passages in (PASSAGES[:1], PASSAGES[1:2]):
        with pytest.raises(EngineError, match=r"rejects the state of a sequence: .*deleted now"):
            each(engine, passages, QUESTIONS[0], choose)
    assert each(engine, PASSAGES[:2], QUESTIONS[0], choose) == expected


def appended(told: list[tuple[int, int]]) -> Progress:
    return lambda done, total: told.append((done, total))


def test_progress_is_told_call_by_call_and_changes_no_bit(opened: Opened) -> None:
    together = Prompt("Answer.", (LONG, PASSAGES[0]), QUESTIONS[2])
    side_by_side = replace(together, side_by_side=True)
    engine = opened(KVCache())
    for prompt in (together, side_by_side, replace(together, passages=())):
        told: list[tuple[int, int]] = []
        expected = opened(nothing_kept()).logits(prompt)
        for times in range(2):
            rows: list[Any] = []
            list(engine.generate(prompt, Decoding(max_tokens=1), look=rows.append, progress=appended(told)))
            assert rows[0].tobytes() == expected[0].tobytes()
            total = engine.count_prompt_tokens(prompt)
            assert (told[0], told[-1], {most for _, most in told}) == ((0, total), (total, total), {total})
            steps = [after - before for (before, _), (after, _) in itertools.pairwise(told)]
            assert min(steps) >= 0
            if not times and prompt.passages and not prompt.side_by_side:
                assert CALL_TOKENS in steps  # within a passage
            told.clear()


def test_progress_counts_no_passage_that_is_not_read(opened: Opened) -> None:
    model, told = FrozenModel(opened(KVCache())), list[tuple[int, int]]()
    asked = prompts([PASSAGES[2], *PASSAGES[:2]], QUESTIONS[1])
    sizes = list(map(model.count_prompt_tokens, asked))
    list(model.stream_each(asked, DECODING, progress=appended(told)))
    assert (told[0], told[-1]) == ((0, sum(sizes)), (sizes[0], sum(sizes)))  # the first is sure
    told.clear()
    with selected(number(0)):  # it is read again at the end, without being counted again
        list(model.stream_each(asked, DECODING, progress=appended(told)))
    assert told[-1] == (sum(sizes), sum(sizes))


def test_cancelling_and_overflow(opened: Opened) -> None:
    model = FrozenModel(opened(KVCache()))
    asked = prompts(PASSAGES, QUESTIONS[0])
    expected = read(model, asked)
    assert read(model, asked, cancelled=lambda: True).completion.finish_reason == "cancelled"
    with pytest.raises(ContextOverflow):
        read(model, [*asked, Prompt("", ("word " * 5000,), "?")])
    with pytest.raises(EngineError, match="not a trained reader"):
        read(model, [])
    assert read(model, asked) == expected


def test_reading_ahead_spares_the_reading(opened: Opened, tmp_path: Path) -> None:
    states = KVCache(tmp_path)
    model = FrozenModel(opened(states))
    for prompt in prompts(PASSAGES, "?"):
        assert model.read_ahead(prompt) > 0
    kept = states.kept()
    assert kept.states == len(PASSAGES) + 1  # and the system block
    found, fresh = (each(opened(s), PASSAGES, QUESTIONS[0], choose) for s in (KVCache(tmp_path), nothing_kept()))
    assert found == fresh
    assert states.kept() == kept
