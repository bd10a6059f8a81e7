"""Counting tokens as a stored model counts them, without loading its weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openbook.models import ModelReference


def token_counter(reference: ModelReference) -> Callable[[Sequence[str]], list[int]]:
    """A function from texts to how many tokens each has inside a prompt. Raises EngineError."""
    from openbook.inference.llamalib import Model, library
    from openbook.inference.trial import tried

    tried(reference if reference.manifest.kind != "adapter" else reference.needed_base)
    model = Model(library(), reference.vocabulary_file, vocabulary_only=True)
    return lambda texts: [len(model.tokenize(text, control=False)) for text in texts]
