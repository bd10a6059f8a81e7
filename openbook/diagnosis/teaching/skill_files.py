"""A skill of the user's own: a file of passages with questions, as `openbook train` reads it for a reader.

    {"title": "Ticket 17", "passage": "My card has not come.", "questions": [{"question": "...", "answers": ["..."]}]}

So the file that shows whether training helps is the one to train with. A question without answers is left out: what
would be right is not said; so is a passage that is too long to be learned in one piece. No passage is both learned and
measured, in whatever order they stand and whatever their titles are.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from openbook.diagnosis.questions import asked, decoded, lines_in, parsed, text_of, texts
from openbook.diagnosis.scoring import normalised
from openbook.diagnosis.teaching.tasks import SKILLS, Example, Examples, Skill
from openbook.errors import ConfigError, StorageError, did_you_mean

MOST_PASSAGE_CHARS = 4000
MOST_GUIDE_CHARS = 8000
MOST_EXAMPLES = 100_000
_KEYS = ("title", "passage", "questions")
_QUESTION_KEYS = ("question", "answers")


@dataclass(frozen=True, slots=True)
class SkillFile:
    """`left_out`: how many questions could not be used."""

    skill: Skill
    examples: int
    left_out: int


def load_skill(path: Path, guide: Path | None = None) -> SkillFile:
    """The skill is named after the file. Raises ConfigError that names the line, StorageError."""
    by_passage: dict[str, list[Example]] = {}
    count = left_out = 0
    for example in _examples(path):
        same = by_passage.setdefault(_words(example), []) if example else []
        if example is None or example in same:
            left_out += 1
            continue
        same.append(example)
        count += 1
        if count > MOST_EXAMPLES:
            raise ConfigError(f"{path.name} holds more than {MOST_EXAMPLES:,} questions. Give a part of them.")
    if len(by_passage) < 2:
        raise ConfigError(
            f"{path.name} holds {len(by_passage)} passages with answered questions of at most {MOST_PASSAGE_CHARS:,} "
            "characters; at least 2 are needed, one to learn from and one to measure with."
        )
    skill = Skill(_name(path), _guide(guide) if guide else "", partial(_split, list(by_passage.values()), path.name))
    return SkillFile(skill, count, left_out)


def _name(path: Path) -> str:
    """It becomes part of the names of files and models."""
    plain = re.sub(r"[^a-z0-9]+", "-", path.name.removesuffix(".gz").rpartition(".")[0].lower()).strip("-")[:40]
    return f"own-{plain}" if plain in SKILLS or not plain else plain


def _words(example: Example) -> str:
    """What the passage says, without its title."""
    return normalised(example.text.removeprefix(example.title)) or example.text


def _guide(path: Path) -> str:
    """Raises ConfigError, StorageError."""
    try:
        with path.open("rb") as stream:
            content = stream.read(4 * MOST_GUIDE_CHARS + 1)
    except OSError as error:
        raise StorageError(f"Cannot read the guide {path}: {error.strerror or error}.") from error
    if (
        len(content) > 4 * MOST_GUIDE_CHARS
        or len(text := decoded(content, path.name, first=True).strip()) > MOST_GUIDE_CHARS
    ):
        raise ConfigError(
            f"The guide {path.name} has more than {MOST_GUIDE_CHARS:,} characters; a model reads it with each passage."
        )
    if not text:
        raise ConfigError(f"The guide {path.name} is empty. Write down how the task is done, or leave out --guide.")
    return text


def _split(groups: Sequence[Sequence[Example]], file: str, learned: int, measured: int, seed: int) -> Examples:
    """By passages, in an order by chance; those to measure come first, so that more to learn does not change them."""
    order = random.Random(seed).sample(groups, len(groups))  # noqa: S311  an order, not a secret
    to_measure: list[Example] = []
    while order and len(to_measure) < measured:
        to_measure += order.pop(0)
    to_learn = [example for group in order for example in group][:learned]
    if not to_learn:
        raise ConfigError(
            f"{file} holds {sum(map(len, groups))} examples; {measured} to measure with leave none to learn from. "
            "Give fewer with --skill-tests, or more examples."
        )
    return to_learn, to_measure[:measured]


# --- lines ------------------------------------------------------------------------------------------------------------


def _examples(path: Path) -> Iterator[Example | None]:
    """Nothing for a question that cannot be used."""
    for number, line in lines_in(path):
        where = f"{path.name} line {number}"
        try:
            yield from _of_line(parsed(line, where))
        except ValueError as error:
            raise ConfigError(f"{where}: {error}.") from error


def _of_line(value: Any) -> Iterator[Example | None]:
    _check_keys(value, _KEYS)
    title, passage = text_of(value.get("title", ""), empty=True).strip(), text_of(value.get("passage")).strip()
    # The title is how a question names its passage, so it is read and found with it.
    text = passage if not title or passage.startswith(title) else f"{title}\n{passage}"
    questions = value.get("questions")
    if not isinstance(questions, list) or not questions:
        raise ValueError("'questions' must be a list of at least one question")
    for each in questions:
        _check_keys(each, _QUESTION_KEYS)
        question, answers = asked(each.get("question")), texts(each.get("answers"), "answers")
        yield Example(title, text, question, answers) if answers and len(text) <= MOST_PASSAGE_CHARS else None


def _check_keys(value: object, keys: Sequence[str]) -> None:
    if not isinstance(value, Mapping):
        raise ValueError("it is no JSON object")
    for key in value:
        if key not in keys:
            raise ValueError(f"unknown key {str(key)[:80]!r}.{did_you_mean(str(key), keys)}")
