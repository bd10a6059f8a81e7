"""The gate refuses a model that reads or knows worse, and lets one through that does not."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from openbook.diagnosis.eval_sets import EvalQuestion, ask_eval_set, load_eval_set
from openbook.diagnosis.gate import Sets, compare, load_sets, non_inferior
from openbook.errors import ConfigError, StorageError
from openbook.inference import FrozenModel
from openbook.records import Completion, Decoding, ModelIdentity, Prompt, ReaderFormat

READER = ReaderFormat("Answer, or say: Not stated.", "Not stated.")
PLACES = [f"pier {n}" for n in range(120)]
READING = [
    EvalQuestion(f"Where does ferry {n} leave?", (place,), "Ferries", f"Ferry {n} leaves from {place}.")
    for n, place in enumerate(PLACES)
]
READING += [
    EvalQuestion(f"Who steers ferry {n}?", (), "Ferries", f"Ferry {n} leaves from {place}.")
    for n, place in enumerate(PLACES)
]
KNOWN = [EvalQuestion(f"What is {n} plus {n}?", (str(2 * n),)) for n in range(80)]


class Scripted:
    """An engine whose answers are a function of the prompt."""

    identity = ModelIdentity("scripted", "", "claimed")
    numeric_class = ""
    context_tokens = 4096

    def __init__(self, answer: Callable[[Prompt], str]) -> None:
        self._answer = answer

    def count_prompt_tokens(self, prompt: Prompt) -> int:
        return 1

    def generate(self, prompt: Prompt, decoding: Decoding, cancelled: object) -> Generator[str, None, Completion]:
        text = self._answer(prompt)
        yield text
        return Completion(text, "end", 1, 1, "", "")

    def close(self) -> None:
        pass


def reads(prompt: Prompt) -> str | None:
    """The right answer to a question on a passage; None for one without."""
    if not prompt.passages:
        return None
    return prompt.passages[0].strip().rpartition("from ")[2][:-1] if "Where" in prompt.question else "Not stated."


def knows(prompt: Prompt) -> str:
    number = int(prompt.question.split()[2])
    return f"It is {2 * number}."


def model(answer: Callable[[Prompt], str]) -> FrozenModel:
    return FrozenModel(Scripted(answer), READER)


def good(prompt: Prompt) -> str:
    return reads(prompt) or knows(prompt)


def scrambled(prompt: Prompt) -> str:
    """Learned from answers that belong to other questions."""
    if reads(prompt) is None:
        return knows(prompt)
    return random.Random(prompt.question).choice(PLACES)


def forgetful_reader(prompt: Prompt) -> str:
    """Has learned facts by heart, and now answers from memory whatever stands in the passage."""
    return "pier 7" if prompt.passages else knows(prompt)


def only_reads(prompt: Prompt) -> str:
    return reads(prompt) or "Not stated."


SETS = Sets(READING, KNOWN)


@pytest.mark.parametrize(
    ("candidate", "holder", "reading", "known"),
    [
        (good, good, True, True),
        (good, scrambled, True, True),
        (scrambled, good, False, True),
        (forgetful_reader, good, False, True),
        (only_reads, good, True, False),
    ],
)
def test_a_candidate_that_reads_or_knows_worse_does_not_pass(
    candidate: Callable[[Prompt], str], holder: Callable[[Prompt], str], reading: bool, known: bool
) -> None:
    checks = compare(model(candidate), model(holder), SETS)
    assert {check.name: check.passed for check in checks} == {"reading": reading, "known facts": known}


def test_a_difference_that_may_be_chance_is_not_taken_for_none() -> None:
    scores, others = [1.0, 0.0] * 20, [0.0, 1.0] * 20
    assert not non_inferior("reading", scores, others, 0.02).passed  # 40 questions cannot show it
    assert non_inferior("reading", scores, scores, 0.02).passed
    check = non_inferior("reading", scores, others, 0.02)
    assert check == non_inferior("reading", scores, others, 0.02)


def test_abstentions_count_as_right_only_without_an_answer() -> None:
    found = ask_eval_set(model(good), READING)
    assert all(outcome.f1 == 1.0 for outcome in found)
    silent = ask_eval_set(model(lambda prompt: "Not stated."), READING)
    assert [outcome.f1 for outcome in silent] == [0.0] * len(PLACES) + [1.0] * len(PLACES)
    assert all(outcome.abstained for outcome in silent)


def test_the_sets_that_come_with_openbook_can_be_read() -> None:
    sets = load_sets()
    assert len(sets.reading) > 250
    assert len(sets.known) > 100
    assert any(not probe.answers for probe in sets.reading)
    assert all(probe.answers and not probe.passage for probe in sets.known)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"question": "Q?"}\n', "line 1"),
        (b'{"question": "Q?", "answers": ["a"]}\n{"question": "", "answers": ["a"]}\n', "line 2"),
        (b"[]\n", "line 1"),
        (b'{"question": "Q?", "answers": {"text": ["a"]}}\n', r"line 1\.answers"),
        (b'{"question": "Q?", "answers": null}\n', r"line 1\.answers"),
        (b'{"question": "Q?", "answers": [7]}\n', r"line 1\.answers\[0\] must be text, not 7"),
        (b'{"title": 7, "passage": "P", "questions": []}\n', r"line 1\.title must be text, not 7"),
        (b"not json\n", "line 1"),
        (b"", "no questions"),
        (b"\xff\xfe", "line 1"),
    ],
)
def test_a_set_that_is_wrong_is_refused_by_line(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "known.jsonl"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_eval_set(path)


def test_one_text_is_one_answer(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    asked = '{"question": "Q?", "answers": "Paris"}'
    path.write_text(
        f'{asked}\n{{"title": "", "passage": "P", "questions": [{asked}, {{"question": "R?", "answers": []}}]}}\n'
    )
    assert load_eval_set(path) == [
        EvalQuestion("Q?", ("Paris",)),
        EvalQuestion("Q?", ("Paris",), "", "P"),
        EvalQuestion("R?", (), "", "P"),
    ]


def test_a_set_may_be_compressed(tmp_path: Path) -> None:
    path = tmp_path / "known.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps({"question": "Q?", "answers": ["a"]}).encode()))
    assert load_eval_set(path) == [EvalQuestion("Q?", ("a",))]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ConfigError, match="cannot be decompressed"):
        load_eval_set(path)
    with pytest.raises(StorageError):
        load_eval_set(tmp_path / "missing.jsonl")
