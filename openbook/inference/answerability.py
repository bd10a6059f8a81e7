"""The probability that a prompt's passages state the answer: a linear probe on a middle layer's output for the last token.

Models of this size know more about this in the middle than they say (research/log.md). `recipes/answerability.py` fits the
probe of one model's weights. llama.cpp's API does not expose inner layers, but ggml calls a callback around each graph
node, which can copy its values (`HiddenStateTap`). Results do not depend on the callback.
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

from openbook.core.codec import decode
from openbook.core.errors import EngineError
from openbook.core.records import Digest, canonical_json, sha256_hex

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
    """One weight for each output of `layer` (counted from 0). Below `declines_below` the passages hardly state the answer."""

    layer: int
    bias: float
    weights: tuple[float, ...]
    declines_below: float

    @property
    def digest(self) -> Digest:
        # Receipts still name the probe by the digest it had with a second limit, which never affected the text.
        return sha256_hex(canonical_json(asdict(self) | {"supports_from": 0.9}))

    def probability(self, state: NDArray[np.float32]) -> float:
        """`state`: float32 [width]."""
        odds = math.fsum(float(x) * w for x, w in zip(state, self.weights, strict=True)) + self.bias
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, odds))))


@cache
def probes() -> Mapping[Digest, AnswerabilityProbe]:
    """All probes, by the SHA-256 of their weight file."""
    return decode(PROBES.read_bytes(), dict[Digest, AnswerabilityProbe], PROBES.name, EngineError)


def probe_of(reference: ModelReference) -> AnswerabilityProbe | None:
    """The probe of a stored model; None for most models and every adapter."""
    return probes().get(reference.manifest.files[reference.manifest.main_file].sha256)


class HiddenStateTap:
    """Copies a layer's output for a call's last token. `callback` is for llama.cpp and must live as long as its context."""

    def __init__(self, ffi: Any, layer: int, width: int, on_error: Callable[..., bool]) -> None:
        """`layer` counts from 0; not the last, which llama.cpp computes for some tokens only.

        `on_error` gets exceptions from the callback, such as interrupts; it returns True so that the call ends normally.
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
        """Inside the block, set `state` after each call."""
        self._wanted, self._state = True, None
        try:
            yield
        finally:
            self._wanted = False

    @property
    def state(self) -> NDArray[np.float32]:
        """float32 [width], all finite. Raises EngineError if llama.cpp did not show the layer."""
        if self._state is None or not np.isfinite(self._state).all():
            raise EngineError(
                f"llama.cpp shows no numbers of layer {self._layer} of this model, which its probe needs."
            )
        return self._state


def _ggml(ffi: Any) -> Any:
    import llama_cpp_py_sync

    own = type(ffi)()
    own.cdef(_SYMBOLS)
    for path in sorted(Path(llama_cpp_py_sync.__file__).parent.glob("*ggml-base*")):
        return own.dlopen(str(path))
    raise EngineError("The package llama-cpp-py-sync lacks the library ggml-base. Install it again.")
