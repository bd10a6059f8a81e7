"""Strict reading of one JSON object: keys are asked for by name and type, and `end` refuses the others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from openbook.errors import InvalidModelFile, did_you_mean
from openbook.models.names import is_digest
from openbook.records import Digest

MAX_INTEGER = (1 << 63) - 1
T = TypeVar("T")
C = TypeVar("C", bound=str)


class Fields:
    """The keys of one object. `where` leads every message, such as `manifest.json: tokenizer`."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise InvalidModelFile(f"{where} must be an object, not {_shown(value)}.")
        self._values = value
        self._where = where
        self._asked: set[str] = set()

    def end(self) -> None:
        """Raises InvalidModelFile if a key has not been asked for."""
        for key in self._values:
            if key not in self._asked:
                hint = did_you_mean(key, self._asked)
                raise InvalidModelFile(f"{self._where} has the unknown key {key[:80]!r}.{hint}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def text(self, key: str) -> str:
        value = self._typed(key, str, "text")
        if any("\ud800" <= char <= "\udfff" for char in value):
            raise InvalidModelFile(f"{self._where}: {key} holds half a surrogate pair, which is no text.")
        return value

    def text_or_none(self, key: str) -> str | None:
        return None if self._is_null(key) else self.text(key)

    def integer(self, key: str) -> int:
        return self._in_range(key, self._typed(key, int, "an integer"))

    def integer_or_none(self, key: str) -> int | None:
        return None if self._is_null(key) else self.integer(key)

    def integers(self, key: str) -> tuple[int, ...]:
        values = self._typed(key, list, "a list of integers")
        if not all(type(value) is int for value in values):
            raise InvalidModelFile(f"{self._where}: {key} must be a list of integers, not {_shown(values)}.")
        return tuple(self._in_range(key, value) for value in values)

    def texts(self, key: str) -> tuple[str, ...]:
        values = self._typed(key, list, "a list of texts")
        if not all(type(value) is str for value in values):
            raise InvalidModelFile(f"{self._where}: {key} must be a list of texts, not {_shown(values)}.")
        return tuple(values)

    def boolean(self, key: str) -> bool:
        return self._typed(key, bool, "true or false")

    def digest(self, key: str) -> Digest:
        value = self.text(key)
        if not is_digest(value):
            raise InvalidModelFile(
                f"{self._where}: {key} must be a SHA-256 in lowercase hexadecimal, not {value[:80]!r}."
            )
        return value

    def digest_or_none(self, key: str) -> Digest | None:
        return None if self._is_null(key) else self.digest(key)

    def choice(self, key: str, allowed: tuple[C, ...]) -> C:
        value = self.text(key)
        for candidate in allowed:
            if candidate == value:
                return candidate
        raise InvalidModelFile(f"{self._where}: {key} must be one of {', '.join(allowed)}, not {value[:80]!r}.")

    def inner(self, key: str) -> Fields:
        return Fields(self._get(key), f"{self._where}: {key}")

    def inner_or_none(self, key: str) -> Fields | None:
        return None if self._is_null(key) else self.inner(key)

    def rows(self, key: str) -> list[Fields]:
        values = self._typed(key, list, "a list")
        return [Fields(value, f"{self._where}: {key}[{index}]") for index, value in enumerate(values)]

    def _get(self, key: str) -> object:
        self._asked.add(key)
        if key not in self._values:
            raise InvalidModelFile(f"{self._where} lacks the key {key!r}.")
        return self._values[key]

    def _is_null(self, key: str) -> bool:
        return self._get(key) is None

    def _typed(self, key: str, kind: type[T], described: str) -> T:
        value = self._get(key)
        if type(value) is not kind:  # not isinstance: True is an int to Python, and is none here
            raise InvalidModelFile(f"{self._where}: {key} must be {described}, not {_shown(value)}.")
        return value

    def _in_range(self, key: str, value: int) -> int:
        if not 0 <= value <= MAX_INTEGER:
            raise InvalidModelFile(f"{self._where}: {key} must be from 0 to {MAX_INTEGER}, not {str(value)[:40]}.")
        return value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
