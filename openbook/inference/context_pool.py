"""The contexts of one model: each is lent to one request at a time, and all are freed with the last request under way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from openbook.errors import EngineError
from openbook.inference.llamalib import Aborted, Context, Model

if TYPE_CHECKING:
    from openbook.parallel import Cancelled

PARALLEL_CONTEXTS = 2  # requests evaluated at the same time; more of them wait
_POLL_S = 0.05  # a request that waits asks this often whether it was cancelled


class ContextPool:
    """Safe to use from several threads.

    `close` never waits: memory that a request under way still needs is freed when that request ends. So a stream which
    somebody keeps without reading it (a traceback does) delays the freeing and nothing else.
    """

    def __init__(self, name: str, model: Model, make: Callable[[], Context]) -> None:
        """`name`: what the user calls the model."""
        self._name, self._model, self._make = name, model, make
        # Guards the fields below, and what others lend. Reentrant, because the garbage collector may end a dropped stream at
        # any moment.
        self.changed: Final = threading.Condition(threading.RLock())
        self.closed, self._users = False, 0
        self.first: Final = make()
        self._all = [self.first]
        # None: made when a second request comes in at the same time
        self._idle: list[Context | None] = [None] * (PARALLEL_CONTEXTS - 1) + [self.first]

    def check_open(self) -> None:
        if self.closed:
            raise EngineError(f"The model {self._name!r} was closed; load it again.")

    def own(self, context: Context) -> None:
        """From now on `context` is freed with the others. It is never lent."""
        with self.changed:
            self._all.append(context)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keeps the model in memory. `close` frees it if nobody is in here; otherwise the last one to leave does."""
        with self.changed:
            self.check_open()
            self.hold()
        try:
            yield
        finally:
            self.release()

    def hold(self) -> None:
        with self.changed:
            self._users += 1

    def release(self) -> None:
        with self.changed:
            self._users -= 1
            self._free_if_unused()

    @contextmanager
    def lent(self, cancelled: Cancelled) -> Iterator[Context]:
        """A context of one's own, cleared. Raises as `when` does while all are taken."""
        with self.when(lambda: self._idle, cancelled):
            context = self._idle.pop()
        try:
            if context is None:
                context = self._make()
                self.own(context)
            context.begin(cancelled)
            yield context
        finally:
            with self.changed:
                self._idle.append(context)
                self.changed.notify_all()

    @contextmanager
    def when(self, ready: Callable[[], object], cancelled: Cancelled) -> Iterator[None]:
        """Waits until `ready`, and holds the lock in the block. Raises Aborted if it is `cancelled` first, EngineError if closed."""
        while not cancelled():  # asked without the lock, since it is the caller's code
            with self.changed:
                self.check_open()
                if self.changed.wait_for(ready, _POLL_S):
                    yield
                    return
        raise Aborted

    def close(self) -> None:
        with self.changed:
            self.closed = True
            self.changed.notify_all()  # requests that wait end now
            self._free_if_unused()

    def _free_if_unused(self) -> None:
        if self.closed and self._users == 0:
            while self._all:
                self._all.pop().close()
            self._model.close()
