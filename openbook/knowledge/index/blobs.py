"""Named objects that machines share: in a mounted folder or an S3 bucket."""

from __future__ import annotations

import io
import os
import pkgutil
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from openbook.core.errors import ConfigError, StorageError, did_you_mean
from openbook.core.files import replacing, storage_errors, sync_folder

_BACK_ENDS = {
    "file": "openbook.knowledge.index.blobs:open_folder",
    "s3": "openbook.cluster.object_store:open_s3",
}
_KEY = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9_.-]*/)*[A-Za-z0-9_-][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Entry:
    """A listed object. `modified`: seconds since 1970 by the store's clock."""

    key: str
    size: int
    modified: float


class Blobs(Protocol):
    """Objects by key, thread-safe. A key is names of ASCII letters, digits and `_-.`, joined by `/`.

    An object is whole or absent, and later calls of any machine see it. Methods raise StorageError when the store is unreachable, refuses, or
    does not answer for some seconds, and ValueError for an invalid key.
    """

    url: str
    """Where the objects are. It holds no credentials."""

    def get(self, key: str) -> bytes:
        """Raises KeyError."""
        ...

    def fetch(self, key: str, path: Path) -> None:
        """Write the object to a file, whole or not at all. Raises KeyError when it does not exist, OSError of the disk."""
        ...

    def put(self, key: str, data: bytes | Path, *, if_absent: bool = False) -> bool:
        """Store bytes, or those of a file. Raises OSError for an unreadable file.

        With `if_absent`, an existing object stays and the result is False. Of many concurrent puts, one gets True, or none if its connection
        breaks.
        """
        ...

    def delete(self, key: str) -> None:
        """Delete the object, if it exists."""
        ...

    def list(self, prefix: str) -> Iterator[Entry]:
        """The objects whose keys begin with `prefix`, ascending."""
        ...


def open_blobs(url: str) -> Blobs:
    """The objects at `url`: a folder's path, `file:///PATH`, or `s3://BUCKET/PREFIX`. Does not contact a store.

    Raises ConfigError. No message shows credentials.
    """
    try:
        scheme = urlsplit(url).scheme.lower()
    except ValueError as error:
        raise ConfigError("The URL of the storage cannot be read. Write it like s3://BUCKET/PREFIX.") from error
    if len(scheme) < 2:  # none, or the letter of a drive
        return FolderBlobs(Path(url))
    if scheme not in _BACK_ENDS:
        hint = did_you_mean(scheme, _BACK_ENDS)
        raise ConfigError(
            f"There is no storage of the kind {scheme}://.{hint} Give the path of a folder, or s3://BUCKET/PREFIX"
        )
    blobs: Blobs = pkgutil.resolve_name(_BACK_ENDS[scheme])(url)
    return blobs


def open_folder(url: str) -> FolderBlobs:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or not parts.path:
        raise ConfigError("The URL of a folder is file:///PATH, with three slashes.")
    return FolderBlobs(Path(unquote(parts.path)))


def check_key(key: str) -> str:
    """Return a valid `key`, or raise ValueError."""
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key[:200]!r} is not the key of an object")
    return key


class FolderBlobs:
    """`Blobs` as files below a folder, which the first `put` makes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self.url = self._folder.as_uri()

    def get(self, key: str) -> bytes:
        with self._reading(key) as path:
            return path.read_bytes()

    def fetch(self, key: str, path: Path) -> None:
        with self._reading(key) as stored:
            source = stored.open("rb")
        with source, replacing(path) as stream:
            shutil.copyfileobj(source, stream)

    def put(self, key: str, data: bytes | Path, *, if_absent: bool = False) -> bool:
        path = written = self._path(key)
        if if_absent:  # a link gives the file its name, and never replaces a file
            written = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
        with (
            io.BytesIO(data) if isinstance(data, bytes) else data.open("rb") as source,
            storage_errors(f"write to {path}"),
        ):
            with replacing(written) as stream:
                shutil.copyfileobj(source, stream)
            if if_absent:
                try:
                    os.link(written, path)
                except FileExistsError:
                    return False
                finally:
                    written.unlink()
                sync_folder(path.parent)
        return True

    def delete(self, key: str) -> None:
        with storage_errors(f"delete from {self._folder}"):
            self._path(key).unlink(missing_ok=True)

    def list(self, prefix: str) -> Iterator[Entry]:
        found: list[Entry] = []
        top = self._folder / prefix.rpartition("/")[0]
        with storage_errors(f"read {self._folder}"):
            for folder, _, names in os.walk(top, onerror=_raise_unless_absent):
                for name in names:
                    path = Path(folder, name)
                    key = path.relative_to(self._folder).as_posix()
                    if key.startswith(prefix) and _KEY.fullmatch(key):
                        with suppress(FileNotFoundError):  # deleted meanwhile
                            status = path.stat()
                            found.append(Entry(key, status.st_size, status.st_mtime))
        return iter(sorted(found, key=lambda each: each.key))

    def _path(self, key: str) -> Path:
        return self._folder / check_key(key)

    @contextmanager
    def _reading(self, key: str) -> Iterator[Path]:
        try:
            yield self._path(key)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise KeyError(key) from None
        except OSError as error:
            raise StorageError(f"Cannot read {self._folder}: {error.strerror or error}.") from error


def _raise_unless_absent(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
