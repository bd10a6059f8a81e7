"""Compares a stored model with the digest in its folder's name. Each difference is a sentence that names the part.

The manifest must match the digest, down to each tensor, and the files must match the manifest. So a manifest edited to
match a swapped file is detected.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NoReturn

from openbook.core.errors import InvalidModelFile, ModelNotVerified
from openbook.core.files import storage_errors
from openbook.core.parallel import Progress
from openbook.core.records import Digest
from openbook.models.digest import Contents, TensorDigest, read_contents
from openbook.models.manifest import TRAINING_RECORD, Manifest, read_manifest

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
