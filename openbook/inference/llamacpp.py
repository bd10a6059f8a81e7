"""The llama.cpp engine: weights mapped read-only, blocks evaluated in one canonical order.

Canonical order: each block is evaluated in calls of at most `CALL_TOKENS` tokens, counted from the block's own start, then
generated tokens one at a time, in a cleared context. So the shape of every call, and the bits of its result, are a function
of the request alone. States after blocks but the last are kept (`KVCache`); restoring one skips only equal computations.

When passages are read one by one, the first is read alone, then up to `SIDE_BY_SIDE` at a time share one context, and their
questions are evaluated together. When one question sees all passages side by side, each is evaluated alone after the system
block; their states are joined into the question's sequence, after the longest passage.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from openbook.core.config import available_cores
from openbook.core.errors import ContextOverflow, EngineError
from openbook.core.parallel import Cancelled, Progress, never, silent
from openbook.core.records import (
    Completion,
    Decoding,
    Digest,
    ModelIdentity,
    Prompt,
    canonical_json,
    sha256_hex,
    text_of_block,
)
from openbook.inference.answerability import AnswerabilityProbe
from openbook.inference.context_pool import ContextPool
from openbook.inference.decoding import AnswerDecoder, Spans, choose, enough, log_softmax, request_digest, score_of
from openbook.inference.frozen import SIDE_BY_SIDE, ReadEach
from openbook.inference.json_grammar import JsonGrammar, json_tokenizer
from openbook.inference.kv_cache import KVCache, next_key, root_key
from openbook.inference.llamalib import Aborted, Adapter, Context, Model, library
from openbook.inference.tokenizer import PromptTokenizer
from openbook.models.reader_metadata import reader_format
from openbook.models.verify import Trial

if TYPE_CHECKING:
    from llguidance import LLTokenizer
    from numpy.typing import NDArray

CALL_TOKENS = 256  # long enough for full speed, short enough to notice a cancel
SHARED_CELLS = 4096  # tokens of all passages side by side, with questions and answers; one alone may have more

Look: TypeAlias = "Callable[[NDArray[np.float32]], object]"
"""Called with each row of logits that decides something, in order. Tests compare these rows."""


class LlamaCppEngine:
    """One GGUF file, optionally with an adapter, opened read-only. Thread-safe: requests share only the weights.

    A trained reader's adapter is for reading: a prompt without passages goes to the base. `open_base` opens the base's own file
    when the first one holds both merged, which reads twice as fast (research/benchmarks.md).
    """

    reports_reading = True

    def __init__(
        self,
        path: Path,
        *,
        identity: ModelIdentity,
        adapter: Path | None = None,
        context_tokens: int = 4096,
        threads: int = 0,
        states: KVCache | None = None,
        note: str = "",
        trial: Trial | None = None,
        open_base: Callable[[], LlamaCppEngine] | None = None,
        probe: AnswerabilityProbe | None = None,
    ) -> None:
        """`note`: further text for the numeric class. `trial`: the recorded output of the chat template."""
        self.identity: Final = identity
        self._states = states or KVCache()
        self._open_base, self._opening = open_base, threading.Lock()
        self._base: LlamaCppEngine | None = None
        self._threads, self._probe = threads or available_cores(), probe
        self._model = Model(path)
        trained = self._model.trained_context_tokens
        self.context_tokens: Final = min(context_tokens, trained) if trained > 0 else context_tokens
        try:
            # llama.cpp frees it with the model.
            self._adapter = Adapter(self._model, adapter) if adapter else None
            self.reader_format: Final = reader_format((self._adapter or self._model).metadata)
            self._pool = ContextPool(identity.name, self._model, self._new_context)
        except BaseException:
            self._model.close()
            raise
        rule = f"calls of {CALL_TOKENS} from each block's start, 1 then {SIDE_BY_SIDE} passages in {SHARED_CELLS} side by side"
        rule += f"; f16 cache, flash attention{note and f'; {note}'}"
        # A probe does not change how prompts are read, so kept states belong to the first part of the class.
        self._reading_class = f"llama.cpp {library().build}; {library().features}; {self._threads} threads; {rule}"
        numeric_class = self._reading_class
        if probe is not None:
            numeric_class += f"; answerability by layer {probe.layer}, {probe.digest[:12]}"
        self.numeric_class: Final = numeric_class
        self._tokenizer = PromptTokenizer(self._model, trial)
        abstention = self._model.tokenize(self.reader_format.abstention, control=False) if self.reader_format else []
        self._abstention_token = abstention[0] if abstention else None

    def purge_mark(self) -> str:
        return self._states.purge_mark()

    def count_prompt_tokens(self, prompt: Prompt) -> int:
        return cells_of(prompt, self.tokenize(prompt))

    def tokenize(self, prompt: Prompt) -> list[list[int]]:
        """The token ids of each block, in canonical order."""
        with self._pool.in_use():
            return self._tokenizer.blocks(prompt)

    def generate(
        self,
        prompt: Prompt,
        decoding: Decoding,
        cancelled: Cancelled = never,
        look: Look = lambda row: None,
        progress: Progress = silent,
    ) -> Generator[str, None, Completion]:
        if (base := self._base_for(prompt)) is not None:
            return (yield from base.generate(prompt, decoding, cancelled, look, progress))
        with self._pool.in_use():
            request = self._request(prompt, decoding)
            stated: float | None = None
            try:
                count = counted([request], progress)
                with self._pool.lent(cancelled) as context:
                    (logits,) = self._read(context, [request], count)
                    look(logits)
                    if self._probe is not None and prompt.passages:
                        stated = self._probe.probability(context.hidden_state)
                        if prompt.declines and stated < self._probe.declines_below:
                            request.decoder.finish = "end"
                    if request.decoder.finish is None:
                        logits = self._declining(prompt, logits)
                        if decoding.schema and prompt.passages and int(np.argmax(logits)) == self._abstention_token:
                            request.decoder.finish = "end"  # the schema has no place for the abstention
                        else:
                            yield from self._write(context, request, logits, 0, look)
            except Aborted:  # also while waiting for a context
                request.decoder.finish = "cancelled"
            return replace(self._completion([request], 0), stated=stated)

    def _write(
        self, context: Context, request: _Request, logits: NDArray[np.float32], sequence: int, look: Look
    ) -> Generator[str]:
        """Yield the answer that begins with `logits`. `look` gets each further row."""
        decoder = request.decoder
        while True:
            if piece := decoder.take(logits):
                yield piece
            if decoder.finish:
                return
            (logits,) = context.evaluate([(sequence, [decoder.token])])
            look(logits)

    def _declining(self, prompt: Prompt, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """A reader with a threshold abstains exactly when the abstention's probability reaches it."""
        reader, abstention = self.reader_format, self._abstention_token
        if not prompt.passages or reader is None or reader.declines_above is None or abstention is None:
            return logits
        declines = float(np.exp(log_softmax(logits)[abstention])) >= reader.declines_above
        return np.where((np.arange(len(logits)) == abstention) == declines, logits, -np.inf).astype(np.float32)

    def generate_each(
        self,
        prompts: Sequence[Prompt],
        decoding: Decoding,
        cancelled: Cancelled = never,
        look: Look = lambda row: None,
        progress: Progress = silent,
    ) -> Generator[str, None, ReadEach]:
        abstention = self._abstention_token
        if abstention is None or not prompts:
            raise EngineError(f"{self.identity.name!r} is not a trained reader, so it cannot read each passage alone.")
        with self._pool.in_use():
            requests = [self._request(prompt, decoding) for prompt in prompts]
            groups = grouped(requests, decoding.max_tokens)
            chosen: int | None = None
            rows: list[NDArray[np.float32]] = []
            scores: list[float] = []
            try:
                count = counted(requests, progress)
                with self._pool.lent(cancelled) as context:
                    for group in groups:
                        for row in self._read(context, group, count):
                            look(row)
                            rows.append(row)
                            scores.append(score_of(row, abstention))
                        last = group
                        if enough(scores):
                            break
                    chosen = choose(scores)
                    if chosen is not None:
                        group = next(group for group in groups if requests[chosen] in group)
                        if group is not last:  # its passages were evicted for others
                            self._read(context, group)
                        request, logits = requests[chosen], rows[chosen]
                        sequence = group.index(request)
                        yield from self._write(context, request, logits, sequence, look)
            except Aborted:
                requests[chosen or 0].decoder.finish = "cancelled"
            read = max(1, len(rows))
            return ReadEach(read, chosen, self._completion(requests[:read], chosen or 0, each=True))

    def read_ahead(self, prompt: Prompt) -> int:
        """See `FrozenModel.read_ahead`. Returns 0 also if keeping more would evict earlier states from disk."""
        if self._states.derived is not None and self._states.full:
            return 0
        if (base := self._base_for(prompt)) is not None:
            return base.read_ahead(prompt)
        with self._pool.in_use():
            request = self._request(prompt, Decoding(max_tokens=1))
            with self._pool.lent(never) as context:
                context.adapt(self._adapts(prompt))
                for prefix in request.prefixes:
                    self._state_of(context, prefix)
            return sum(map(len, request.blocks[:-1]))

    def _read(
        self, context: Context, group: Sequence[_Request], count: Callable[[int], None] = silent
    ) -> list[NDArray[np.float32]]:
        """Read prompts side by side, or one prompt whose question sees all its passages. Return the logits after each question.

        `count` gets the tokens that were read, or restored, since the last call.
        """
        context.adapt(self._adapts(group[0].prompt))
        prefixes = [prefix for request in group for prefix in request.prefixes]
        states = [self._state_of(context, prefix, count) for prefix in prefixes]
        context.clear()
        for sequence, (prefix, state) in enumerate(zip(prefixes, states, strict=True)):
            self._restore(context, prefix, len(prefix.blocks), state, sequence)
        if group[0].prompt.side_by_side:
            context.join(len(prefixes), len(group[0].blocks[0]))
        questions = [(sequence, request.blocks[-1]) for sequence, request in enumerate(group)]
        rows = context.evaluate(questions, tap=True)
        count(sum(len(question) for _, question in questions))
        return rows

    def _state_of(self, context: Context, prefix: _Prefix, count: Callable[[int], None] = silent) -> bytes:
        """The state after the prefix, from the cache, or computed and kept."""
        state, blocks = b"", len(prefix.blocks)
        while blocks and not (state := self._states.get(prefix.keys[blocks - 1]) or b""):
            blocks -= 1
        count(prefix.tokens(blocks))
        if blocks == len(prefix.blocks):
            return state
        context.clear()
        self._restore(context, prefix, blocks, state, 0)
        for number in range(blocks, len(prefix.blocks)):
            context.read(prefix.blocks[number], count)
            if tokens := prefix.tokens(number + 1):
                state = context.state()
                self._states.put(prefix.keys[number], state, prefix.purge_mark, tokens)
        return state

    def _restore(self, context: Context, prefix: _Prefix, blocks: int, state: bytes, sequence: int) -> None:
        if not state:
            return
        try:
            context.restore(state, prefix.tokens(blocks), sequence)
        except EngineError as error:
            for key in prefix.keys:
                self._states.drop(key)
            raise EngineError(f"{error} It was kept when a passage was read, and is deleted now; ask again.") from error

    def _request(self, prompt: Prompt, decoding: Decoding) -> _Request:
        blocks = self._tokenizer.blocks(prompt)
        tokens = cells_of(prompt, blocks)
        if tokens + decoding.max_tokens > self.context_tokens:
            raise ContextOverflow(
                f"The prompt has {tokens} tokens and the answer may take {decoding.max_tokens}, but the context of "
                f"{self.identity.name!r} holds {self.context_tokens}. Ask with fewer passages, a shorter question or a "
                "smaller max_tokens."
            )
        if prompt.side_by_side and len(prompt.passages) > SIDE_BY_SIDE:
            raise EngineError(f"At most {SIDE_BY_SIDE} passages can lie side by side, not {len(prompt.passages)}.")
        if prompt.side_by_side and self._model.is_recurrent:
            raise EngineError(
                f"{self.identity.name!r} is a recurrent model, so it cannot read passages side by side. Use the strategy 'checked'."
            )
        if not blocks[-1]:
            raise EngineError("The prompt has no tokens.")
        system, *passages = blocks[:-1]
        alone = [[system, passage] for passage in passages] if prompt.side_by_side and passages else [blocks[:-1]]
        prefixes = [self._prefix(prompt, each) for each in alone]
        prompt_digest = sha256_hex(canonical_json({"side by side": blocks} if prompt.side_by_side else blocks))
        digest = request_digest(self.identity.digest, prompt_digest, decoding)
        spans = Spans("\n".join(map(text_of_block, prompt.passages))) if decoding.quote else None
        grammar = JsonGrammar(self._json_tokenizer, decoding.schema) if decoding.schema else None
        decoder = AnswerDecoder(self._model, decoding, digest, spans, grammar)
        return _Request(prompt, blocks, prefixes, prompt_digest, decoder)

    @cached_property
    def _json_tokenizer(self) -> LLTokenizer:
        return json_tokenizer(self._model)

    def _prefix(self, prompt: Prompt, blocks: Sequence[list[int]]) -> _Prefix:
        weights = "adapter" if self._adapts(prompt) else "base"
        key = root_key(self.identity.digest, self._reading_class, weights, *prompt.labels)
        keys = []
        for block in blocks:
            keys.append(key := next_key(key, block))
        mark = self._states.purge_mark()
        return _Prefix(blocks, keys, mark if prompt.purge_mark is None else prompt.purge_mark)

    def _completion(self, requests: Sequence[_Request], chosen: int, *, each: bool = False) -> Completion:
        """The chosen prompt's completion; tokens and digest cover all prompts read."""
        decoder, digests = requests[chosen].decoder, [request.prompt_digest for request in requests]
        return Completion(
            text=decoder.text,
            finish_reason=decoder.finish or "end",
            prompt_tokens=sum(len(block) for request in requests for block in request.blocks),
            answer_tokens=decoder.answer_tokens,
            prompt_digest=sha256_hex(canonical_json(digests)) if each else digests[0],
            numeric_class=self.numeric_class,
            least_logprob=decoder.least_logprob,
        )

    def logits(self, prompt: Prompt, steps: int = 1) -> NDArray[np.float32]:
        """Logits after the prompt and each further token of a greedy answer: float32 [at most `steps`, vocabulary]."""
        rows: list[NDArray[np.float32]] = []
        for _ in self.generate(prompt, Decoding(max_tokens=steps), look=rows.append):
            pass
        return np.stack(rows)

    def hidden_state(self, prompt: Prompt) -> NDArray[np.float32]:
        """The probe's input for this prompt: float32 [width]."""
        with self._pool.in_use():
            request = self._request(prompt, Decoding(max_tokens=1))
            with self._pool.lent(never) as context:
                self._read(context, [request])
                return context.hidden_state

    def logits_digest(self, prompt: Prompt, steps: int = 8) -> Digest:
        return sha256_hex(self.logits(prompt, steps).tobytes())

    def _adapts(self, prompt: Prompt) -> bool:
        return self._adapter is not None and (bool(prompt.passages) or self.reader_format is None)

    def _base_for(self, prompt: Prompt) -> LlamaCppEngine | None:
        """The base's engine, if it must answer and is a separate file."""
        if prompt.passages or self._open_base is None:
            return None
        with self._opening:
            self._pool.check_open()
            if self._base is None:
                self._base = self._open_base()
                if self._pool.closed:  # closed meanwhile
                    self._base.close()
            return self._base

    def close(self) -> None:
        self._pool.close()
        if self._base is not None:
            self._base.close()

    def _new_context(self) -> Context:
        return Context(
            self._model,
            self._adapter,
            context_tokens=max(self.context_tokens, SHARED_CELLS),
            call_tokens=CALL_TOKENS,
            sequences=SIDE_BY_SIDE,
            threads=self._threads,
            hidden_layer=self._probe.layer if self._probe else None,
        )


@dataclass(frozen=True, slots=True)
class _Prefix:
    """Blocks evaluated before a question. `keys` are those of the states after each."""

    blocks: Sequence[list[int]]
    keys: Sequence[bytes]
    purge_mark: str

    def tokens(self, blocks: int) -> int:
        return sum(map(len, self.blocks[:blocks]))


@dataclass(frozen=True, slots=True, eq=False)
class _Request:
    prompt: Prompt
    blocks: list[list[int]]
    prefixes: list[_Prefix]
    prompt_digest: Digest
    decoder: AnswerDecoder


def counted(requests: Sequence[_Request], progress: Progress) -> Callable[[int], None]:
    """A function that adds to the tokens read and reports their sum; now none is read."""
    total, done = sum(cells_of(request.prompt, request.blocks) for request in requests), 0

    def count(tokens: int) -> None:
        nonlocal done
        done += tokens
        progress(done, total)

    count(0)
    return count


def cells_of(prompt: Prompt, blocks: Sequence[Sequence[int]]) -> int:
    """The tokens that a context must hold. Side by side, each passage comes with the system block."""
    copies = max(0, len(prompt.passages) - 1) if prompt.side_by_side else 0
    return sum(map(len, blocks)) + copies * len(blocks[0])


def grouped(requests: Sequence[_Request], answer_tokens: int) -> list[list[_Request]]:
    """The first request alone, then as many in a row as fit side by side.

    Law: for n at the end of a group, the groups of the first n requests are the first groups of all.
    """
    groups: list[list[_Request]] = [[request] for request in requests[:1]]
    filled = SHARED_CELLS  # so the first request stays alone
    for request in requests[1:]:
        size = sum(map(len, request.blocks)) + answer_tokens
        if len(groups[-1]) == SIDE_BY_SIDE or filled + size > SHARED_CELLS:
            groups.append([])
            filled = 0
        groups[-1].append(request)
        filled += size
    return groups
