"""Records of a diagnosis as a text for a person to judge, and what the person wrote into it.

The text does not tell the verdict of the program, so that it cannot sway the person.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from openbook.core.errors import ConfigError, did_you_mean
from openbook.diagnosis.scoring import share_of
from openbook.diagnosis.verdicts import VERDICTS

HEAD = """# Which verdict is right?

Write one word after `right verdict:` of each record, by what you think is right, whatever the program may think:
a verdict in docs/formats/diagnosis.md and openbook/diagnosis/verdicts.py. Records left empty are not counted.

"""
HEAD += ", ".join(VERDICTS) + "\n"
_RECORD = re.compile(r"^## (\S+)$\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_VERDICT = re.compile(r"^right verdict:[ \t]*(\S*)", re.MULTILINE)
_WIDTH = 110


def written(records: Mapping[str, Mapping[str, Any]]) -> str:
    """The text for these records, by their ids, which hold no space. It goes below `HEAD`."""
    return "".join(f"\n## {name}\n" + "\n".join(_lines(record)) + "\n" for name, record in records.items())


def names(text: str) -> list[str]:
    """The ids of the records in a text."""
    return [match[1] for match in _RECORD.finditer(text)]


def read(text: str) -> dict[str, str]:
    """The verdict for each id whose verdict was filled in. Raises ConfigError for a word that is no verdict."""
    found = {}
    for match in _RECORD.finditer(text):
        name, filled = match[1], _VERDICT.search(match[2])
        word = filled[1] if filled else ""
        if word and word not in VERDICTS:
            raise ConfigError(f"{name}: {word!r} is no verdict.{did_you_mean(word, VERDICTS)}")
        if word:
            found[name] = word
    return found


def agreement(pairs: Sequence[tuple[str, str]]) -> str:
    """How far the two words of each pair agree, with Cohen's kappa (1960): 1 for full agreement, 0 for that of chance."""
    same = share_of([a == b for a, b in pairs])
    one, other = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    by_chance = sum(one[word] * other[word] for word in one) / (len(pairs) ** 2 or 1)
    if same.share is None or by_chance == 1.0:  # no data, or both always said the same word
        return f"{same}, no kappa"
    return f"{same}, kappa {(same.share - by_chance) / (1.0 - by_chance):.2f}"


def _lines(record: Mapping[str, Any]) -> Iterator[str]:
    question, asked = record["question"], record["asked"][0]
    yield f"question: {question['question']}"
    yield f"accepted: {' | '.join(question['answers']) or 'none: the documents do not say'}"
    yield f"alone: {_said(asked['closed'])}"
    yield f"with documents: {_said(asked['opened'])}"
    yield f"with the right passage: {_said(asked['oracle']) if asked['oracle'] else 'none is known'}"
    if record["by_chance"]:
        yield "an accepted answer stands in the answers to many other questions as well"
    for rank, passage in enumerate(_read(record, asked["found"]), 1):
        yield from _passage(f"read, rank {rank}", passage)
    for passage in _read(record, record["holding"]):
        yield from _passage("right passage", passage)
    yield "right verdict:"


def _said(said: Mapping[str, Any]) -> str:
    if said["failure"]:
        return f"(failed: {said['failure']})"
    return f"{said['text']}{' (abstains)' if said['abstained'] else ''}"


def _read(record: Mapping[str, Any], ids: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    passages = {passage["id"]: passage for passage in record["passages"]}
    return (passages[each] for each in ids if each in passages)


def _passage(role: str, passage: Mapping[str, Any]) -> Iterator[str]:
    yield f"- {role}, {passage['document'].rpartition('/')[2]}:"
    yield textwrap.fill(passage["text"], _WIDTH, initial_indent="    ", subsequent_indent="    ")
