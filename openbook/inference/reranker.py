"""Rerankers: they read a query and the passages found for it together, and order the passages anew.

`late-interaction` needs no model of its own. It compares the embedder's vectors of single tokens before they are
averaged away: each token of the query looks for its nearest in the passage, and the mean of these similarities is the
score (MaxSim, Khattab and Zaharia 2020, ColBERT, arXiv:2004.12832).
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from openbook.errors import ConfigError, did_you_mean
from openbook.inference.llamacpp import available_cores
from openbook.records import Embedder, EmbedderIdentity, ModelIdentity, Reranker, canonical_json, sha256_hex

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Shape legend: T tokens of one text, D dimensions.

RERANKERS: Mapping[str, str] = MappingProxyType(
    {"late-interaction": "openbook.inference.reranker:LateInteractionReranker"}
)

COMPUTATION = "late interaction 1"
"""What the scores are. Changes whenever they do."""


@runtime_checkable
class TokenEmbedder(Protocol):
    """An embedder that also gives the vectors of single tokens."""

    @property
    def identity(self) -> EmbedderIdentity: ...

    def embed_query_tokens(self, text: str) -> NDArray[np.float32]:
        """Float32 [T, D], each row of length 1."""
        ...

    def embed_passage_tokens(self, text: str) -> NDArray[np.float32]:
        """Float32 [T, D], each row of length 1."""
        ...


def load_reranker(name: str, embedder: Embedder, *, threads: int = 0) -> Reranker:
    """The reranker of that name, on top of the embedder that found the passages. Raises ConfigError."""
    if name not in RERANKERS:
        raise ConfigError(
            f"There is no reranker {name!r}.{did_you_mean(name, RERANKERS)} Known: {', '.join(RERANKERS)}."
        )
    module, _, attribute = RERANKERS[name].partition(":")
    reranker: Reranker = getattr(importlib.import_module(module), attribute)(embedder, threads=threads)
    return reranker


class LateInteractionReranker:
    """Scores are from -1 to 1. Nothing is kept between calls: the passages' tokens are embedded for each query."""

    def __init__(self, embedder: Embedder, *, threads: int = 0) -> None:
        if not isinstance(embedder, TokenEmbedder):
            raise ConfigError(
                f"The embedder {embedder.identity.name!r} gives no vectors of single tokens, which the reranker "
                "'late-interaction' needs. Choose another embedder, or no reranker."
            )
        self._embedder: TokenEmbedder = embedder
        self._workers = threads or available_cores()

    @property
    def identity(self) -> ModelIdentity:
        embedder = self._embedder.identity
        digest = sha256_hex(canonical_json({"computation": COMPUTATION, "embedder": embedder.digest}))
        return ModelIdentity(name=f"{embedder.name}/late-interaction", digest=digest, evidence="verified")

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        if not texts:
            return []
        asked = self._embedder.embed_query_tokens(query)
        with ThreadPoolExecutor(self._workers) as pool:
            return list(pool.map(lambda text: max_sim(asked, self._embedder.embed_passage_tokens(text)), texts))


def max_sim(query: NDArray[np.float32], passage: NDArray[np.float32]) -> float:
    """The mean, over the rows of `query`, of the largest product with a row of `passage`."""
    return float((query @ passage.T).max(axis=1).mean())
