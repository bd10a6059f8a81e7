"""Sets of questions with accepted answers, and what a model answers to them: with the right passage, or by itself.

    {"title": "Warsaw", "passage": "...", "questions": [{"question": "...", "answers": ["1611"]}, ...]}   reading
    {"question": "What is the capital of France?", "answers": ["Paris"]}                                 known facts

JSON Lines, plain or compressed with gzip. `answers` is a list of texts, or one text; an empty list means that the
passage does not hold the answer.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openbook.answer_text import says_nothing_found, tidy
from openbook.diagnosis.questions import text_of, texts
from openbook.diagnosis.scoring import exact_match, holds_answer, token_f1
from openbook.errors import ConfigError, StorageError
from openbook.inference import FrozenModel
from openbook.prompts import closed_book_prompt, reading_prompt
from openbook.records import Decoding

DECODING = Decoding(max_tokens=64, stop=("\n",))


@dataclass(frozen=True, slots=True)
class Probe:
    """One question. `passage` empty: to be answered from memory; `answers` empty: the passage does not hold any."""

    question: str
    answers: tuple[str, ...]
    title: str = ""
    passage: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`exact` and `f1` of an abstention are 1 where there is no answer, else 0."""

    probe: Probe
    answer: str
    abstained: bool
    exact: float
    f1: float
    holds: float


def load_probes(path: Path) -> list[Probe]:
    """Raises ConfigError with the number of a line that is wrong, StorageError."""
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    except OSError as error:
        raise StorageError(f"Cannot read the questions in {path}: {error.strerror or error}.") from error
    except (EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name} cannot be read: {error}.") from error
    found: list[Probe] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            found += _probes(json.loads(line))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ConfigError(f"{path.name} line {number} is no valid question: {error!r}.") from error
    if not found:
        raise ConfigError(f"{path.name} holds no questions.")
    return found


def _probes(value: dict[str, Any]) -> Iterator[Probe]:
    if "passage" not in value:
        yield Probe(text_of(value["question"]), _answers(value["answers"]))
        return
    title, passage = text_of(value.get("title", ""), empty=True), text_of(value["passage"])
    for question in value["questions"]:
        yield Probe(text_of(question["question"]), _answers(question["answers"]), title, passage)


def _answers(value: object) -> tuple[str, ...]:
    if value is None:  # not the same as an empty list, which says that there are none
        raise ValueError("'answers' must be a list of texts, not null")
    return texts(value, "answers")


def outcomes(
    model: FrozenModel, probes: Sequence[Probe], *, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Outcome]:
    """Greedy answers, in order. Probes on one passage should follow each other: it is then read once.

    A prompt that does not fit into the model's context is not answered, which is wrong whatever the question.
    """
    prompts = [
        reading_prompt(p.question, [(p.title, p.passage)], model.reader)
        if p.passage
        else closed_book_prompt(p.question)
        for p in probes
    ]
    room = model.context_tokens - DECODING.max_tokens
    fits = [model.count_prompt_tokens(prompt) <= room for prompt in prompts]
    found = []
    for probe, prompt, fit in zip(probes, prompts, fits, strict=True):
        if not fit:
            found.append(Outcome(probe, "", abstained=False, exact=0.0, f1=0.0, holds=0.0))
            continue
        text = tidy(model.complete(prompt, DECODING).text)
        abstained = says_nothing_found(text, model.reader) or not text
        found.append(_outcome(probe, text, abstained))
        progress(len(found), len(probes))
    return found


def _outcome(probe: Probe, text: str, abstained: bool) -> Outcome:
    if not probe.answers or abstained:
        right = float(abstained and not probe.answers)
        return Outcome(probe, text, abstained, right, right, right)
    accepted = probe.answers
    return Outcome(
        probe, text, abstained, exact_match(text, accepted), token_f1(text, accepted), holds_answer(text, accepted)
    )
