"""Swaps the model when its alias changes. A request keeps its model, so answer, receipt and fingerprint agree."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from openbook.core.errors import OpenBookError
from openbook.core.records import Digest
from openbook.inference import FrozenModel
from openbook.models import ModelStore
from openbook.models.aliases import name_path
from openbook.serving.errors import LOG


@dataclass(frozen=True, slots=True)
class ModelSource:
    """An alias to watch. `stamp()` changes when it may mean another model; None: it is gone. Must be fast.

    `open(digest)`: the verified current model; None while that is still `digest`.
    """

    stamp: Callable[[], object]
    open: Callable[[Digest], FrozenModel | None]


def named_in_store(root: Path, name: str, open_model: Callable[[], FrozenModel]) -> ModelSource:
    """The source for a stored model. A name that is a digest never changes."""

    def stamp() -> object:
        try:
            status = name_path(root, name).stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def opened(digest: Digest) -> FrozenModel | None:
        return None if ModelStore(root).resolve(name).digest == digest else open_model()

    return ModelSource(stamp, opened)


@dataclass(slots=True, eq=False)
class _SharedModel:
    """An open model. `users`: requests in progress, plus the server while it is current."""

    model: FrozenModel
    users: int = 1


class CurrentModel:
    """Lends the model to requests; opens the next one on a thread.

    A replaced model is closed with its last request. If the new one cannot be opened, the old one stays. The caller
    closes the first model, unless it was replaced.
    """

    def __init__(self, model: FrozenModel, source: ModelSource | None) -> None:
        self._first, self._source = model, source
        self._now = _SharedModel(model)
        self._seen: object = None  # so the first request checks: the alias may have changed since the model was opened
        self._lock = threading.Lock()
        self._opening = self._ended = False

    @contextmanager
    def lease(self) -> Iterator[FrozenModel]:
        """The current model, open until the block ends."""
        self._look()
        with self._lock:
            use = self._now
            use.users += 1
        try:
            yield use.model
        finally:
            self._release(use)

    def end(self) -> None:
        with self._lock:
            self._ended = True
        if self._now.model is not self._first:
            self._release(self._now)

    def _release(self, use: _SharedModel) -> None:
        with self._lock:
            use.users -= 1
            is_unused = not use.users
        if is_unused:
            use.model.close()

    def _look(self) -> None:
        """Open another model if the alias may have changed; never two at a time."""
        if self._source is None or self._opening:
            return
        stamp = self._source.stamp()
        if stamp not in (None, self._seen):
            self._seen, self._opening = stamp, True
            threading.Thread(target=self._open, args=[self._source], name="openbook-model", daemon=True).start()

    def _open(self, source: ModelSource) -> None:
        try:
            model = source.open(self._now.model.identity.digest)
            if model is not None:
                self._replace(model)
        except Exception as error:  # noqa: BLE001  the thread has no caller; the error is logged
            message = "the model's name now means another model, which cannot be opened; the old one stays: %s"
            LOG.error(message, error, exc_info=None if isinstance(error, OpenBookError) else error)
        finally:
            self._opening = False

    def _replace(self, model: FrozenModel) -> None:
        old = new = _SharedModel(model)
        with self._lock:
            if not self._ended:
                old, self._now = self._now, new
                LOG.info("later requests are answered by %s %s", model.identity.name, model.identity.digest[:12])
        self._release(old)
