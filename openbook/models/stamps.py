"""Stamps: what the disk said about a model's files when all their bytes were last verified.

While sizes, times and inodes are the same, the bytes are taken to be the same: no need to read them before each answer.
This catches accidents and careless swaps (a change moves ctime, which programs cannot set), not an owner of the disk
who forges stamps; `verify` reads every byte.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path

from openbook.errors import InvalidModelFile, StorageError
from openbook.files import replace_file
from openbook.models.fields import Fields
from openbook.models.manifest import Manifest
from openbook.records import Digest, canonical_json

FORMAT = 1
# File times move in steps of up to 10 ms: a change so soon after another leaves no trace in them.
CLOCK_STEP_NS = 20_000_000
MAX_STAMP_BYTES = 1 << 16

Stamp = dict[str, tuple[int, ...]]


def take_stamp(folder: Path, manifest: Manifest) -> Stamp | None:
    """The stamp of the files as they are now; None if a file was changed so lately (or in the future, by a clock that
    moved) that a further change might not show. Waits up to 20 ms for a file just written. Raises StorageError.
    """
    stamp: Stamp = {}
    for name in manifest.files:
        try:
            status = (folder / name).stat()
        except OSError as error:
            raise StorageError(f"Cannot read {folder / name}: {error.strerror or error}.") from error
        age_ns = time.time_ns() - status.st_ctime_ns
        if 0 <= age_ns < CLOCK_STEP_NS:
            time.sleep((CLOCK_STEP_NS - age_ns) / 1e9)
        elif age_ns < 0:
            return None
        stamp[name] = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    return stamp


def read_stamp(path: Path) -> Stamp | None:
    """The recorded stamp; None if there is none that can be read, which only means that the files are read again."""
    try:
        with path.open("rb") as stream:
            fields = Fields(json.loads(stream.read(MAX_STAMP_BYTES)), path.name)
        if fields.integer("format") != FORMAT:
            return None
        files = fields.inner("files")
        return {name: files.integers(name) for name in files}
    except (OSError, ValueError, RecursionError, InvalidModelFile):
        return None


def write_stamp(path: Path, stamp: Stamp) -> None:
    """Best effort: on a disk that cannot be written, every check reads the files again."""
    value = {"format": FORMAT, "files": {name: list(numbers) for name, numbers in stamp.items()}}
    with suppress(OSError):
        replace_file(path, canonical_json(value))


def stamp_path(root: Path, digest: Digest) -> Path:
    return root / "stamps" / f"{digest}.json"
