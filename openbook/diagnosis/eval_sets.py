"""Sets of questions with accepted answers, and what a model answers to them: with the right passage, or by itself.

    {"title": "Warsaw", "passage": "...", "questions": [{"question": "...", "answers": ["1611"]}, ...]}   reading
    {"question": "What is the capital of France?", "answers": ["Paris"]}                                 known facts

JSON Lines, plain or compressed with gzip. `answers` is a list of texts, or one text; an empty list means that the
passage does not hold the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from openbook.answer_text import says_nothing_found, tidy
from openbook.codec import convert
from openbook.diagnosis.questions import file_content, json_lines, texts
from openbook.diagnosis.scoring import holds_answer, token_f1
from openbook.errors import ConfigError
from openbook.inference import FrozenModel
from openbook.prompts import closed_book_prompt, reading_prompt
from openbook.records import Decoding

DECODING = Decoding(max_tokens=64, stop=("\n",))


@dataclass(frozen=True, slots=True)
class EvalQuestion:
    """`passage` empty: to be answered from memory; `answers` empty: the passage does not hold any."""

    question: str
    answers: tuple[str, ...]
    title: str = ""
    passage: str = ""


@dataclass(frozen=True, slots=True)
class EvalOutcome:
    """`f1` and `holds` of an abstention are 1 if there is no answer, else 0."""

    asked: EvalQuestion
    answer: str
    abstained: bool
    f1: float
    holds: float


@dataclass(frozen=True, slots=True)
class _Asked:
    question: str
    answers: tuple[str, ...] | str

    def __post_init__(self) -> None:
        if not self.question.strip() or not all(answer.strip() for answer in texts(self.answers)):
            raise ValueError("a question or an answer is empty")

    def of(self, title: str = "", passage: str = "") -> EvalQuestion:
        return EvalQuestion(self.question, texts(self.answers), title, passage)


@dataclass(frozen=True, slots=True)
class _Passage:
    passage: str
    questions: tuple[_Asked, ...]
    title: str = ""


def load_eval_set(path: Path) -> list[EvalQuestion]:
    """Raises ConfigError with the number of a line that is wrong, StorageError."""
    found: list[EvalQuestion] = []
    for _, where, value in json_lines(file_content(path), path.name):
        if isinstance(value, dict) and "passage" in value:
            passage = convert(value, _Passage, where, ConfigError)
            found += [each.of(passage.title, passage.passage) for each in passage.questions]
        else:
            found.append(convert(value, _Asked, where, ConfigError).of())
    if not found:
        raise ConfigError(f"{path.name} holds no questions.")
    return found


def ask_eval_set(
    model: FrozenModel,
    questions: Sequence[EvalQuestion],
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[EvalOutcome]:
    """Greedy answers, in order. Questions on one passage should follow each other: it is then read once.

    A prompt that does not fit into the model's context is not answered, which is wrong whatever the question.
    """
    room = model.context_tokens - DECODING.max_tokens
    found: list[EvalOutcome] = []
    for asked in questions:
        if asked.passage:
            prompt = reading_prompt(asked.question, [(asked.title, asked.passage)], model.reader)
        else:
            prompt = closed_book_prompt(asked.question)
        if model.count_prompt_tokens(prompt) > room:
            found.append(EvalOutcome(asked, "", abstained=False, f1=0.0, holds=0.0))
        else:
            text = tidy(model.complete(prompt, DECODING).text)
            abstained = not text or says_nothing_found(text, model.reader)
            if abstained or not asked.answers:
                f1 = holds = float(abstained and not asked.answers)
            else:
                f1, holds = token_f1(text, asked.answers), holds_answer(text, asked.answers)
            found.append(EvalOutcome(asked, text, abstained, f1, holds))
        progress(len(found), len(questions))
    return found
