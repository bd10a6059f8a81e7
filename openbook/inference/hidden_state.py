"""What a layer of a model gives for the last token of a call, while llama.cpp evaluates it.

llama.cpp's API does not expose inner layers. But ggml asks `callback` before each node of a graph whether its values are
wanted, and calls it again after such a node, so that they can be copied. Results do not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openbook.errors import EngineError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SYMBOLS = """
const char *ggml_get_name(const void *tensor);
size_t ggml_nbytes(const void *tensor);
void ggml_backend_tensor_get(const void *tensor, void *data, size_t offset, size_t size);
"""


class HiddenStateTap:
    """`callback` is for llama.cpp, and must live as long as its context."""

    def __init__(self, ffi: Any, layer: int, width: int, on_error: Callable[..., bool]) -> None:
        """`layer`: counted from 0; not the last one, which llama.cpp computes for some tokens only. `width`: of the model.

        `on_error`: gets what is raised inside the callback, such as an interrupt, and returns True, so that the call ends as usual.
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
        """`state` then is of the last call inside."""
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
    """The library of tensors below llama.cpp, through a new one of the kind of `ffi`. Raises EngineError."""
    import llama_cpp_py_sync

    own = type(ffi)()
    own.cdef(_SYMBOLS)
    for path in sorted(Path(llama_cpp_py_sync.__file__).parent.glob("*ggml-base*")):
        return own.dlopen(str(path))
    raise EngineError("The package llama-cpp-py-sync lacks the library ggml-base. Install it again.")
