"""Is a stored model what its folder's name says? Each way in which it is not, as a sentence that names the part.

The folder's name is the digest that everything is held against. The manifest only helps to name what differs: one
that was edited to match a swapped file is found out, because its digest no longer is the folder's name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from openbook.errors import InvalidModelFile
from openbook.files import storage_errors
from openbook.models.digest import (
    MAX_TOKENIZER_BYTES,
    Progress,
    TensorDigest,
    embedder_sections,
    gguf_sections,
    hash_file,
    hash_gguf,
    model_digest,
)
from openbook.models.gguf import read_gguf
from openbook.models.manifest import TRAINING_RECORD, Manifest, inconsistencies, read_manifest
from openbook.records import Digest

MAX_NAMED_TENSORS = 20
_SECTION_DIFFERS = {
    "architecture": "architecture differs",
    "template": "chat template differs",
    "tokenizer": "tokenizer differs",
    "weights": "weights differ",
    "embedding": "embedding settings differ",
}


def quick_findings(folder: Path, digest: Digest) -> tuple[str, ...]:
    """What milliseconds show to be wrong: in the manifest, the files' sizes, the GGUF header. Empty if nothing."""
    manifest, findings = _checked_manifest(folder, digest)
    if manifest is None:
        return findings
    findings += tuple(_size_findings(folder, manifest))
    if not findings and manifest.header_bytes is not None:
        path = folder / manifest.main_file
        with storage_errors(f"read {path}"), path.open("rb") as stream:
            header = stream.read(min(manifest.header_bytes, manifest.files[path.name].bytes))
        if hashlib.sha256(header).hexdigest() != manifest.header_sha256:
            findings += (f"the header of {path.name} differs",)
    return findings


def full_findings(folder: Path, digest: Digest, progress: Progress | None = None) -> tuple[str, ...]:
    """What is wrong, from every byte of every file. Empty if the folder holds exactly the model `digest`."""
    manifest, findings = _checked_manifest(folder, digest)
    if manifest is None:
        return findings
    findings += tuple(_size_findings(folder, manifest))
    if not all((folder / name).is_file() for name in manifest.files):
        return findings
    try:
        find = _gguf_findings if manifest.is_gguf else _embedder_findings
        content = tuple(find(folder, manifest, digest, progress))
    except InvalidModelFile as error:
        # A size that is wrong already says why the file cannot be read to its end.
        content = () if findings else (str(error).rstrip("."),)
    return findings + content


def _checked_manifest(folder: Path, digest: Digest) -> tuple[Manifest | None, tuple[str, ...]]:
    try:
        manifest = read_manifest(folder)
    except InvalidModelFile as error:
        return None, (f"manifest.json is damaged: {str(error).rstrip('.')}",)
    problems = inconsistencies(manifest)
    if manifest.digest != digest:
        problems += (f"it is for the model {manifest.digest[:12]}, and the folder holds {digest[:12]}",)
    return manifest, tuple(f"manifest.json is damaged: {problem}" for problem in problems)


def _size_findings(folder: Path, manifest: Manifest) -> Iterator[str]:
    for name, entry in manifest.files.items():
        with storage_errors(f"read {folder / name}"):
            try:
                size = (folder / name).stat().st_size
            except FileNotFoundError:
                yield f"{name} is missing"
                continue
        if size < entry.bytes:
            yield f"{name}: the file is truncated: {size} of {entry.bytes} bytes"
        elif size > entry.bytes:
            yield f"{name}: the file has {size} bytes instead of {entry.bytes}"


def _gguf_findings(folder: Path, manifest: Manifest, digest: Digest, progress: Progress | None) -> Iterator[str]:
    path = folder / manifest.main_file
    header = read_gguf(path)
    hashes = hash_gguf(path, header, progress)
    sections = gguf_sections(header, hashes.tensors)
    named = _section_findings(manifest.sections, sections)
    named += _tensor_findings(manifest.tensors, hashes.tensors)
    yield from named
    if not named and model_digest(sections) != digest:
        yield f"the content of {path.name} is the model {model_digest(sections)[:12]}, not {digest[:12]}"
    elif not named and hashes.sha256 != manifest.files[path.name].sha256:
        yield f"{path.name} differs, in descriptive keys or padding only"
    elif not named and (header.header_bytes, hashes.header_sha256) != (manifest.header_bytes, manifest.header_sha256):
        yield "manifest.json is damaged: its header_sha256 is not that of the file"
    record = manifest.files.get(TRAINING_RECORD)
    if record is not None and hash_file(folder / TRAINING_RECORD)[0] != record.sha256:
        yield f"{TRAINING_RECORD} differs"


def _embedder_findings(folder: Path, manifest: Manifest, digest: Digest, progress: Progress | None) -> Iterator[str]:
    if manifest.embedding is None:
        return
    weights, _ = hash_file(folder / "model.onnx", progress)
    tokenizer_sha256, _ = hash_file(folder / "tokenizer.json")
    with (folder / "tokenizer.json").open("rb") as stream:
        tokenizer = stream.read(MAX_TOKENIZER_BYTES + 1)
    sections = embedder_sections(weights, tokenizer, manifest.embedding)
    named = _section_findings(manifest.sections, sections)
    yield from named
    if not named and model_digest(sections) != digest:
        yield f"the content of the files is the model {model_digest(sections)[:12]}, not {digest[:12]}"
    elif not named and tokenizer_sha256 != manifest.files["tokenizer.json"].sha256:
        yield "tokenizer.json differs, in its layout only"


def _section_findings(expected: Mapping[str, Digest], found: Mapping[str, Digest]) -> list[str]:
    return [words for name, words in _SECTION_DIFFERS.items() if expected.get(name) != found.get(name)]


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
