"""Facts from files. Three kinds are told apart by what is in them:

    questions of `openbook diagnose` whose gold names the quote that answers (docs/formats/diagnosis.md)
    fictional_knowledge.json (Chang et al. 2024): passages about invented things with sentences to complete
    questions with whole sentences as answers, as TOFU has them (Maini et al. 2024)

What cannot be taught is left out and counted: a question without its quote, a sentence in which nothing new stands out.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from openbook.diagnosis.questions import lines_in, load_questions, parsed, text_of
from openbook.diagnosis.teaching.facts import Fact
from openbook.errors import ConfigError, StorageError

MAX_FILE_BYTES = 1 << 27
_VALUE = re.compile(
    r"\d[\d,.:/-]*\d|\d+|[A-Z][\w'’-]+(?: (?:of|the|and|de|van|von) (?=[A-Z])| (?=[A-Z])|[A-Z][\w'’-]+)*"
)


@dataclass(frozen=True, slots=True)
class FactFile:
    """`left_out`: how many of those looked through could not be used."""

    facts: list[Fact]
    left_out: int


def load_facts(path: Path, count: int) -> FactFile:
    """The first `count` facts of the file. Raises ConfigError, StorageError."""
    found: list[Fact] = []
    left_out = 0
    for fact in islice(_facts(path), 50 * count):
        if len(found) == count:
            break
        if fact is None:
            left_out += 1
        else:
            found.append(fact)
    if not found:
        raise ConfigError(
            f"{path.name} holds no fact that can be taught. A question needs accepted answers and gold with the quote that "
            "states the fact; see openbook diagnose teach --help."
        )
    return FactFile(found, left_out)


def _facts(path: Path) -> Iterator[Fact | None]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{path.name} has more than {MAX_FILE_BYTES:,} bytes, so it is no file of facts.")
        start = path.read_bytes()[:4096].removeprefix(codecs.BOM_UTF8).lstrip()
    except OSError as error:
        raise StorageError(f"Cannot read the facts in {path}: {error.strerror or error}.") from error
    if start.startswith(b"[") and b"train_context" in start:
        return _fictional(path)
    if start.startswith(b"{") and b'"question"' in start and isinstance(_first_line(start), dict):
        first = _first_line(start)
        if isinstance(first.get("answer"), str):
            return _sentences(path)
    return _questions(path)


def _first_line(start: bytes) -> Any:
    try:
        return json.loads(start.split(b"\n", 1)[0])
    except ValueError:
        return None


def _questions(path: Path) -> Iterator[Fact | None]:
    for question in load_questions(path):
        quote = " ".join(question.gold.quote.split()) if question.gold else ""
        if not quote or not question.answers:
            yield None
            continue
        statement = quote if quote.endswith((".", "!", "?")) else f"{quote}."
        yield Fact(
            question.id,
            (statement,),
            question.wordings,
            question.answers,
            source=question.gold.quote if question.gold else "",
        )


def _fictional(path: Path) -> Iterator[Fact | None]:
    """A sentence of a passage is the statement; the sentence in other words, without its end, is the question."""
    try:
        for number, entry in enumerate(json.loads(path.read_bytes())):
            sides = (entry["mem_input"], entry["mem_target"], entry["gen_input"], entry["gen_target"])
            for i, (begin, end, other, answer) in enumerate(zip(*sides, strict=True)):
                question = f"How does this sentence end? {other.strip()} ..."
                yield Fact(f"{number}-{i}", (f"{begin.strip()} {end.strip()}.",), (question,), (answer.strip(),))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path.name} is no file of fictional knowledge: {error!r}.") from error


def _sentences(path: Path) -> Iterator[Fact | None]:
    for number, line in lines_in(path):
        value = parsed(line, f"{path.name} line {number}")
        try:
            question, answer = text_of(value["question"]), text_of(value["answer"], empty=True)
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path.name} line {number} is no question with an answer: {error!r}.") from error
        named = set(re.findall(r"\w+", question.lower()))
        new = [value for value in _values(answer) if not named & set(re.findall(r"\w+", value.lower()))]
        longest = max(new, key=len, default="")
        yield Fact(f"line-{number}", (answer,), (question,), (longest,)) if longest else None


def _values(answer: str) -> list[str]:
    """Numbers and names. One word with which a sentence begins has its capital for that."""
    found = _VALUE.finditer(answer)
    return [m[0] for m in found if " " in m[0] or not (m.start() == 0 or answer[: m.start()].endswith((". ", '"')))]
