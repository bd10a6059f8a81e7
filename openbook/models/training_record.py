"""How a trained model came to be, beside its files as `training.json`.

Law: `TrainingRecord.from_json(r.to_json()) == r`. It is not part of the model's digest, since it does not change an
answer; the manifest holds its SHA-256. Written format: docs/formats/model-manifest.md.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any

from openbook.codec import unique_keys
from openbook.errors import InvalidModelFile, StorageError
from openbook.models.fields import Fields
from openbook.records import Digest, canonical_json, sha256_hex

FORMAT = 1
MAX_RECORD_BYTES = 256 << 20
MIN_TEXT_CHARS = 40  # shorter texts (a heading, a date) would be found in any document
_DIGEST_HEX = 32  # of each text's digest are kept: enough that no two texts meet


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """`recipe` as it was used, `data` the SHA-256 of its files, `metrics` numbers as text; no `parent`: from nothing.

    `knowledge_base` is "id@version" where documents of one were learned. `texts`: digests of all that was learned from,
    so that it can be said of a document whether it was; see `text_digests`.
    """

    recipe: Mapping[str, Any] = field(hash=False)
    parent: Digest | None
    data: tuple[Digest, ...]
    code: str
    seed: int
    steps: int
    tokens: int
    numeric_class: str
    metrics: Mapping[str, str] = field(hash=False)
    knowledge_base: str | None
    texts: tuple[str, ...] = field(repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "recipe", MappingProxyType(dict(self.recipe)))
        object.__setattr__(self, "metrics", MappingProxyType(dict(self.metrics)))

    @property
    def recipe_digest(self) -> Digest:
        return recipe_digest(self.recipe)

    def to_json(self) -> bytes:
        return canonical_json(
            {
                "format": FORMAT,
                "recipe": dict(self.recipe),
                "parent": self.parent,
                "data": list(self.data),
                "code": self.code,
                "seed": self.seed,
                "steps": self.steps,
                "tokens": self.tokens,
                "numeric_class": self.numeric_class,
                "metrics": dict(self.metrics),
                "knowledge_base": self.knowledge_base,
                "texts": list(self.texts),
            }
        )

    @classmethod
    def from_json(cls, data: bytes) -> TrainingRecord:
        """Raises InvalidModelFile."""
        if len(data) > MAX_RECORD_BYTES:
            raise InvalidModelFile(f"training.json has more than {MAX_RECORD_BYTES:,} bytes.")
        try:
            value = json.loads(data.decode(), object_pairs_hook=unique_keys)
        except (ValueError, RecursionError) as error:
            raise InvalidModelFile(f"training.json is not valid JSON: {error}.") from error
        fields = Fields(value, "training.json")
        if (version := fields.integer("format")) != FORMAT:
            raise InvalidModelFile(f"training.json has format {version}; this version of OpenBook reads {FORMAT}.")
        metrics = fields.inner("metrics")
        recipe = fields.inner("recipe")
        found = cls(
            recipe=dict(value["recipe"]) if set(recipe) else {},
            parent=fields.digest_or_none("parent"),
            data=fields.texts("data"),
            code=fields.text("code"),
            seed=fields.integer("seed"),
            steps=fields.integer("steps"),
            tokens=fields.integer("tokens"),
            numeric_class=fields.text("numeric_class"),
            metrics={name: metrics.text(name) for name in metrics},
            knowledge_base=fields.text_or_none("knowledge_base"),
            texts=fields.texts("texts"),
        )
        fields.end()
        try:
            _ = found.recipe_digest
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidModelFile(f"training.json: the recipe cannot be read: {error!r}.") from error
        return found


def recipe_digest(recipe: Mapping[str, Any]) -> Digest:
    """Over all that determines a run: not where the data lies, only how it is read, which its suffixes tell."""
    value = dict(recipe)
    for key in ("train", "dev"):
        if isinstance(rows := value.get(key), list):
            value[key] = [{**row, "file": "".join(PurePath(row["file"]).suffixes[-2:]).lower()} for row in rows]
    return sha256_hex(canonical_json(value))


def read_training_record(path: Path) -> TrainingRecord:
    """Raises InvalidModelFile, StorageError."""
    try:
        with path.open("rb") as stream:
            return TrainingRecord.from_json(stream.read(MAX_RECORD_BYTES + 1))
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror or error}.") from error


def text_digests(texts: Iterable[str]) -> tuple[str, ...]:
    """Of each text as a whole and of each of its paragraphs, sorted; layout does not matter."""
    found: set[str] = set()
    for text in texts:
        found.update(_digest(part) for part in (text, *_paragraphs(text)) if len(plain_text(part)) >= MIN_TEXT_CHARS)
    return tuple(sorted(found))


def plain_text(text: str) -> str:
    return " ".join(text.split())


def _paragraphs(text: str) -> list[str]:
    """By blank lines, and by lines: the readers of some formats leave no blank line between paragraphs."""
    return [*re.split(r"\n\s*\n", text), *text.split("\n")]


def _digest(text: str) -> str:
    return hashlib.sha256(plain_text(text).encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_HEX]
