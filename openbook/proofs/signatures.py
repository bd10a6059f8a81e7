"""Signed documents that others can check with a public key alone: format in docs/formats/proof.md.

A signature proves who states something, and that no byte was changed since. It does not prove that the statement is
true.
"""

from __future__ import annotations

import dataclasses
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from openbook.core.codec import convert, decode
from openbook.core.errors import ConfigError, ProofError, ReceiptError, StorageError
from openbook.core.files import make_folder, replace_file, storage_errors
from openbook.core.locks import exclusive_lock
from openbook.core.records import BeyondReach, Digest, Receipt, canonical_json, sha256_hex
from openbook.proofs.receipts import is_altered, receipt_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FORMAT = "openbook signed document 1"
MAX_BYTES = 1 << 25
KEY_FOLDER, KEY_FILE = "signing", "ed25519.pem"

# Keys of small order, without the sign bit: one signature fits every document and needs no private key.
_SMALL_ORDER = frozenset(
    bytes.fromhex(each)
    for each in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)
_LOCK_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class DeletedCounts:
    documents: int
    passages: int
    caches: int
    runs: int
    states: int
    diagnoses: int
    unfinished: int


@dataclass(frozen=True, slots=True)
class ScannedFiles:
    """Files of one place without a trace of the documents. A model's state is judged by the passages it names."""

    place: str
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class UnreachedPaths:
    """Digests of the paths that are out of reach for one reason."""

    reason: str
    paths: tuple[Digest, ...]


@dataclass(frozen=True, slots=True)
class PurgeProof:
    """`paths` and `texts`: digests of the documents' names and of all texts they ever held."""

    openbook_version: str
    time: str
    knowledge_base: str
    knowledge_base_version: int
    paths: tuple[Digest, ...]
    texts: tuple[Digest, ...]
    deleted: DeletedCounts
    scanned: tuple[ScannedFiles, ...]
    out_of_reach: tuple[UnreachedPaths, ...]
    models_that_learned_it: tuple[Digest, ...]
    store: str
    beyond_reach: tuple[BeyondReach, ...]


@dataclass(frozen=True, slots=True)
class AbsenceProof:
    """`time`: when the search began. `text`: the text's digest."""

    openbook_version: str
    time: str
    knowledge_base: str
    knowledge_base_version: int
    store: str
    text: Digest
    scanned: tuple[ScannedFiles, ...]
    out_of_reach: tuple[UnreachedPaths, ...]
    beyond_reach: tuple[BeyondReach, ...]


Content: TypeAlias = PurgeProof | AbsenceProof | Receipt
_KINDS: dict[str, type[Content]] = {"purge": PurgeProof, "absence": AbsenceProof, "receipt": Receipt}


@dataclass(frozen=True, slots=True)
class SignedDocument:
    """A document whose signature was checked. `public_key` in hexadecimal; `fingerprint`: SHA-256 over its 32 bytes."""

    content: Content
    public_key: str
    fingerprint: Digest


@dataclass(frozen=True, slots=True)
class _Envelope:
    content: Any
    fingerprint: str
    format: str
    kind: str
    public_key: str
    signature: str

    @property
    def signed_bytes(self) -> bytes:
        return canonical_json({name: each for name, each in dataclasses.asdict(self).items() if name != "signature"})


def public_key(home: Path) -> str:
    """This installation's, made on first use. Raises ConfigError."""
    return _private_key(home).public_key().public_bytes_raw().hex()


def fingerprint_of(key: str) -> Digest:
    return sha256_hex(bytes.fromhex(key))


def sign(home: Path, content: Content) -> bytes:
    """Sign with the key of this installation. Raises ConfigError."""
    private = _private_key(home)
    key = private.public_key().public_bytes_raw().hex()
    kind = next(kind for kind, cls in _KINDS.items() if isinstance(content, cls))
    document = _Envelope(dataclasses.asdict(content), fingerprint_of(key), FORMAT, kind, key, signature="")
    document = dataclasses.replace(document, signature=private.sign(document.signed_bytes).hex())
    return canonical_json(dataclasses.asdict(document)) + b"\n"


def checked_key(text: str) -> str:
    """A public key that a user gave. Raises ConfigError."""
    if not _is_key(text.strip()):
        raise ConfigError(
            f"{text[:80]!r} is not a public key (expected 64 hex digits). The signer sees it with: openbook verify --show-key"
        )
    return text.strip()


def verify_signed(data: bytes, key: str = "") -> SignedDocument:
    """Check a signed document against `key`; without one, against the key in it, which does not prove who signed.

    Law: `verify_signed(sign(home, content), public_key(home)).content == content`, and no other bytes give it. Raises
    ProofError.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    document = _envelope(data)
    brought = document.public_key
    if not (_is_key(brought) and _is_hex(document.signature, 128)):
        raise ProofError("Its key or signature is malformed: the document was altered.")
    if key and brought != key:
        raise ProofError(
            f"It is signed by another key, of fingerprint {fingerprint_of(brought)}, not by the given key, of "
            f"fingerprint {fingerprint_of(key)}."
        )
    if document.fingerprint != fingerprint_of(brought):
        raise ProofError("Its fingerprint is not that of its key: the document was altered.")
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(brought))
        public.verify(bytes.fromhex(document.signature), document.signed_bytes)
    except (InvalidSignature, ValueError) as error:
        raise ProofError("Its signature does not fit what it says: the document was altered.") from error
    return SignedDocument(_content(document.kind, document.content), brought, document.fingerprint)


def _envelope(data: bytes) -> _Envelope:
    if len(data) > MAX_BYTES:
        raise ProofError(f"It has more than {MAX_BYTES:,} bytes, so it is not a signed document.")
    document = decode(data, _Envelope, "It", ProofError)
    if document.format != FORMAT:
        raise ProofError(f"Its format is {document.format[:60]!r}; this version of OpenBook reads {FORMAT!r}.")
    try:
        again = canonical_json(dataclasses.asdict(document)) + b"\n"
    except (ValueError, RecursionError) as error:  # a number or a text that JSON cannot hold, or too deep
        raise ProofError(f"It is not a JSON document: {str(error)[:200]}.") from error
    if again != data:
        raise ProofError("It is not byte for byte what was signed: it was altered, reformatted, or cut off.")
    return document


def _content(kind: str, content: object) -> Content:
    if kind not in _KINDS:
        raise ProofError(f"It is of the kind {kind[:60]!r}; this version of OpenBook reads {', '.join(_KINDS)}.")
    try:
        if kind != "receipt":
            return convert(content, _KINDS[kind], "content", ReceiptError)
        receipt = receipt_of(content)
    except ReceiptError as error:
        raise ProofError(f"The signed content does not match its kind: {error}") from error
    if is_altered(receipt):
        raise ProofError("The receipt was altered before it was signed.")
    return receipt


def _is_key(text: str) -> bool:
    if not _is_hex(text, 64):
        return False
    point = bytes.fromhex(text)
    return point[:31] + bytes([point[31] & 0x7F]) not in _SMALL_ORDER


def _is_hex(text: str, digits: int) -> bool:
    return re.fullmatch(f"[0-9a-f]{{{digits}}}", text) is not None


# --- the key ----------------------------------------------------------------------------------------------------------


def _private_key(home: Path) -> Ed25519PrivateKey:
    """Made on first use. Raises ConfigError if others can read the file, or it holds no key."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    path = home / KEY_FOLDER / KEY_FILE
    with storage_errors(f"use the signing key in {path}"):
        if not path.exists():
            _make_key(path)
        with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as stream:
            data, mode = stream.read(1 << 16), os.fstat(stream.fileno()).st_mode
    if os.name == "posix" and mode & 0o077:
        raise ConfigError(
            f"Others can read the signing key in {path}, so they could sign as you. Delete it, so that a new one is made, or, if "
            f"you are sure that no one read it: chmod 600 {path}"
        )
    try:
        key = load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path} holds no key. Put it back from a backup, or delete it for a new one.") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path} holds no Ed25519 key. Put it back from a backup, or delete it for a new one.")
    return key


def _make_key(path: Path) -> None:
    """Make one key, readable only by its owner, even if several processes try at once."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    make_folder(path.parent)
    path.parent.chmod(0o700)
    with exclusive_lock(path.with_name(".lock"), _LOCK_TIMEOUT_S) as held:
        if not held:
            raise StorageError(f"Another process is making the signing key in {path}. Wait, then try again.")
        if path.exists():
            return
        new = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        replace_file(path, new, mode=0o600)
        path.chmod(0o600)
