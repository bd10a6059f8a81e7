"""The form in which llama.cpp gives what it computed of a sequence, and how another kind of context takes it."""

from __future__ import annotations

import struct

import numpy as np

from openbook.errors import EngineError

_F16 = 1  # GGML_TYPE_F16


def state_apart(state: bytes, sequences: int) -> bytes:
    """A sequence's state of a context whose sequences share cells, as one whose `sequences` lie apart takes it.

    Such a context has a list of cells for each sequence, and keeps the values transposed. Raises EngineError for a state of
    another form: of a model with other memory than keys and values in binary16, or of another version of llama.cpp.
    """
    form = EngineError("llama.cpp keeps the state of this model in a form that slots cannot use.")
    try:
        magic, sequence, lists, cells = struct.unpack_from("<IiII", state)
        at = 16 + 12 * cells  # of each cell the position and the one sequence
        transposed, layers, *others = struct.unpack_from("<IIII", state, at)
        if lists != 1 or transposed or any(others) or not cells:
            raise form
        parts = [struct.pack("<IiII", magic, sequence, sequences, cells), state[16:at]]
        parts.append(struct.pack("<IIII", 1, layers, *others))
        at += 16
        start = at
        for _ in range(layers):  # keys
            _, row_bytes = struct.unpack_from("<iQ", state, at)
            at += 12 + cells * row_bytes
        parts.append(state[start:at])
        for _ in range(layers):  # values
            kind, row_bytes = struct.unpack_from("<iQ", state, at)
            if kind != _F16:
                raise form
            rows = np.frombuffer(state, np.uint16, cells * row_bytes // 2, at + 12).reshape(cells, row_bytes // 2)
            parts += [struct.pack("<iII", kind, 2, row_bytes // 2), np.ascontiguousarray(rows.T).tobytes()]
            at += 12 + cells * row_bytes
    except (struct.error, ValueError) as error:
        raise form from error
    if at != len(state):
        raise form
    return b"".join([*parts, bytes(4 * (sequences - 1))])  # the other lists are empty
