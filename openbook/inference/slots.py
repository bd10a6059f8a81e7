"""Answers of several requests written together: one call computes the next token of each.

A call of k tokens costs far less than k calls of one, because the weights are read once. Batching elsewhere changes answers,
since an engine sums in another order for other shapes. Here each request has a slot, a list of cells of its own, and the
first k slots are the ones in use. So a call holds one token for each of k lists, and the engine's kernels compute each
column by itself. `usable_widths` tries that on this machine, with this model, before slots are used. If the width of a call
changes a column, only widths are used that give equal columns. If companions change a column, there are no slots.

One thread makes the calls. It lives while there is something to write.
"""

from __future__ import annotations

import struct
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING

import numpy as np

from openbook.errors import EngineError
from openbook.inference.llamalib import Aborted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from openbook.inference.context_pool import ContextPool
    from openbook.inference.decoding import AnswerDecoder
    from openbook.inference.llamalib import Context
    from openbook.parallel import Cancelled

# Calls of eight columns and more compute some numbers in another way with K-quantised models, which a few trials may miss
# (docs/log.md).
MAX_SLOTS = 7
SLOT_TOKENS = 2048  # most tokens of a prompt and its answer that a slot holds; longer ones are written alone
_DUMMY = 1  # the token of columns that are there for the shape of the call
_F16 = 1  # GGML_TYPE_F16
_LIKE_THE_ENGINE = 0.99  # the least correlation of logits in a slot with those of the engine's other context


class Turns:
    """A lock that is given in the order in which it was asked for. So calls for one request cannot keep all others waiting."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._asking: deque[object] = deque()  # the first of them has the lock

    def __enter__(self) -> None:
        mine = object()
        with self._changed:
            self._asking.append(mine)
            try:
                self._changed.wait_for(lambda: self._asking[0] is mine)
            except BaseException:  # an interrupt: nobody would give this turn on
                self._asking.remove(mine)
                self._changed.notify_all()
                raise

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._asking.popleft()
            self._changed.notify_all()


class SlotAnswer:
    """An answer that is being written in a slot, for one reader."""

    def __init__(
        self, decoder: AnswerDecoder, cancelled: Cancelled, look: Callable[[NDArray[np.float32]], object]
    ) -> None:
        self.decoder, self.cancelled, self._look = decoder, cancelled, look
        self.is_over = False  # it has ended, or nobody reads it any more
        self._found: SimpleQueue[str | BaseException | None] = SimpleQueue()

    def pieces(self) -> Generator[str]:
        """Its text, as it becomes certain. Raises Aborted, EngineError and what `look` raises."""
        try:
            while (piece := self._found.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            self.is_over = True

    def choose(self, row: NDArray[np.float32]) -> None:
        """Choose the next token by its logits."""
        if piece := self.decoder.take(row):
            self._found.put(piece)
        if self.decoder.finish:
            self.end()

    def take(self, row: NDArray[np.float32]) -> bool:
        """Look at the logits and choose. False if they are not numbers: then the cells must be cleared before others use them."""
        try:
            if np.isnan(row).any():
                self.end(EngineError("The model computed a value that is not a number, so the answer ends here."))
                return False
            self._look(row)
            self.choose(row)
        except BaseException as error:  # noqa: BLE001  handed to its reader
            self.end(error)
        return True

    def end_if_cancelled(self) -> None:
        try:
            if not self.is_over and self.cancelled():
                self.end(Aborted())
        except BaseException as error:  # noqa: BLE001  handed to its reader
            self.end(error)

    def end(self, error: BaseException | None = None) -> None:
        """The first call counts: nobody reads on behind an end."""
        self.is_over = True
        self._found.put(error)


class Batcher:
    """Writes up to `slots` answers at a time, in a context whose sequences lie apart. Safe to use from several threads.

    `least`: the fewest columns of a call; dummies fill it up. `pool` owns the context, which stays open while the thread runs.
    """

    def __init__(self, pool: ContextPool, context: Context, slots: int, least: int) -> None:
        self._pool, self._context, self._least = pool, context, least
        self._changed = pool.changed  # guards the fields of the next three lines
        self._slots, self._holders = slots, set[SlotAnswer]()
        self._joining: list[tuple[SlotAnswer, bytes, int]] = []  # with what was computed of the prompt, and its tokens
        self._runs = False
        # The thread's own, as the context is.
        self._answers: list[SlotAnswer] = []  # by their sequences
        self._spoiled = False  # the cells must be cleared before anyone joins

    def write(self, answer: SlotAnswer, context: Context, sequence: int) -> None:
        """Go on with `answer`, whose first token is chosen, from what `context` holds in `sequence`. Waits for a slot.

        Raises Aborted if it is cancelled meanwhile, EngineError if the engine is closed.
        """
        with self._pool.when(lambda: len(self._holders) < self._slots, answer.cancelled):
            self._holders.add(answer)
        try:
            joining = answer, context.state(sequence), context.position(sequence)
        except BaseException:
            self._give_back([answer])
            raise
        with self._changed:
            self._joining.append(joining)
            if not self._runs:
                self._runs = True
                self._pool.hold()
                threading.Thread(target=self._run, name="openbook-slots", daemon=True).start()

    def _give_back(self, answers: Sequence[SlotAnswer]) -> None:
        with self._changed:
            self._holders.difference_update(answers)
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            while self._admit():
                self._step()
        except BaseException as error:  # noqa: BLE001  handed to all whom it concerns
            with self._changed:
                ended = [*self._answers, *(answer for answer, _, _ in self._joining)]
                self._answers, self._joining = [], []
                self._spoiled, self._runs = True, False
                self._give_back(ended)
            for answer in ended:
                answer.end(error)
        finally:
            self._pool.release()

    def _admit(self) -> bool:
        """Let go of answers that ended, and take in those that wait. Whether there is any; if not, the thread must end."""
        for answer in self._answers:
            answer.end_if_cancelled()
        gaps = [sequence for sequence, answer in enumerate(self._answers) if answer.is_over]
        self._give_back([self._answers[sequence] for sequence in gaps])
        for sequence in reversed(gaps):
            self._close_gap(sequence)
        if self._spoiled and not self._answers:
            self._context.clear()
            self._spoiled = False
        joining = list[tuple[SlotAnswer, bytes, int]]()
        with self._changed:
            if not self._spoiled:
                joining, self._joining = self._joining, joining
            if not joining and not self._answers:
                self._runs = False
                return False
            first, self._answers = len(self._answers), [*self._answers, *(answer for answer, _, _ in joining)]
        for sequence, (answer, state, position) in enumerate(joining, first):
            self._context.remove(sequence)  # a dummy may lie there
            try:
                self._context.restore(state_apart(state, self._context.sequences), position, sequence)
            except EngineError as error:
                answer.end(error)
        return True

    def _close_gap(self, gap: int) -> None:
        """The sequences in use must be the first ones, so the last of them moves into the gap."""
        last = len(self._answers) - 1
        if gap != last:
            answer = self._answers[last]
            state, position = self._context.state(last), self._context.position(last)
            self._context.remove(gap)
            try:
                self._context.restore(state, position, gap)
            except EngineError as error:
                answer.end(error)
            self._answers[gap] = answer
        del self._answers[last]
        self._context.remove(last)

    def _step(self) -> None:
        """Compute one more token of each answer, and choose it."""
        tokens = [_DUMMY if answer.is_over else answer.decoder.token for answer in self._answers]
        for sequence in range(len(tokens), self._least):
            self._context.remove(sequence)
            tokens.append(_DUMMY)
        rows = self._context.evaluate([(sequence, [token]) for sequence, token in enumerate(tokens)])
        for answer, row in zip(self._answers, rows, strict=False):
            if not answer.is_over and not answer.take(row):
                self._spoiled = True


def usable_widths(reading: Context, context: Context, slots: int, tokens: Sequence[int]) -> tuple[int, int]:
    """(fewest, most) columns of a call: the longest run of widths, up to `slots`, that give equal columns.

    Tried with parts of `tokens`, which are the model's, in both contexts. `reading`: the one in which prompts are read. Raises
    EngineError where columns depend on their companions, or differ from those in `reading`: then there can be no slots.
    """
    # Each prompt: its state, its number of tokens, and what the other context computes after one more.
    prompts: list[tuple[bytes, int, NDArray[np.float32]]] = []
    last = tokens[-1]
    for count in (len(tokens) * 3 // 4, len(tokens) // 4, len(tokens) // 2):
        reading.clear()
        reading.read(tokens[:count])
        state = reading.state()
        prompts.append((state, count, reading.evaluate([(0, [last])])[0]))
    reading.clear()

    def column(width: int, place: int, turn: int) -> NDArray[np.float32]:
        """The logits after the first prompt, computed at `place` of a call of `width` columns.

        The other columns hold the two other prompts in turns; another `turn` gives the place other companions.
        """
        for sequence in range(width):
            state, count, _ = prompts[0 if sequence == place else 1 + (sequence + turn) % 2]
            context.remove(sequence)
            context.restore(state_apart(state, context.sequences), count, sequence)
        call = [(s, [last if s == place else tokens[(turn + s) % len(tokens)]]) for s in range(width)]
        return context.evaluate(call)[place]

    by_width = [column(width, width // 2, width) for width in range(1, slots + 1)]
    runs: list[list[int]] = []
    for width, found in enumerate(by_width, start=1):
        if not runs or found.tobytes() != by_width[width - 2].tobytes():
            runs.append([])
        runs[-1].append(width)
    longest = max(runs, key=len)
    least, most = longest[0], longest[-1]
    full = by_width[most - 1]
    if any(column(most, place, 1 + place).tobytes() != full.tobytes() for place in (0, most - 1)):
        raise EngineError("On this machine, answers of this model that are written together change each other.")
    if not float(np.corrcoef(full, prompts[0][2])[0, 1]) > _LIKE_THE_ENGINE:
        raise EngineError("This model computes other numbers in slots than outside of them.")
    context.clear()
    return least, most


def state_apart(state: bytes, sequences: int) -> bytes:
    """A sequence's state, of a context whose sequences share cells, in the form that one whose `sequences` lie apart takes.

    Such a context has a list of cells for each sequence, and keeps the values transposed. Raises EngineError for a state of
    another form: of a model with other memory than keys and values in binary16, or of another version of llama.cpp.
    """
    unknown_form = EngineError("llama.cpp keeps the state of this model in a form that slots cannot use.")
    try:
        magic, sequence, lists, cells = struct.unpack_from("<IiII", state)
        at = 16 + 12 * cells  # of each cell the position and the one sequence
        transposed, layers, *others = struct.unpack_from("<IIII", state, at)
        if lists != 1 or transposed or any(others) or not cells:
            raise unknown_form
        parts = [struct.pack("<IiII", magic, sequence, sequences, cells), state[16:at]]
        parts.append(struct.pack("<IIII", 1, layers, *others))
        at += 16
        start = at
        for _ in range(layers):  # keys
            _, row_bytes = struct.unpack_from("<iQ", state, at)
            at += 12 + cells * row_bytes
        parts.append(state[start:at])
        for _ in range(layers):  # values
            kind, row_bytes = struct.unpack_from("<iQ", state, at)
            if kind != _F16:
                raise unknown_form
            rows = np.frombuffer(state, np.uint16, cells * row_bytes // 2, at + 12).reshape(cells, row_bytes // 2)
            parts += [struct.pack("<iII", kind, 2, row_bytes // 2), np.ascontiguousarray(rows.T).tobytes()]
            at += 12 + cells * row_bytes
    except (struct.error, ValueError) as error:
        raise unknown_form from error
    if at != len(state):
        raise unknown_form
    return b"".join([*parts, bytes(4 * (sequences - 1))])  # the other lists are empty
