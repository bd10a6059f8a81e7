"""Questions from files: OpenBook's own, SQuAD (1.1 and 2.0), and records as RAGAS has them.

JSON Lines are read a line at a time; a file that is one JSON document is read whole.
"""

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
    MAX_LINE_BYTES,
    Gold,
    Question,
    checked,
    json_lines,
    open_questions,
    question_of,
    texts,
)
from openbook.diagnosis.scoring import holds_any
from openbook.errors import ConfigError, did_you_mean

FORMATS = ("openbook", "squad", "ragas")
MAX_DOCUMENT_BYTES = 1 << 29  # of a file that is one JSON document
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


def questions_in(path: Path, file_format: str = "") -> Iterator[tuple[str, Question]]:
    """(where it stands, the question), in order. Raises ConfigError, StorageError."""
    if file_format and file_format not in FORMATS:
        raise ConfigError(
            f"The format must be one of {', '.join(FORMATS)}, not {file_format!r}.{did_you_mean(file_format, FORMATS)}"
        )
    for number, where, value in _records(path):
        match file_format or _format_of(value):
            case "squad":
                yield where, _squad(value, where)
            case "ragas":
                yield where, _ragas(value, where, f"line-{number}")
            case _:
                yield where, question_of(value, where, f"line-{number}")


def _format_of(value: object) -> str:
    if isinstance(value, Mapping) and "context" in value:
        return "squad"
    return "ragas" if isinstance(value, Mapping) and _RAGAS_KEYS & value.keys() else "openbook"


def _records(path: Path) -> Iterator[tuple[int, str, Any]]:
    """(number, where, JSON value) of each line, or of each record in one JSON document."""
    if not _is_one_document(path):
        yield from json_lines(path)
        return
    with open_questions(path) as stream:
        content = stream.read(MAX_DOCUMENT_BYTES + 1)
    if len(content) > MAX_DOCUMENT_BYTES:
        raise ConfigError(f"{path.name} has more than {MAX_DOCUMENT_BYTES:,} bytes. Write it as JSON Lines.")
    document = parse_json(content.removeprefix(b"\xef\xbb\xbf"), path.name, ConfigError)
    if isinstance(document, Mapping) and "data" in document:
        document = _squad_records(document["data"], path.name)
    if not isinstance(document, list):
        raise ConfigError(f"{path.name} holds no list of questions, and no SQuAD data.")
    for number, value in enumerate(document, 1):
        yield number, f"{path.name} record {number}", value


def _is_one_document(path: Path) -> bool:
    """Whether the file is no JSON Lines: its first line is no JSON object, or one with `data` in it."""
    with open_questions(path) as stream:
        line = next((line for line in iter(lambda: stream.readline(MAX_LINE_BYTES), b"") if line.strip()), b"")
    try:
        first = json.loads(line.removeprefix(b"\xef\xbb\xbf") or "{}")
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
        raise ConfigError(f"{name} is no SQuAD file: {error!r}.") from error


def _foreign(value: object, kind: type[_Record], where: str) -> _Record:
    """A record of another maker, who may add keys of their own. Raises ConfigError."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where} is no valid question: {error}.") from error


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
        raise ConfigError(f"{where} is no valid question: 'answer_start' {start} is not in the context.")
    quote = sentence_at(found.context, start, len(answer))
    gold = Gold(quote=quote) if len(quote) >= SHORTEST_QUOTE_CHARS and answer.strip() in quote else None
    answers = texts(tuple(text for text, _ in given))
    return checked(Question(found.id, found.question, answers, gold=gold, tags=tags), where)


def _ragas(value: object, where: str, fallback_id: str) -> Question:
    found = _foreign(value, _Ragas, where)
    answers = texts((*texts(found.reference), *texts(found.ground_truth), *texts(found.ground_truths)))
    if not answers:
        raise ConfigError(f"{where} is no valid question: it has no reference answer (reference, ground_truth).")
    id_ = fallback_id if found.id is None else str(found.id)
    gold = _quoted_context(texts(found.reference_contexts), answers)
    return checked(Question(id_, found.user_input or found.question or "", answers, gold=gold), where)


def _quoted_context(contexts: tuple[str, ...], answers: tuple[str, ...]) -> Gold | None:
    """In the contexts that the reference rests on, the sentence with the words of an answer in it.

    Without one, the whole of a context that holds an answer in other words, or of the first.
    """
    for context in contexts:
        for answer in answers:
            for start, end in places_of(answer, context):
                return Gold(quote=sentence_at(context, start, end - start))
    holding = (context for context in contexts if holds_any(context, answers))
    whole = next(holding, contexts[0] if contexts else "")
    return Gold(quote=whole) if whole.strip() else None
