"""Results of earlier checks of a model, so that they need not run before each answer.

A *stamp* records sizes, times and inodes of a model's files when all bytes were last verified. While these are equal, the
bytes are assumed to be equal. This catches accidents and careless swaps (a change moves ctime, which programs cannot set),
not a disk owner who forges stamps; `openbook verify` reads every byte.

A *trial* records files that an engine loaded and ran in a separate process, and their chat template's output. It belongs
to files, not to a model's digest: keys that change no answer can still crash an engine.

If either is missing or unreadable, the check runs again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

from openbook.core.codec import decode
from openbook.core.errors import InvalidModelFile
from openbook.core.files import replace_file
from openbook.core.records import Digest, canonical_json
from openbook.models.manifest import Manifest

# File times move in steps of up to 10 ms, so a second change within this time may leave no trace.
CLOCK_STEP_NS = 20_000_000
MAX_FILE_BYTES = 1 << 20
T = TypeVar("T")

TemplateText: TypeAlias = tuple[str, str, str]
"""What a chat template writes before a system message, between it and the user's message, and after that."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """For each file: size in bytes, mtime and ctime in nanoseconds, inode."""

    files: Mapping[str, tuple[int, int, int, int]]
    format: Literal[1] = 1


@dataclass(frozen=True, slots=True)
class Trial:
    """`files`: SHA-256 of the model's file, then of the adapter's. `template` is None for a model without one."""

    engine: str
    files: tuple[Digest, ...]
    template: TemplateText | None
    format: Literal[2] = 2  # 1: templates were rendered with thinking


def take_stamp(folder: Path, manifest: Manifest) -> Stamp | None:
    """The stamp of the files now. Waits up to 20 ms for a file just written.

    None if a file is unreadable, or its ctime lies in the future, so that another change might not show.
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
    """The recorded value; None if it is missing or unreadable."""
    with suppress(OSError, InvalidModelFile), path.open("rb") as stream:
        return decode(stream.read(MAX_FILE_BYTES), kind, path.name, InvalidModelFile)
    return None


def write_cached(path: Path, value: Stamp | Trial) -> None:
    """Best effort: on an unwritable disk every check is repeated."""
    with suppress(OSError):
        replace_file(path, canonical_json(asdict(value)))
