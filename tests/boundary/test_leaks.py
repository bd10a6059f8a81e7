"""Nothing of one request appears in another: codes that stand in no document are told in some requests, and looked for in
all others, in turn and side by side, between requests whose answers must stay the same bytes.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from openbook.answers.prompts import closed_book_prompt, open_book_prompt
from openbook.core.records import Decoding, Passage, Prompt, sha256_hex
from openbook.inference import FrozenModel
from openbook.inference.llamacpp import LlamaCppEngine

THREADS = 4
CODES = [f"{sha256_hex(f'locker {number}'.encode())[:10].upper()}" for number in range(4)]
QUESTIONS = ["What is the capital of France?", "Who opened the bridge?", "When does the ferry leave?"]
DECODING = Decoding(max_tokens=24, stop=("\n",))


def told_and_untold(number: int) -> list[tuple[Prompt, str]]:
    """(request, the code that it is told): asked for the code with its passage, then alone, then with another's passage."""
    question = f"What is the access code of locker {number + 1}?"
    other = (number - 1) % len(CODES)
    own, others = (open_book_prompt(question, [passage_of(each)], None) for each in (number, other))
    return [(own, CODES[number]), (closed_book_prompt(question), ""), (others, CODES[other])]


def passage_of(number: int) -> Passage:
    text = f"The access code of locker {number + 1} is {CODES[number]}.\n"
    return Passage(f"locker-{number}", "lockers.txt", "Lockers", 0, len(text), None, (), text)


@pytest.mark.slow  # besides test_frozen_laws, it detects a kept state mistaken for another of the same length
@pytest.mark.model
def test_no_code_of_one_request_is_in_another(engine: LlamaCppEngine) -> None:
    model = FrozenModel(engine)

    def answer(prompt: Prompt) -> str:
        return model.complete(prompt, DECODING).text

    plain = [closed_book_prompt(question) for question in QUESTIONS]
    before = list(map(answer, plain))
    requests = [each for number in range(len(CODES)) for each in told_and_untold(number)]
    requests += [(prompt, "") for prompt in plain]
    answers = [answer(prompt) for prompt, _ in requests]
    with ThreadPoolExecutor(THREADS) as pool:
        answers += pool.map(answer, [prompt for prompt, _ in requests])
    said = 0
    for (_, code), text in zip(2 * requests, answers, strict=True):
        held = {each for each in CODES if each in re.sub(r"[\W_]", "", text).upper()}
        assert held <= {code}
        said += code in held
    assert said > 0  # else no leak could be seen
    assert answers[-len(plain) :] == list(map(answer, plain)) == before
