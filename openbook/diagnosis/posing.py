"""Questions that a model poses for given answers: it reads a passage and is told which span to ask for.

Only a question that the model then answers with that span is kept (round-trip consistency, Alberti et al. 2019).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from openbook.answer import open_book_prompt
from openbook.answer_text import tidy
from openbook.diagnosis.clauses import Plain
from openbook.diagnosis.scoring import is_right
from openbook.inference import FrozenModel
from openbook.inference.prompting import passage_block
from openbook.records import Decoding, Passage, Prompt

INSTRUCTION = (
    "Write one question in English that the passage answers with exactly the given answer. Name what the question is about, "
    "so that it can be understood without the passage. Do not use the words of the answer. Write the question and nothing else."
)
DECODING = Decoding(max_tokens=48, stop=("\n",))

_SPAN = re.compile(
    r"(?<![\w.,:/-])(?:[€$£]\d[\d.,]*\d|\d{1,2} (?:January|February|March|April|May|June|July|August|September|October|November|"
    r"December)(?: \d{4})?|\d{1,2}:\d\d|\d+(?:[.,]\d+)*(?: ?(?:%|°C|[a-z]{3,12}))?)(?![\w/-])"
    r"|(?<=[a-z,] )(?:[A-ZÀ-ÖØ-Þ][\w’'-]+)(?: [A-ZÀ-ÖØ-Þ][\w’'-]+)*"
)


def answer_spans(sentence: Plain) -> Iterator[tuple[int, int]]:
    """What a question can ask for, as spans of the plain sentence: numbers with their unit, dates, times, names."""
    for match in _SPAN.finditer(sentence.text):
        yield match.span()


def pose(model: FrozenModel, passage: Passage, answer: str) -> str:
    """The model's question; empty if it wrote none. Greedy. Raises ContextOverflow, EngineError."""
    prompt = Prompt(INSTRUCTION, (passage_block(passage.title, passage.text),), f"Answer: {answer}")
    text = tidy(re.sub(r"^\s*question\s*:\s*", "", model.complete(prompt, DECODING).text, flags=re.IGNORECASE))
    question, mark, _ = text.partition("?")
    words = question.strip("\"'“” ")
    return f"{words[:1].upper()}{words[1:]}?" if mark and words else ""


def answers_so(model: FrozenModel, passage: Passage, question: str, answer: str) -> bool:
    """Whether the model, reading the passage, gives that answer. Raises ContextOverflow, EngineError."""
    prompt = open_book_prompt(question, [passage], model.reader)
    return bool(is_right(tidy(model.complete(prompt, DECODING).text), [answer]))
