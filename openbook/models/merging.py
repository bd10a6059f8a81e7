"""An adapter and its base as one file: every matrix W becomes W + B A * alpha / rank, and is quantised anew.

Nothing is learned, but another file is another function: it has a digest and a lineage of its own. The same two files
give the same bytes on every machine: B A is computed in float64, where the order of a sum, which is the machine's choice,
makes differences too small for the float32 that is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from openbook.errors import InvalidModelFile
from openbook.models.gguf import read_gguf
from openbook.models.gguf_writing import Quantisation, add_reader, add_tensor, copy_metadata, finish
from openbook.records import ReaderFormat

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class AdapterUpdates(Mapping[str, "NDArray[np.float32]"]):
    """What a stored adapter adds to each matrix, by the GGUF name of the matrix: float32 [out, in], computed when asked for."""

    def __init__(self, adapter_file: Path) -> None:
        from gguf import GGUFReader

        self._alpha = float(read_gguf(adapter_file).metadata["adapter.lora.alpha"].value)
        self._parts = {tensor.name: tensor for tensor in GGUFReader(adapter_file).tensors}

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        import numpy as np
        from gguf.quants import dequantize

        a, b = (
            dequantize(part.data, part.tensor_type).astype(np.float64)
            for part in (self._parts[f"{name}.lora_a"], self._parts[f"{name}.lora_b"])
        )
        update: NDArray[np.float32] = (b @ a * (self._alpha / a.shape[0])).astype(np.float32)
        return update

    def __iter__(self) -> Iterator[str]:
        return (part.removesuffix(".lora_a") for part in self._parts if part.endswith(".lora_a"))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def write_merged(
    path: Path,
    base_file: Path,
    updates: Mapping[str, NDArray[np.float32]],
    *,
    quantisation: Quantisation,
    reader: ReaderFormat | None,
) -> None:
    """The model of `base_file` with `updates` (by GGUF names, float32 [out, in]) added to its matrices, as a GGUF of its own.

    Matrices are stored in `quantisation`, vectors in F32. Raises InvalidModelFile.
    """
    import numpy as np
    from gguf import GGUFReader, GGUFWriter
    from gguf.quants import dequantize

    header = read_gguf(base_file)  # strict and bounded, so that what follows meets nothing unexpected
    writer = GGUFWriter(path, header.text("general.architecture") or "")
    copy_metadata(writer, header)
    add_reader(writer, reader)
    left = set(updates)
    for tensor in GGUFReader(base_file).tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if tensor.name in left:
            left.remove(tensor.name)
            update = updates[tensor.name]
            if update.shape != values.shape:
                raise InvalidModelFile(f"The update of {tensor.name} has the shape {update.shape}, not {values.shape}.")
            values = values + update
        add_tensor(writer, tensor.name, values, quantisation if values.ndim > 1 else "F32")
    if left:
        raise InvalidModelFile(f"The base has no {', '.join(sorted(left))}, which were learned.")
    finish(writer)
