"""The contexts of one model: each is lent to one request at a time, and all are freed with the last request under way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

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
        # Guards the fields below. Reentrant, because the garbage collector may end a dropped stream at any moment.
        self._changed = threading.Condition(threading.RLock())
        self.closed, self._users = False, 0
        self._all = [make()]
        # None: made when a second request comes in at the same time
        self._idle: list[Context | None] = [None] * (PARALLEL_CONTEXTS - 1) + [*self._all]

    def check_open(self) -> None:
        if self.closed:
            raise EngineError(f"The model {self._name!r} was closed; load it again.")

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keeps the model in memory. `close` frees it if nobody is in here; otherwise the last one to leave does."""
        with self._changed:
            self.check_open()
            self._users += 1
        try:
            yield
        finally:
            with self._changed:
                self._users -= 1
                self._free_if_unused()

    @contextmanager
    def lent(self, cancelled: Cancelled) -> Iterator[Context]:
        """A context of one's own, cleared. While all are taken it waits: raises Aborted if it is `cancelled`, EngineError if closed."""
        context = self._taken(cancelled)
        try:
            if context is None:
                context = self._make()
                with self._changed:
                    self._all.append(context)
            context.begin(cancelled)
            yield context
        finally:
            with self._changed:
                self._idle.append(context)
                self._changed.notify_all()

    def _taken(self, cancelled: Cancelled) -> Context | None:
        while not cancelled():  # asked without the lock, since it is the caller's code
            with self._changed:
                self.check_open()
                if self._changed.wait_for(lambda: self._idle, _POLL_S):
                    return self._idle.pop()
        raise Aborted

    def close(self) -> None:
        with self._changed:
            self.closed = True
            self._changed.notify_all()  # requests that wait end now
            self._free_if_unused()

    def _free_if_unused(self) -> None:
        if self.closed and self._users == 0:
            while self._all:
                self._all.pop().close()
            self._model.close()
