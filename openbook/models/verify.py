"""Is a stored model what its folder's name says? Each way in which it is not, as a sentence that names the part.

The folder's name is the digest that everything is held against. The manifest only helps to name what differs: one
that was edited to match a swapped file is found out, because its digest no longer is the folder's name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NoReturn

from openbook.errors import InvalidModelFile, ModelNotVerified
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
# What the digest does not cover.
_LAYOUT = {
    "model.gguf": "descriptive keys or padding",
    "adapter.gguf": "descriptive keys or padding",
    "tokenizer.json": "its layout",
}


def quick_findings(folder: Path, digest: Digest) -> tuple[str, ...]:
    """What milliseconds show to be wrong: in the manifest, the files' sizes, the GGUF header. Empty if nothing."""
    manifest, findings = _manifest_and_sizes(folder, digest)
    if manifest is not None and not findings and manifest.header_bytes is not None:
        path = folder / manifest.main_file
        with storage_errors(f"read {path}"), path.open("rb") as stream:
            header = stream.read(min(manifest.header_bytes, manifest.files[path.name].bytes))
        if hashlib.sha256(header).hexdigest() != manifest.header_sha256:
            return (f"the header of {path.name} differs",)
    return findings


def full_findings(folder: Path, digest: Digest, progress: Progress | None = None) -> tuple[str, ...]:
    """What is wrong, from every byte of every file. Empty if the folder holds exactly the model `digest`."""
    manifest, findings = _manifest_and_sizes(folder, digest)
    if manifest is None or not all((folder / name).is_file() for name in manifest.files):
        return findings
    try:
        return findings + tuple(_content_findings(folder, manifest, digest, progress))
    except InvalidModelFile as error:
        # A size that is wrong already says why the file cannot be read to its end.
        return findings or (str(error).rstrip("."),)


def refuse(name: str, findings: tuple[str, ...]) -> NoReturn:
    """Raises the ModelNotVerified for these findings."""
    what = "; ".join(findings)
    raise ModelNotVerified(
        f"The model {name!r} is not what its digest says: {what}. "
        f"Remove it (`openbook models remove {name} --yes`) and pull or import it again."
    )


def _manifest_and_sizes(folder: Path, digest: Digest) -> tuple[Manifest | None, tuple[str, ...]]:
    """The manifest, if it can be read, and what is wrong with it and with the sizes of the files."""
    try:
        manifest = read_manifest(folder)
    except InvalidModelFile as error:
        return None, (f"manifest.json is damaged: {str(error).rstrip('.')}",)
    found = [f"manifest.json is damaged: {problem}" for problem in inconsistencies(manifest)]
    if manifest.digest != digest:
        found.append(
            f"manifest.json is damaged: it is for the model {manifest.digest[:12]}, and the folder holds {digest[:12]}"
        )
    for name, entry in manifest.files.items():
        with storage_errors(f"read {folder / name}"):
            try:
                size = (folder / name).stat().st_size
            except FileNotFoundError:
                found.append(f"{name} is missing")
                continue
        if size < entry.bytes:
            found.append(f"{name}: the file is truncated: {size} of {entry.bytes} bytes")
        elif size > entry.bytes:
            found.append(f"{name}: the file has {size} bytes instead of {entry.bytes}")
    return manifest, tuple(found)


def _content_findings(folder: Path, manifest: Manifest, digest: Digest, progress: Progress | None) -> Iterator[str]:
    main, others = folder / manifest.main_file, [name for name in manifest.files if name != manifest.main_file]
    hashes = {name: hash_file(folder / name)[0] for name in others}
    tensors: tuple[TensorDigest, ...] = ()
    if manifest.embedding is None:
        header = read_gguf(main)
        hashed = hash_gguf(main, header, progress)
        hashes[main.name], tensors = hashed.sha256, hashed.tensors
        sections = gguf_sections(header, tensors)
        in_manifest = (header.header_bytes, hashed.header_sha256) == (manifest.header_bytes, manifest.header_sha256)
    else:
        hashes[main.name] = hash_file(main)[0]
        with storage_errors(f"read {folder}"), (folder / "tokenizer.json").open("rb") as stream:
            tokenizer = stream.read(MAX_TOKENIZER_BYTES + 1)
        sections = embedder_sections(hashes[main.name], tokenizer, manifest.embedding)
        in_manifest = True
    named = _section_findings(manifest.sections, sections) + _tensor_findings(manifest.tensors, tensors)
    if not named and model_digest(sections) != digest:
        named = [f"the content of {main.name} is the model {model_digest(sections)[:12]}, not {digest[:12]}"]
    yield from named
    differing = [name for name, entry in manifest.files.items() if hashes[name] != entry.sha256]
    if TRAINING_RECORD in differing:
        yield f"{TRAINING_RECORD} differs"
    if named:
        return  # which says what differs in the other files
    for name in differing:
        if name in _LAYOUT:
            yield f"{name} differs, in {_LAYOUT[name]} only"
    if not differing and not in_manifest:
        yield "manifest.json is damaged: its header_sha256 is not that of the file"


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
