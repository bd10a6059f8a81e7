"""Where a model comes from, what was made of it, and which texts it has learned from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from openbook.errors import OpenBookError
from openbook.models.manifest import TRAINING_RECORD
from openbook.models.store import ModelReference, ModelStore
from openbook.models.training_record import TrainingRecord, read_training_record, text_digests
from openbook.records import Digest


@dataclass(frozen=True, slots=True)
class Node:
    """A model of the tree. One that is no longer in the store is known only by its digest."""

    digest: Digest
    names: tuple[str, ...]
    what: str
    details: tuple[str, ...]
    children: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Tree:
    root: Node
    asked: Digest

    def walk(self) -> Iterator[tuple[int, Node]]:
        """(depth, node), each parent before its children."""
        stack = [(0, self.root)]
        while stack:
            depth, node = stack.pop()
            yield depth, node
            stack += [(depth + 1, child) for child in reversed(node.children)]

    def to_json(self) -> dict[str, Any]:
        def value(node: Node) -> dict[str, Any]:
            return {
                "digest": node.digest,
                "names": list(node.names),
                "what": node.what,
                "details": list(node.details),
                "children": [value(child) for child in node.children],
            }

        return {"asked": self.asked, "tree": value(self.root)}


@dataclass(frozen=True, slots=True)
class Learned:
    """Whether a text was in a model's training data: `found` of the `asked` paragraphs; None where nobody recorded it."""

    model: Digest
    name: str
    found: int | None
    asked: int
    recipe: Digest | None = None
    note: str = field(default="")

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


def tree_of(store: ModelStore, reference: ModelReference) -> Tree:
    """All that shares the model's oldest ancestor."""
    stored = {each.digest: each for each in store.everything()}
    names: dict[Digest, list[str]] = {}
    for name, digest in store.names().items():
        names.setdefault(digest, []).append(name)
    oldest = ancestors(stored, reference)[-1]
    children: dict[Digest, list[Digest]] = {}
    for each in stored.values():
        if each.manifest.lineage:
            children.setdefault(each.manifest.lineage, []).append(each.digest)

    def node(digest: Digest, above: frozenset[Digest]) -> Node:
        below = [child for child in children.get(digest, []) if child not in above]
        what, details = _described(stored.get(digest))
        return Node(
            digest,
            tuple(sorted(names.get(digest, []))),
            what,
            details,
            tuple(node(child, above | {digest}) for child in sorted(below)),
        )

    return Tree(node(oldest, frozenset()), reference.digest)


def line_of(store: ModelStore, reference: ModelReference) -> list[Node]:
    """The model itself, what it was trained from, and so on, without what else was trained from those."""
    above = {node.digest: node for _, node in tree_of(store, reference).walk()}
    stored = {each.digest: each for each in store.everything()}
    return [replace(above[digest], children=()) for digest in ancestors(stored, reference)]


def ancestors(stored: dict[Digest, ModelReference], reference: ModelReference) -> list[Digest]:
    """The model itself, what it was trained from, and so on; the last may not be in the store."""
    found = [reference.digest]
    while (here := stored.get(found[-1])) is not None and here.manifest.lineage and here.manifest.lineage not in found:
        found.append(here.manifest.lineage)
    return found


def learned(store: ModelStore, reference: ModelReference, text: str) -> list[Learned]:
    """For the model and each of its ancestors, newest first, whether `text` or paragraphs of it were learned.

    A model's record holds what its ancestors learned too, as far as anybody recorded it.
    """
    stored = {each.digest: each for each in store.everything()}
    wanted = set(text_digests([text]))
    found = []
    for digest in ancestors(stored, reference):
        here = stored.get(digest)
        record = record_beside(here)
        if here is None:
            found.append(
                Learned(digest, "a model", None, len(wanted), note="it is not in the store any more; unknown.")
            )
        elif record is None:
            note = "unknown. Nobody recorded its training data; see its knowledge cutoff."
            found.append(Learned(digest, here.name, None, len(wanted), note=note))
        else:
            both = len(wanted & set(record.texts))
            found.append(Learned(digest, here.name, both, len(wanted), record.recipe_digest))
    return found


def carrying(store: ModelStore, texts: Iterable[str]) -> list[Learned]:
    """The stored models that have learned from one of the texts or paragraphs of them, in the order of their digests.

    One whose record cannot be read is among them, with a note.
    """
    wanted = set(text_digests(texts))
    found = []
    for each in store.everything():
        try:
            record = record_beside(each)
        except OpenBookError as error:
            note = f"unknown, because its record cannot be read ({error})"
            found.append(Learned(each.digest, each.name, None, len(wanted), note=note))
            continue
        if record is not None and (both := len(wanted & set(record.texts))):
            found.append(Learned(each.digest, each.name, both, len(wanted), record.recipe_digest))
    return found


def record_beside(reference: ModelReference | None) -> TrainingRecord | None:
    """The training record of a model, or None where there is none. Raises InvalidModelFile for a damaged one."""
    if reference is None or TRAINING_RECORD not in reference.manifest.files:
        return None
    return read_training_record(reference.path / TRAINING_RECORD)


def _described(reference: ModelReference | None) -> tuple[str, tuple[str, ...]]:
    if reference is None:
        return "not in the store any more", ()
    manifest = reference.manifest
    what = f"{manifest.name}, {manifest.kind}, {manifest.quantisation}, {manifest.licence}"
    record = record_beside(reference)
    if record is None:
        return what, (f"from {', '.join(sorted(set(manifest.source.origins.values())))}",)
    numbers = ", ".join(f"{name} {value}" for name, value in sorted(record.metrics.items()))
    cutoff = manifest.knowledge_cutoff
    details = [
        f"recipe {record.recipe_digest[:12]} ({record.recipe.get('name', 'no name')})",
        f"seed {record.seed}, {record.steps} steps, {record.tokens:,} tokens",
        f"data {', '.join(digest[:12] for digest in record.data) or 'none'}; {len(record.texts):,} texts",
        f"{record.code}; {record.numeric_class}",
    ]
    if record.knowledge_base:
        details.append(f"knowledge base {record.knowledge_base}")
    if numbers:
        details.append(f"dev {numbers}")
    details.append(
        f"knowledge cutoff {cutoff.date or 'not stated'}" + (f" ({cutoff.claimed_by})" if cutoff.date else "")
    )
    return what, tuple(details)
