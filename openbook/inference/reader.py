"""A trained reader in two files: passages are read by the adapter merged with its base, what has none by the base alone.

The adapter is for reading; what the base knows without passages is left alone. Merged, passages are read about twice as
fast as with the adapter beside the base, whose products cost time in every layer (docs/benchmarks.md).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING

from openbook.errors import EngineError
from openbook.inference.frozen import Cancelled, ReadEach, never
from openbook.inference.llamacpp import LlamaCppEngine
from openbook.inference.passage_selection import CALIBRATED, PassageSelection
from openbook.records import Completion, Decoding, Digest, ModelIdentity, Prompt, ReaderFormat, sha256_hex

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class MergedReader:
    """`reading`: the merged file; `open_base`: opens the base, on the first prompt without passages. Safe from several threads.

    Both are given the same identity: that of the adapter, which names its base.
    """

    def __init__(self, reading: LlamaCppEngine, open_base: Callable[[], LlamaCppEngine]) -> None:
        self._reading, self._open_base = reading, open_base
        self._lock = threading.Lock()
        self._base: LlamaCppEngine | None = None
        self._closed = False

    @property
    def identity(self) -> ModelIdentity:
        return self._reading.identity

    @property
    def numeric_class(self) -> str:
        return self._reading.numeric_class

    @property
    def context_tokens(self) -> int:
        return self._reading.context_tokens

    @property
    def reader_format(self) -> ReaderFormat | None:
        return self._reading.reader_format

    def count_prompt_tokens(self, prompt: Prompt) -> int:
        return self._reading.count_prompt_tokens(prompt)

    def tokenize(self, prompt: Prompt) -> list[list[int]]:
        return self._reading.tokenize(prompt)

    def generate(
        self, prompt: Prompt, decoding: Decoding, cancelled: Cancelled = never
    ) -> Generator[str, None, Completion]:
        return (yield from self._engine(prompt).generate(prompt, decoding, cancelled))

    def generate_each(
        self, prompts: Sequence[Prompt], selection: PassageSelection, decoding: Decoding, cancelled: Cancelled = never
    ) -> Generator[str, None, ReadEach]:
        return self._reading.generate_each(prompts, selection, decoding, cancelled)

    def read_ahead(self, prompt: Prompt) -> int:
        return self._engine(prompt).read_ahead(prompt)

    def logits(self, prompt: Prompt, steps: int = 1) -> NDArray[np.float32]:
        return self._engine(prompt).logits(prompt, steps)

    def logits_each(self, prompts: Sequence[Prompt], steps: int = 1, chosen: int = 0) -> NDArray[np.float32]:
        return self._reading.logits_each(prompts, steps, chosen)

    def reading_digest(
        self,
        prompts: Sequence[Prompt],
        decoding: Decoding = Decoding(max_tokens=8),
        selection: PassageSelection = CALIBRATED,
    ) -> Digest:
        return self._reading.reading_digest(prompts, decoding, selection)

    def logits_digest(self, prompt: Prompt, steps: int = 8) -> Digest:
        return sha256_hex(self.logits(prompt, steps).tobytes())

    def _engine(self, prompt: Prompt) -> LlamaCppEngine:
        if prompt.passages:
            return self._reading
        with self._lock:
            if self._closed:
                raise EngineError(f"The model {self.identity.name!r} was closed; load it again.")
            if self._base is None:
                self._base = self._open_base()
            return self._base

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._base is not None:
                self._base.close()
        self._reading.close()
