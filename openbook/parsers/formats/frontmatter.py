"""Metadata from a text file's front matter and header fields."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from openbook.core.errors import UnreadableFile
from openbook.core.records import Metadata, MetadataValue
from openbook.parsers.metadata import LABEL_KEY, MAX_KEY_CHARS, key_name, normalised

MAX_BLOCK_CHARS = 65_536
YAML_END = re.compile(r"^(?:---|\.\.\.)[ \t]*$", re.MULTILINE)
_MAX_DEPTH = 4
_MAX_BRACKETS = 500

_SYNONYMS = {
    "author": ("authors", "by", "creator"),
    "date": ("updated", "last_modified", "modified", "lastmod", "published", "created"),
    "language": ("lang", "locale"),
}
_LABELS = re.compile(r"^[ \t\"']*access[-_ ]labels\b", re.MULTILINE | re.IGNORECASE)
_OPENING = re.compile(r"(---|\+\+\+)[ \t]*\n")
_ENDS = {"---": YAML_END, "+++": re.compile(r"^\+\+\+[ \t]*$", re.MULTILINE)}
_FIELD = re.compile(r"([A-Z][\w-]{0,40}):(?:[ \t]+(\S.*))?$")
_RST_FIELD = re.compile(r":([A-Za-z][\w -]{0,40}):(?:[ \t]+(\S.*))?$")
_INTEGER = re.compile(r"0|[1-9]\d{0,14}", re.ASCII)


def make_metadata(fields: Iterable[tuple[str, object]]) -> Metadata:
    """Adds synonyms of author, date and language. Of two fields with one name the first counts."""
    found: dict[str, MetadataValue] = dict(normalised(_first_of_each(fields)))
    for key, others in _SYNONYMS.items():
        value = next((found[other] for other in others if other in found), None)
        if key not in found and value is not None and (key != "date" or re.match(r"\d{4}(?:-|$)", str(value))):
            found[key] = value
    return normalised(found)


def front_matter(text: str) -> tuple[Metadata, int]:
    """Return (fields of the YAML (`---`) or TOML (`+++`) block at the top, offset of the text after it).

    The offset is 0 without such a block, or if metadata cannot hold all of its fields whole: the block then stays part
    of the text. Raises UnreadableFile for access labels that cannot be read.
    """
    top = text.lstrip("\ufeff \t\n")
    opening = _OPENING.match(top)
    if opening is None:
        return (), 0
    end = _ENDS[opening[1]].search(top, opening.end())
    block = top[opening.end() : end.start() if end else len(top)]
    fields: list[tuple[str, object]] = []
    if end and end.end() <= MAX_BLOCK_CHARS and len(top) == len(text):
        fields = list(_flat(_loaded(block, is_toml=opening[1] == "+++")))
    # Labels that are repeated, empty, inside another field or outside a valid block are ambiguous.
    if len(_LABELS.findall(block)) > sum(key_name(name) == LABEL_KEY and value is not None for name, value in fields):
        raise UnreadableFile(
            "its front matter names labels and cannot be read: it must begin on the first line, be closed, name them "
            f"once and have at most {MAX_BLOCK_CHARS:,} characters"
        )
    try:
        normalised(_first_of_each(fields), strict=True)
        is_whole = bool(fields) and len(dict(fields)) == len(fields)
    except UnreadableFile:
        is_whole = False
    return make_metadata(fields), min(end.end() + 1, len(text)) if end and is_whole else 0


def header_fields(text: str) -> Metadata:
    """`Key: value` lines at the top, as in Python's enhancement proposals, or `:key: value` lines."""
    top = text[:MAX_BLOCK_CHARS].lstrip("\n")
    blocks = re.split(r"\n[ \t]*\n", top, maxsplit=4)[:4]
    plain = _read_block(blocks[0], _FIELD)
    if len(plain) >= 2:
        return make_metadata(plain)
    return make_metadata(next((found for block in blocks if (found := _read_block(block, _RST_FIELD))), []))


def _first_of_each(fields: Iterable[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in fields:
        if value is not None and value != "":
            found.setdefault(name, value)
    return found


def _loaded(block: str, *, is_toml: bool) -> Mapping[Any, Any]:
    """Empty if the block is not valid or not a mapping."""
    import tomllib

    import yaml

    # PyYAML's time grows with the square of their depth.
    if not is_toml and block.count("[") + block.count("{") > _MAX_BRACKETS:
        return {}
    try:
        value = tomllib.loads(block) if is_toml else yaml.load(block, _yaml_loader())  # noqa: S506  made of the safe one
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, OverflowError, LookupError, AttributeError):
        return {}
    return value if isinstance(value, dict) else {}


@functools.cache
def _yaml_loader() -> Any:
    """PyYAML's safe loader without aliases, which can expand without bound, and with `no` and `1:30` as text."""
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("aliases are not read")
            return super().compose_node(parent, index)

    Loader.yaml_implicit_resolvers = {
        first: [(tag, _YAML_FORMS.get(tag, pattern)) for tag, pattern in resolvers if tag not in _YAML_LEFT_OUT]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return Loader


_YAML_FORMS = {
    "tag:yaml.org,2002:bool": re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"),
    "tag:yaml.org,2002:int": re.compile(r"^[-+]?(?:0|[1-9][0-9]{0,300})$"),
    "tag:yaml.org,2002:float": re.compile(r"^[-+]?[0-9]{1,300}\.[0-9]{1,300}(?:[eE][-+]?[0-9]{1,3})?$"),
}
_YAML_LEFT_OUT = frozenset({"tag:yaml.org,2002:merge", "tag:yaml.org,2002:value"})


def _flat(fields: Mapping[Any, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, object]]:
    """`params: {layout: wide}` becomes `params_layout`."""
    for key, value in fields.items():
        name = f"{prefix}{key if isinstance(key, str) else str(key)[:MAX_KEY_CHARS]}"
        if isinstance(value, Mapping) and depth < _MAX_DEPTH:
            yield from _flat(value, f"{name}_", depth + 1)
        else:
            yield name, value


def _read_block(block: str, form: re.Pattern[str]) -> list[tuple[str, str | int]]:
    """(name, value) of each line; an indented line continues the one before. Empty if any line is neither."""
    found: list[tuple[str, list[str]]] = []
    for line in block.split("\n"):
        if field := form.match(line):
            found.append((field[1], [field[2] or ""]))
        elif found and line[:1] in {" ", "\t"}:
            found[-1][1].append(line.strip())
        else:
            return []
    said = [(name, " ".join(filter(None, parts))) for name, parts in found]
    return [(name, int(value) if _INTEGER.fullmatch(value) else value) for name, value in said]
