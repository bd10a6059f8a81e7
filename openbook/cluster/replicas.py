"""Replicas of one frozen model on a Ray cluster, and the engine that asks them.

One ordinary process still decides on access, limits, retrieval, citations and receipts; Ray Serve replicas compute only
what an `Engine` computes. Rendezvous hashing of the first passage sends a prompt to the machine and replica that have
read it before. A full replica passes requests to the next in that order.

A request whose replica dies before its first word is asked again; after it, the request ends with an error. Replicas
must have the first one's numeric class.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import queue
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Final, Literal, TypeAlias, final

from ray import available_resources, get_runtime_context, is_initialized, nodes, serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.config import RequestRouterConfig
from ray.serve.exceptions import DeploymentUnavailableError, RayServeException
from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from openbook.core.errors import ClusterError, ConfigError, EngineError, OpenBookError
from openbook.core.parallel import Cancelled, never
from openbook.core.records import Completion, Decoding, Digest, ModelIdentity, Prompt, ReaderFormat
from openbook.inference.context_pool import PARALLEL_CONTEXTS
from openbook.inference.frozen import CachingEngine, FrozenModel, ReadEach
from openbook.inference.kv_cache import KVCache

LOG = logging.getLogger("openbook.cluster")

RUNNING = PARALLEL_CONTEXTS + 1  # requests per replica, one of them waiting
_POLL_S = 0.05  # interval at which a waiting request checks whether it was cancelled
_BEGIN_S = 60.0  # after which an unserved request checks whether any replica exists
_ATTEMPTS = 4
_GRACE_S = 20.0  # for requests in progress when replicas end
_PURGE_S = 5.0  # between two checks for purges
_FOLLOW_S = 60.0  # for all replicas to delete purged data
_NAME = "engine"
# Prefix of application names. The id of the Ray job that started it follows, then the model's digest.
_PREFIX = "openbook-"
_NOBODY = "No replica is running. Check on the cluster with: serve status"

OpenModel: TypeAlias = Callable[[], FrozenModel]
Follow: TypeAlias = Callable[[str], object]
"""Takes the purge mark of the server's home, and deletes on its own machine what was computed before it (`DerivedFolder.follow`)."""
Method: TypeAlias = Literal["generate", "generate_each", "read_ahead"]  # of an engine


# --- which replica ----------------------------------------------------------------------------------------------------


def ranked(key: str, nodes: Iterable[str]) -> list[str]:
    """Nodes in order of preference for `key`, by rendezvous hashing (Thaler and Ravishankar, 1998).

    Law: removing a node keeps the others' order, so only its keys move.
    """
    return sorted(nodes, key=lambda node: sha256(f"{key}\n{node}".encode()).digest())


def affinity_key(prompt: Prompt) -> str:
    """Equal for prompts that share the state of their first passage."""
    return sha256("\n".join((prompt.system, *prompt.passages[:1])).encode()).hexdigest()


def by_machine(key: str, machines: Mapping[str, str]) -> list[list[str]]:
    """Replicas in order of preference for `key`, grouped by machine, since those of one machine share its disk.

    `machines`: each replica's. The chance to come first is proportional to a machine's replicas. The machines' order
    depends on nothing else, so later replicas find what was kept on a disk.
    """
    counts = Counter(machines.values())
    places = {f"{machine}\n{number}": machine for machine in counts for number in range(counts[machine])}
    order = dict.fromkeys(places[place] for place in ranked(key, places))
    return [ranked(key, [replica for replica in machines if machines[replica] == machine]) for machine in order]


@functools.cache
def _machine(node_id: str) -> str:
    """The machine's name, which outlives the Ray node."""
    return next((str(each["NodeManagerHostname"]) for each in nodes() if each["NodeID"] == node_id), node_id)


class AffinityRouter(RequestRouter):  # type: ignore[misc]  # Ray has no types
    """Routes by `by_machine`; a request's first argument is the key."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        if pending_request is None:
            return [candidate_replicas]
        pending_request.routing_context.should_backoff = True  # when all were full
        by_id = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        order = by_machine(pending_request.args[0], {each: _machine(by_id[each].node_id) for each in by_id})
        if list(pending_request.args[1:2]) == ["read_ahead"]:  # the method, after the key
            order = order[:1]  # no request would look for it on another machine
        return [[by_id[each]] for replicas in order for each in replicas]


# --- in the process of a replica --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class About:
    """A replica's model and numerics. `node`: the machine's name."""

    identity: ModelIdentity
    reader: ReaderFormat | None
    numeric_class: str
    context_tokens: int
    node: str


class EngineReplica:
    """One open model. `key`: the routing key."""

    def __init__(self, open_model: OpenModel, follow: Follow) -> None:
        self._model, self._follow = open_model(), follow
        self._followed: str | None = None  # the last purge mark received
        self._threads = ThreadPoolExecutor(RUNNING, "openbook-engine")

    async def about(self, key: str) -> About:
        model, engine = self._model, self._model.engine
        return About(model.identity, model.reader, engine.numeric_class, model.context_tokens, socket.gethostname())

    async def follow(self, purge_mark: str) -> None:
        """Until this call, a machine with its own home stores nothing with that mark."""
        if purge_mark != self._followed:
            await asyncio.get_running_loop().run_in_executor(None, self._follow, purge_mark)
            self._followed = purge_mark

    async def compute(self, key: str, method: Method, arguments: tuple[Any, ...]) -> AsyncGenerator[Any, None]:
        """Yield the numeric class at once, then pieces, last the method's result or error. Cancelled when the caller leaves."""
        engine: Any = self._model.engine
        first, *others = arguments
        asked = self._marked(first) if isinstance(first, Prompt) else tuple(map(self._marked, first))
        loop, cancelled = asyncio.get_running_loop(), threading.Event()
        items: asyncio.Queue[Any] = asyncio.Queue()

        def run() -> None:
            def show(item: Any) -> None:
                with suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(items.put_nowait, item)

            try:
                if method == "read_ahead":
                    show(engine.read_ahead(asked))
                    return
                with closing(getattr(engine, method)(asked, *others, cancelled.is_set)) as pieces:
                    while True:
                        show(next(pieces))
            except StopIteration as done:
                show(done.value)
            except Exception as error:  # noqa: BLE001  raised in the process that asked
                show(error)

        yield engine.numeric_class
        running = loop.run_in_executor(self._threads, run)
        try:
            while isinstance(item := await items.get(), str):
                yield item
            yield item
        finally:
            cancelled.set()
            running.cancel()  # if it has not begun

    def _marked(self, prompt: Prompt) -> Prompt:
        """Apply this machine's purge mark, if it extends the server's in the prompt."""
        engine, mark = self._model.engine, prompt.purge_mark
        own = engine.purge_mark() if isinstance(engine, CachingEngine) else ""
        return prompt if mark is None or not own.startswith(f"{mark} ") else replace(prompt, purge_mark=own)


# --- in the process that asks ------------------------------------------------------------------------------------------


@final
class ReplicatedEngine:
    """Computes in the replicas of `handle`. Also raises ClusterError when none can answer."""

    def __init__(
        self,
        handle: Any,
        about: About,
        count: Callable[[Prompt], int],
        states: KVCache,
        end: Callable[[], None] = lambda: None,
    ) -> None:
        """`states`: this machine's. `end`: called once, by `close`."""
        self._handle, self._about, self._count, self._states, self._end = handle, about, count, states, end
        self.identity: Final = about.identity
        self.numeric_class: Final = about.numeric_class
        self.context_tokens: Final = about.context_tokens
        self._is_open = True

    def purge_mark(self) -> str:
        return self._states.purge_mark()

    def count_prompt_tokens(self, prompt: Prompt) -> int:
        self._check_open()
        return self._count(prompt)

    def generate(
        self, prompt: Prompt, decoding: Decoding, cancelled: Cancelled = never
    ) -> Generator[str, None, Completion]:
        shown: list[str] = []
        found = yield from self._answer(prompt, "generate", (prompt, decoding), cancelled, shown)
        return found or self._cancelled(shown)

    def generate_each(
        self, prompts: Sequence[Prompt], decoding: Decoding, cancelled: Cancelled = never
    ) -> Generator[str, None, ReadEach]:
        shown: list[str] = []
        found = yield from self._answer(prompts[0], "generate_each", (tuple(prompts), decoding), cancelled, shown)
        return found or ReadEach(1, 0 if shown else None, self._cancelled(shown))

    def read_ahead(self, prompt: Prompt) -> int:
        answer = self._answer(prompt, "read_ahead", (prompt,), never, [])
        while True:
            try:
                next(answer)
            except StopIteration as done:
                return int(done.value)

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._end()

    def _answer(
        self, first: Prompt, method: Method, arguments: tuple[Any, ...], cancelled: Cancelled, shown: list[str]
    ) -> Generator[str, None, Any]:
        """Yield new text and add it to `shown`. Return the result; None if cancelled."""
        key = affinity_key(first)
        for _ in range(_ATTEMPTS):
            self._check_open()
            if cancelled():
                return None
            response = self._handle.options(method_name="compute", stream=True).remote(key, method, arguments)
            is_done = False
            try:
                items = self._items(response, cancelled)
                if (numeric_class := next(items, None)) is None:
                    return None
                self._check_class(numeric_class)
                for item in items:
                    if not isinstance(item, str):
                        is_done = True
                        return item
                    shown.append(item)
                    yield item
                return None
            except RayTaskError:  # a bug in the program
                raise
            except DeploymentUnavailableError as error:
                raise ClusterError(_NOBODY) from error
            except (RayError, RayServeException) as error:
                if shown:
                    raise ClusterError("The replica that was answering is gone. Ask again.") from error
                LOG.warning("a replica is gone (%s); the request begins again at another", type(error).__name__)
            finally:
                if not is_done and is_initialized():  # else Ray would start
                    with suppress(RayError, RayServeException):  # the error is known already
                        response.cancel()
        raise ClusterError(f"{_ATTEMPTS} replicas were lost before they answered this request. Try again in a moment.")

    def _items(self, response: Any, cancelled: Cancelled) -> Iterator[Any]:
        """Yield a replica's items until `cancelled`. Raises its errors, and ClusterError without replicas."""
        items: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def receive() -> None:
            try:
                for item in response:
                    items.put(item)
                items.put(EngineError("A replica ended a request without an answer."))
            except BaseException as error:  # noqa: BLE001  raised in the waiting thread
                items.put(error)

        threading.Thread(target=receive, name="openbook-replica", daemon=True).start()
        until = time.monotonic() + _BEGIN_S
        while not cancelled():
            try:
                item = items.get(timeout=_POLL_S)
            except queue.Empty:
                if time.monotonic() > until:
                    if not _runs(self._handle.app_name):
                        raise ClusterError(_NOBODY) from None
                    until += _BEGIN_S  # all are busy, and the request waits
                continue
            until = math.inf
            if isinstance(item, BaseException):
                raise item
            yield item

    def _check_class(self, numeric_class: str) -> None:
        if numeric_class != self.numeric_class:
            raise EngineError(
                f"A replica computes as {numeric_class!r}, and the first one, on {self._about.node}, as {self.numeric_class!r}. "
                "Run replicas on machines of one kind, with one version of OpenBook."
            )

    def _cancelled(self, shown: Sequence[str]) -> Completion:
        return Completion("".join(shown), "cancelled", None, None, "", self.numeric_class)

    def _check_open(self) -> None:
        if not self._is_open:
            raise EngineError(f"The model {self.identity.name!r} was closed; load it again.")


# --- starting and ending them -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Replicas:
    """`least` to `most` replicas, depending on load, of `threads` threads each."""

    least: int
    most: int
    threads: int

    @classmethod
    def on_cluster(cls, least: int, most: int, threads: int) -> Replicas:
        """For the joined cluster. `threads` 0: share out all cores. Raises ConfigError."""
        usable = _usable_cores(threads)
        _start_serve()
        return cls(least, most, threads or max(1, int(min(min(usable), sum(usable) // most))))

    @classmethod
    def filling(cls, threads: int) -> Replicas:
        """Fill the joined cluster's free cores, after waiting up to `_GRACE_S` for ending replicas. Raises ConfigError."""
        usable = _usable_cores(threads)
        _start_serve()
        given_up_at = time.monotonic() + _GRACE_S + 5.0
        while True:
            free = available_resources().get("CPU", 0.0)
            count = min(sum(int(each // threads) for each in usable), int(free / _reserved_cores(threads)))
            if count:
                return cls(count, count, threads)
            if time.monotonic() > given_up_at:
                raise ConfigError("All cores of the Ray cluster are in use. Check on the cluster with: ray status")
            time.sleep(0.5)

    def open(
        self, open_model: OpenModel, follow: Follow, *, digest: Digest, count: Callable[[Prompt], int], states: KVCache
    ) -> FrozenModel:
        """Open the model in replicas, each by `open_model`. Closing it ends them. Raises ClusterError when they cannot start.

        Each replica gets the purge mark of `states` through `follow`, within seconds of its start and of each purge.
        """
        scaling: dict[str, Any] = {"num_replicas": self.least}
        if self.most > self.least:
            bounds = {"min_replicas": self.least, "max_replicas": self.most, "target_ongoing_requests": RUNNING - 1}
            scaling = {"autoscaling_config": bounds}
        replica = serve.deployment(EngineReplica).options(
            name=_NAME,
            max_ongoing_requests=RUNNING,
            ray_actor_options={"num_cpus": _reserved_cores(self.threads)},
            request_router_config=RequestRouterConfig(request_router_class=AffinityRouter, max_backoff_s=0.1),
            graceful_shutdown_timeout_s=_GRACE_S,
            max_constructor_retry_count=2,
            **scaling,
        )
        name = f"{_PREFIX}{get_runtime_context().get_job_id()}-{digest[:12]}-{secrets.token_hex(3)}"
        try:
            handle = serve.run(replica.bind(open_model, follow), name=name, route_prefix=None)
            about: About = handle.about.remote("").result()
        except (KeyboardInterrupt, SystemExit):
            _end(name)
            raise
        except (RuntimeError, RayError, RayServeException) as error:
            reason = _reason(error, name)
            _end(name)
            raise ClusterError(f"The replicas cannot start: {reason}") from error
        is_closed = threading.Event()
        _tell(handle, states.purge_mark)

        def end() -> None:
            is_closed.set()
            _end(name)

        threading.Thread(
            target=_keep_purged, args=(handle, states.purge_mark, is_closed), name="openbook-purge", daemon=True
        ).start()
        return FrozenModel(ReplicatedEngine(handle, about, count, states, end), about.reader)


def _usable_cores(threads: int) -> list[float]:
    """Cores of each machine that has any. Raises ConfigError when none has `threads`."""
    cores = [float(each["Resources"].get("CPU", 0)) for each in nodes() if each["Alive"]]
    usable = [each for each in cores if each >= 1]
    if not usable:
        raise ConfigError("No machine of the Ray cluster has a core for work. Check on the cluster with: ray status")
    if threads > max(usable):
        raise ConfigError(f"No machine of the Ray cluster has {threads} cores; set OPENBOOK_THREADS to fewer.")
    return usable


def _reserved_cores(threads: int) -> float:
    """Half, so that the next model's replicas fit next to these."""
    return threads / 2


def _start_serve() -> None:
    """Start Ray Serve, and end leftovers of killed servers and runs."""
    from ray._private.state import jobs  # the public list of jobs needs Ray's dashboard

    logging.getLogger("ray.serve").setLevel(logging.ERROR)  # it warns of each waiting request
    serve.start(proxy_location="Disabled", logging_config={"log_level": "WARNING", "enable_access_log": False})
    dead = tuple(f"{_PREFIX}{each['JobID']}-" for each in jobs() if each["IsDead"])
    for name in serve.status().applications:
        if name.startswith(dead):
            serve.delete(name)


def _keep_purged(handle: Any, purge_mark: Callable[[], str], is_closed: threading.Event) -> None:
    """Make every replica follow each purge, including replicas that start later."""
    while not is_closed.wait(_PURGE_S):
        _tell(handle, purge_mark)


def _tell(handle: Any, purge_mark: Callable[[], str]) -> None:
    try:
        handle.broadcast("follow", purge_mark()).results(timeout_s=_FOLLOW_S)
    except (OSError, TimeoutError, OpenBookError, RayError, RayServeException) as error:
        LOG.warning("what was purged may still be at a replica, which is told again: %s", type(error).__name__)


def _end(name: str) -> None:
    with suppress(RayError, RayServeException):  # the cluster is gone
        serve.delete(name, _blocking=False)


def _runs(name: str) -> bool:
    """True if the application has a live replica."""
    with suppress(RayError, RayServeException):
        application = serve.status().applications.get(name)
        return application is not None and any(
            each.replica_states.get("RUNNING") for each in application.deployments.values()
        )
    return False


def _reason(error: Exception, name: str) -> str:
    """The last line in Ray's status that names an OpenBook error, or that of `error`."""
    said = str(error)
    with suppress(RayError, RayServeException):
        application = serve.status().applications.get(name)
        said += "".join(f"\n{each.message}" for each in application.deployments.values()) if application else ""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    named = [line.partition(": ")[2] for line in lines if line.startswith("openbook.core.errors.")]
    return (named or lines or [type(error).__name__])[-1]
