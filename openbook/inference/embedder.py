"""The embedder: a frozen ONNX model that turns text into unit vectors.

Each text is evaluated alone, never padded into a batch, so its vector is a function of the text and nothing else. Two
single-threaded evaluations at a time keep two cores busier than one batched evaluation with two threads (docs/log.md).

Shape legend: N texts, T tokens of one text, D dimensions.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openbook.config import available_cores
from openbook.errors import EngineError
from openbook.inference import int8bert
from openbook.records import Digest, EmbedderIdentity, canonical_json, sha256_hex

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from openbook.models import EmbeddingSpec


class OnnxEmbedder:
    """A sentence encoder with mean pooling, from `model.onnx` and `tokenizer.json` in `folder`.

    BERT with int8 weights also computes in int8 (`int8bert`), three times as fast. Other models run as they are:
    queries in a session without graph optimisation, which starts faster, passages in one with. Which session takes a
    text follows from its kind, so a vector never depends on what was open first.
    """

    def __init__(self, folder: Path, *, name: str, digest: Digest, spec: EmbeddingSpec, threads: int = 0) -> None:
        self._folder, self._name, self._spec, self._dimensions = folder, name, spec, spec.dimensions
        self.model_digest = digest  # by which the store names the model
        self._workers = threads or available_cores()
        self._opening = threading.RLock()  # cached_property alone would let two threads open a session twice

    @property
    def identity(self) -> EmbedderIdentity:
        """The digest covers the model and, where it is not the file's own, the computation. Raises EngineError."""
        with self._opening:
            digest = _in_int8(self.model_digest) if self._computes_in_int8 else self.model_digest
        return EmbedderIdentity(name=self._name, digest=digest, dimensions=self._dimensions)

    def embed_query(self, text: str) -> NDArray[np.float32]:
        with self._opening:
            session = self._query_session
        return self._embed(session, self._spec.query_prefix + text)

    def embed_passages(self, texts: Sequence[str]) -> NDArray[np.float32]:
        import numpy as np

        rows = np.empty((len(texts), self._dimensions), dtype=np.float32)
        if not texts:
            return rows
        with self._opening:
            session = self._passage_session
        # Longest first, so that the workers finish together.
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        with ThreadPoolExecutor(self._workers) as pool:
            embedded = pool.map(lambda i: self._embed(session, self._spec.passage_prefix + texts[i]), order)
            for i, vector in zip(order, embedded, strict=True):
                rows[i] = vector
        return rows

    def count_tokens(self, text: str) -> int:
        """How many tokens of a passage are read, its prefix and the tokenizer's own included; what is cut off is not."""
        with self._opening:
            tokenizer = self._tokenizer
        return len(tokenizer.encode(self._spec.passage_prefix + text).ids)

    def _embed(self, session: Any, text: str) -> NDArray[np.float32]:
        import numpy as np

        mean = self._hidden(session, text).mean(axis=0, keepdims=True)
        length = np.linalg.norm(mean, axis=1, keepdims=True)
        vector: NDArray[np.float32] = (mean / np.where(length == 0, 1, length)).astype(np.float32)[0]
        if vector.shape != (self._dimensions,):
            raise EngineError(f"The embedder {self._name!r} gave {len(vector)} numbers, not {self._dimensions}.")
        return vector

    def _hidden(self, session: Any, text: str) -> NDArray[np.float32]:
        """[T, D]"""
        import numpy as np

        ids = np.array([self._tokenizer.encode(text).ids], dtype=np.int64)  # [1, T]
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        try:
            found = session.run(None, {i.name: inputs[i.name] for i in session.get_inputs()})
        except Exception as error:
            raise EngineError(f"The embedder {self._name!r} cannot be evaluated: {error}.") from error
        hidden: NDArray[np.float32] = found[0][0]
        if not hidden.size or not np.isfinite(hidden).all():
            raise EngineError(f"The embedder {self._name!r} gave no valid vector of {self._dimensions} numbers.")
        return hidden

    # --- opened once, under the lock ---

    @cached_property
    def _bert(self) -> int8bert.Bert | None:
        try:
            return int8bert.Bert((self._folder / "model.onnx").read_bytes())
        except int8bert.NotThisBert:
            return None
        except OSError as error:
            raise EngineError(f"The embedder {self._name!r} cannot be loaded: {error}.") from error

    @cached_property
    def _computes_in_int8(self) -> bool:
        return self._bert is not None

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_file(str(self._folder / "tokenizer.json"))
            tokenizer.no_padding()
            tokenizer.enable_truncation(self._spec.max_tokens)
        except Exception as error:
            raise EngineError(f"The tokenizer of the embedder {self._name!r} cannot be loaded: {error}.") from error
        return tokenizer

    @cached_property
    def _query_session(self) -> Any:
        return self._passage_session if self._computes_in_int8 else self._open(str(self._folder / "model.onnx"))

    @cached_property
    def _passage_session(self) -> Any:
        if not self._computes_in_int8 or self._bert is None:
            return self._open(str(self._folder / "model.onnx"), optimised=True)
        signed = int8bert.int8_is_exact(self._open(int8bert.probe_model()))
        try:
            session = self._open(int8bert.int8_model(self._bert, signed=signed))
        except int8bert.NotThisBert as error:
            raise EngineError(f"The embedder {self._name!r} cannot be loaded: {error}.") from error
        del self._bert  # the whole file, which the session no longer needs
        return session

    def _open(self, model: str | int8bert.Model, *, optimised: bool = False) -> Any:
        # Set before its library is loaded: it would write records of what is run into the user's home.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        import onnxruntime

        self._tokenizer  # noqa: B018  opened here, under the lock
        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
        try:
            if isinstance(model, int8bert.Model):
                tensors = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in model.apart.values()]
                options.add_external_initializers(list(model.apart), tensors)
            source = model if isinstance(model, str) else model.data
            return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise EngineError(f"The embedder {self._name!r} cannot be loaded: {error}.") from error


def model_digest_of(embedder: EmbedderIdentity, stored: Iterable[Digest]) -> Digest:
    """The digest in `stored` of the model that computes these vectors; if it is not there, that of the vectors."""
    return next((each for each in stored if embedder.digest in (each, _in_int8(each))), embedder.digest)


def _in_int8(model: Digest) -> Digest:
    return sha256_hex(canonical_json({"computation": int8bert.COMPUTATION, "model": model}))
