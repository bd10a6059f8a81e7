"""From logits to a token: greedy, or by chance that belongs to the request and not to the engine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from openbook.records import Decoding, Digest, canonical_json, sha256_hex

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Shape legend: V vocabulary size.

CONSIDERED = 256  # tokens that are looked at first, where only some are allowed


def request_digest(model: Digest, prompt: Digest, decoding: Decoding) -> Digest:
    """Names one request: the same model, prompt tokens and decoding parameters always give the same digest."""
    parts = {"model": model, "prompt": prompt, "temperature": decoding.temperature, "top_p": decoding.top_p}
    parts |= {"seed": decoding.seed, "max_tokens": decoding.max_tokens, "stop": list(decoding.stop)}
    parts |= {"quote": True} if decoding.quote else {}
    return sha256_hex(canonical_json(parts))


def uniform(request: Digest, step: int) -> float:
    """A number in [0, 1) that is a function of the request and the step alone."""
    digest = hashlib.sha256(f"{request}:{step}".encode()).digest()
    return (int.from_bytes(digest[:8]) >> 11) / 2**53  # 53 bits: exact in a float, so never rounded up to 1.0


def choose_token(logits: NDArray[np.float32], decoding: Decoding, request: Digest, step: int) -> tuple[int, float]:
    """The next token and its log-probability under the model (temperature 1). `logits` is float32 [V].

    Greedy takes the lowest id among equals. Otherwise the smallest set of most probable tokens whose mass reaches
    `top_p` is kept, and `uniform(request, step)` picks from it by inverse cumulative probability.
    """
    log_probs = log_softmax(logits)
    if decoding.temperature <= 0:
        token = int(np.argmax(logits))
        return token, float(log_probs[token])
    probs = np.exp(log_softmax(logits.astype(np.float64) / decoding.temperature))
    order = np.argsort(-probs, kind="stable")
    mass = np.cumsum(probs[order])
    kept = int(np.searchsorted(mass, decoding.top_p * mass[-1], side="left")) + 1
    kept = min(kept, len(order))
    index = int(np.searchsorted(mass[:kept], uniform(request, step) * mass[kept - 1], side="right"))
    token = int(order[min(index, kept - 1)])
    return token, float(log_probs[token])


def allowed_only(logits: NDArray[np.float32], allowed: Callable[[int], bool]) -> NDArray[np.float32] | None:
    """The logits of the likeliest tokens that are `allowed`, up to `CONSIDERED` looked at; all others are impossible.

    float32 [V] to float32 [V]. Where none of those is allowed, all tokens are looked at; None when none of all is.
    """
    order = np.argsort(-logits, kind="stable")
    for candidates in (order[:CONSIDERED], order):
        kept = [token for token in map(int, candidates) if allowed(token)]
        if kept:
            found = np.full_like(logits, -np.inf)
            found[kept] = logits[kept]
            return found
    return None


def log_softmax(x: NDArray[np.floating]) -> NDArray[np.float64]:
    shifted = x.astype(np.float64) - np.max(x)
    result: NDArray[np.float64] = shifted - np.log(np.sum(np.exp(shifted)))
    return result
