"""Named objects that several machines share: a folder, or an S3 bucket. What is in them is derived and can be made anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol


class Blobs(Protocol):
    """Objects by key. A key is one or more names with `/` between them; a name has letters, digits and `-_.`, no dot first.

    Every method raises StorageError when the store cannot be reached, refuses, or takes too long: within seconds, so that
    whoever can do without it does. An object is whole or absent.
    """

    url: str
    """Where it is, without credentials."""

    def get(self, key: str) -> bytes:
        """Raises KeyError when it is not there."""
        ...

    def put(self, key: str, data: bytes | Path, *, if_absent: bool = False) -> bool:
        """Store bytes, or those of a file. With `if_absent`, False and no change when the key is there, whoever else puts it."""
        ...

    def delete(self, key: str) -> None:
        """Nothing happens when it is not there."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """The keys that begin with `prefix`, ascending."""
        ...

    def modified(self, key: str) -> float:
        """When the object was put, in seconds since 1970 by the store's clock. Raises KeyError when it is not there."""
        ...

    def fetch(self, key: str, path: Path) -> None:
        """Write the object to a new file, which is whole or absent. Raises KeyError when the object is not there."""
        ...
