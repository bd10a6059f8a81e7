"""The text of an answer: its clean and its printable form, its excerpt marks, and whether it abstains."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeAlias

from openbook.core.records import ReaderFormat

_SOURCE = r"(?:(?:provided|given|above|numbered) )?(?:passages?|text|context|excerpts?|documents)|(?:provided|given|above) (?:documents?|information)"
_ABSTAINS = re.compile(
    # "The passage does not mention ...": the sources are the subject.
    rf"\b(?:the|this|these|those|your)\s+(?:{_SOURCE})\b[^.!?\n]{{0,40}}?\b(?:do|does|did)(?:\s+not|n['\u2019]t)\s+(?:\w+\s+)?"
    r"(?:say|state|mention|hold|provide|contain|specify|include|give|answer|tell|indicate|explain|describe)\b"
    # "It is not stated in the passages", "There is no information in the text about ...".
    rf"|\b(?:not|no)\b[^.!?\n]{{0,40}}\b(?:in|by|from)\s+(?:the|this|these|those|your)\s+(?:{_SOURCE})\b"
    # The whole answer.
    r"|^\W*(?:i (?:do not|don['\u2019]t) know|unknown|not (?:stated|mentioned|specified|given|available|known))\W*$",
    re.IGNORECASE,
)
_LABEL = re.compile(r"\s*(?:answer|a)\s*:\s*", re.IGNORECASE)
_PART_OF_LABEL = re.compile(r"\s*(?:a|an|ans|answ|answe|answer)?\s*:?\s*", re.IGNORECASE)

# Code, in which "[1]" is an index; or a mark: "[1]", "[1, 3]", after a space or a full stop, or after a word that ends a sentence.
_NUMBERS = r"\[\d{1,2}(?:\s?[,;]\s?\d{1,2})*\]"
_CODE_OR_MARK = re.compile(
    r"(?P<code>```.*?(?:```|\Z)|`[^`\n]*`)"
    rf"|(?:(?<=[\s.,;:!?)\]\"'*\u201d\u2019])|^)[ \t]*(?P<mark>{_NUMBERS})|(?<=\w)(?P<close>{_NUMBERS})(?=[.!?,;:]+(?:\s|\Z)|\s*(?:\n|\Z))",
    re.DOTALL,
)
_JSON_PART = re.compile(
    r'"(?:[^"\\]|\\.)*"\s*:|"(?P<text>(?:[^"\\]|\\.)*)(?:"|\\?\Z)|[{}\[\],:]\s*|\bnull\b', re.DOTALL
)
_UNDECIDED = re.compile(r"\s*+(?:\[[\d,;\s]*+\]?+[.!?,;:]*+)*+[.!?,;:]*+\s*+\Z")


def says_nothing_found(text: str, reader: ReaderFormat | None = None) -> bool:
    """True if an answer in the model's own words says that the passages do not hold the answer."""
    if reader is not None and text == reader.abstention:
        return True
    return _ABSTAINS.search(text) is not None


def printable(text: str) -> str:
    """With a space for each control character, which could steer a terminal, and for each other invisible one."""
    return "".join(c if c.isprintable() or c in "\n\t" else " " for c in text)


Mark: TypeAlias = tuple[int, frozenset[int]]  # its offset in the text without marks, and the excerpt numbers it named


def tidy(text: str) -> str:
    """The answer without the label "Answer:" and excerpt marks."""
    return tidied(text)[0]


def tidied(text: str) -> tuple[str, list[Mark]]:
    """The text as `tidy` returns it, and its marks."""
    text = text[_label_end(text) :].strip()
    kept, marks, at = "", list[Mark](), 0
    for match in _CODE_OR_MARK.finditer(text):
        if match["code"]:
            continue
        kept = (kept + text[at : match.start()]).rstrip(" \t")
        marks.append((len(kept), frozenset(map(int, re.findall(r"\d+", match[0])))))
        at = match.end()
    kept += text[at:]
    plain, lead = kept.strip(), len(kept) - len(kept.lstrip())
    return plain, [(min(max(place - lead, 0), len(plain)), numbers) for place, numbers in marks]


def json_prose(text: str) -> str:
    """What JSON states, for citing: its texts, numbers and booleans, each on a line and at its place in `text`."""
    return _JSON_PART.sub(
        lambda part: (part["text"] and f" {part['text']} "[: len(part[0])]) or "\n" * len(part[0]), text
    )


def json_says_nothing(text: str) -> bool:
    """True if all values in JSON are null, empty, or say that the passages do not hold the answer."""
    found, rest = list[object](), list[object]()
    with suppress(ValueError, RecursionError):  # cut off
        rest.append(json.loads(text))
    while rest:
        each = rest.pop()
        if isinstance(each, dict | list):
            rest += each.values() if isinstance(each, dict) else each
        else:
            found.append(each)
    return bool(found) and all(
        each in (None, "") or (isinstance(each, str) and says_nothing_found(each)) for each in found
    )


def _label_end(text: str) -> int:
    label = _LABEL.match(text)
    return label.end() if label else 0


class TextPreview:
    """Shows an answer while the model writes it.

    Law: the shown text is a prefix of the answer, unless the model abstains in its own words, which is only known at
    the end. `held`: sentences never shown, because another text replaces them.
    """

    def __init__(self, show: Callable[[str], None], held: Sequence[str]) -> None:
        self._show, self._held = show, tuple(held)
        self._raw = self._shown = ""

    def feed(self, piece: str) -> None:
        self._raw += piece
        decided = self._raw[: self._end()]
        text = tidy(decided)
        if _PART_OF_LABEL.fullmatch(self._raw) or any(each.startswith(text) for each in self._held):
            return
        if new := text[len(self._shown) :]:
            self._shown = text
            self._show(new)

    def _end(self) -> int:
        """The end of the decided text: what follows may still become a mark, code, or trailing white space."""
        line, end = self._raw.rfind("\n") + 1, len(self._raw)
        if self._raw.count("`", line) % 2:
            end = self._raw.rindex("`")
        match = _UNDECIDED.search(self._raw, _label_end(self._raw), end)
        return match.start() if match else end
