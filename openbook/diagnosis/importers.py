"""Questions from files: OpenBook's own, SQuAD (1.1 and 2.0), and records as RAGAS has them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from openbook.codec import parse_json
from openbook.diagnosis.gold_passages import SHORTEST_QUOTE_CHARS, places_of, sentence_at
from openbook.diagnosis.questions import (
    Gold,
    Question,
    checked,
    file_content,
    json_lines,
    question_of,
    repeated_id,
    texts,
)
from openbook.diagnosis.scoring import text_holds_any
from openbook.errors import ConfigError

_RAGAS_KEYS = frozenset({"user_input", "reference", "ground_truth", "ground_truths"})
_Record = TypeVar("_Record")


@dataclass(frozen=True, slots=True)
class _SquadAnswer:
    text: str
    answer_start: int


@dataclass(frozen=True, slots=True)
class _SquadAnswers:
    """As the hub has them."""

    text: tuple[str, ...]
    answer_start: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Squad:
    id: str
    question: str
    context: str
    answers: tuple[_SquadAnswer, ...] | _SquadAnswers
    title: str | None = None
    is_impossible: bool = False


@dataclass(frozen=True, slots=True)
class _Ragas:
    id: str | int | None = None
    user_input: str | None = None
    question: str | None = None
    reference: str | None = None
    ground_truth: str | None = None
    ground_truths: tuple[str, ...] | str | None = None
    reference_contexts: tuple[str, ...] | str | None = None


def load_questions(path: Path) -> list[Question]:
    """The questions of a file, in order. Raises ConfigError that names the line, StorageError."""
    found: dict[str, Question] = {}
    for number, where, value in _records(path):
        keys = value.keys() if isinstance(value, Mapping) else frozenset()
        if "context" in keys:
            question = _squad(value, where)
        elif _RAGAS_KEYS & keys:
            question = _ragas(value, where, f"line-{number}")
        else:
            question = question_of(value, where, f"line-{number}")
        if question.id in found:
            raise repeated_id(where, question.id)
        found[question.id] = question
    if not found:
        raise ConfigError(f"{path.name} holds no questions.")
    return list(found.values())


def _records(path: Path) -> Iterator[tuple[int, str, Any]]:
    """(number, where, JSON value) of each line, or of each record in one JSON document."""
    content = file_content(path)
    if not _is_one_document(content):
        yield from json_lines(content, path.name)
        return
    document = parse_json(content, path.name, ConfigError)
    if isinstance(document, Mapping) and "data" in document:
        document = _squad_records(document["data"], path.name)
    if not isinstance(document, list):
        raise ConfigError(f"{path.name} contains neither a list of questions nor SQuAD data.")
    for number, value in enumerate(document, 1):
        yield number, f"{path.name} record {number}", value


def _is_one_document(content: bytes) -> bool:
    """Whether the file is no JSON Lines: its first line is no JSON object, or one with `data` in it."""
    try:
        first = json.loads(content.lstrip().partition(b"\n")[0] or "{}")
    except (ValueError, RecursionError):
        return True
    return not isinstance(first, Mapping) or "data" in first


def _squad_records(articles: Any, name: str) -> list[dict[str, Any]]:
    """The questions of SQuAD's articles, each with its paragraph."""
    try:
        return [
            {**question, "context": paragraph["context"], "title": article.get("title")}
            for article in articles
            for paragraph in article["paragraphs"]
            for question in paragraph["qas"]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{name} is not a SQuAD file: each article in 'data' has 'paragraphs', and each of these a 'context' and 'qas'."
        ) from error


def _foreign(value: object, kind: type[_Record], where: str) -> _Record:
    """A record of another maker, who may add keys of their own. Raises ConfigError."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where} is not a valid question: {error}.") from error


def _squad(value: object, where: str) -> Question:
    """The answers of a SQuAD question, and the sentence that the first stands in as the quote to look for."""
    found = _foreign(value, _Squad, where)
    if isinstance(found.answers, _SquadAnswers):
        given = list(zip(found.answers.text, found.answers.answer_start, strict=False))
    else:
        given = [(answer.text, answer.answer_start) for answer in found.answers]
    tags = (found.title,) if found.title and found.title.strip() else ()
    if found.is_impossible or not given:
        return checked(Question(found.id, found.question, kind="unanswerable", tags=tags), where)
    answer, start = given[0]
    if not 0 <= start < len(found.context):
        raise ConfigError(f"{where} is not a valid question: 'answer_start' {start} is not in the context.")
    quote = sentence_at(found.context, start, len(answer))
    gold = Gold(quote=quote) if len(quote) >= SHORTEST_QUOTE_CHARS and answer.strip() in quote else None
    answers = texts(tuple(text for text, _ in given))
    return checked(Question(found.id, found.question, answers, gold=gold, tags=tags), where)


def _ragas(value: object, where: str, fallback_id: str) -> Question:
    """In the contexts that the reference rests on, the sentence with the words of an answer is the quote to look for.

    Without one it is the whole of a context that holds an answer in other words, or of the first.
    """
    found = _foreign(value, _Ragas, where)
    answers = texts((*texts(found.reference), *texts(found.ground_truth), *texts(found.ground_truths)))
    if not answers:
        raise ConfigError(f"{where} is not a valid question: it has no reference answer (reference, ground_truth).")
    contexts = texts(found.reference_contexts)
    stands = [(c, span) for c in contexts for answer in answers for span in places_of(c, answer)]
    if stands:
        context, (start, end) = stands[0]
        quote = sentence_at(context, start, end - start)
    else:
        holding = [context for context in contexts if text_holds_any(context, answers)]
        quote = next(iter([*holding, *contexts]), "")
    gold = Gold(quote=quote) if quote.strip() else None
    id_ = fallback_id if found.id is None else str(found.id)
    return checked(Question(id_, found.user_input or found.question or "", answers, gold=gold), where)
