"""How a metadata filter is written: its tree, and the parser. What it means stands in `where.py`."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, NoReturn, TypeAlias, cast

from openbook.errors import QuestionError
from openbook.parsers.metadata import MAX_VALUE_CHARS, key_name, rounded

MAX_CHARS = 4000
MAX_DEPTH = 100
MAX_TERMS = 256

Comparison: TypeAlias = Literal["=", "!=", "<", "<=", ">", ">=", "contains", "matches"]


# --- the tree ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Date:
    """An ISO 8601 date of 4, 7, 10, 16 or 19 characters."""

    text: str


Value: TypeAlias = str | int | float | bool | Date


@dataclass(frozen=True, slots=True)
class Term:
    """`key comparison value`; for `contains` and `matches` the value is a text."""

    key: str
    comparison: Comparison
    value: Value


@dataclass(frozen=True, slots=True)
class Exists:
    key: str


@dataclass(frozen=True, slots=True)
class Not:
    part: Node


@dataclass(frozen=True, slots=True)
class Group:
    """True when `all` or `any` of its parts are."""

    kind: Literal["all", "any"]
    parts: tuple[Node, ...]


Node: TypeAlias = Term | Exists | Not | Group


# --- reading ----------------------------------------------------------------------------------------------------------

_EXAMPLE = """for instance: --where "date >= 2025-01-01 and type = 'pdf'\""""
_WORDS = frozenset({"and", "or", "not", "in", "contains", "matches", "exists", "true", "false"})
_COMPARISON = "a comparison (= != < <= > >= in contains matches exists)"
_TOKEN = re.compile(
    r"""(?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")
    |(?P<date>[0-9]{4}-[0-9]{2}(?:-[0-9]{2}(?:T[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?
      (?:Z|[+-][0-9]{2}:[0-9]{2})?)?)?(?![\w.:+-]))
    |(?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![\w.:+-]))
    |(?P<word>[^\W\d]\w*(?:-\w+)*)
    |(?P<sign><=|>=|!=|==?|<|>)
    |(?P<mark>[(),])""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class _Token:
    """`kind` is a group of `_TOKEN`, `keyword`, or `end`; a keyword's text is lower-case."""

    kind: str
    text: str
    start: int
    end: int


class Parser:
    """Recursive descent, one function for each rule of the grammar."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = self._depth = self._terms = 0
        self._tokens: list[_Token] = []
        if len(text) > MAX_CHARS:
            raise QuestionError(f"--where: {len(text):,} characters are too many; the limit is {MAX_CHARS:,}.")
        for at, character in enumerate(text):
            if unicodedata.category(character) in {"Cc", "Cs"} and character not in "\t\r\n":
                self._fail(f"{character!a} cannot stand in a filter", at)
        self._tokens = list(self._scan())

    def filter(self) -> Node:
        tree = self._any()
        if self._next.kind != "end":
            self._expected("'and', 'or' or the end")
        return tree

    def _any(self) -> Node:
        parts = [self._all()]
        while self._take("or"):
            parts.append(self._all())
        return Group("any", tuple(parts)) if len(parts) > 1 else parts[0]

    def _all(self) -> Node:
        parts = [self._not()]
        while self._take("and"):
            parts.append(self._not())
        return Group("all", tuple(parts)) if len(parts) > 1 else parts[0]

    def _not(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail(f"nested more than {MAX_DEPTH} deep", self._next.start)
        if self._take("not"):
            node: Node = Not(self._not())
        elif self._take("("):
            node = self._any()
            if not self._take(")"):
                self._expected("'and', 'or' or ')'")
        else:
            node = self._term()
        self._depth -= 1
        return node

    def _term(self) -> Node:
        self._count_term()
        if self._take("exists"):
            return Exists(self._key())
        key = self._key()
        if self._take("exists"):
            return Exists(key)
        if self._take("in"):
            return self._in(key)
        token = self._next
        if token.kind != "sign" and token.text not in ("contains", "matches"):
            self._expected(_COMPARISON)
        self._at += 1
        comparison = cast(Comparison, token.text)
        return Term(key, comparison, self._value(comparison))

    def _in(self, key: str) -> Node:
        if not self._take("("):
            self._expected("'('")
        found: list[Node] = [Term(key, "=", self._value("="))]
        while self._take(","):
            self._count_term()
            found.append(Term(key, "=", self._value("=")))
        if not self._take(")"):
            self._expected("',' or ')'")
        return Group("any", tuple(found))

    def _key(self) -> str:
        token = self._next
        key = key_name(token.text) if token.kind == "word" else ""
        if not key:
            self._expected("a key")
        self._at += 1
        return key

    def _value(self, comparison: Comparison) -> Value:
        token = self._next
        if token.kind == "word":
            self._expected(f"a value (a text needs quotes: '{token.text}')")
        if comparison in ("contains", "matches") and token.kind != "text":
            self._expected("a text in quotes")
        if token.text in ("true", "false") and comparison not in ("=", "!="):
            self._fail("true and false have no order; use = or !=", token.start)
        if token.kind not in ("text", "number", "date") and token.text not in ("true", "false"):
            self._expected("a value")
        value = self._literal(token)
        if value == "" and comparison in ("contains", "matches"):
            self._expected("a text that is not empty")
        self._at += 1
        return value

    def _literal(self, token: _Token) -> Value:
        if token.kind == "text":
            quote = token.text[0]
            text = unicodedata.normalize("NFC", token.text[1:-1].replace(quote * 2, quote))
            if len(text) > MAX_VALUE_CHARS:
                self._fail(f"a text of {len(text):,} characters; no value is over {MAX_VALUE_CHARS:,}", token.start)
            return text
        if token.kind == "number":
            return self._number(token)
        if token.kind == "date":
            return self._date(token)
        return token.text == "true"

    def _number(self, token: _Token) -> int | float:
        if re.fullmatch(r"[+-]?[0-9]{1,18}", token.text):
            return int(token.text)
        number = float(token.text)
        if not math.isfinite(number):
            self._fail("a number that is too large", token.start)
        return rounded(number)

    def _date(self, token: _Token) -> Date:
        text = token.text
        try:
            moment = datetime.fromisoformat(text + "-01" if len(text) == 7 else text)
            if moment.tzinfo is not None:
                moment = moment.astimezone(UTC)
        except (ValueError, OverflowError):
            self._fail(f"{text!r} is not in the calendar", token.start)
        chars = len(text) if len(text) <= 10 else 19 if text[16:17] == ":" else 16
        return Date(moment.isoformat()[:chars])

    # --- tokens and complaints

    def _scan(self) -> Iterator[_Token]:
        at = 0
        while at < len(self._text):
            if self._text[at].isspace():
                at += 1
                continue
            found = _TOKEN.match(self._text, at)
            if found is None:
                self._unreadable(at)
            kind, word = str(found.lastgroup), found[0]
            if kind == "word" and word.lower() in _WORDS:
                kind, word = "keyword", word.lower()
            word = "=" if word == "==" else word  # as programmers write it
            yield _Token(kind, word, at, found.end())
            at = found.end()
        yield _Token("end", "", len(self._text.rstrip()), len(self._text))

    def _unreadable(self, at: int) -> NoReturn:
        character = self._text[at]
        if character in "'\"":
            self._fail(f"the quote {character} is not closed", at)
        if character in "0123456789+-.":
            self._fail(f"{self._text[at:].split()[0][:40]!r} is neither a number nor a date like 2025-01-31", at)
        self._fail(f"{character!r} cannot stand there; a text needs quotes", at)

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self, text: str) -> bool:
        token = self._next
        if token.kind not in ("keyword", "mark") or token.text != text:
            return False
        self._at += 1
        return True

    def _count_term(self) -> None:
        self._terms += 1
        if self._terms > MAX_TERMS:
            self._fail(f"more than {MAX_TERMS} terms", self._next.start)

    def _expected(self, what: str) -> NoReturn:
        before = (
            self._text[self._tokens[max(self._at - 3, 0)].start : self._tokens[self._at - 1].end] if self._at else ""
        )
        self._fail(f"expected {what}" + (f" after {_shown(before)!r}" if before else ""), self._next.start)

    def _fail(self, what: str, at: int) -> NoReturn:
        shown = self._text if len(self._text) <= 60 else f"...{self._text[max(at - 30, 0) : at + 30]}..."
        raise QuestionError(f"--where: {what} at character {at + 1}: {_shown(shown)} ; {_EXAMPLE}")


def _shown(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text.strip())
