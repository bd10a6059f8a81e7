"""Questions from files of other makers: SQuAD (1.1 and 2.0), records as RAGAS has them, and folders as BEIR has them.

OpenBook's own files and RAGAS records in JSON Lines are read a line at a time; what is one JSON document is read whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from openbook.diagnosis.gold_quotes import SHORTEST_CHARS, pattern_of, sentence_at
from openbook.diagnosis.importing_beir import beir_questions, is_beir
from openbook.diagnosis.questions import (
    MAX_LINE_BYTES,
    Gold,
    Question,
    asked,
    decoded,
    line_of,
    lines_in,
    opened,
    parsed,
    question_of,
    shown,
    text_of,
    texts,
)
from openbook.diagnosis.verdicts import holds_any
from openbook.errors import ConfigError, did_you_mean

FORMATS = ("openbook", "squad", "ragas", "beir")
MAX_DOCUMENT_BYTES = 1 << 29  # of a file that is one JSON document
_RAGAS = frozenset({"user_input", "reference", "ground_truth", "ground_truths"})


def questions_in(path: Path, file_format: str = "", split: str = "") -> Iterator[tuple[str, Question]]:
    """(where it stands, the question), in order. `split`: of a BEIR folder. Raises ConfigError, StorageError."""
    if file_format and file_format not in FORMATS:
        raise ConfigError(
            f"The format must be one of {', '.join(FORMATS)}, not {file_format!r}.{did_you_mean(file_format, FORMATS)}"
        )
    if file_format == "beir" or (not file_format and is_beir(path)):
        yield from beir_questions(path, split)
        return
    for number, where, value in _records(path):
        kind = file_format or _format_of(value)
        try:
            yield where, _question(kind, value, f"line-{number}")
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{where} is no valid question: {_said(error)}") from error


def to_import(path: Path, file_format: str = "", split: str = "") -> list[dict[str, Any]]:
    """The questions as lines of a file of our own, which `load_questions` can read. Raises ConfigError, StorageError."""
    found: dict[str, dict[str, Any]] = {}
    for where, question in questions_in(path, file_format, split):
        value = asdict(question)
        try:
            question_of(value)
            if question.id in found:
                raise ValueError(f"the id {question.id!r} stands there a second time. Give each question its own.")
            if (size := len(line_of(value))) > MAX_LINE_BYTES:
                raise ValueError(f"as a line it has {size:,} bytes, and {MAX_LINE_BYTES:,} are read. Shorten it.")
        except ValueError as error:
            raise ConfigError(f"{where} is no valid question: {_said(error)}") from error
        found[question.id] = value
    if not found:
        raise ConfigError(f"{path.name} holds no questions.")
    return list(found.values())


def _said(error: Exception) -> str:
    sentence = f"{error} is missing" if isinstance(error, KeyError) else str(error)
    return sentence if sentence.endswith((".", "?", "!")) else f"{sentence}."


def _question(kind: str, value: Any, fallback_id: str) -> Question:
    if kind == "squad":
        return _squad(value)
    if kind == "ragas":
        return _ragas(value, fallback_id)
    return question_of(value, fallback_id)


def _format_of(value: object) -> str:
    if isinstance(value, Mapping):
        if "context" in value:
            return "squad"
        if _RAGAS & value.keys():
            return "ragas"
    return "openbook"


def _records(path: Path) -> Iterator[tuple[int, str, Any]]:
    """(number, where, JSON value) of each line, or of each record in one JSON document."""
    if _is_one_document(path):
        with opened(path) as stream:
            content = stream.read(MAX_DOCUMENT_BYTES + 1)
        if len(content) > MAX_DOCUMENT_BYTES:
            raise ConfigError(f"{path.name} has more than {MAX_DOCUMENT_BYTES:,} bytes. Write it as JSON Lines.")
        document = parsed(decoded(content, path.name, first=True), path.name)
        for number, (where, value) in enumerate(_of_document(document, path.name), 1):
            yield number, where, value
        return
    for number, text in lines_in(path):
        where = f"{path.name} line {number}"
        yield number, where, parsed(text, where)


def _is_one_document(path: Path) -> bool:
    """Whether the file is a list, or an object over several lines or with `data` in it; else it is JSON Lines."""
    with opened(path) as stream:
        head = stream.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
    if head[:1] == b"[":
        return True
    first, line_feed, _ = head.partition(b"\n")
    keys = first.replace(b" ", b"")
    squad = b'"data":[{"' in keys and keys.startswith((b'{"version":', b'{"data":'))
    return squad or (bool(line_feed) and first.strip() == b"{")


def _of_document(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and "data" in value:
        yield from _of_articles(value["data"], name)
        return
    if not isinstance(value, list):
        raise ConfigError(f"{name} holds no list of questions, and no SQuAD data.")
    for number, record in enumerate(value, 1):
        yield f"{name} record {number}", record


def _of_articles(articles: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Each question of SQuAD's articles, with its paragraph."""
    number = 0
    try:
        for article in articles:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    number += 1
                    yield (
                        f"{name} question {number}",
                        {**question, "context": paragraph["context"], "title": article.get("title", "")},
                    )
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{name} is no SQuAD file after question {number}: {error!r}.") from error


def _squad(value: Any) -> Question:
    """The answers of a SQuAD question, and the sentence that the first stands in as the quote to look for."""
    if not isinstance(value, Mapping):
        raise ValueError("it is no JSON object")
    context, given = text_of(value["context"]), value["answers"]
    if isinstance(given, Mapping):  # as the hub has it: {"text": [...], "answer_start": [...]}
        given = [{"text": t, "answer_start": s} for t, s in zip(given["text"], given["answer_start"], strict=True)]
    answers = texts([each["text"] for each in given], "answers")
    impossible = bool(value.get("is_impossible")) or not answers
    title = value.get("title")
    return Question(
        id=text_of(value["id"]),
        question=asked(value["question"]),
        answers=() if impossible else answers,
        kind="unanswerable" if impossible else "answerable",
        gold=None if impossible else _told(context, given[0]["answer_start"], answers[0]),
        tags=(title,) if isinstance(title, str) and title.strip() else (),
    )


def _told(context: str, place: Any, answer: str) -> Gold | None:
    """The sentence around a place in the context, if it holds the answer. Raises ValueError when there is no such place."""
    if type(place) is not int or not 0 <= place < len(context):
        raise ValueError(f"'answer_start' {shown(place)} is no place in the context")
    quote = sentence_at(context, place, len(answer))
    return Gold("", quote=quote) if len(quote) >= SHORTEST_CHARS and answer.strip() in quote else None


def _ragas(value: Any, fallback_id: str) -> Question:
    if not isinstance(value, Mapping):
        raise ValueError("it is no JSON object")
    wording = value.get("user_input", value.get("question"))
    found: tuple[str, ...] = ()
    for key in ("reference", "ground_truth", "ground_truths"):
        found += texts(value.get(key), key)
    if not found:
        raise ValueError("it has no reference answer (reference, ground_truth)")
    identity = value.get("id")
    answers = tuple(dict.fromkeys(found))
    return Question(
        id=text_of(identity) if isinstance(identity, str) else fallback_id if identity is None else str(identity),
        question=asked(wording),
        answers=answers,
        gold=_reference(texts(value.get("reference_contexts"), "reference_contexts"), answers),
    )


def _reference(contexts: tuple[str, ...], answers: tuple[str, ...]) -> Gold | None:
    """In the contexts that the reference rests on, the sentence with the words of an answer in it.

    Without one the whole of a context that holds an answer in other words, or of the first.
    """
    for context in contexts:
        for words in filter(None, map(pattern_of, answers)):
            if found := words.search(context):
                return Gold("", quote=sentence_at(context, found.start(), len(found[0])))
    holding = (context for context in contexts if holds_any(context, answers))
    whole = next(holding, contexts[0] if contexts else "")
    return Gold("", quote=whole) if whole else None
