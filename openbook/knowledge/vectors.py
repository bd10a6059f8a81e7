"""The vector index: one matrix of float16 rows, searched exactly with usearch, derived from the knowledge base.

Exact search reads every row: 0.6 ms at 20,000 passages, 4 to 6 ms at 100,000 on two cores (docs/dependencies.md), and
its result depends on the vectors alone.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Shape legend: N passages, D dimensions.


class VectorIndex:
    """`keys[i]` is the passage whose unit vector is `rows[i]`: int64 [N] ascending, float16 [N, D]."""

    def __init__(self, keys: NDArray[np.int64], rows: NDArray[np.float16]) -> None:
        self._keys, self._rows = keys, rows

    @classmethod
    def load(cls, folder: Path, dimensions: int) -> VectorIndex:
        """Map a saved index read-only. Raises ValueError or OSError when it is not whole."""
        keys: NDArray[Any] = np.load(folder / "keys.npy", mmap_mode="r", allow_pickle=False)
        rows: NDArray[Any] = np.load(folder / "rows.npy", mmap_mode="r", allow_pickle=False)
        if keys.dtype != np.int64 or rows.dtype != np.float16 or rows.shape != (len(keys), dimensions):
            raise ValueError(f"{folder} does not hold {dimensions} float16 numbers for each of its keys")
        return cls(keys, rows)

    def save(self, folder: Path) -> None:
        """Write to `folder`, which appears whole or not at all. It must not exist."""
        temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        np.save(temporary / "keys.npy", self._keys)
        np.save(temporary / "rows.npy", self._rows)
        temporary.rename(folder)

    def updated(self, remove: Iterable[int], add: Iterable[tuple[int, bytes]]) -> VectorIndex:
        """A new index without the passages in `remove` and with those in `add` (id, float16 bytes)."""
        added = dict(add)
        gone = np.fromiter({*remove, *added}, dtype=np.int64)
        kept = ~np.isin(self._keys, gone)
        new_keys = np.fromiter(added, dtype=np.int64, count=len(added))
        new_rows = np.frombuffer(b"".join(added.values()), dtype="<f2").reshape(len(added), self._rows.shape[1])
        keys = np.concatenate([np.asarray(self._keys)[kept], new_keys])
        rows = np.concatenate([np.asarray(self._rows)[kept], new_rows.astype(np.float16)])
        order = np.argsort(keys, kind="stable")
        return VectorIndex(keys[order], rows[order])

    def search(self, query: NDArray[np.float32], limit: int) -> list[tuple[int, float]]:
        """(passage, cosine similarity), most similar first. `query` is a float32 unit vector [D]."""
        if not len(self._keys) or limit < 1:
            return []
        from usearch.index import search

        count = min(limit, len(self._keys))
        found = search(np.asarray(self._rows), query.astype(np.float16), count, metric="ip", exact=True)
        pairs = [(int(self._keys[int(i)]), self._cosine(int(i), query)) for i in found.keys]
        return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))

    def similarity(self, passage: int, query: NDArray[np.float32]) -> float | None:
        """Cosine similarity of one passage to `query`, or None when it is not in the index."""
        at = int(np.searchsorted(self._keys, passage))
        if at >= len(self._keys) or self._keys[at] != passage:
            return None
        return self._cosine(at, query)

    def _cosine(self, at: int, query: NDArray[np.float32]) -> float:
        # One row at a time: a product of many rows may round differently, and a score must not depend on its company.
        return float(np.dot(self._rows[at].astype(np.float32), query))

    def __len__(self) -> int:
        return len(self._keys)


def empty_vectors(dimensions: int) -> VectorIndex:
    return VectorIndex(np.empty(0, dtype=np.int64), np.empty((0, dimensions), dtype=np.float16))
