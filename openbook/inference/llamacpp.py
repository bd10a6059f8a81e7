"""The llama.cpp engine, on its C API: weights mapped read-only, blocks evaluated in one canonical order.

Canonical order: every block is evaluated in calls of at most `CALL_TOKENS` tokens counted from the block's own start,
then generated tokens one at a time, in a context that was cleared first. The shape of every call is therefore a
function of the request alone, and so are the bits of its result.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from openbook.config import available_cores
from openbook.errors import ContextOverflow, EngineError
from openbook.inference import sampling
from openbook.inference.frozen import Cancelled, never
from openbook.inference.llamalib import Aborted, Adapter, Context, Library, Model, library
from openbook.inference.stopping import TextStream
from openbook.inference.tokenizing import PromptTokenizer
from openbook.models.digest import READER_KEYS
from openbook.records import (
    Completion,
    Decoding,
    Digest,
    FinishReason,
    ModelIdentity,
    Prompt,
    ReaderFormat,
    canonical_json,
    sha256_hex,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CALL_TOKENS = 256  # longest evaluation call; long enough for full speed, short enough to notice a cancel
PARALLEL_CONTEXTS = 2  # requests evaluated at the same time; more of them wait
_POLL_S = 0.05  # a request that waits asks this often whether it was cancelled


class LlamaCppEngine:
    """One GGUF file, and maybe an adapter on it, opened read-only. Safe to use from several threads: requests share nothing but the weights.

    `close` never waits: memory that a request under way still needs is freed when that request ends. So a stream which
    somebody keeps without reading it (a traceback does) delays the freeing and nothing else.
    """

    def __init__(
        self,
        path: Path,
        *,
        identity: ModelIdentity,
        adapter: Path | None = None,
        context_tokens: int = 4096,
        threads: int = 0,
    ) -> None:
        self._identity = identity
        self._lib: Library = library()
        self._model = Model(self._lib, path)
        # Freed with the model by llama.cpp.
        self._adapter = Adapter(self._lib, self._model, adapter) if adapter else None
        part = self._adapter or self._model
        instruction, abstention = (part.metadata(READER_KEYS + key) for key in ("instruction", "abstention"))
        self._reader_format = ReaderFormat(instruction, abstention) if instruction and abstention else None
        self._threads = threads or available_cores()
        trained = self._model.trained_context_tokens
        self._context_tokens = min(context_tokens, trained) if trained > 0 else context_tokens
        # Guards the four fields below. Reentrant, because the garbage collector may end a dropped stream at any moment.
        self._state = threading.Condition(threading.RLock())
        self._closed, self._users = False, 0
        self._contexts = [self._new_context()]  # all that were made
        # None: made when a second request comes in at the same time
        self._idle: list[Context | None] = [None] * (PARALLEL_CONTEXTS - 1) + [*self._contexts]
        self._tokenizer = PromptTokenizer(self._model)

    @property
    def identity(self) -> ModelIdentity:
        return self._identity

    @property
    def numeric_class(self) -> str:
        rule = f"calls of {CALL_TOKENS} from each block's start"
        return f"llama.cpp {self._lib.build}; {self._lib.features}; {self._threads} threads; {rule}; f16 cache, flash attention"

    @property
    def context_tokens(self) -> int:
        return self._context_tokens

    @property
    def reader_format(self) -> ReaderFormat | None:
        """How this model was trained to be asked about passages; None for one that was not."""
        return self._reader_format

    def count_prompt_tokens(self, prompt: Prompt) -> int:
        return sum(len(block) for block in self.tokenize(prompt))

    def tokenize(self, prompt: Prompt) -> list[list[int]]:
        """Token ids of each block, in canonical order. Only the template's own text can give control tokens."""
        with self._in_use():
            return self._tokenizer.blocks(prompt)

    def generate(
        self, prompt: Prompt, decoding: Decoding, cancelled: Cancelled = never
    ) -> Generator[str, None, Completion]:
        with self._in_use():
            return (yield from self._generate(prompt, decoding, cancelled))

    def _generate(self, prompt: Prompt, decoding: Decoding, cancelled: Cancelled) -> Generator[str, None, Completion]:
        blocks = self._tokenizer.blocks(prompt)
        self._check_fits(sum(map(len, blocks)), decoding.max_tokens)
        try:
            with self._context(cancelled) as context:
                context.adapt(self._adapts(prompt))
                return (yield from self._answer(context, blocks, 0, decoding))
        except Aborted:  # while it waited for a context
            return self._completion(blocks, "", [], "cancelled")

    def complete_each(self, prompts: Sequence[Prompt], decoding: Decoding) -> Iterator[Completion]:
        """The completion of each prompt. Blocks that a prompt begins with as the one before it did are read once.

        Law: bit for bit what `generate` gives for each alone.
        """
        read: list[list[int]] = []
        with self._in_use(), self._context(never) as context:
            for prompt in prompts:
                blocks = self._tokenizer.blocks(prompt)
                self._check_fits(sum(map(len, blocks)), decoding.max_tokens)
                # The last block is always read, for the logits after it.
                same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(read, blocks[:-1], strict=False))
                shared = sum(1 for _ in same)
                if context.adapt(self._adapts(prompt)):
                    shared = 0
                if not context.rewind(sum(map(len, blocks[:shared]))):
                    shared = 0
                pieces = self._answer(context, blocks, shared, decoding)
                while True:
                    try:
                        next(pieces)
                    except StopIteration as done:
                        yield done.value
                        break
                read = blocks

    def _answer(
        self, context: Context, blocks: list[list[int]], shared: int, decoding: Decoding
    ) -> Generator[str, None, Completion]:
        """Read the blocks from number `shared` on, then decode."""
        prompt_digest = sha256_hex(canonical_json(blocks))
        request = sampling.request_digest(self._identity.digest, prompt_digest, decoding)
        stream, log_probs, pieces = TextStream(decoding.stop), list[float](), list[str]()
        finish: FinishReason = "length"
        try:
            logits = context.evaluate_blocks(blocks[shared:], CALL_TOKENS)
            for step in range(decoding.max_tokens):
                token, log_prob = sampling.choose_token(logits, decoding, request, step)
                log_probs.append(log_prob)
                if self._model.ends_generation(token):
                    finish = "end"
                    break
                if piece := stream.feed(self._model.piece(token)):
                    pieces.append(piece)
                    yield piece
                if stream.stopped:
                    finish = "stop"
                    break
                if step + 1 < decoding.max_tokens:
                    logits = context.evaluate([token])
        except Aborted:
            finish = "cancelled"
        if finish != "cancelled" and (rest := stream.feed(b"", final=True)):
            pieces.append(rest)
            yield rest
        return self._completion(blocks, "".join(pieces), log_probs, finish)

    def _completion(
        self, blocks: list[list[int]], text: str, log_probs: list[float], finish: FinishReason
    ) -> Completion:
        return Completion(
            text=text,
            finish_reason=finish,
            prompt_tokens=sum(map(len, blocks)),
            answer_tokens=len(log_probs),
            prompt_digest=sha256_hex(canonical_json(blocks)),
            numeric_class=self.numeric_class,
            mean_logprob=sum(log_probs) / len(log_probs) if log_probs else None,
        )

    def logits(self, prompt: Prompt, steps: int = 1) -> NDArray[np.float32]:
        """Logits after the prompt and after each of the next greedy tokens: float32 [steps, vocabulary].

        The probe behind every claim that nothing changed: equal bytes, equal function.
        """
        import numpy as np

        with self._in_use():
            blocks = self._tokenizer.blocks(prompt)
            self._check_fits(sum(map(len, blocks)), steps)
            rows: list[NDArray[np.float32]] = []
            with self._context(never) as context:
                context.adapt(self._adapts(prompt))
                rows.append(context.evaluate_blocks(blocks, CALL_TOKENS))
                while len(rows) < steps:
                    rows.append(context.evaluate([int(np.argmax(rows[-1]))]))
        return np.stack(rows)

    def logits_digest(self, prompt: Prompt, steps: int = 8) -> Digest:
        return sha256_hex(self.logits(prompt, steps).tobytes())

    def _adapts(self, prompt: Prompt) -> bool:
        """A reader's adapter is for reading: what has no passages goes to the base alone, whose knowledge it is."""
        return bool(prompt.passages) or self._reader_format is None

    def close(self) -> None:
        with self._state:
            self._closed = True
            self._state.notify_all()  # requests that wait for a context end now
            self._free_if_unused()

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        """Keeps the model in memory. `close` frees it if nobody is in here; otherwise the last one to leave does."""
        with self._state:
            self._check_open()
            self._users += 1
        try:
            yield
        finally:
            with self._state:
                self._users -= 1
                self._free_if_unused()

    def _free_if_unused(self) -> None:
        if self._closed and self._users == 0:
            while self._contexts:
                self._contexts.pop().close()
            self._model.close()

    @contextmanager
    def _context(self, cancelled: Cancelled) -> Iterator[Context]:
        """A context of one's own, cleared. Raises Aborted if `cancelled` while all are taken."""
        context = self._wait_for_idle(cancelled)
        try:
            if context is None:
                context = self._new_context()
                with self._state:
                    self._contexts.append(context)
            context.begin(cancelled)
            yield context
        finally:
            with self._state:
                self._idle.append(context)
                self._state.notify()

    def _wait_for_idle(self, cancelled: Cancelled) -> Context | None:
        while not cancelled():  # asked without the lock, since it is the caller's code
            with self._state:
                self._check_open()
                if self._state.wait_for(lambda: self._idle, _POLL_S):
                    return self._idle.pop()
        raise Aborted

    def _new_context(self) -> Context:
        return Context(self._lib, self._model, self._context_tokens, CALL_TOKENS, self._threads, self._adapter)

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError(f"The model {self._identity.name!r} was closed; load it again.")

    def _check_fits(self, prompt_tokens: int, answer_tokens: int) -> None:
        if prompt_tokens + answer_tokens > self._context_tokens:
            raise ContextOverflow(
                f"The prompt has {prompt_tokens} tokens and the answer may take {answer_tokens}, but the context of "
                f"{self._identity.name!r} holds {self._context_tokens}. Ask with fewer passages, a shorter question or a "
                "smaller max_tokens."
            )
