"""`FrozenModel`: a model that answers and cannot learn, over the small seam `Engine`."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Protocol, final, runtime_checkable

from openbook.core.errors import EngineError
from openbook.core.parallel import Cancelled, Progress, never, silent
from openbook.core.records import Completion, Decoding, ModelIdentity, Prompt, ReaderFormat

SIDE_BY_SIDE = 8  # most passages read side by side in one context of the local engine


@dataclass(frozen=True, slots=True)
class ReadEach:
    """The number of prompts read, the index of the answered one, and its completion, without text if there is none.

    Prompt tokens and digest cover all prompts read.
    """

    read: int
    chosen: int | None
    completion: Completion


class Engine(Protocol):
    """Runs one model, as `tests/conformance/models.py` states."""

    @property
    def identity(self) -> ModelIdentity: ...

    @property
    def numeric_class(self) -> str:
        """Inside one class, equal requests give bit-identical results. Empty: no promise."""
        ...

    @property
    def context_tokens(self) -> int:
        """The most tokens of prompt and answer together."""
        ...

    def count_prompt_tokens(self, prompt: Prompt) -> int:
        """Return the tokens of `prompt`, or an upper bound."""
        ...

    def generate(self, prompt: Prompt, decoding: Decoding, cancelled: Cancelled) -> Generator[str, None, Completion]:
        """Yield pieces of text as they become final; return the completion, whose text is all pieces joined.

        Raises ContextOverflow if prompt and `max_tokens` do not fit, EngineError. `cancelled` is called often, from any thread.
        Once true, generation ends with `finish_reason="cancelled"`; text held back as a possible stop string is dropped.
        """
        ...

    def close(self) -> None:
        """Release memory without waiting. Later calls of any method but `close` raise EngineError.

        Running requests may continue or end with EngineError; their memory is released when they end.
        """
        ...


@runtime_checkable
class ReadingEngine(Protocol):
    """An engine that reads passages one by one and keeps their states."""

    def generate_each(
        self, prompts: Sequence[Prompt], decoding: Decoding, cancelled: Cancelled
    ) -> Generator[str, None, ReadEach]:
        """Evaluate prompts in order until `enough`, then answer the prompt that `choose` picks (`decoding`).

        Law: given only the prompts that were read, the result is the same.
        """
        ...

    def read_ahead(self, prompt: Prompt) -> int: ...


@runtime_checkable
class CachingEngine(Protocol):
    """An engine that keeps states of passages, which a purge must reach."""

    def purge_mark(self) -> str:
        """Changes with each purge. A prompt that carries an old mark leaves nothing behind."""
        ...


@runtime_checkable
class ReportingEngine(Protocol):
    """An engine whose `generate` and `generate_each` also take `progress`.

    They call it often until all is read, with the tokens read and the tokens of all prompts.
    """

    reports_reading: bool


@final
@dataclass(frozen=True, slots=True)
class FrozenModel:
    """A model with fixed parameters. Inside one numeric class the same request always gives the same answer, cached or not.

    No method changes a weight, and none may be added: training writes new models.
    """

    engine: Engine
    reader: ReaderFormat | None = None  # the prompt format it was trained for, if it is a trained reader
    purge_mark: str | None = None  # see `for_request`

    @property
    def identity(self) -> ModelIdentity:
        return self.engine.identity

    @property
    def context_tokens(self) -> int:
        return self.engine.context_tokens

    def for_request(self) -> FrozenModel:
        """For a request that is about to look up passages: after a later purge, nothing of it is kept."""
        return replace(self, purge_mark=self.engine.purge_mark()) if isinstance(self.engine, CachingEngine) else self

    def count_prompt_tokens(self, prompt: Prompt) -> int:
        return self.engine.count_prompt_tokens(prompt)

    def stream(
        self,
        prompt: Prompt,
        decoding: Decoding = Decoding(),
        cancelled: Cancelled = never,
        progress: Progress = silent,
    ) -> Generator[str, None, Completion]:
        """See `Engine.generate`. `progress`: only a `ReportingEngine` calls it."""
        more = {"progress": progress} if isinstance(self.engine, ReportingEngine) else {}
        return self.engine.generate(replace(prompt, purge_mark=self.purge_mark), decoding, cancelled, **more)

    def complete(
        self,
        prompt: Prompt,
        decoding: Decoding = Decoding(),
        cancelled: Cancelled = never,
        progress: Progress = silent,
    ) -> Completion:
        # Closed even if an interrupt arrives between two pieces: a traceback would keep the request alive.
        with closing(self.stream(prompt, decoding, cancelled, progress)) as pieces:
            while True:
                try:
                    next(pieces)
                except StopIteration as done:
                    completion: Completion = done.value
                    return completion

    def stream_each(
        self,
        prompts: Sequence[Prompt],
        decoding: Decoding = Decoding(),
        cancelled: Cancelled = never,
        progress: Progress = silent,
    ) -> Generator[str, None, ReadEach]:
        """Read prompts one by one until one is sure to hold the answer; answer from the best. Only where `reads_each`."""
        prompts = [replace(prompt, purge_mark=self.purge_mark) for prompt in prompts]
        more = {"progress": progress} if isinstance(self.engine, ReportingEngine) else {}
        return self._reading_engine.generate_each(prompts, decoding, cancelled, **more)

    def read_ahead(self, prompt: Prompt) -> int:
        """Compute and keep all that is the same for every question on the passages. Return the number of tokens.

        0: the disk has no room. Raises EngineError for an engine that keeps nothing, ContextOverflow.
        """
        return self._reading_engine.read_ahead(replace(prompt, purge_mark=self.purge_mark))

    @property
    def reads_each(self) -> bool:
        return self.reader is not None and isinstance(self.engine, ReadingEngine)

    @property
    def parallel_passages(self) -> int:
        """The number of passages it can read side by side."""
        if not isinstance(self.engine, ReadingEngine):
            return 0
        if self.reader is None:
            return SIDE_BY_SIDE
        return self.reader.passages if self.reader.passages > 1 else 0

    @property
    def _reading_engine(self) -> ReadingEngine:
        if not isinstance(self.engine, ReadingEngine):
            raise EngineError(f"The engine of {self.identity.name!r} cannot read passages one by one or ahead.")
        return self.engine

    def close(self) -> None:
        self.engine.close()
