"""Answer again from a receipt, and report exactly what differs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass

from openbook.answers.ask import answer_again
from openbook.core.errors import KnowledgeError, UnknownVersion
from openbook.core.parallel import Cancelled, never
from openbook.core.records import Hit, Passage, PassageReference, Receipt, sha256_hex
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase, Scope
from openbook.proofs.receipts import is_altered


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """`differences`: one sentence each; if empty, the answer is the same, byte for byte.

    `answer` is None if a passage is gone or altered. `gone`: a passage is no longer there for these labels.
    """

    differences: tuple[str, ...]
    answer: str | None
    gone: bool = False

    @property
    def identical(self) -> bool:
        return not self.differences


def replay(
    receipt: Receipt,
    model: FrozenModel,
    base: KnowledgeBase | None,
    labels: Collection[str] | None = None,
    cancelled: Cancelled = never,
) -> ReplayResult:
    """Read the receipt's passages from `base` again with `model`, and compare the answers.

    `labels`: of the user who replays (default: those of the user who asked). Passages are read only through documents
    that these labels open. If `cancelled`, an incomplete answer is compared.

    Raises EngineError, ContextOverflow, QuestionError, KnowledgeError.
    """
    model = model.for_request()
    differences: list[str] = []
    if is_altered(receipt):
        differences.append("The receipt was altered after it was written.")
    if not receipt.model.digest:
        differences.append(
            f"The receipt has no digest of {receipt.model.name}, so no model can be shown to be the same."
        )
    elif model.identity.digest != receipt.model.digest:
        differences.append(f"The model is {model.identity.digest or 'of unknown digest'}, not {receipt.model.digest}.")
    hits, gone, altered = _found(receipt, base, receipt.labels if labels is None else labels)
    if gone or altered:
        differences += _other_class(receipt, model.engine.numeric_class)
        return ReplayResult((*differences, *gone, *altered), None, bool(gone))
    text, completion = answer_again(receipt, model, hits, cancelled)
    # Compare this answer's class: a reader may use other weights when it answers without passages.
    differences += _other_class(receipt, completion.numeric_class if completion else model.engine.numeric_class)
    if (completion.prompt_digest if completion else "") != receipt.prompt_digest:
        differences.append("The model was asked something else: the tokens of the prompt differ.")
    if sha256_hex(text.encode()) != receipt.answer_digest:
        differences.append("The answer differs.")
    return ReplayResult(tuple(differences), text)


def _other_class(receipt: Receipt, engine: str) -> list[str]:
    if engine == receipt.numeric_class or not receipt.numeric_class:
        return []
    changed = f"The numeric class changed from {receipt.numeric_class!r} to {engine!r}"
    return [f"{changed}, so results may differ in their last digits, and the model may decline other questions."]


def _found(
    receipt: Receipt, base: KnowledgeBase | None, labels: Collection[str]
) -> tuple[list[Hit], list[str], list[str]]:
    """Return (passages, a sentence for each that is gone, a sentence for each that is altered)."""
    hits: list[Hit] = []
    gone: list[str] = []
    altered: list[str] = []
    for reference in receipt.passages:
        passage = None if base is None else passage_of(base, reference, receipt.knowledge_base_version, labels)
        if passage is None:
            gone.append(
                f"The passage {reference.id} of {reference.document} is not in the knowledge base any more: purged, its version "
                "pruned, or closed by an access label."
            )
        elif passage.digest != reference.digest:
            altered.append(f"The text of the passage {reference.id} is not that of the receipt.")
        else:
            hits.append(Hit(passage))
    return hits, gone, altered


def passage_of(
    base: KnowledgeBase, reference: PassageReference, version: int | None, labels: Collection[str]
) -> Passage | None:
    """The passage that a receipt refers to, or None.

    It is read through a document that `labels` open, preferably the receipt's. `version` is tried first, then the
    newest: a passage is the same in all versions that hold it.
    """
    held, found = frozenset(labels), None
    if version is not None:
        with suppress(UnknownVersion):
            found = base.passage(reference.id, Scope(version, labels=held), reference.document)
    return found or base.passage(reference.id, Scope(labels=held), reference.document)


def knowledge_base_of(receipt: Receipt, candidates: Sequence[KnowledgeBase]) -> KnowledgeBase | None:
    """The candidate that the receipt names; None if it names none. Raises KnowledgeError if it is not there."""
    if receipt.knowledge_base is None:
        return None
    for base in candidates:
        if base.id == receipt.knowledge_base:
            return base
    seen = ", ".join(f"{base.store} ({base.id})" for base in candidates) or "none"
    raise KnowledgeError(
        f"The answer is from the knowledge base {receipt.knowledge_base}. Looked at: {seen}. Replay it with the right "
        "one."
    )
