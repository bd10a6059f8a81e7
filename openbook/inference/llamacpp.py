"""The llama.cpp engine, on its C API: weights mapped read-only, blocks evaluated in one canonical order.

Canonical order: every block is evaluated in calls of at most `CALL_TOKENS` tokens counted from the block's own start,
then generated tokens one at a time, in a context that was cleared first. The shape of every call is therefore a
function of the request alone, and so are the bits of its result. What was computed of the blocks before the last is kept
(`KVCache`) and put back when a request begins with the same blocks: the cache only skips what would give the same bits.

Of passages that are read each on their own the first is read alone, and when that is not enough, the others lie side by
side in one context, in the request's order, up to `SIDE_BY_SIDE` at a time; their questions are evaluated together. A
question that sees all passages side by side follows the longest of them: each was evaluated alone behind the system block,
and its state is put into the one sequence of the question, which holds the system block once.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from openbook.config import available_cores
from openbook.errors import ContextOverflow, EngineError
from openbook.inference.decoding import AnswerDecoder, Spans, log_softmax, request_digest
from openbook.inference.frozen import Cancelled, ReadEach, never
from openbook.inference.kv_cache import KVCache, next_key, root_key
from openbook.inference.llamalib import Aborted, Adapter, Context, Library, Model, block_calls, library
from openbook.inference.passage_selection import CALIBRATED, AbstentionScore, PassageSelection
from openbook.inference.tokenizer import PromptTokenizer, rendered_here
from openbook.models.digest import READER_KEYS
from openbook.models.verify_cache import TemplateText
from openbook.prompts import text_of_block
from openbook.records import (
    Completion,
    Decoding,
    Digest,
    ModelIdentity,
    Prompt,
    ReaderFormat,
    canonical_json,
    sha256_hex,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

CALL_TOKENS = 256  # longest evaluation call; long enough for full speed, short enough to notice a cancel
SIDE_BY_SIDE = 8  # most passages that lie side by side in a context
SHARED_CELLS = 4096  # tokens that those may have together, with their questions and answers; one alone may have more
PARALLEL_CONTEXTS = 2  # requests evaluated at the same time; more of them wait
_POLL_S = 0.05  # a request that waits asks this often whether it was cancelled


class LlamaCppEngine:
    """One GGUF file, and maybe an adapter on it, opened read-only. Safe to use from several threads: requests share nothing but the weights.

    A trained reader's adapter is for reading: a prompt without passages goes to the base alone, whose knowledge it is. With
    the adapter beside the base, that is the same file; when the file holds both merged, which reads twice as fast
    (docs/benchmarks.md), it is the file that `open_base` opens, once it is needed.

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
        states: KVCache | None = None,
        kv_bits: int = 16,
        note: str = "",
        template: Callable[[Model], TemplateText | None] = rendered_here,
        open_base: Callable[[], LlamaCppEngine] | None = None,
    ) -> None:
        """`kv_bits`: 16 or 8 for each key and value. `note`: what else belongs to the numeric class.

        `template` says what the model's chat template writes.
        """
        self.identity: Final = identity
        self._kv_bits = kv_bits
        self._states = states or KVCache()
        self._open_base, self._opening = open_base, threading.Lock()
        self._base: LlamaCppEngine | None = None
        self._lib: Library = library()
        self._model = Model(self._lib, path)
        # Freed with the model by llama.cpp.
        self._adapter = Adapter(self._lib, self._model, adapter) if adapter else None
        part = self._adapter or self._model
        instruction, abstention = (part.metadata(READER_KEYS + key) for key in ("instruction", "abstention"))
        learned = int(part.metadata(READER_KEYS + "passages") or 1)
        threshold = part.metadata(READER_KEYS + "declines_above")
        # How this model was trained to be asked about passages; None for one that was not.
        self.reader_format: Final = (
            ReaderFormat(instruction, abstention, learned, float(threshold) if threshold else None)
            if instruction and abstention
            else None
        )
        self._threads = threads or available_cores()
        trained = self._model.trained_context_tokens
        self.context_tokens: Final = min(context_tokens, trained) if trained > 0 else context_tokens
        rule = f"calls of {CALL_TOKENS} from each block's start, 1 then {SIDE_BY_SIDE} passages in {SHARED_CELLS} side by side"
        rule += f"; {'f16' if kv_bits == 16 else 'q8_0'} cache, flash attention{note and f'; {note}'}"
        self.numeric_class: Final = (
            f"llama.cpp {self._lib.build}; {self._lib.features}; {self._threads} threads; {rule}"
        )
        # Guards the four fields below. Reentrant, because the garbage collector may end a dropped stream at any moment.
        self._state = threading.Condition(threading.RLock())
        self._closed, self._users = False, 0
        self._contexts = [self._new_context()]  # all that were made
        # None: made when a second request comes in at the same time
        self._idle: list[Context | None] = [None] * (PARALLEL_CONTEXTS - 1) + [*self._contexts]
        self._tokenizer = PromptTokenizer(self._model, template)
        abstention_tokens = self._model.tokenize(abstention, control=False) if abstention else []
        self._abstention_token = abstention_tokens[0] if abstention_tokens else None

    def count_prompt_tokens(self, prompt: Prompt) -> int:
        return cells_of(prompt, self.tokenize(prompt))

    def tokenize(self, prompt: Prompt) -> list[list[int]]:
        """Token ids of each block, in canonical order. Only the template's own text can give control tokens."""
        with self._in_use():
            return self._tokenizer.blocks(prompt)

    def generate(
        self, prompt: Prompt, decoding: Decoding, cancelled: Cancelled = never
    ) -> Generator[str, None, Completion]:
        if (base := self._base_for(prompt)) is not None:
            return (yield from base.generate(prompt, decoding, cancelled))
        with self._in_use():
            request = self._request(prompt, decoding)
            try:
                with self._context(cancelled) as context:
                    self._read(context, request)
                    logits = context.evaluate_block(request.blocks[-1])
                    yield from _decode(context, request.decoder, self._declining(prompt, logits))
            except Aborted:  # also while it waited for a context
                request.decoder.cancel()
            return self._completion([request], 0)

    def _declining(self, prompt: Prompt, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """The logits of an answer's first token. A reader with a threshold abstains if that is likely enough, and only then."""
        reader, abstention = self.reader_format, self._abstention_token
        if not prompt.passages or reader is None or reader.declines_above is None or abstention is None:
            return logits
        declines = float(np.exp(log_softmax(logits)[abstention])) >= reader.declines_above
        return np.where((np.arange(len(logits)) == abstention) == declines, logits, -np.inf).astype(np.float32)

    def generate_each(
        self, prompts: Sequence[Prompt], selection: PassageSelection, decoding: Decoding, cancelled: Cancelled = never
    ) -> Generator[str, None, ReadEach]:
        with self._in_use():
            return (yield from self._generate_each(prompts, selection, decoding, cancelled))

    def reading_digest(
        self,
        prompts: Sequence[Prompt],
        decoding: Decoding = Decoding(max_tokens=8),
        selection: PassageSelection = CALIBRATED,
    ) -> Digest:
        """Of all logits by which `generate_each` chooses a passage and then each token: equal digests, equal computation."""
        found = hashlib.sha256()
        with self._in_use():
            for _ in self._generate_each(prompts, selection, decoding, never, lambda row: found.update(row.tobytes())):
                pass
        return found.hexdigest()

    def _generate_each(
        self,
        prompts: Sequence[Prompt],
        selection: PassageSelection,
        decoding: Decoding,
        cancelled: Cancelled,
        look: Callable[[NDArray[np.float32]], object] = lambda row: None,
    ) -> Generator[str, None, ReadEach]:
        """`look` gets every row of logits that decides something, in order."""
        abstention = self._abstention_token
        if abstention is None or not prompts:
            raise EngineError(f"{self.identity.name!r} is no trained reader, which reading each passage alone needs.")
        requests = [self._request(prompt, decoding) for prompt in prompts]
        chosen: int | None = None
        rows: list[NDArray[np.float32]] = []
        scores: list[AbstentionScore] = []
        try:
            with self._context(cancelled) as context:
                begun = self._states.begin()
                groups = grouped(requests, decoding.max_tokens)
                for group in groups:
                    found = self._read_questions(context, group, begun)
                    rows += found
                    for row in found:
                        look(row)
                    scores += [abstention_score(row, abstention) for row in found]
                    last = group
                    if selection.enough(scores):
                        break
                chosen = selection.choose(scores)
                if chosen is not None:
                    group = next(group for group in groups if requests[chosen] in group)
                    if group is not last:  # its passages have made room for others
                        self._read_questions(context, group, begun)
                    sequence = group.index(requests[chosen])
                    yield from _decode(context, requests[chosen].decoder, rows[chosen], sequence, look)
        except Aborted:
            requests[chosen or 0].decoder.cancel()
        read = max(1, len(rows))
        return ReadEach(read, chosen, self._completion(requests[:read], chosen or 0, each=True))

    def read_ahead(self, prompt: Prompt) -> int:
        """Evaluate all of `prompt` but its question, unless that is kept, so that later requests find it. Its tokens."""
        if (base := self._base_for(prompt)) is not None:
            return base.read_ahead(prompt)
        with self._in_use():
            request = self._request(prompt, Decoding(max_tokens=1))
            with self._context(never) as context:
                self._read(context, request)
            return request.tokens_before

    def _read(self, context: Context, request: _Request) -> None:
        """Sequence 0 then holds all blocks but the last."""
        context.adapt(self._adapts(request.prompt))
        if not (request.prompt.side_by_side and request.prompt.passages):
            self._hold(context, request, self._states.begin())
            return
        self._lay_side_by_side(context, request.apart, self._states.begin())
        context.join(len(request.prompt.passages), len(request.blocks[0]))

    def _read_questions(self, context: Context, group: Sequence[_Request], begun: int) -> list[NDArray[np.float32]]:
        """Put every request's passage into a sequence of its own, and evaluate the questions. The logits after each."""
        if not all(request.blocks[-1] for request in group):
            raise EngineError("The prompt has no tokens.")
        context.adapt(self._adapts(group[0].prompt))
        self._lay_side_by_side(context, group, begun)
        calls = [block_calls(request.blocks[-1], CALL_TOKENS) for request in group]
        found: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(group)
        for round_number in range(max(map(len, calls))):
            going = [(i, own[round_number]) for i, own in enumerate(calls) if round_number < len(own)]
            for (i, _), logits in zip(going, context.evaluate_side_by_side(going), strict=True):
                found[i] = logits
        return found

    def _lay_side_by_side(self, context: Context, group: Sequence[_Request], begun: int) -> None:
        """Each sequence then holds all blocks but the last of one request."""
        for _ in range(2):
            states = [self._state_of(context, request, begun) for request in group]
            context.clear()
            refused = [
                request
                for sequence, (request, state) in enumerate(zip(group, states, strict=True))
                if state and not context.restore(state, request.tokens_before, sequence)
            ]
            if not refused:
                return
            for request in refused:  # whole, but not what this library writes
                self._states.drop(self._keys(request)[-1])
        raise EngineError(f"llama.cpp does not take back a state that it gave: {self._lib.last_error()}.")

    def _state_of(self, context: Context, request: _Request, begun: int) -> bytes:
        """The state of all blocks before the last; no bytes where those have no tokens."""
        if not request.tokens_before:
            return b""
        key = self._keys(request)[-1]
        state = self._states.get(key)
        if state is None:
            context.clear()
            self._hold(context, request, begun)
            state = context.state()
        return state

    def _hold(self, context: Context, request: _Request, begun: int) -> None:
        """Sequence 0, which is empty, then holds all blocks but the last: put back as far as it is kept, or evaluated."""
        keys, before = self._keys(request), request.blocks[:-1]
        start = 0
        for number in range(len(before), 0, -1):
            tokens = sum(map(len, before[:number]))
            state = self._states.get(keys[number - 1]) if tokens else None
            if state is None:
                continue
            if context.restore(state, tokens):
                start = number
                break
            self._states.drop(keys[number - 1])  # the library knows better
            context.clear()
        for number in range(start, len(before)):
            context.read_block(before[number])
            if tokens := sum(map(len, before[: number + 1])):
                read = [digest for each in request.origins[:number] for digest in each]
                self._states.put(keys[number], context.state(), read, begun, tokens)

    def _keys(self, request: _Request) -> list[bytes]:
        """The key of the state after each block but the last."""
        weights = "adapter" if self._adapts(request.prompt) else "base"
        key = root_key(self.identity.digest, self.numeric_class, weights, *request.prompt.labels)
        keys = []
        for block in request.blocks[:-1]:
            keys.append(key := next_key(key, block))
        return keys

    def _request(self, prompt: Prompt, decoding: Decoding) -> _Request:
        """Raises ContextOverflow."""
        blocks = self._tokenizer.blocks(prompt)
        if (tokens := cells_of(prompt, blocks)) + decoding.max_tokens > self.context_tokens:
            raise ContextOverflow(
                f"The prompt has {tokens} tokens and the answer may take {decoding.max_tokens}, but the context of "
                f"{self.identity.name!r} holds {self.context_tokens}. Ask with fewer passages, a shorter question or a "
                "smaller max_tokens."
            )
        if prompt.side_by_side and len(prompt.passages) > SIDE_BY_SIDE:
            raise EngineError(f"At most {SIDE_BY_SIDE} passages can lie side by side, not {len(prompt.passages)}.")
        prompt_digest = sha256_hex(canonical_json({"side by side": blocks} if prompt.side_by_side else blocks))
        request = request_digest(self.identity.digest, prompt_digest, decoding)
        spans = Spans("\n".join(map(text_of_block, prompt.passages))) if decoding.quote else None
        return _Request(prompt, blocks, prompt_digest, AnswerDecoder(self._model, decoding, request, spans))

    def _completion(self, requests: Sequence[_Request], chosen: int, *, each: bool = False) -> Completion:
        """What was written in answer to the chosen prompt. Tokens and digest are those of all prompts that were read."""
        decoder, digests = requests[chosen].decoder, [request.prompt_digest for request in requests]
        return Completion(
            text=decoder.text,
            finish_reason=decoder.finish or "end",
            prompt_tokens=sum(len(block) for request in requests for block in request.blocks),
            answer_tokens=decoder.answer_tokens,
            prompt_digest=sha256_hex(canonical_json(digests)) if each else digests[0],
            numeric_class=self.numeric_class,
            mean_logprob=decoder.mean_logprob,
        )

    def logits(self, prompt: Prompt, steps: int = 1) -> NDArray[np.float32]:
        """Logits after the prompt and after each of the next greedy tokens: float32 [steps, vocabulary].

        The probe behind every claim that nothing changed: equal bytes, equal function.
        """
        if (base := self._base_for(prompt)) is not None:
            return base.logits(prompt, steps)
        with self._in_use():
            request = self._request(prompt, Decoding(max_tokens=steps))
            rows: list[NDArray[np.float32]] = []
            with self._context(never) as context:
                self._read(context, request)
                rows.append(context.evaluate_block(request.blocks[-1]))
                while len(rows) < steps:
                    rows.append(context.evaluate([int(np.argmax(rows[-1]))]))
        return np.stack(rows)

    def logits_each(self, prompts: Sequence[Prompt], steps: int = 1, chosen: int = 0) -> NDArray[np.float32]:
        """The same for prompts that are read side by side: a row for each, then one for each next token of `chosen`.

        float32 [prompts + steps - 1, vocabulary]. All must fit side by side.
        """
        with self._in_use():
            requests = [self._request(prompt, Decoding(max_tokens=steps)) for prompt in prompts]
            with self._context(never) as context:
                rows = self._read_questions(context, requests, self._states.begin())
                row = rows[chosen]
                for _ in range(steps - 1):
                    row = context.evaluate([int(np.argmax(row))], chosen)
                    rows.append(row)
        return np.stack(rows)

    def logits_digest(self, prompt: Prompt, steps: int = 8) -> Digest:
        return sha256_hex(self.logits(prompt, steps).tobytes())

    def _adapts(self, prompt: Prompt) -> bool:
        return self._adapter is not None and (bool(prompt.passages) or self.reader_format is None)

    def _base_for(self, prompt: Prompt) -> LlamaCppEngine | None:
        """The engine of the base, where that answers this prompt and is another file."""
        if prompt.passages or self._open_base is None:
            return None
        with self._opening:
            self._check_open()
            if self._base is None:
                self._base = self._open_base()
            return self._base

    def close(self) -> None:
        with self._opening:
            with self._state:
                self._closed = True
                self._state.notify_all()  # requests that wait for a context end now
                self._free_if_unused()
            if self._base is not None:
                self._base.close()

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
        cells = max(self.context_tokens, SHARED_CELLS)
        return Context(
            self._lib, self._model, cells, CALL_TOKENS, self._threads, self._adapter, SIDE_BY_SIDE, self._kv_bits
        )

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError(f"The model {self.identity.name!r} was closed; load it again.")


def _decode(
    context: Context,
    decoder: AnswerDecoder,
    logits: NDArray[np.float32],
    sequence: int = 0,
    look: Callable[[NDArray[np.float32]], object] = lambda row: None,
) -> Generator[str, None, None]:
    """Decode to the end what begins with `logits`, one token at a time; `look` gets those of each further one."""
    while True:
        if piece := decoder.take(logits):
            yield piece
        if decoder.finish:
            return
        logits = context.evaluate([decoder.token], sequence)
        look(logits)


@dataclass(frozen=True, slots=True, eq=False)
class _Request:
    """A prompt under evaluation."""

    prompt: Prompt
    blocks: list[list[int]]
    prompt_digest: Digest
    decoder: AnswerDecoder

    @property
    def tokens_before(self) -> int:
        """Of all blocks but the last."""
        return sum(map(len, self.blocks[:-1]))

    @property
    def apart(self) -> list[_Request]:
        """A request for each passage alone."""
        system, *passages, question = self.blocks
        return [
            replace(
                self,
                prompt=replace(self.prompt, passages=(text,), origins=(tuple(origins),), side_by_side=False),
                blocks=[system, passage, question],
            )
            for text, origins, passage in zip(self.prompt.passages, self.origins, passages, strict=True)
        ]

    @property
    def origins(self) -> Sequence[Sequence[Digest]]:
        """What each passage of the prompt came from."""
        return self.prompt.origins or [[sha256_hex(text.encode())] for text in self.prompt.passages]


def cells_of(prompt: Prompt, blocks: Sequence[Sequence[int]]) -> int:
    """The tokens that a context must have room for. Side by side each passage comes with the system block."""
    copies = max(0, len(prompt.passages) - 1) if prompt.side_by_side else 0
    return sum(map(len, blocks)) + copies * len(blocks[0])


def abstention_score(logits: NDArray[np.float32], abstention: int) -> AbstentionScore:
    """By the logits of the first token of an answer, and the first token of the abstention."""
    return AbstentionScore(float(log_softmax(logits)[abstention]), int(np.argmax(logits)) == abstention)


def grouped(requests: Sequence[_Request], answer_tokens: int) -> list[list[_Request]]:
    """The first, then those that lie side by side: as many in a row as there is room for.

    Law: the groups of the first n requests, for n at the end of a group, are the first groups of all.
    """
    groups: list[list[_Request]] = [[request] for request in requests[:1]]
    filled = SHARED_CELLS
    for request in requests[1:]:
        size = request.tokens_before + len(request.blocks[-1]) + answer_tokens
        if len(groups[-1]) == SIDE_BY_SIDE or filled + size > SHARED_CELLS:
            groups.append([])
            filled = 0
        groups[-1].append(request)
        filled += size
    return groups
