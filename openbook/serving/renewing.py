"""The model that answers, while its name in the store may come to mean another one: later requests get that one.

A request keeps the model that it began with, so that an answer, its receipt and its fingerprint are of one model.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from openbook.errors import OpenBookError
from openbook.inference import FrozenModel
from openbook.models import ModelStore
from openbook.models.aliases import name_path, name_problem
from openbook.records import Digest

_LOG = logging.getLogger("openbook.serving")


@dataclass(frozen=True, slots=True)
class Source:
    """`stamp()` changes when the name may mean another model; it is asked before each request, so it must cost nothing.
    None: there is no such name now.

    `open(digest)`: what it means now, opened and verified; None when that still is the model of `digest`.
    """

    stamp: Callable[[], object]
    open: Callable[[Digest], FrozenModel | None]


def named_in_store(root: Path, name: str, open_model: Callable[[], FrozenModel]) -> Source:
    """The model `name` of the store at `root`. A name that is a digest never means another."""

    def stamp() -> object:
        try:
            status = name_path(root, name).stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def opened(digest: Digest) -> FrozenModel | None:
        return None if ModelStore(root).resolve(name).digest == digest else open_model()

    return Source((lambda: None) if name_problem(name) else stamp, opened)


@dataclass(slots=True, eq=False)
class _Held:
    model: FrozenModel
    users: int = 0
    retired: bool = False


class Lease:
    """One request's model, open until `end`."""

    def __init__(self, models: Models, held: _Held) -> None:
        self._models, self._held, self._ended = models, held, False

    @property
    def model(self) -> FrozenModel:
        return self._held.model

    def end(self) -> None:
        """Once; again does nothing."""
        if not self._ended:
            self._ended = True
            self._models.give_back(self._held)

    def until_sent(self, response: ASGIApp) -> ASGIApp:
        """`response`, after which the lease ends."""

        async def send_it(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await response(scope, receive, send)
            finally:
                self.end()

        return send_it


class Models:
    """Hands the model out, and opens the next one on a thread when `source` says so; without a source it stays.

    A model that was replaced is closed when the last request that began with it has ended. One that cannot be opened is
    told in the log, once, and the present one stays.
    """

    def __init__(self, model: FrozenModel, source: Source | None = None) -> None:
        self._first, self._source = model, source
        self._now = _Held(model)
        self._seen: object = None  # so the first request looks: the name may have changed since the model was opened
        self._lock = threading.Lock()
        self._opening = self._ended = False

    def lease(self) -> Lease:
        """The model for a request that begins now."""
        self._look()
        with self._lock:
            self._now.users += 1
            return Lease(self, self._now)

    def give_back(self, held: _Held) -> None:
        with self._lock:
            held.users -= 1
            done = held.retired and held.users == 0
        if done:
            held.model.close()

    def end(self) -> None:
        """Nothing is opened any more; closes what was opened here. The first model is for whoever opened it to close."""
        with self._lock:
            self._ended, last = True, self._now.model
        if last is not self._first:
            last.close()

    def _look(self) -> None:
        """Begin to open another model where the name may mean one; never two at a time."""
        if self._source is None or self._opening:
            return
        stamp = self._source.stamp()
        if stamp not in (None, self._seen):
            self._seen, self._opening = stamp, True
            threading.Thread(target=self._open, args=[self._source], name="openbook-model", daemon=True).start()

    def _open(self, source: Source) -> None:
        try:
            model = source.open(self._now.model.identity.digest)
            if model is not None:
                self._replace(model)
        except OpenBookError as error:
            _LOG.error("the model's name now means another model, which cannot be opened; the old one stays: %s", error)
        except Exception:  # noqa: BLE001  a thread that nobody waits for; told in the log
            _LOG.exception("the model's name now means another model, which cannot be opened; the old one stays")
        finally:
            self._opening = False

    def _replace(self, model: FrozenModel) -> None:
        with self._lock:
            if self._ended:
                done = _Held(model)
            else:
                done, self._now = self._now, _Held(model)
                done.retired = True
            in_use = done.users > 0
        if not in_use:
            done.model.close()
        if done.model is not model:
            _LOG.info("later requests are answered by %s %s", model.identity.name, model.identity.digest[:12])
