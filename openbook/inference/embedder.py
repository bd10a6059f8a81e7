"""The embedder: a frozen ONNX model that turns text into unit vectors.

A text is never padded into a batch, so its vector is a function of the text alone. Two single-threaded evaluations keep
two cores busier than one batch with two threads (research/log.md).

Shape legend: N texts, T tokens of one text, D dimensions.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from openbook.core.config import available_cores
from openbook.core.errors import EngineError
from openbook.core.records import Digest, EmbedderIdentity, canonical_json, sha256_hex

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from openbook.models import EmbeddingSpec

# The default embedder runs in int8: its own weights, in a graph from `scripts/int8_graph.py`. The file's own graph
# dequantizes them to float32, which takes three times as long.
INT8_MODEL = "e7a8e75e735a4140b532d66f7d51a41977508c30a65f165bd125de86701d5479"
COMPUTATION = "int8 bert 1"
"""What the graphs compute. Changes whenever the vectors do."""

MODEL, TOKENIZER = "model.onnx", "tokenizer.json"
DATA = Path(__file__).parent / "data"
GRAPHS = {True: "minilm_int8.onnx", False: "minilm_uint8.onnx"}  # for signed weights, and for weights shifted by 128
TENSORS = "minilm_tensors.json"  # for each tensor, its parts in the model file, which are concatenated
INT8_TEST = "probe.onnx"  # a graph that tests if int8 is exact on this processor
INT8_TEST_SIZE = 64  # it multiplies [N, 64] by [64, 64]


class OnnxEmbedder:
    """A sentence encoder with mean pooling. The default embedder runs in int8."""

    def __init__(self, folder: Path, *, name: str, digest: Digest, spec: EmbeddingSpec, threads: int = 0) -> None:
        """`digest`: of the stored model. `identity.digest` also covers the computation in int8."""
        self._folder, self._name, self._spec = folder, name, spec
        self.model_digest: Final = digest
        self._uses_int8 = digest == INT8_MODEL
        self.identity: Final = EmbedderIdentity(name, _in_int8(digest) if self._uses_int8 else digest, spec.dimensions)
        self._workers = threads or available_cores()
        self._opening = threading.Lock()  # with cached_property alone, two threads could open a session twice
        self._held: Mapping[str, bytes] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Include the files, so that another machine computes the same vectors, with one thread."""
        files = {name: self._file(name) for name in (MODEL, TOKENIZER)}
        return {"name": self._name, "digest": self.model_digest, "spec": self._spec, "files": files}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__init__(Path(), name=state["name"], digest=state["digest"], spec=state["spec"], threads=1)  # type: ignore[misc]
        self._held = state["files"]

    def _file(self, name: str) -> bytes:
        return self._held.get(name) or (self._folder / name).read_bytes()

    def embed_query(self, text: str) -> NDArray[np.float32]:
        return self._embed(self._spec.query_prefix + text)

    def embed_passages(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = np.empty((len(texts), self._spec.dimensions), dtype=np.float32)
        # Longest first, so the workers finish together.
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        with ThreadPoolExecutor(self._workers) as pool:
            embedded = pool.map(lambda i: self._embed(self._spec.passage_prefix + texts[i]), order)
            for i, vector in zip(order, embedded, strict=True):
                rows[i] = vector
        return rows

    def count_tokens(self, text: str) -> int:
        """Return the tokens read: with the prefix and special tokens, without truncated text."""
        with self._opening:
            tokenizer = self._tokenizer
        return len(tokenizer.encode(self._spec.passage_prefix + text).ids)

    def _embed(self, text: str) -> NDArray[np.float32]:
        mean = self._hidden(text).mean(axis=0, keepdims=True)
        length = np.linalg.norm(mean, axis=1, keepdims=True)
        vector: NDArray[np.float32] = (mean / np.where(length == 0, 1, length)).astype(np.float32)[0]
        if vector.shape != (self._spec.dimensions,):
            raise EngineError(f"The embedder {self._name!r} gave {len(vector)} numbers, not {self._spec.dimensions}.")
        return vector

    def _hidden(self, text: str) -> NDArray[np.float32]:
        """[T, D]"""
        with self._opening:
            tokenizer, session = self._tokenizer, self._session
        ids = np.array([tokenizer.encode(text).ids], dtype=np.int64)  # [1, T]
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        try:
            found = session.run(None, {i.name: inputs[i.name] for i in session.get_inputs()})
        except Exception as error:
            raise EngineError(f"The embedder {self._name!r} cannot be evaluated: {error}.") from error
        hidden: NDArray[np.float32] = found[0][0]
        if not hidden.size or not np.isfinite(hidden).all():
            raise EngineError(f"The embedder {self._name!r} gave no valid vector of {self._spec.dimensions} numbers.")
        return hidden

    # --- opened once, under the lock ---

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_buffer(self._file(TOKENIZER))
            tokenizer.no_padding()
            tokenizer.enable_truncation(self._spec.max_tokens)
        except Exception as error:
            raise EngineError(f"The tokenizer of the embedder {self._name!r} cannot be loaded: {error}.") from error
        return tokenizer

    @cached_property
    def _session(self) -> Any:
        try:
            if not self._uses_int8:
                return opened_graph(self._file(MODEL))
            signed = int8_is_exact(opened_graph((DATA / INT8_TEST).read_bytes(), {}))
            tensors = int8_tensors(self._file(MODEL), signed=signed)
            return opened_graph((DATA / GRAPHS[signed]).read_bytes(), tensors)
        except Exception as error:
            raise EngineError(f"The embedder {self._name!r} cannot be loaded: {error}.") from error


def opened_graph(graph: bytes, tensors: Mapping[str, NDArray[Any]] | None = None) -> Any:
    """A session of `graph`: unchanged with `tensors` as its initializers, otherwise optimized first."""
    # Must be set before the library loads: it would write usage records into the user's home.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    if tensors is not None:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in tensors.values()]
        options.add_external_initializers(list(tensors), values)
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def int8_tensors(model: bytes, *, signed: bool) -> dict[str, NDArray[Any]]:
    """The graph's tensors, from the model file. Raises ValueError if it is too short."""
    found: dict[str, NDArray[Any]] = {}
    for name, place in json.loads((DATA / TENSORS).read_bytes()).items():
        dtype, shape = np.dtype(place["dtype"]).newbyteorder("<"), place["shape"]
        parts = [np.frombuffer(model, dtype, int(np.prod(shape)), offset) for offset in place["offsets"]]
        found[name] = np.concatenate([part.reshape(shape) for part in parts], axis=-1)
        if name.endswith(".weight") and dtype == np.int8 and not signed:
            found[name] = found[name].view(np.uint8) ^ 0x80
    scaled = found.pop("positions.q") * found.pop("positions.scale")
    found["positions"] = scaled + found.pop("positions.types")[0]
    return found


def int8_is_exact(session: Any) -> bool:
    """True if this processor multiplies uint8 by int8 without saturating. `session` runs the test graph.

    Without VNNI, x86 adds pairs of products in 16 bits, where 2 x 255 x 127 overflows. The path for uint8 weights is exact.
    """
    rows = np.full((4, INT8_TEST_SIZE), 255, np.uint8)
    expected = 255 * 127 * INT8_TEST_SIZE
    return all(bool((session.run(None, {"rows": rows[:n]})[0] == expected).all()) for n in (1, 4))


def model_digest_of(embedder: EmbedderIdentity, stored: Iterable[Digest]) -> Digest:
    """The digest in `stored` of the model that computes these vectors, else the vectors' own."""
    return next((each for each in stored if embedder.digest in (each, _in_int8(each))), embedder.digest)


def _in_int8(model: Digest) -> Digest:
    return sha256_hex(canonical_json({"computation": COMPUTATION, "model": model}))
