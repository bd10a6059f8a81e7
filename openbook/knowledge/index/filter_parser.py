"""A filter over documents' metadata: `date >= 2025-01-01 and type = 'pdf' and not status in ('draft', 'old')`.

    filter   any of `or`, `and`, `not`, ( ), in rising order of how strongly they bind
    term     key = value, with = != < <= > >=
             key in (value, value, ...)
             key contains 'text'     a part of a text, or a whole item of a list; case does not matter
             key matches 'docs/*.md' all of a text, or of an item of a list; * is any run of characters, ? is any one
             exists key, key exists
    value    'text' or "text" (the quote doubled inside), a number, true, false, a date such as 2025-01-31

A term is true only for a document that has the key with a value of the same kind, text or number. Otherwise it is false, `!=` too, and its `not`
is true. Nothing is converted: '8' is not 8. Text compares by code points. Lists have no order and no equality: use `contains` or `matches`.

A date without quotes (2025-01, 2025-01-31, 2025-01-31T10:30, with Z or +01:00; 2025 too) compares with ISO 8601 text, to the precision that both
have: `date = 2025-01` is true of 2025-01-31T10:00:00+00:00, and `date >= 2025-01-31` of 2025. Times with a zone compare in UTC.

In the SQL, values and keys are bound parameters: the statement holds no user text.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NoReturn, TypeAlias

from openbook.core.errors import QuestionError
from openbook.parsers.metadata import MAX_VALUE_CHARS, key_name, rounded

MAX_CHARS = 4000
MAX_DEPTH = 100
MAX_TERMS = 256

_EXAMPLE = "date >= 2025-01-01 and type = 'pdf'"
_WORDS = frozenset({"and", "or", "not", "in", "contains", "matches", "exists", "true", "false"})
_PATTERNS = ("contains", "matches")
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
_DATES = ("####", "####-##", "####-##-##", "####-##-##T*")  # stored dates, # for a digit


class _Date(str):
    """An ISO 8601 date of 4, 7, 10, 16 or 19 characters."""

    __slots__ = ()


_Value: TypeAlias = str | int | float | bool | _Date


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter as SQL on `d.metadata` (a JSON object as text), with bound values `where_...`, and its metadata keys, sorted."""

    sql: str
    values: dict[str, object]
    keys: tuple[str, ...]


def parse_filter(text: str) -> Filter:
    """Parse a filter. Raises QuestionError with the place of the error."""
    parser = _Parser(text)
    return Filter(parser.filter(), parser.values, tuple(sorted(parser.keys)))


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int


class _Parser:
    """Recursive descent, one function for each grammar rule; each returns SQL."""

    def __init__(self, text: str) -> None:
        self.values: dict[str, object] = {}
        self.keys: set[str] = set()
        self._text = text
        self._at = self._depth = self._terms = 0
        self._tokens: list[_Token] = []
        if len(text) > MAX_CHARS:
            raise QuestionError(f"Filter: {len(text):,} characters are too many; the limit is {MAX_CHARS:,}.")
        for at, character in enumerate(text):
            if unicodedata.category(character) in {"Cc", "Cs"} and character not in "\t\r\n":
                self._fail(f"{character!a} cannot stand in a filter", at)
        self._tokens = list(self._scan())

    def filter(self) -> str:
        sql = self._any()
        if self._next.kind != "end":
            self._expected("'and', 'or' or the end")
        return sql

    def _any(self) -> str:
        return self._joined("or", lambda: self._joined("and", self._not))

    def _joined(self, word: str, part: Callable[[], str]) -> str:
        parts = [part()]
        while self._take(word):
            parts.append(part())
        return f"({f' {word.upper()} '.join(parts)})" if len(parts) > 1 else parts[0]

    def _not(self) -> str:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail(f"nested more than {MAX_DEPTH} deep", self._next.start)
        if self._take("not"):
            sql = f"NOT {self._not()}"
        elif self._take("("):
            sql = self._any()
            if not self._take(")"):
                self._expected("'and', 'or' or ')'")
        else:
            sql = self._term()
        self._depth -= 1
        return sql

    def _term(self) -> str:
        self._count_term()
        exists = self._take("exists")
        key = self._key()
        if exists or self._take("exists"):
            return f"(json_type(d.metadata, {self._path(key)}) IS NOT NULL)"
        if self._take("in"):
            return self._in(key)
        token = self._next
        if token.kind != "sign" and token.text not in _PATTERNS:
            self._expected("a comparison (= != < <= > >= in contains matches exists)")
        self._at += 1
        return self._compare(key, token.text, self._value(token.text))

    def _in(self, key: str) -> str:
        if not self._take("("):
            self._expected("'('")
        parts = [self._compare(key, "=", self._value("="))]
        while self._take(","):
            self._count_term()
            parts.append(self._compare(key, "=", self._value("=")))
        if not self._take(")"):
            self._expected("',' or ')'")
        return f"({' OR '.join(parts)})"

    def _key(self) -> str:
        token = self._next
        key = key_name(token.text) if token.kind == "word" else ""
        if not key:
            self._expected("a key")
        self._at += 1
        return key

    def _value(self, comparison: str) -> _Value:
        token = self._next
        value: _Value
        if token.kind == "word":
            self._expected(f"a value (a text needs quotes: '{token.text}')")
        if comparison in _PATTERNS and token.kind != "text":
            self._expected("a text in quotes")
        if token.kind == "text":
            value = self._text_in(token)
        elif token.kind == "number":
            value = self._number(token)
        elif token.kind == "date":
            value = self._date(token)
        elif token.text in ("true", "false"):
            value = token.text == "true"
            if comparison not in ("=", "!="):
                self._fail("true and false have no order; use = or !=", token.start)
        else:
            self._expected("a value")
        if value == "" and comparison in _PATTERNS:
            self._expected("a text that is not empty")
        self._at += 1
        return value

    def _text_in(self, token: _Token) -> str:
        quote = token.text[0]
        text = unicodedata.normalize("NFC", token.text[1:-1].replace(quote * 2, quote))
        if len(text) > MAX_VALUE_CHARS:
            self._fail(f"a text of {len(text):,} characters; no value is over {MAX_VALUE_CHARS:,}", token.start)
        return text

    def _number(self, token: _Token) -> int | float:
        number = float(token.text)
        if re.fullmatch(r"[+-]?[0-9]{1,19}", token.text) and -(2**63) <= int(token.text) < 2**63:
            return int(token.text)  # as documents keep it, to the last digit
        if not math.isfinite(number):
            self._fail("a number that is too large", token.start)
        return rounded(number)

    def _date(self, token: _Token) -> _Date:
        text = token.text
        try:
            moment = datetime.fromisoformat(text + "-01" if len(text) == 7 else text)
            if moment.tzinfo is not None:
                moment = moment.astimezone(UTC)
        except (ValueError, OverflowError):
            self._fail(f"{text!r} is not in the calendar", token.start)
        chars = len(text) if len(text) <= 10 else 19 if text[16:17] == ":" else 16
        return _Date(moment.isoformat()[:chars])

    # --- SQL

    def _compare(self, key: str, sign: str, asked: _Value) -> str:
        path = self._path(key)
        kind, value = f"json_type(d.metadata, {path})", f"json_extract(d.metadata, {path})"
        if sign in _PATTERNS:
            inner, whole = (self._bind(_glob(sign, str(asked), part=part)) for part in (True, False))
            item = f"SELECT 1 FROM json_each(d.metadata, {path}) i WHERE i.type = 'text' AND glob({whole}, i.value)"
            found = [f"CASE {kind} WHEN 'text' THEN glob({inner}, {value}) WHEN 'array' THEN EXISTS ({item}) END"]
        elif isinstance(asked, bool):
            found = [f"{kind} IN ('true', 'false') AND {kind} {sign} '{str(asked).lower()}'"]
        else:
            found = []
            if isinstance(asked, _Date) or (isinstance(asked, int) and 1000 <= asked <= 9999):  # a number can be a year
                day = self._bind(str(asked))
                both = f"min(length({value}), length({day}))"
                is_date = " OR ".join(f"glob('{form.replace('#', '[0-9]')}', {value})" for form in _DATES)
                compared = f"substr({value}, 1, {both}) {sign} substr({day}, 1, {both})"
                found.append(f"{kind} = 'text' AND ({is_date}) AND {compared}")
            if isinstance(asked, str) and not isinstance(asked, _Date):
                found.append(f"{kind} = 'text' AND {value} {sign} {self._bind(asked)}")
            elif not isinstance(asked, str):
                number = f"CASE WHEN {kind} IN ('integer', 'real') THEN CAST({value} AS NUMERIC) END"
                found.append(f"{number} {sign} {self._bind(asked)}")
        return f"(({' OR '.join(found)}) IS TRUE)"  # a missing key gives NULL

    def _path(self, key: str) -> str:
        # A key has only letters, digits and _, so that in a path it is one member's name and nothing else.
        self.keys.add(key)
        return self._bind(f'$."{key}"')

    def _bind(self, value: object) -> str:
        name = f"where_{len(self.values)}"
        self.values[name] = value
        return f":{name}"

    # --- tokens and complaints

    def _scan(self) -> Iterator[_Token]:
        at = 0
        while at < len(self._text):
            if self._text[at].isspace():
                at += 1
                continue
            found = _TOKEN.match(self._text, at)
            if found is None:
                self._fail(self._unreadable(at), at)
            kind, word = str(found.lastgroup), found[0]
            if kind == "word" and word.lower() in _WORDS:
                kind, word = "keyword", word.lower()
            word = "=" if word == "==" else word  # as programmers write it
            yield _Token(kind, word, at, found.end())
            at = found.end()
        yield _Token("end", "", len(self._text.rstrip()), len(self._text))

    def _unreadable(self, at: int) -> str:
        character = self._text[at]
        if character in "'\"":
            return f"the quote {character} is not closed"
        if character in "0123456789+-.":
            return f"{self._text[at:].split()[0][:40]!r} is neither a number nor a date like 2025-01-31"
        return f"{character!r} cannot stand there; a text needs quotes"

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
        before = self._tokens[max(self._at - 3, 0) : self._at]
        after = f" after {_shown(self._text[before[0].start : before[-1].end])!r}" if before else ""
        self._fail(f"expected {what}{after}", self._next.start)

    def _fail(self, what: str, at: int) -> NoReturn:
        shown = self._text if len(self._text) <= 60 else f"...{self._text[max(at - 30, 0) : at + 30]}..."
        raise QuestionError(f"Filter: {what} at character {at + 1}. It says: {_shown(shown)} (example: {_EXAMPLE})")


def _shown(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text.strip())


def _glob(comparison: str, text: str, *, part: bool) -> str:
    if comparison == "matches":
        return text.replace("[", "[[]")
    body = ""
    for character in text:
        both = {form for c in (character, character.lower(), character.upper()) for form in (c, c.lower(), c.upper())}
        cases = sorted(form for form in both if len(form) == 1)  # capital and small, where that is one character
        body += f"[{''.join(cases)}]" if len(cases) > 1 or character in "*?[" else character
    return f"*{body}*" if part else body
