"""`FrozenModel`: a model that answers and cannot learn, over one small seam, `Engine`."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Protocol, final, runtime_checkable

from openbook.errors import EngineError
from openbook.parallel import Cancelled, never
from openbook.records import Completion, Decoding, ModelIdentity, Prompt, ReaderFormat

SIDE_BY_SIDE = 8  # most passages that lie side by side in a context of the local engine


@dataclass(frozen=True, slots=True)
class ReadEach:
    """`read`: how many prompts were read. `chosen`: the index of the one that was answered, or None.

    Without one the completion has no text. Its prompt tokens and digest are those of all prompts that were read.
    """

    read: int
    chosen: int | None
    completion: Completion


class Engine(Protocol):
    """Runs one model. The seam that llama.cpp, remote servers and the echo fake stand behind.

    The conformance suite in `openbook.testing` says what every engine must do.
    """

    @property
    def identity(self) -> ModelIdentity: ...

    @property
    def numeric_class(self) -> str:
        """Inside one class, equal requests give bit-identical results. Empty where nothing is promised."""
        ...

    @property
    def context_tokens(self) -> int:
        """Prompt and answer together may have at most this many tokens."""
        ...

    def count_prompt_tokens(self, prompt: Prompt) -> int:
        """Tokens that `prompt` takes; for an engine that cannot know, an upper bound."""
        ...

    def generate(self, prompt: Prompt, decoding: Decoding, cancelled: Cancelled) -> Generator[str, None, Completion]:
        """Yield pieces of text as they are decided; return the completion, whose text is all pieces joined.

        Raises ContextOverflow when prompt and `max_tokens` do not fit, EngineError when the engine fails. `cancelled`
        is asked often and from any thread; once it is true the generator ends with `finish_reason="cancelled"`, and
        text that was held back (it could have become a stop string) is neither yielded nor part of the completion.
        """
        ...

    def close(self) -> None:
        """Give back memory, without waiting. Later calls of any method but `close` raise EngineError.

        Requests under way may end with EngineError or go on; the memory they need is given back when they end.
        """
        ...


@runtime_checkable
class ReadingEngine(Protocol):
    """An engine that also reads passages one by one, and keeps what it computed of them."""

    def generate_each(
        self, prompts: Sequence[Prompt], decoding: Decoding, cancelled: Cancelled
    ) -> Generator[str, None, ReadEach]:
        """Evaluate prompts in order until they are `enough`, and answer the one that `choose` names as `generate` does.

        Both are of `passage_selection`. Law: given only the prompts that were read, it does the same.
        """
        ...

    def read_ahead(self, prompt: Prompt) -> int:
        """As `FrozenModel.read_ahead`."""
        ...


@runtime_checkable
class CachingEngine(Protocol):
    """An engine that keeps what it computed of passages where a purge finds it."""

    def purge_mark(self) -> str:
        """Another text after each purge.

        A prompt that carries this mark (`Prompt.purge_mark`) leaves nothing behind when there is a purge meanwhile.
        """
        ...


@final
@dataclass(frozen=True, slots=True)
class FrozenModel:
    """Fixed parameters. What is kept between requests (states of passages) changes no answer.

    Inside one numeric class the same request gives the same answer, always; a server promises nothing.
    There is no method that changes a weight, and none may be added; training writes new models instead.
    """

    engine: Engine
    reader: ReaderFormat | None = None  # how it was trained to be asked about passages, if it was
    purge_mark: str | None = None  # see `for_request`

    @property
    def identity(self) -> ModelIdentity:
        return self.engine.identity

    @property
    def context_tokens(self) -> int:
        return self.engine.context_tokens

    def for_request(self) -> FrozenModel:
        """This model for a request that has yet to look up its passages: after a purge from here on, nothing is kept of it."""
        return replace(self, purge_mark=self.engine.purge_mark()) if isinstance(self.engine, CachingEngine) else self

    def count_prompt_tokens(self, prompt: Prompt) -> int:
        return self.engine.count_prompt_tokens(prompt)

    def stream(
        self, prompt: Prompt, decoding: Decoding = Decoding(), cancelled: Cancelled = never
    ) -> Generator[str, None, Completion]:
        """Pieces of the answer as they come; the generator's return value is the Completion."""
        return self.engine.generate(replace(prompt, purge_mark=self.purge_mark), decoding, cancelled)

    def complete(self, prompt: Prompt, decoding: Decoding = Decoding(), cancelled: Cancelled = never) -> Completion:
        # Closed even if an interrupt arrives here, between two pieces: a traceback would keep the request alive.
        with closing(self.stream(prompt, decoding, cancelled)) as pieces:
            while True:
                try:
                    next(pieces)
                except StopIteration as done:
                    completion: Completion = done.value
                    return completion

    def stream_each(
        self, prompts: Sequence[Prompt], decoding: Decoding = Decoding(), cancelled: Cancelled = never
    ) -> Generator[str, None, ReadEach]:
        """Read prompts one by one until one surely holds the answer, and answer the surest.

        Only where `reads_each`. Raises ContextOverflow, EngineError.
        """
        prompts = [replace(prompt, purge_mark=self.purge_mark) for prompt in prompts]
        return self._reading_engine.generate_each(prompts, decoding, cancelled)

    def read_ahead(self, prompt: Prompt) -> int:
        """Compute and keep what is the same for every question on the prompt's passages.

        Returns how many tokens that is; 0 where the disk has no room for it.
        Raises EngineError for an engine that keeps nothing, ContextOverflow.
        """
        return self._reading_engine.read_ahead(replace(prompt, purge_mark=self.purge_mark))

    @property
    def reads_each(self) -> bool:
        return self.reader is not None and isinstance(self.engine, ReadingEngine)

    @property
    def parallel_passages(self) -> int:
        """How many passages it can read side by side. 0: none, because it runs on a server, or reads single passages."""
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
