"""`FrozenModel`: a model that answers and cannot learn, over one small seam, `Engine`."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol, final, runtime_checkable

from openbook.errors import EngineError, ModelError
from openbook.parallel import Cancelled, never
from openbook.records import Completion, Decoding, ModelIdentity, Prompt, ReaderFormat

if TYPE_CHECKING:
    from openbook.inference.embedder import OnnxEmbedder
    from openbook.inference.kv_cache import KVCache
    from openbook.models import ModelReference

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


def load_model(
    reference: ModelReference,
    *,
    context_tokens: int = 4096,
    threads: int = 0,
    states: KVCache | None = None,
    slots: int = 0,
) -> FrozenModel:
    """Open a stored model, read-only and memory-mapped. The caller has verified it (`ModelStore.check_fast`).

    `context_tokens` is an upper bound. `threads` 0 means one for each core this process may use. `states` keeps what is
    computed of passages; by default in this process's memory. An adapter is opened merged with its base, where the
    store has that, or on its base. A file that the catalogue does not name is first loaded by a process of its own (`trial`).
    `slots`: how many answers may be written together (see `openbook.inference.slots`). For an adapter that is opened merged, this
    holds for prompts with passages; the others go to its base, which writes each alone.

    Raises EngineError, also for a model that allows no slots on this machine; UnknownModel if the base is missing, ModelError for an embedder.
    """
    from openbook.inference.answerability import probe_of
    from openbook.inference.llamacpp import LlamaCppEngine
    from openbook.inference.trial import trial_of

    if reference.manifest.kind == "embedder":
        raise ModelError(f"{reference.name!r} is an embedder, not a language model; choose another with --model.")
    adapter = reference if reference.manifest.kind == "adapter" else None
    base = reference.needed_base if adapter else reference

    opened = partial(
        LlamaCppEngine,
        identity=ModelIdentity(name=reference.name, digest=reference.digest, evidence="verified"),
        context_tokens=min(context_tokens, base.manifest.context_tokens or context_tokens),
        threads=threads,
        states=states,
    )
    if adapter is None or adapter.merged is None:
        trial = trial_of(base, adapter)
        part = adapter.main_file if adapter else None
        engine = opened(base.main_file, adapter=part, trial=trial, slots=slots, probe=probe_of(reference))
    else:
        open_base = partial(opened, base.main_file, trial=trial_of(base))  # tried now, though it is opened later
        note = f"adapter merged as {adapter.merged.digest[:12]}"
        engine = opened(
            adapter.merged.main_file, note=note, trial=trial_of(adapter.merged), open_base=open_base, slots=slots
        )
    return FrozenModel(engine, engine.reader_format)


def prompt_counter(reference: ModelReference) -> Callable[[Prompt], int]:
    """`count_prompt_tokens` of a stored model, from its vocabulary alone: for a process that lets others compute.

    Raises EngineError, UnknownModel if the base of an adapter is missing.
    """
    from openbook.inference.llamacpp import cells_of
    from openbook.inference.llamalib import Model
    from openbook.inference.tokenizer import PromptTokenizer
    from openbook.inference.trial import trial_of

    adapter = reference if reference.manifest.kind == "adapter" else None
    part = reference if adapter is None else adapter.merged or adapter.needed_base
    model = Model(part.main_file, vocabulary_only=True)
    tokenizer = PromptTokenizer(model, trial_of(part, None if adapter is None or adapter.merged else adapter))

    def count(prompt: Prompt) -> int:
        return cells_of(prompt, tokenizer.blocks(prompt))

    weakref.finalize(count, model.close)
    return count


def connect_model(name: str, *, base_url: str, api_key: str = "", context_tokens: int = 4096) -> FrozenModel:
    """A model behind an OpenAI-compatible server. Its identity is what the server claims, and answers say so."""
    from openbook.inference.openai import OpenAIEngine

    return FrozenModel(OpenAIEngine(name, base_url=base_url, api_key=api_key, context_tokens=context_tokens))


def load_embedder(reference: ModelReference, *, threads: int = 0) -> OnnxEmbedder:
    """Open a stored embedder. Raises EngineError, or ModelError for a language model."""
    from openbook.inference.embedder import OnnxEmbedder

    spec = reference.manifest.embedding
    if reference.manifest.kind != "embedder" or spec is None:
        raise ModelError(
            f"{reference.name!r} is a language model, not an embedder; "
            "set OPENBOOK_EMBEDDER to an embedder, for instance minilm-l6-int8."
        )
    return OnnxEmbedder(reference.path, name=reference.name, digest=reference.digest, spec=spec, threads=threads)
