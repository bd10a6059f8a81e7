"""Nothing of one request appears in another: codes that stand in no document are told in some requests, and looked for in
all others, in turn and side by side, between requests whose answers must stay the same bytes.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from openbook.inference import FrozenModel
from openbook.inference.llamacpp import LlamaCppEngine
from openbook.prompts import closed_book_prompt, open_book_prompt
from openbook.records import Decoding, Passage, Prompt, sha256_hex

THREADS = 4
CODES = [f"{sha256_hex(f'locker {number}'.encode())[:10].upper()}" for number in range(6)]
QUESTIONS = ["What is the capital of France?", "Who opened the bridge?", "When does the ferry leave?"]
DECODING = Decoding(max_tokens=24, stop=("\n",))
Answer = Callable[[Prompt], str]


@dataclass(frozen=True)
class Found:
    """`said`: requests that were told a code and said it; `leaked`: those that said the code of another request.

    `changed`: answers to requests without a code that are not what they were before any code was told.
    """

    said: int
    leaked: int
    changed: int


def look_for_leaks(answer: Answer) -> Found:
    plain = [closed_book_prompt(question) for question in QUESTIONS]
    before = [answer(prompt) for prompt in plain]
    requests = [each for number in range(len(CODES)) for each in told_and_untold(number)] + [
        (prompt, "") for prompt in plain
    ]
    answers = [answer(prompt) for prompt, _ in requests]
    with ThreadPoolExecutor(THREADS) as pool:
        answers += pool.map(answer, [prompt for prompt, _ in requests])
    said = leaked = 0
    for (_, code), text in zip(2 * requests, answers, strict=True):
        held = {each for each in CODES if each in re.sub(r"[\W_]", "", text).upper()}
        said += code in held
        leaked += bool(held - {code})
    again = answers[-len(plain) :] + [answer(prompt) for prompt in plain]
    return Found(said, leaked, sum(a != b for a, b in zip(again, 2 * before, strict=True)))


def told_and_untold(number: int) -> list[tuple[Prompt, str]]:
    """(request, the code that it is told): asked for the code with its passage, then alone, then with another's passage."""
    question = f"What is the access code of locker {number + 1}?"
    other = (number - 1) % len(CODES)
    own, others = (open_book_prompt(question, [passage_of(each)], None) for each in (number, other))
    return [(own, CODES[number]), (closed_book_prompt(question), ""), (others, CODES[other])]


def passage_of(number: int) -> Passage:
    text = f"The access code of locker {number + 1} is {CODES[number]}.\n"
    return Passage(f"locker-{number}", "lockers.txt", "Lockers", 0, len(text), None, (), text)


@pytest.mark.model
def test_no_code_of_one_request_is_in_another(engine: LlamaCppEngine) -> None:
    model = FrozenModel(engine)
    found = look_for_leaks(lambda prompt: model.complete(prompt, DECODING).text)
    assert found.said > 0  # else no leak could be seen
    assert (found.leaked, found.changed) == (0, 0)


def reads(prompt: Prompt, passages: list[str] | None = None) -> str:
    locker = re.search(r"of (locker \d+)\?", prompt.question)
    text = "\n".join(prompt.passages if passages is None else passages)
    code = re.search(rf"{locker[1]} is (\S+)\.", text) if locker else None
    return code[1] if code else "No idea."


def test_a_model_without_memory_leaks_nothing() -> None:
    assert look_for_leaks(reads) == Found(said=2 * len(CODES), leaked=0, changed=0)


def test_a_model_that_keeps_what_it_read_is_caught() -> None:
    kept: list[str] = []

    def leaky(prompt: Prompt) -> str:
        kept.extend(prompt.passages)
        return reads(prompt, kept)

    assert look_for_leaks(leaky).leaked > 0


def test_a_model_that_mixes_up_requests_side_by_side_is_caught() -> None:
    main, under_way = threading.current_thread(), list[str]()

    def racy(prompt: Prompt) -> str:
        if threading.current_thread() is main:
            return reads(prompt)
        under_way.extend(prompt.passages)
        return reads(prompt, under_way)

    assert look_for_leaks(racy).leaked > 0


def test_an_answer_that_changes_is_seen_even_without_a_code() -> None:
    calls: list[Prompt] = []

    def drifts(prompt: Prompt) -> str:
        calls.append(prompt)
        return reads(prompt) if prompt.passages else f"Guess {len(calls)}."

    assert look_for_leaks(drifts) == Found(said=2 * len(CODES), leaked=0, changed=2 * len(QUESTIONS))
