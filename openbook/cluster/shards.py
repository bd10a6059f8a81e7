"""Search in shards: processes that each search a part of a knowledge base, and a client that merges their replies.

Results do not depend on the number of shards (`openbook.knowledge.index.search`). Shards keep nothing that they cannot
rebuild. Only the client, in its snapshot, judges filters, labels and versions.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np

from openbook import __version__
from openbook.cluster.connection import ray_module
from openbook.core.config import Place
from openbook.core.errors import ClusterError, KnowledgeBaseInvalid, OpenBookError
from openbook.core.records import sha256_hex
from openbook.knowledge.base import KnowledgeBase
from openbook.knowledge.index.cache import MAX_VIEWS
from openbook.knowledge.index.search import Candidates, Counts, IndexView, Scoring, SearchQuery, Shard, ShardRounds

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_QUESTIONS = 16  # a shard keeps the state of so many between rounds: 2 bytes a row each
TRIES = 5  # of a round; the view is opened again where a shard lost it
TIMEOUT_S = 300.0  # for a round, in which a shard may have to restart

ShardMethod: TypeAlias = Literal["open", "reply"]  # of SearchShard
Step: TypeAlias = Literal["counts", "rotated_counts", "candidates"]


@dataclass(frozen=True, slots=True)
class ShardRequest:
    """`view`: digest of what is searched. `token`: unique to a question."""

    view: str
    token: str
    question: SearchQuery


class SearchShard:
    """Shard `number` (from 0) of `of`. Not thread-safe."""

    def __init__(self, place: Place, number: int, of: int) -> None:
        self._place, self._number, self._of = place, number, of
        self._base: KnowledgeBase | None = None
        self._state = ("", -1)
        self._opened: dict[str, Shard] = {}
        self._rounds: dict[str, ShardRounds] = {}

    def open(self, view: str, base_id: str, newest: int, in_scope: NDArray[np.int64]) -> int:
        """Prepare to search the contents `in_scope` as `view`. Return the number of their passages here.

        When the client's `newest` version changes, all segments are released: a purge may have deleted some.
        """
        if self._base is None or (base_id, newest) != self._state:
            self.close()
            self._base, self._state = KnowledgeBase.open(self._place), (base_id, newest)
        if self._base.id != base_id:
            raise KnowledgeBaseInvalid(
                f"A search shard finds another knowledge base in {self._place} than the one that was asked. Its machine must "
                "see the same folder there."
            )
        shard = self._base.shard(in_scope, self._number, self._of)
        self._opened = {**dict(list(self._opened.items())[1 - MAX_VIEWS :]), view: shard}
        return shard.rows

    def reply(self, asked: ShardRequest, step: Step, *given: Any) -> Any:
        """None: open the view first. Rounds may come in any order."""
        rounds = self._rounds.pop(asked.token, None)
        if rounds is None:
            if asked.view not in self._opened:
                return None
            rounds = self._opened[asked.view].ask(asked.question)
        try:
            reply = getattr(rounds, step)(*given)
        except (IndexError, ValueError, OverflowError):  # a segment's bytes changed under an old date
            if self._base is not None:
                self._base.indexes.distrust()
            self._opened, self._rounds = {}, {}
            return None
        if step != "candidates":  # the last one
            self._rounds = {**dict(list(self._rounds.items())[1 - MAX_QUESTIONS :]), asked.token: rounds}
        return reply

    def close(self) -> None:
        self._opened, self._rounds = {}, {}
        if self._base is not None:
            self._base.close()
            self._base = None


# --- asking them ------------------------------------------------------------------------------------------------------


class Shards(Protocol):
    """A way to call `count` shards."""

    count: int

    def call(self, numbers: Sequence[int], method: ShardMethod, *arguments: Any) -> list[Any]:
        """Call the method in the shards `numbers`, in parallel. Raises OpenBookError."""
        ...


class ShardedSearch:
    """Assign it to `KnowledgeBase.shards`. Thread-safe."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    def view(self, base_id: str, newest: int, in_scope: NDArray[np.int64]) -> IndexView:
        """A search over the contents `in_scope`. Raises ClusterError."""
        return _OpenedShards(self._shards, base_id, newest, in_scope)


class _OpenedShards:
    """An `IndexView` of one set of contents in all shards."""

    def __init__(self, shards: Shards, base_id: str, newest: int, in_scope: NDArray[np.int64]) -> None:
        self.shards = shards
        self.name = sha256_hex(f"{base_id} {newest} ".encode() + in_scope.tobytes())
        self._opening = (self.name, base_id, newest, in_scope)
        self.rows = sum(self.open(range(shards.count)))

    def open(self, numbers: Sequence[int]) -> list[int]:
        return self.shards.call(numbers, "open", *self._opening)

    def ask(self, question: SearchQuery) -> _Rounds:
        return _Rounds(self, ShardRequest(self.name, uuid.uuid4().hex, question))


class _Rounds:
    def __init__(self, opened: _OpenedShards, asked: ShardRequest) -> None:
        self._opened, self._asked = opened, asked

    def counts(self) -> Counts:
        return Counts.total(self._replies("counts"))

    def rotated_counts(self, cut: int) -> NDArray[np.int64]:
        counts: NDArray[np.int64] = np.sum(self._replies("rotated_counts", cut), axis=0)
        return counts

    def candidates(self, scoring: Scoring) -> Candidates:
        return Candidates.joined(self._replies("candidates", scoring))

    def _replies(self, step: Step, *given: Any) -> list[Any]:
        """Ordered by shard."""
        found: dict[int, Any] = {}
        shards = self._opened.shards
        for _ in range(TRIES):
            due = [number for number in range(shards.count) if number not in found]
            replies = shards.call(due, "reply", self._asked, step, *given)
            found.update((number, reply) for number, reply in zip(due, replies, strict=True) if reply is not None)
            if len(found) == shards.count:
                return [found[number] for number in sorted(found)]
            self._opened.open([number for number in due if number not in found])  # they restarted, or released it
        raise ClusterError(f"A search shard lost its segments {TRIES} times in one question. Look at its log.")


# --- where they are ---------------------------------------------------------------------------------------------------


class RayShards:
    """Shards as Ray actors. Ray must be connected to: `openbook.cluster.connection`.

    Processes with the same knowledge base and number of shards share the actors, which outlive them. A dead actor
    restarts, and its request is sent again.
    """

    def __init__(self, place: Place, count: int | None = None) -> None:
        """`place`: a database, or a folder at the same path on every worker. `count`: by default one per CPU."""
        ray = ray_module()
        self.count = count or max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._place = place
        self._remote = ray.remote(SearchShard)
        self.actors = [self._start(number) for number in range(self.count)]

    def call(self, numbers: Sequence[int], method: ShardMethod, *arguments: Any) -> list[Any]:
        ray = ray_module()
        for _ in range(TRIES):
            try:
                asked = [getattr(self.actors[number], method).remote(*arguments) for number in numbers]
                replies: list[Any] = ray.get(asked, timeout=TIMEOUT_S)
                return replies
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, OpenBookError):
                    raise error.cause from None
                raise ClusterError(f"A search shard failed: {error.cause!r}. See its log.") from None
            except ray.exceptions.GetTimeoutError:
                raise ClusterError(
                    f"A search shard did not answer within {TIMEOUT_S:g} seconds. See: ray status"
                ) from None
            except ray.exceptions.RayActorError:  # killed from outside, so it does not restart by itself
                self.actors = [self._start(number) for number in range(self.count)]
        raise ClusterError(f"A search shard ended {TRIES} times while it was asked. See: ray status")

    def close(self) -> None:
        """End the actors, for all processes that use them."""
        ray = ray_module()
        for actor in self.actors:
            ray.kill(actor)

    def _start(self, number: int) -> Any:
        """Get the actor of that name, or create it."""
        what = sha256_hex(f"{__version__} {self._place}".encode())[:12]
        return self._remote.options(
            name=f"search {what} {number + 1} of {self.count}",
            namespace="openbook",
            get_if_exists=True,
            lifetime="detached",
            max_restarts=-1,
            max_task_retries=-1,
            num_cpus=0,  # never waits for work that fills the cluster
            scheduling_strategy="SPREAD",
        ).remote(self._place, number, self.count)
