"""Compares a stored model with the digest in its folder's name. Each difference is a sentence that names the part.

The manifest must match the digest, down to each tensor, and the files must match the manifest. So a manifest edited to
match a swapped file is detected. Results are cached, so that checks need not run before each answer:

A *stamp* records sizes, times and inodes of a model's files when all bytes were last verified. While these are equal, the
bytes are assumed to be equal. This catches accidents and careless swaps (a change moves ctime, which programs cannot set),
not a disk owner who forges stamps; `openbook verify` reads every byte.

A *trial* records files that an engine loaded and ran in a separate process, and their chat template's output. It belongs
to files, not to a model's digest: keys that change no answer can still crash an engine.

If either is missing or unreadable, the check runs again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NoReturn, TypeAlias, TypeVar

from openbook.core.codec import decode
from openbook.core.errors import InvalidModelFile, ModelNotVerified
from openbook.core.files import replace_file, storage_errors
from openbook.core.parallel import Progress
from openbook.core.records import Digest, canonical_json
from openbook.models.digest import Contents, TensorDigest, read_contents
from openbook.models.manifest import TRAINING_RECORD, Manifest, read_manifest

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


MAX_NAMED_TENSORS = 20
_SECTION_DIFFERS = {
    "architecture": "architecture differs",
    "template": "chat template differs",
    "tokenizer": "tokenizer differs",
    "weights": "weights differ",
    "embedding": "embedding settings differ",
}


def full_findings(folder: Path, digest: Digest, progress: Progress) -> tuple[str, ...]:
    """Read every byte and return the differences from the model `digest`."""
    try:
        manifest = read_manifest(folder, digest)
    except InvalidModelFile as error:
        return (str(error),)
    found = _size_findings(folder, manifest)
    if not all((folder / name).is_file() for name in manifest.files):
        return found
    try:
        contents = read_contents(folder, manifest.files, manifest.embedding, progress)
    except InvalidModelFile as error:
        # A wrong size already explains why the file cannot be read.
        return found or (str(error).rstrip("."),)
    return (*found, *_content_findings(manifest, contents))


def raise_not_verified(name: str, found: tuple[str, ...]) -> NoReturn:
    raise ModelNotVerified(
        f"The model {name!r} is not what its digest says: {'; '.join(found)}. "
        f"Remove it (`openbook models remove {name} --yes`) and pull or import it again."
    )


def _size_findings(folder: Path, manifest: Manifest) -> tuple[str, ...]:
    found = []
    for name, entry in manifest.files.items():
        with storage_errors(f"read {folder / name}"):
            if not (folder / name).is_file():
                found.append(f"{name} is missing, or not a file")
                continue
            size = (folder / name).stat().st_size
        if size < entry.bytes:
            found.append(f"{name}: the file is truncated: {size} of {entry.bytes} bytes")
        elif size > entry.bytes:
            found.append(f"{name}: the file has {size} bytes instead of {entry.bytes}")
    return tuple(found)


def _content_findings(manifest: Manifest, contents: Contents) -> Iterator[str]:
    named = [
        words for name, words in _SECTION_DIFFERS.items() if manifest.sections.get(name) != contents.sections.get(name)
    ]
    named += _tensor_findings(manifest.tensors, contents.tensors)
    yield from named
    differing = [name for name, entry in manifest.files.items() if contents.files[name].sha256 != entry.sha256]
    if TRAINING_RECORD in differing:
        yield f"{TRAINING_RECORD} differs"
    if named:
        return  # these already name the differences
    for name in differing:  # parts that the digest does not cover
        if name != TRAINING_RECORD:
            yield f"{name} differs, in {'its layout' if name == 'tokenizer.json' else 'descriptive keys or padding'} only"
    header_bytes = contents.header.header_bytes if contents.header else None
    if not differing and (header_bytes, contents.header_sha256) != (manifest.header_bytes, manifest.header_sha256):
        yield "manifest.json is damaged: its header_sha256 is not that of the file"


def _tensor_findings(expected: Iterable[TensorDigest], found: Iterable[TensorDigest]) -> list[str]:
    wanted, present = ({tensor.name: tensor for tensor in tensors} for tensors in (expected, found))
    findings = []
    for name in sorted(wanted.keys() | present.keys()):
        if name not in present:
            findings.append(f"tensor {name} is missing")
        elif name not in wanted:
            findings.append(f"tensor {name} is not in the manifest")
        elif wanted[name] != present[name]:
            findings.append(f"tensor {name} differs")
    if len(findings) > MAX_NAMED_TENSORS:
        findings[MAX_NAMED_TENSORS:] = [f"and {len(findings) - MAX_NAMED_TENSORS} more tensors"]
    return findings
