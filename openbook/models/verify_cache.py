"""What earlier checks of a model found, so that they need not be repeated before each answer.

A *stamp* is what the disk said about a model's files when all their bytes were last verified. While sizes, times and
inodes are the same, the bytes are taken to be the same. This catches accidents and careless swaps (a change moves ctime,
which programs cannot set), not an owner of the disk who forges stamps; `openbook verify` reads every byte.

A *trial* says which files an engine has loaded and asked in a process of its own, and what their chat template wrote
there. It is of files and not of a model's digest: keys that change no answer, and so no digest, can still end an engine.

Either may be missing or unreadable: then the check is done again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

from openbook.codec import decode
from openbook.errors import InvalidModelFile
from openbook.files import replace_file
from openbook.models.manifest import Manifest
from openbook.records import Digest, canonical_json

# File times move in steps of up to 10 ms: a change so soon after another leaves no trace in them.
CLOCK_STEP_NS = 20_000_000
MAX_FILE_BYTES = 1 << 20
T = TypeVar("T")

TemplateText: TypeAlias = tuple[str, str, str]
"""What a chat template writes before a system message, between it and the user's message, and after that."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """For each file its size in bytes, mtime and ctime in nanoseconds, and inode."""

    files: Mapping[str, tuple[int, int, int, int]]
    format: Literal[1] = 1


@dataclass(frozen=True, slots=True)
class Trial:
    """`files`: the SHA-256 of the model's file, and of the adapter's on it. `template` is None for a model without one."""

    engine: str
    files: tuple[Digest, ...]
    template: TemplateText | None
    format: Literal[2] = 2  # 1: templates were rendered with thinking


def take_stamp(folder: Path, manifest: Manifest) -> Stamp | None:
    """The stamp of the files as they are now; None if one cannot be looked at, or was changed so lately (or in the future,
    by a clock that moved) that a further change might not show. Waits up to 20 ms for a file just written.
    """
    files = {}
    for name in manifest.files:
        try:
            status = (folder / name).stat()
        except OSError:
            return None
        age_ns = time.time_ns() - status.st_ctime_ns
        if age_ns < 0:
            return None
        time.sleep(max(0, CLOCK_STEP_NS - age_ns) / 1e9)
        files[name] = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    return Stamp(files)


def stamp_path(root: Path, digest: Digest) -> Path:
    return root / "stamps" / f"{digest}.json"


def trial_path(root: Path, digest: Digest) -> Path:
    return root / "trials" / f"{digest}.json"


def read_cached(path: Path, kind: type[T]) -> T | None:
    """The recorded Stamp or Trial; None if it is missing or cannot be read."""
    with suppress(OSError, InvalidModelFile), path.open("rb") as stream:
        return decode(stream.read(MAX_FILE_BYTES), kind, path.name, InvalidModelFile)
    return None


def write_cached(path: Path, value: Stamp | Trial) -> None:
    """Best effort: on a disk that cannot be written, every check is done anew."""
    with suppress(OSError):
        replace_file(path, canonical_json(asdict(value)))
