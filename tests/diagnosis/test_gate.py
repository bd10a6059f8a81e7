"""The gate refuses a model that reads or knows worse, and admits the others."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from openbook.core.errors import ConfigError
from openbook.core.records import Prompt, ReaderFormat
from openbook.diagnosis import gate
from openbook.diagnosis.gate import EvalQuestion, ask_eval_set, compare, flips, load_eval_set, non_inferior
from openbook.inference import FrozenModel
from openbook.models import ModelStore, import_gguf
from openbook.models.gguf import ValueType
from tests.diagnosis.table_engine import TableEngine
from tests.models.gguf_files import llama

READER = ReaderFormat("Answer, or say: Not stated.", "Not stated.")
PLACES = [f"pier {n}" for n in range(60)]
ASKED = ("Where does ferry {n} leave?", "Who steers ferry {n}?")  # the passage holds no answer to the second
READING = [
    EvalQuestion(text.format(n=n), (place,) if text == ASKED[0] else (), "Ferries", f"Ferry {n} leaves from {place}.")
    for text in ASKED
    for n, place in enumerate(PLACES)
]
KNOWN = [EvalQuestion(f"What is {n} plus {n}?", (str(2 * n),)) for n in range(40)]
Answers = Callable[[Prompt], str]


def reads(prompt: Prompt) -> str | None:
    """The right answer to a question on a passage; None for one without."""
    if not prompt.passages:
        return None
    return prompt.passages[0].strip().rpartition("from ")[2][:-1] if "Where" in prompt.question else "Not stated."


def knows(prompt: Prompt) -> str:
    return f"It is {2 * int(prompt.question.split()[2])}."


def good(prompt: Prompt) -> str:
    return reads(prompt) or knows(prompt)


def scrambled(prompt: Prompt) -> str:
    """Learned from answers that belong to other questions."""
    return random.Random(prompt.question).choice(PLACES) if prompt.passages else knows(prompt)


def forgetful_reader(prompt: Prompt) -> str:
    """Has learned facts by heart, and now answers from memory whatever stands in the passage."""
    return "pier 7" if prompt.passages else knows(prompt)


def only_reads(prompt: Prompt) -> str:
    return reads(prompt) or "Not stated."


def model(answer: Answers) -> FrozenModel:
    return FrozenModel(TableEngine(answer), READER)


@pytest.mark.parametrize(
    ("candidate", "holder", "reading", "known"),
    [(good, scrambled, True, True), (forgetful_reader, good, False, True), (only_reads, good, True, False)],
)
def test_a_candidate_that_reads_or_knows_worse_does_not_pass(
    candidate: Answers, holder: Answers, reading: bool, known: bool
) -> None:
    seen = list[tuple[int, int]]()
    checks = compare(model(candidate), model(holder), READING, KNOWN, lambda *done: seen.append(done))
    assert {check.name: check.passed for check in checks} == {"reading": reading, "known facts": known}
    assert seen == [(n, 320) for n in range(1, 321)]


def test_a_difference_that_may_be_chance_does_not_pass() -> None:
    scores, others = [1.0, 0.0] * 20, [0.0, 1.0] * 20
    assert not non_inferior("reading", scores, others).passed  # 40 questions cannot show it
    assert non_inferior("reading", scores, scores).passed
    assert non_inferior("reading", scores, others) == non_inferior("reading", scores, others)


def test_differing_answers_are_counted_and_abstentions_are_right_only_without_an_answer() -> None:
    assert flips(model(good), model(good), READING, lambda *done: None) == 0
    assert flips(model(good), model(lambda prompt: "Not stated."), READING, lambda *done: None) == len(PLACES)
    assert all(outcome.f1 == 1.0 for outcome in ask_eval_set(model(good), READING))
    silent = ask_eval_set(model(lambda prompt: "Not stated."), READING)
    assert [outcome.f1 for outcome in silent] == [0.0] * len(PLACES) + [1.0] * len(PLACES)
    assert all(outcome.abstained for outcome in silent)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"question": "Q?"}\n', "line 1"),
        (b'{"question": "Q?", "answers": ["a"]}\n{"question": "", "answers": ["a"]}\n', "line 2"),
        (b'{"question": "Q?", "answers": null}\n', "line 1: answers"),
        (b'{"title": 7, "passage": "P", "questions": []}\n', "line 1: title must be text, not 7"),
        (b"", "no questions"),
    ],
)
def test_a_wrong_set_is_refused_by_line(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "known.jsonl"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_eval_set(path)


def test_a_set_may_be_compressed_and_one_text_is_one_answer(tmp_path: Path) -> None:
    asked = {"question": "Q?", "answers": "Paris"}
    passage = {"title": "", "passage": "P", "questions": [asked, {"question": "R?", "answers": []}]}
    path = tmp_path / "set.jsonl.gz"
    path.write_bytes(gzip.compress(f"{json.dumps(asked)}\n{json.dumps(passage)}\n".encode()))
    on_passage = [EvalQuestion("Q?", ("Paris",), "", "P"), EvalQuestion("R?", (), "", "P")]
    assert load_eval_set(path) == [EvalQuestion("Q?", ("Paris",)), *on_passage]
    reading, known = load_eval_set(gate.READING), load_eval_set(gate.KNOWN)
    assert (len(reading) > 250, len(known) > 100) == (True, True)
    assert any(not probe.answers for probe in reading)
    assert all(probe.answers and not probe.passage for probe in known)


def test_a_name_moves_only_to_a_model_that_passes(store: ModelStore, tmp_path: Path) -> None:
    recipes = (llama(), llama().with_value("llama.attention.layer_norm_rms_epsilon", ValueType.FLOAT32, 1e-6))
    held, other = (import_gguf(store, each.write(tmp_path / f"m{n}.gguf")) for n, each in enumerate(recipes))
    store.set_name("reads", held.digest)
    sets = tmp_path / "reading.jsonl", tmp_path / "known.jsonl"
    asked = {"question": "Where does ferry 1 leave?", "answers": "pier 1"}
    sets[0].write_text(json.dumps({"passage": "Ferry 1 leaves from pier 1.", "questions": [asked]}))
    sets[1].write_text(json.dumps({"question": "What is 2 plus 2?", "answers": "4"}))

    def promoted(candidate: Answers, holder: Answers) -> gate.Promotion:
        answers = {held.digest: model(holder), other.digest: model(candidate)}
        opened = store.resolve, lambda each: answers[each.digest]
        return gate.promote(store, "reads", other.digest, *opened, lambda *_: None, sets=sets)

    found = promoted(lambda _: "Not stated.", good)
    assert (found.holder, found.passed, store.resolve("reads").digest) == (held.digest, False, held.digest)
    assert promoted(good, good).passed
    assert store.resolve("reads").digest == other.digest
