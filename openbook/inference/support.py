"""The support head: how likely a passage supports a sentence of an answer to a question, refutes it, or does not tell.

A cross-encoder: question and sentence, then the passage, in one text. It shares the first layers of the default embedder;
`HEAD` holds its own, int8 weights for the same graph, and what turns the first token's numbers into three classes.
`recipes/support_head.py` trains it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from openbook.errors import EngineError
from openbook.inference.embedder import DATA, TOKENIZER, OnnxEmbedder
from openbook.records import Digest, sha256_hex

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEAD = "support_head.npz"
MAX_TOKENS = 224


class JudgingEmbedder(OnnxEmbedder):
    """The default embedder with the head on it. Equal pairs give equal bits, whatever else is judged beside them."""

    @cached_property
    def judge_digest(self) -> Digest:
        """Of the head; the layers below it are the embedder's."""
        return sha256_hex((DATA / HEAD).read_bytes())

    def judge(self, question: str, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """For each (sentence, passage) how likely it is supported, refuted, or neither: float32 [N, 3], rows that sum to 1."""
        with ThreadPoolExecutor(self._workers) as pool:
            rows = list(pool.map(lambda pair: self._judged(f"{question} {pair[0]}".strip(), pair[1]), pairs))
        return np.stack(rows) if rows else np.empty((0, 3), np.float32)

    def _judged(self, sentence: str, passage: str) -> NDArray[np.float32]:
        with self._opening:
            tokenizer, session, last = self._pair_tokenizer, self._head_session, self._last_layers
        ids = np.array([tokenizer.encode(sentence, passage).ids], dtype=np.int64)
        first = session.run(None, {"input_ids": ids})[0][0, 0]
        pooled = np.tanh(first @ last["pooler.weight"] + last["pooler.bias"])
        logits = pooled @ last["classifier.weight"] + last["classifier.bias"]
        odds = np.exp(logits - logits.max())
        if not np.isfinite(odds).all():
            raise EngineError("The support head gave no valid numbers.")
        found: NDArray[np.float32] = (odds / odds.sum()).astype(np.float32)
        return found

    # --- opened once, under the lock ---

    @cached_property
    def _pair_tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_buffer(self._file(TOKENIZER))
        tokenizer.no_padding()
        tokenizer.enable_truncation(MAX_TOKENS)
        return tokenizer

    @cached_property
    def _tensors(self) -> Mapping[str, NDArray[Any]]:
        with np.load(io.BytesIO((DATA / HEAD).read_bytes()), allow_pickle=False) as file:
            return dict(file)

    @cached_property
    def _head_session(self) -> Any:
        return self._int8_session({name: array for name, array in self._tensors.items() if name.startswith("encoder.")})

    @cached_property
    def _last_layers(self) -> Mapping[str, NDArray[np.float32]]:
        return {n: a.astype(np.float32) for n, a in self._tensors.items() if not n.startswith("encoder.")}
