"""The origin of a trained model: `training.json` next to its files.

Law: `TrainingRecord.from_json(r.to_json()) == r`. The model's digest does not cover it, since it changes no answer; the
manifest holds its SHA-256. Format: docs/formats/model-manifest.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import msgspec

from openbook.core.codec import convert
from openbook.core.errors import InvalidModelFile
from openbook.core.records import Digest, canonical_json, sha256_hex
from openbook.models.digest import Count, Sha256
from openbook.models.manifest import TRAINING_RECORD, open_format

FORMAT = 1
MAX_RECORD_BYTES = 256 << 20
MIN_TEXT_CHARS = 40  # shorter texts (headings, dates) occur in any document
_DIGEST_HEX = 32  # hex digits kept of each text's digest: enough to avoid collisions


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """`recipe`: as used. `data`: SHA-256 of the files. `metrics`: numbers as text. `parent` None: trained from nothing.

    `knowledge_base` is "id@version". `texts` (see `text_digests`) covers the documents, turns or passages of all examples, also
    those that did not fit, but not a reader's questions and answers. `steps` is up to the parameters kept, `tokens` of the whole
    run.
    """

    recipe: Mapping[str, Any] = field(hash=False)
    parent: Sha256 | None
    data: tuple[str, ...]
    code: str
    seed: Count
    steps: Count
    tokens: Count
    numeric_class: str
    metrics: Mapping[str, str] = field(hash=False)
    knowledge_base: str | None
    texts: tuple[str, ...] = field(repr=False)

    @property
    def recipe_digest(self) -> Digest:
        return recipe_digest(self.recipe)

    def to_json(self) -> bytes:
        return canonical_json(msgspec.to_builtins(self) | {"format": FORMAT})

    @classmethod
    def from_json(cls, data: bytes) -> TrainingRecord:
        """Raises InvalidModelFile."""
        value, _ = open_format(data, TRAINING_RECORD, (FORMAT,), MAX_RECORD_BYTES)
        found = convert(value, cls, TRAINING_RECORD, InvalidModelFile)
        try:
            _ = found.recipe_digest
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidModelFile(f"{TRAINING_RECORD}: the recipe cannot be read: {error!r}.") from error
        return found


def recipe_digest(recipe: Mapping[str, Any]) -> Digest:
    """The digest of every value. Of data file names only the suffixes count: they decide how to read a file."""
    value = dict(recipe)
    for key in ("train", "dev"):
        if isinstance(rows := value.get(key), list):
            value[key] = [{**row, "file": "".join(PurePath(row["file"]).suffixes[-2:]).lower()} for row in rows]
    return sha256_hex(canonical_json(value))


def text_digests(texts: Iterable[str]) -> tuple[str, ...]:
    """Sorted digests of each text and each of its paragraphs; layout does not matter."""
    found = set()
    for text in texts:
        # Split by blank lines and by lines: some parsers leave no blank line between paragraphs.
        for part in (text, *re.split(r"\n\s*\n", text), *text.split("\n")):
            if len(plain := " ".join(part.split())) >= MIN_TEXT_CHARS:
                found.add(sha256_hex(plain.encode("utf-8", "surrogatepass"))[:_DIGEST_HEX])
    return tuple(sorted(found))
