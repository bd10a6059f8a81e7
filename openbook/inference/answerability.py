"""How likely the passages of a prompt state the answer: a linear probe of what a layer gives for the prompt's last token.

Models of this size know more of it in the middle than they say when they are asked (research/log.md). A probe belongs to the
weights of one model. `recipes/answerability.py` fits one; those here are fixed, as the weights are.

llama.cpp's API does not expose inner layers. But ggml asks a callback before each node of a graph whether its values are
wanted, and calls it again after such a node, so that they can be copied (`HiddenStateTap`). Results do not depend on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openbook.codec import decode
from openbook.errors import EngineError
from openbook.records import Digest, canonical_json, sha256_hex

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from openbook.models import ModelReference

PROBES = Path(__file__).parent / "data" / "answerability.json"
_SYMBOLS = """
const char *ggml_get_name(const void *tensor);
size_t ggml_nbytes(const void *tensor);
void ggml_backend_tensor_get(const void *tensor, void *data, size_t offset, size_t size);
"""


@dataclass(frozen=True, slots=True)
class AnswerabilityProbe:
    """`layer`: counted from 0, the one whose output is looked at. `weights`: one for each of its numbers.

    With a probability below `declines_below`, chosen for the model that the probe belongs to (research/log.md), the passages hardly state the answer.
    """

    layer: int
    bias: float
    weights: tuple[float, ...]
    declines_below: float

    @property
    def digest(self) -> Digest:
        # Receipts name the probe from when it had a second limit, which decided nothing about what the model writes.
        return sha256_hex(canonical_json(asdict(self) | {"supports_from": 0.9}))

    def probability(self, state: NDArray[np.float32]) -> float:
        """`state`: float32 [width]."""
        odds = math.fsum(float(x) * w for x, w in zip(state, self.weights, strict=True)) + self.bias
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, odds))))


@cache
def probes() -> Mapping[Digest, AnswerabilityProbe]:
    """By the digest of the file of weights that they belong to."""
    return decode(PROBES.read_bytes(), dict[Digest, AnswerabilityProbe], PROBES.name, EngineError)


def probe_of(reference: ModelReference) -> AnswerabilityProbe | None:
    """The one for a stored model; None for most, and for an adapter."""
    return probes().get(reference.manifest.files[reference.manifest.main_file].sha256)


class HiddenStateTap:
    """What a layer gives for the last token of a call. `callback` is for llama.cpp, and must live as long as its context."""

    def __init__(self, ffi: Any, layer: int, width: int, on_error: Callable[..., bool]) -> None:
        """`layer`: counted from 0; not the last one, which llama.cpp computes for some tokens only. `width`: of the model.

        `on_error` gets what is raised inside the callback, such as an interrupt. It returns True, so that the call ends as usual.
        """
        self._layer, self._wanted = layer, False
        self._state: NDArray[np.float32] | None = None
        name, ggml, size = f"l_out-{layer}".encode(), _ggml(ffi), width * 4

        @ffi.callback("bool(struct ggml_tensor *, bool, void *)", error=True, onerror=on_error)  # type: ignore[untyped-decorator]
        def callback(tensor: Any, before: bool, _data: Any) -> bool:
            is_wanted = self._wanted and ffi.string(ggml.ggml_get_name(tensor)) == name
            if is_wanted and not before:
                state = np.empty(width, np.float32)
                target = ffi.from_buffer(state, require_writable=True)
                ggml.ggml_backend_tensor_get(tensor, target, ggml.ggml_nbytes(tensor) - size, size)
                self._state = state
            return is_wanted or not before

        self.callback = callback

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Copies what the layer gives in each call inside the block; `state` is then that of the last call."""
        self._wanted, self._state = True, None
        try:
            yield
        finally:
            self._wanted = False

    @property
    def state(self) -> NDArray[np.float32]:
        """float32 [width], all finite. Raises EngineError when llama.cpp did not show it."""
        if self._state is None or not np.isfinite(self._state).all():
            raise EngineError(
                f"llama.cpp shows no numbers of layer {self._layer} of this model, which its probe needs."
            )
        return self._state


def _ggml(ffi: Any) -> Any:
    """The tensor library below llama.cpp, opened through an interface of its own. Raises EngineError."""
    import llama_cpp_py_sync

    own = type(ffi)()
    own.cdef(_SYMBOLS)
    for path in sorted(Path(llama_cpp_py_sync.__file__).parent.glob("*ggml-base*")):
        return own.dlopen(str(path))
    raise EngineError("The package llama-cpp-py-sync lacks the library ggml-base. Install it again.")
