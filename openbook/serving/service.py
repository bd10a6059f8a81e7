"""`Service`: what the handlers of one server share, and what they may look up in it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from starlette.types import Receive

from openbook.errors import KnowledgeBaseDamaged, KnowledgeError
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase, Scope
from openbook.knowledge.filter_parser import parse_filter
from openbook.knowledge.versions import resolve_version
from openbook.records import Digest, Embedder
from openbook.serving.access import Caller, Doorkeeper
from openbook.serving.bodies import ScopeOptions
from openbook.serving.configuration import Configuration
from openbook.serving.connections import Requests
from openbook.serving.metrics import Metrics
from openbook.serving.rates import Rates
from openbook.serving.refusals import Refusal
from openbook.serving.running import Gate, Stop, compute
from openbook.serving.traces import Traces

_T = TypeVar("_T")

_SHOWN_GATES = ("reading", "writing", "removing", "purging")


class ServedEmbedder(Embedder, Protocol):
    """`model_digest`: by which the model store names the model, as GET /v1/models tells."""

    @property
    def model_digest(self) -> Digest: ...

    def count_tokens(self, text: str) -> int:
        """How many tokens of the passage `text` are read."""
        ...


@dataclass(frozen=True, slots=True)
class Service:
    """Nothing here belongs to a request."""

    configuration: Configuration
    model: FrozenModel
    bases: Mapping[str, KnowledgeBase]
    embedder: ServedEmbedder
    doorkeeper: Doorkeeper
    metrics: Metrics
    rates: Rates
    traces: Traces
    reading: Gate
    writing: Gate
    removing: Gate
    purging: Gate
    receiving: Gate
    drawing: Gate
    requests: Requests
    pool: ThreadPoolExecutor
    ends: threading.Event = field(default_factory=threading.Event)

    async def read(self, receive: Receive, work: Callable[[Stop], _T]) -> _T:
        """`work` in its turn among all that compute. Raises as `compute` does."""
        return await compute(self.pool, self.reading, receive, self.stop(), work)

    async def write(self, receive: Receive, work: Callable[[Stop], _T]) -> _T:
        """`work` in its turn among all that bring documents; it ends between two of its slices when nobody waits for it."""
        stop = Stop(self.configuration.bounds.upload_s, self.ends)
        return await compute(self.pool, self.writing, receive, stop, work)

    async def delete(self, gate: Gate, receive: Receive, work: Callable[[Stop], _T]) -> _T:
        """`work` that deletes, in its turn at `gate`; once it has begun, to its end."""
        return await compute(self.pool, gate, receive, self.stop(), work, until_done=True)

    def count_gates(self) -> None:
        """Tell the metrics how many requests compute and wait now."""
        for name in _SHOWN_GATES:
            gate: Gate = getattr(self, name)
            self.metrics.gate(name, gate.running, gate.waiting)

    def stop(self) -> Stop:
        return Stop(self.configuration.bounds.answer_s, self.ends)

    # --- looking up ---------------------------------------------------------------------------------------------------

    def base(self, name: str | None) -> KnowledgeBase:
        """The knowledge base of that name; without a name, the first. Raises Refusal."""
        if name is None and self.bases:
            return next(iter(self.bases.values()))
        if name is None:
            raise Refusal(404, "This server has no knowledge base.", code="no_knowledge_base")
        if name not in self.bases:
            message = f"The knowledge base {name[:100]!r} does not exist. There are: {', '.join(self.bases) or 'none'}."
            raise Refusal(404, message, code="knowledge_base_not_found", param="knowledge_base")
        return self.bases[name]


def scope_of(base: KnowledgeBase, caller: Caller, asked_scope: ScopeOptions, param: str = "as_of") -> Scope:
    """What the caller may see of what was chosen; `param` is where the version stood.

    Raises Refusal, and QuestionError for an invalid filter.
    """
    scope = caller.scope(where=asked_scope.where.strip())
    if scope.where:
        parse_filter(scope.where)
    if asked_scope.as_of is None:
        return scope
    try:
        return caller.scope(resolve_version(base, str(asked_scope.as_of)), scope.where)
    except KnowledgeBaseDamaged:
        raise
    except KnowledgeError as error:
        message = (
            f"There is no version {str(asked_scope.as_of)[:60]!r}; GET /v1/versions lists the versions that are kept."
        )
        raise Refusal(400, message, code="version_not_found", param=param) from error


def check_at_most(value: int, most: int, param: str) -> None:
    """Raises Refusal."""
    if value > most:
        message = f"{param} may be at most {most:,}, not {value:,}."
        raise Refusal(400, message, code="above_limit", param=param)
