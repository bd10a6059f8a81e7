"""The embedder: a frozen ONNX model that turns text into unit vectors.

Each text is evaluated alone, never padded into a batch, so its vector is a function of the text and nothing else; two
single-threaded evaluations at a time keep two cores busier than one batched evaluation with two threads (docs/log.md).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openbook.errors import EngineError
from openbook.inference.llamacpp import available_cores
from openbook.records import Digest, EmbedderIdentity

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Shape legend: N texts, T tokens of one text, D dimensions.


class OnnxEmbedder:
    """A sentence encoder with mean pooling, from `model.onnx` and `tokenizer.json` in `folder`.

    Queries run in a session without graph optimisation: it starts in 20 ms instead of 400 and costs one query 5 ms.
    Both sessions are fixed for each kind of text, so a vector never depends on which was open first.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str,
        digest: Digest,
        dimensions: int,
        max_tokens: int,
        query_prefix: str = "",
        passage_prefix: str = "",
        threads: int = 0,
    ) -> None:
        self._folder = folder
        self.identity = EmbedderIdentity(name=name, digest=digest, dimensions=dimensions)
        self._max_tokens = max_tokens
        self._query_prefix, self._passage_prefix = query_prefix, passage_prefix
        self._workers = threads or available_cores()
        self._opening = threading.Lock()  # cached_property alone would let two threads open a session twice

    def embed_query(self, text: str) -> NDArray[np.float32]:
        with self._opening:
            session = self._query_session
        return self._embed(session, self._query_prefix + text)

    def embed_passages(self, texts: Sequence[str]) -> NDArray[np.float32]:
        import numpy as np

        if not texts:
            return np.empty((0, self.identity.dimensions), dtype=np.float32)
        with self._opening:
            session = self._passage_session
        # Longest first, so that the workers finish together.
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        rows = np.empty((len(texts), self.identity.dimensions), dtype=np.float32)
        with ThreadPoolExecutor(self._workers) as pool:
            embedded = pool.map(lambda i: self._embed(session, self._passage_prefix + texts[i]), order)
            for i, vector in zip(order, embedded, strict=True):
                rows[i] = vector
        return rows

    def _embed(self, session: Any, text: str) -> NDArray[np.float32]:
        import numpy as np

        ids = np.array([self._tokenizer.encode(text).ids], dtype=np.int64)  # [1, T]
        ones = np.ones_like(ids)
        inputs = {"input_ids": ids, "attention_mask": ones, "token_type_ids": np.zeros_like(ids)}
        hidden = session.run(None, {i.name: inputs[i.name] for i in session.get_inputs()})[0]  # [1, T, D]
        mean = hidden[0].mean(axis=0)
        vector: NDArray[np.float32] = (mean / np.linalg.norm(mean)).astype(np.float32)
        if vector.shape != (self.identity.dimensions,) or not np.isfinite(vector).all():
            raise EngineError(
                f"The embedder {self.identity.name!r} gave no valid vector of {self.identity.dimensions} numbers."
            )
        return vector

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self._folder / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(self._max_tokens)
        return tokenizer

    @cached_property
    def _query_session(self) -> Any:
        return self._session(optimise=False)

    @cached_property
    def _passage_session(self) -> Any:
        return self._session(optimise=True)

    def _session(self, *, optimise: bool) -> Any:
        # Set before its library is loaded: it would write records of what is run into the user's home.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        import onnxruntime

        self._tokenizer  # noqa: B018  opened here, under the lock
        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
        try:
            return onnxruntime.InferenceSession(
                str(self._folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise EngineError(f"The embedder {self.identity.name!r} cannot be loaded: {error}.") from error
