"""The contexts of one model. Each is lent to one request at a time; the last request frees them all after `close`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from openbook.core.errors import EngineError
from openbook.inference.llamalib import Aborted, Context, Model

if TYPE_CHECKING:
    from openbook.core.parallel import Cancelled

PARALLEL_CONTEXTS = 2  # requests evaluated at once; others wait
_POLL_S = 0.05  # how often a waiting request checks for cancellation


class ContextPool:
    """Thread-safe. `close` never waits: memory in use is freed when its request, or unread stream, ends."""

    def __init__(self, name: str, model: Model, make: Callable[[], Context]) -> None:
        self._name, self._model, self._make = name, model, make
        # Guards the fields below. Reentrant, because the garbage collector may end a dropped stream at any moment.
        self._changed = threading.Condition(threading.RLock())
        self.closed, self._users = False, 0
        self._all = [make()]
        # None: created when a second request arrives at the same time
        self._idle: list[Context | None] = [None] * (PARALLEL_CONTEXTS - 1) + [*self._all]

    def check_open(self) -> None:
        if self.closed:
            raise EngineError(f"The model {self._name!r} was closed; load it again.")

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the model in memory. After `close`, the last user frees it."""
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
        """A cleared context, once one is free. Raises Aborted if `cancelled`, EngineError if the pool is closed."""
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
        while not cancelled():  # without the lock, since it is the caller's code
            with self._changed:
                self.check_open()
                if self._changed.wait_for(lambda: self._idle, _POLL_S):
                    return self._idle.pop()
        raise Aborted

    def close(self) -> None:
        with self._changed:
            self.closed = True
            self._changed.notify_all()  # wakes waiting requests, which then end
            self._free_if_unused()

    def _free_if_unused(self) -> None:
        if self.closed and self._users == 0:
            while self._all:
                self._all.pop().close()
            self._model.close()
