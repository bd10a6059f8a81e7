"""The default embedder computed in int8: its own weights, in a graph that `scripts/int8_graph.py` wrote for them.

The file of the model says how to multiply its int8 weights out to float32, which takes three times as long.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

MODEL = "e7a8e75e735a4140b532d66f7d51a41977508c30a65f165bd125de86701d5479"  # the one model that the graphs are for
COMPUTATION = "int8 bert 1"
"""What the graphs compute. Changes whenever the vectors do."""

DATA = Path(__file__).parent / "data"
GRAPHS = {True: "minilm_int8.onnx", False: "minilm_uint8.onnx"}  # for signed weights, and for those shifted by 128
TENSORS = "minilm_tensors.json"  # for each tensor of the graphs its parts in the model's file, which lie side by side
PROBE = "probe.onnx"
PROBE_SIZE = 64  # its product is of [N, 64] and [64, 64]


def tensors(model: bytes, *, signed: bool) -> dict[str, NDArray[Any]]:
    """The tensors of the graph, from the file of the model. Raises ValueError where that is too short."""
    import numpy as np

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
    """Whether this processor multiplies uint8 by int8 without saturating, by a session of the probe.

    Without VNNI, x86 adds pairs of products in 16 bits, where 2 x 255 x 127 does not fit. Weights in uint8 take another
    way there, which is exact.
    """
    import numpy as np

    rows = np.full((4, PROBE_SIZE), 255, np.uint8)
    expected = 255 * 127 * PROBE_SIZE
    return all(bool((session.run(None, {"rows": rows[:n]})[0] == expected).all()) for n in (1, 4))
