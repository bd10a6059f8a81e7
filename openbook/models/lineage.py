"""How a model came to be: its training record, its ancestors and descendants, and the texts it has learned from.

The record is `training.json` next to a trained model's files. Law: `TrainingRecord.from_json(r.to_json()) == r`. The model's
digest does not cover it, since it changes no answer; the manifest holds its SHA-256. Format: docs/formats/model-manifest.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import msgspec

from openbook.core.codec import convert
from openbook.core.errors import InvalidModelFile, OpenBookError
from openbook.core.files import storage_errors
from openbook.core.records import Digest, canonical_json, sha256_hex
from openbook.models.digest import Count, Sha256
from openbook.models.manifest import TRAINING_RECORD, open_format
from openbook.models.store import ModelReference, ModelStore

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


@dataclass(frozen=True, slots=True)
class Node:
    """A model of the tree. If it is no longer in the store, only its digest is known."""

    digest: Digest
    names: tuple[str, ...]
    what: str
    details: tuple[str, ...]
    children: tuple[Node, ...] = ()

    def walk(self, depth: int = 0) -> Iterator[tuple[int, Node]]:
        """Yield (depth, node), parents before children."""
        yield depth, self
        for child in self.children:
            yield from child.walk(depth + 1)


@dataclass(frozen=True, slots=True)
class Membership:
    """The number of a text's `asked` paragraphs in a model's training data (`found`); None: not recorded."""

    model: Digest
    name: str
    found: int | None
    asked: int
    recipe: Digest | None = None
    note: str = ""

    def __str__(self) -> str:
        name = f"{self.name} ({self.model[:12]})"
        if self.found is None:
            return f"{name}: {self.note}"
        if not self.asked:
            return f"{name}: the document has no text long enough to be told apart."
        if not self.found:
            return f"{name}: no. None of the {self.asked} texts of the document was in its training data."
        return (
            f"{name}: yes. {self.found} of the {self.asked} texts of the document (whole or paragraphs) were in the training "
            f"data of the recipe {(self.recipe or '')[:12]}."
        )


def tree_of(store: ModelStore, reference: ModelReference) -> Node:
    """The model's oldest ancestor, with all its descendants."""
    stored, names = _models_by_digest(store), store.names()
    children: dict[Digest, list[Digest]] = {}
    for each in stored.values():
        if each.manifest.lineage:
            children.setdefault(each.manifest.lineage, []).append(each.digest)

    def node(digest: Digest, above: frozenset[Digest]) -> Node:
        below = sorted(child for child in children.get(digest, []) if child not in above)
        return _node(digest, stored, names, tuple(node(child, above | {digest}) for child in below))

    return node(_ancestor_digests(stored, reference)[-1], frozenset())


def ancestors_of(store: ModelStore, reference: ModelReference) -> list[Node]:
    """The model and its ancestors, newest first."""
    stored, names = _models_by_digest(store), store.names()
    return [_node(digest, stored, names) for digest in _ancestor_digests(stored, reference)]


def _models_by_digest(store: ModelStore) -> dict[Digest, ModelReference]:
    return {each.digest: each for each in store.all_models()}


def _ancestor_digests(stored: dict[Digest, ModelReference], reference: ModelReference) -> list[Digest]:
    """The model and its ancestors, newest first; the last may not be in the store."""
    found = [reference.digest]
    while (here := stored.get(found[-1])) is not None and here.manifest.lineage and here.manifest.lineage not in found:
        found.append(here.manifest.lineage)
    return found


def memberships_of(store: ModelStore, reference: ModelReference, text: str) -> list[Membership]:
    """For the model and each ancestor, newest first: how much of `text` it learned."""
    stored = _models_by_digest(store)
    wanted = set(text_digests([text]))
    return [_membership(digest, stored.get(digest), wanted) for digest in _ancestor_digests(stored, reference)]


def models_trained_on(store: ModelStore, texts: Iterable[str]) -> list[Membership]:
    """Stored models, by digest, that learned a paragraph of the texts, or whose record cannot be read."""
    wanted = set(text_digests(texts))
    recorded = [each for each in store.all_models() if TRAINING_RECORD in each.manifest.files]
    found = [_membership(each.digest, each, wanted) for each in recorded]
    return [each for each in found if each.found != 0]


def _membership(digest: Digest, reference: ModelReference | None, wanted: set[str]) -> Membership:
    name = reference.name if reference else "a model"
    try:
        if record := training_record_of(reference):
            return Membership(digest, name, len(wanted & set(record.texts)), len(wanted), record.recipe_digest)
        note = (
            "unknown. Its training data was not recorded; see its knowledge cutoff."
            if reference
            else "it is not in the store any more; unknown."
        )
    except OpenBookError as error:
        note = f"unknown, because its record cannot be read ({error})"
    return Membership(digest, name, None, len(wanted), note=note)


def training_record_of(reference: ModelReference | None) -> TrainingRecord | None:
    """A model's record, if it has one. Raises InvalidModelFile if it is damaged."""
    if reference is None or TRAINING_RECORD not in reference.manifest.files:
        return None
    path = reference.path / TRAINING_RECORD
    with storage_errors(f"read {path}"), path.open("rb") as stream:
        return TrainingRecord.from_json(stream.read(MAX_RECORD_BYTES + 1))


def _node(
    digest: Digest,
    stored: Mapping[Digest, ModelReference],
    names: Mapping[str, Digest],
    children: tuple[Node, ...] = (),
) -> Node:
    reference, called = stored.get(digest), tuple(sorted(name for name, meant in names.items() if meant == digest))
    if reference is None:
        return Node(digest, called, "not in the store any more", (), children)
    manifest, record = reference.manifest, training_record_of(reference)
    cutoff = manifest.knowledge_cutoff
    what = f"{manifest.name}, {manifest.kind}, {manifest.quantisation}, {manifest.licence}"
    if record is None:
        details = [f"from {', '.join(sorted(set(manifest.source.origins.values())))}"]
    else:
        details = [
            f"recipe {record.recipe_digest[:12]} ({record.recipe.get('name', 'no name')})",
            f"seed {record.seed}, {record.steps} steps, {record.tokens:,} tokens",
            f"data {', '.join(each[:12] for each in record.data) or 'none'}; {len(record.texts):,} texts",
            f"{record.code}; {record.numeric_class}",
            *([f"knowledge base {record.knowledge_base}"] if record.knowledge_base else []),
            *([f"dev {', '.join(f'{k} {v}' for k, v in sorted(record.metrics.items()))}"] if record.metrics else []),
            f"knowledge cutoff {cutoff.date or 'not stated'}" + (f" ({cutoff.claimed_by})" if cutoff.date else ""),
        ]
    return Node(digest, called, what, tuple(details), children)
