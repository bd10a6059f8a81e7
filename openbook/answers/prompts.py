"""The prompts that ask a model to answer, from passages or from memory.

Training uses these functions, so that a trained reader is asked exactly as in training.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import replace

from openbook.core.errors import QuestionError
from openbook.core.records import Passage, Prompt, ReaderFormat, passage_block, question_block

MAX_QUESTION_CHARS = 12_000  # about 3,000 tokens: with an answer, they fit into 4,096
ABSTENTION = "The passages do not say."
OPEN_BOOK_SYSTEM = (
    "You answer questions about a user's documents from numbered excerpts, which were found by a search. Use only the "
    "excerpts. Answer directly and completely, in one to three sentences, or as a list where the question asks for steps or "
    "several items. Keep exact names, numbers and code."
)
# For large models only. Small ones copy excerpts when told to name them, and decline questions they could answer
# (research/log.md).
CITING = f" End each sentence with the number of its excerpt, like [1]. If no excerpt holds the answer, say only: {ABSTENTION}"
CLOSED_BOOK_SYSTEM = "Answer the question directly and completely, in one to three sentences."

# A line of prose broken only for width: it is long, and the next line continues in lower case. A model takes the end of
# such a line for the end of the text. Table rows and code lines are shorter, hold `|` or begin otherwise.
_SOFT_BREAK = re.compile(r"(?<=\n)([^\n|]{40,}[\w,;)`'])[ \t]*\n[ \t]*(?=[a-z(`'])")
# Of five wordings, the best and shortest answers of a model of half a billion parameters (research/log.md).
_SENTENCES = "Answer in one to three sentences, from the excerpts above: "
# Asked for the answer first, small models say yes.
_YES_OR_NO = "Say in one or two sentences what the excerpts above state about this question, and then whether the answer is yes or no: "
FRAMING = f"{OPEN_BOOK_SYSTEM} {_SENTENCES} {_YES_OR_NO}"
_ASKS_YES_OR_NO = re.compile(
    r"(?:(?:so|and|but|then)\W+)?(?:is|are|am|was|were|can|could|do|does|did|should|shall|will|would|may|must|has|have|had)"
    r"(?:n['\u2019]?t)?\b(?!.*\bor\b)",
    re.IGNORECASE | re.DOTALL,
)


def checked_question(question: str) -> str:
    """Raises QuestionError if the question is empty or too long."""
    if len(question) > MAX_QUESTION_CHARS:
        raise QuestionError(
            f"The question has {len(question):,} characters; at most {MAX_QUESTION_CHARS:,} are allowed. Long texts belong "
            "in the knowledge base."
        )
    question = without_noise(question)
    if not re.search(r"\w", question):
        raise QuestionError("The question is empty or has no word in it.")
    return question


def without_noise(text: str) -> str:
    """Without lone surrogates (undecodable bytes of a command line), NULs and surrounding white space."""
    return text.encode("utf-8", "replace").decode().replace("\0", " ").strip()


def with_instruction(question: str, instruction: str, schema: str = "") -> str:
    """Both follow the passages, so that kept states serve any instruction. `schema`: see `Decoding`."""
    question += f"\n\nHow to answer: {instruction.strip()}" if instruction.strip() else ""
    if not schema:
        return question
    names = ", ".join(map(repr, json.loads(schema).get("properties", {})))
    return f"{question}\n\nAnswer in JSON{f', with the properties {names}' if names else ''}."


def open_book_prompt(
    question: str,
    passages: Sequence[Passage],
    reader: ReaderFormat | None = None,
    *,
    citing: bool = False,
    side_by_side: bool = False,
) -> Prompt:
    texts = [_SOFT_BREAK.sub(r"\1 ", f"\n{p.text.strip()}")[1:] for p in passages]
    shown = [(p.heading_path, f"{p.header}\n{t}" if p.header else t) for p, t in zip(passages, texts, strict=True)]
    prompt = reading_prompt(question, shown, reader, citing=citing, side_by_side=side_by_side)
    labels = sorted({label for p in passages for label in p.labels})
    return replace(prompt, labels=tuple(labels))


def reading_prompt(
    question: str,
    passages: Sequence[tuple[str, str]],
    reader: ReaderFormat | None = None,
    *,
    citing: bool = False,
    side_by_side: bool = False,
) -> Prompt:
    """The prompt for passages, each as (place, text). A trained reader is asked as it was trained. `citing`: ask for
    marks.

    `side_by_side`: each passage is read as if it were the only one. So each is number 1, and its states serve with any
    other passages.
    """
    if reader:
        blocks = tuple(passage_block(place, text) for place, text in passages)
        return Prompt(reader.instruction, blocks, question_block(question), side_by_side=side_by_side)
    numbers = itertools.repeat(1) if side_by_side else itertools.count(1)
    blocks = tuple(excerpt_block(number, place, text) for number, (place, text) in zip(numbers, passages, strict=False))
    system = OPEN_BOOK_SYSTEM + (CITING if citing else "")
    return Prompt(system, blocks, question_about_excerpts(question), side_by_side=side_by_side)


def closed_book_prompt(question: str) -> Prompt:
    return Prompt(CLOSED_BOOK_SYSTEM, (), question)


def excerpt_block(number: int, place: str, text: str) -> str:
    """A numbered excerpt, for models without reader training."""
    return f"[{number}] {place}".rstrip() + f"\n{text.strip()}\n\n"


def question_about_excerpts(question: str) -> str:
    """The question with the shape of its answer, to put after excerpts."""
    shape = _YES_OR_NO if _ASKS_YES_OR_NO.match(question.strip()) else _SENTENCES
    return f"{shape}{question.strip()}"


def question_of_block(block: str) -> str:
    """The question in such a block, for the engines in `openbook.testing`."""
    return block.removeprefix(_SENTENCES).removeprefix(_YES_OR_NO).removeprefix("Question: ")
