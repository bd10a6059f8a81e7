"""JSON and JSON lines as lines of `path: value`; an object of plain values is one line, like a row of a table.

Numbers stay as they are written. What is not valid JSON is read as plain text, so that nothing is lost.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from openbook.parsers.cleaning import clean, one_line, title_from_name
from openbook.parsers.frontmatter import make_metadata
from openbook.parsers.text import read_text
from openbook.records import Content, Metadata

LONGEST_PATH_CHARS = 160
_LONGEST_ROW_CHARS = 400
_LONGEST_INLINE_CHARS = 200
_NUMBER = re.compile(r"\[\d+\]")
_OWN_FIELDS = frozenset({"author", "authors", "date", "created", "modified", "published", "language", "lang"})


class _Object(tuple[tuple[str, Any], ...]):
    """Pairs and not a dict: a key may stand twice."""

    __slots__ = ()


def read_json(data: bytes, name: str) -> Content:
    text, damage = read_text(data)
    try:
        value = _parse(text)
    except (ValueError, RecursionError):
        return _plain(text, name, damage)
    written = "\n".join(_lines(value, "")) + "\n"
    stated = value if isinstance(value, _Object) else ()
    title = next((one_line(v) for k, v in stated if k in {"title", "name"} and isinstance(v, str)), "")
    fields = [(k, v) for k, v in stated if k in _OWN_FIELDS and isinstance(v, str)]
    return Content(
        clean(written), "application/json", title or title_from_name(name), source_chars=len(text),
        metadata=make_metadata([*fields, *damage]),
    )  # fmt: skip


def read_json_lines(data: bytes, name: str) -> Content:
    text, damage = read_text(data)
    records = [part for line in text.split("\n") if line.strip() for part in _record(line)]
    written = "\n".join(records) + "\n" if records else ""
    return Content(clean(written), "application/jsonl", title_from_name(name), source_chars=len(text), metadata=damage)


def _record(line: str) -> list[str]:
    try:
        return list(_lines(_parse(line), ""))
    except (ValueError, RecursionError):
        return [line]


def _plain(text: str, name: str, damage: Metadata) -> Content:
    return Content(text, "text/plain", title_from_name(name), source_chars=len(text), metadata=damage)


def _parse(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_Object, parse_int=str, parse_float=str, parse_constant=str)


def _lines(value: Any, path: str) -> Iterator[str]:
    """Depth first, with a stack of its own: as deep as the parser goes."""
    waiting: list[Iterator[tuple[str, Any]]] = [iter([(path, value)])]
    while waiting:
        item = next(waiting[-1], None)
        if item is None:
            waiting.pop()
            continue
        at, value = item
        if isinstance(value, _Object | list) and value:
            row = _row(value)
            if row is None:
                waiting.append(_children(at, value))
            else:
                # The number of a record in the outermost list says nothing.
                yield f"{at}: {row}" if at and not _NUMBER.fullmatch(at) else row
        else:
            yield _leaf(at, value)


def _children(path: str, value: _Object | list[Any]) -> Iterator[tuple[str, Any]]:
    short = path if len(path) <= LONGEST_PATH_CHARS else "…" + path[-LONGEST_PATH_CHARS:]
    if isinstance(value, list):
        return ((f"{short}[{number}]", child) for number, child in enumerate(value))
    plain = _Object(pair for pair in value if _is_short(pair[1]))
    if len(plain) < 2 or _row(plain) is None:
        plain = _Object()
    first = iter([(path, plain)] if plain else [])
    rest = value if not plain else [pair for pair in value if not _is_short(pair[1])]
    return chain(first, ((f"{short}.{key}" if short else key, child) for key, child in rest))


def _is_short(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= _LONGEST_INLINE_CHARS and "\n" not in value
    return not (isinstance(value, _Object | list) and value)


def _row(value: _Object | list[Any]) -> str | None:
    """The whole of `value` on one line, when it holds only short plain values."""
    plain: Sequence[Any] = [child for _, child in value] if isinstance(value, _Object) else value
    if len(plain) > _LONGEST_ROW_CHARS or not all(map(_is_short, plain)):
        return None
    words = [_word(child) for child in plain]
    if isinstance(value, _Object):
        row = "; ".join(f"{key}: {word}" for (key, _), word in zip(value, words, strict=True))
    else:
        row = ", ".join(words)
    return row if len(row) <= _LONGEST_ROW_CHARS else None


def _leaf(path: str, value: Any) -> str:
    word = _word(value)
    between = "\n" if "\n" in word or len(word) > _LONGEST_INLINE_CHARS else " "
    return f"{path}:{between}{word}" if path else word


def _word(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, _Object | list):
        return "none"
    return {True: "true", False: "false", None: "null"}[value]
