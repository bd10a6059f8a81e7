"""`openbook verify`: is a proof of a purge, or a receipt, what somebody signed?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from openbook.errors import ConfigError, ProofError, StorageError

if TYPE_CHECKING:
    from openbook.proofs import Content, PurgeProof, SignedDocument
    from openbook.records import Receipt


@click.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True), required=False)
@click.option("--key", default="", help="The signer's public key, obtained from the signer, never from FILE.")
@click.option(
    "--show-key", is_flag=True, help="Show the public key of this installation instead, for others to verify with."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def verify(file: Path | None, key: str, show_key: bool, as_json: bool) -> None:
    """Check FILE, which `openbook purge --proof` or `openbook ask --sign` wrote, with the signer's public key.

    `-` is standard input. Nothing else is needed, and nothing is written. Exits with 0 only when the holder of that key signed
    it and no byte was changed since.
    """
    from openbook.cli import display, session
    from openbook.proofs import checked_key, fingerprint_of, public_key
    from openbook.proofs import verify as verify_bytes

    if show_key == (file is not None):
        raise ConfigError("Give a FILE to verify, or --show-key.")
    if file is None:
        own = public_key(session.settings().home)
        if as_json:
            display.print_json({"public_key": own, "fingerprint": fingerprint_of(own)})
        else:
            click.echo(f"Public key   {own}\nFingerprint  {fingerprint_of(own)}")
        return
    key = checked_key(key) if key else ""
    signed = verify_bytes(_read(file), key)
    if not key:
        raise ProofError(
            f"{file} is intact, but the signer is unknown: it only matches the key inside the file (fingerprint "
            f"{signed.fingerprint}), and anybody can make a key. Get the public key from the signer, who sees it with "
            "`openbook verify --show-key`, and give it as --key."
        )
    if as_json:
        display.print_json(_as_json(signed))
    else:
        click.echo(display.printable("\n".join(_lines(signed))))


def check_signing(file: Path, home: Path) -> None:
    """Before work is done that shall be signed. Raises ConfigError, StorageError where that, or writing it, is not possible."""
    from openbook.files import check_replaceable, storage_errors
    from openbook.proofs import public_key

    with storage_errors(f"write {file}"):
        check_replaceable(file)
    public_key(home)


def write_signed(file: Path, home: Path, content: Content) -> None:
    """Raises ConfigError, StorageError."""
    from openbook.files import replace_file, storage_errors
    from openbook.proofs import sign

    with storage_errors(f"write {file}"):
        replace_file(file, sign(home, content), mode=0o600)


def _read(path: Path) -> bytes:
    from openbook.proofs import MAX_BYTES

    try:
        with sys.stdin.buffer if str(path) == "-" else path.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror or error}.") from error


def _as_json(signed: SignedDocument) -> dict[str, object]:
    import dataclasses

    content = dataclasses.asdict(signed.content)
    return {"verified": True, "public_key": signed.public_key, "fingerprint": signed.fingerprint, "content": content}


def _lines(signed: SignedDocument) -> list[str]:
    from openbook.proofs import PurgeProof

    content = signed.content
    stated = _purge_lines(content) if isinstance(content, PurgeProof) else _receipt_lines(content)
    stated = [" ".join(line.split()) for line in stated]  # what was signed cannot write a line of its own
    return [f"Verified: signed by the key of fingerprint {signed.fingerprint}. Its holder states:", *stated]


def _purge_lines(proof: PurgeProof) -> list[str]:
    files, size = sum(each.files for each in proof.scanned), sum(each.bytes for each in proof.scanned)
    count = proof.deleted.documents
    what = f"{count:,} document{'' if count == 1 else 's'} (passages: {proof.deleted.passages:,})"
    base = f"version {proof.knowledge_base_version} of the knowledge base {proof.knowledge_base}"
    lines = [
        f"OpenBook {proof.openbook_version} purged {what} at {proof.time}; {base} began.",
        *(f"SHA-256 of a text: {digest}" for digest in proof.texts),
        *(f"SHA-256 of a path: {digest}" for digest in proof.paths),
        f"Scanned {files:,} files, {size:,} bytes; no trace of the documents is in them.",
        *(f"Out of reach: {len(each.paths):,} ({each.reason})" for each in proof.out_of_reach),
        *(f"A model that has learned from them: {digest}" for digest in proof.models_that_learned_it),
    ]
    if proof.may_hold_traces:
        lines.append("This does NOT prove that nothing is left.")
    return lines


def _receipt_lines(receipt: Receipt) -> list[str]:
    base = receipt.knowledge_base
    return [
        f"The model {receipt.model.name} ({receipt.model.digest or 'no digest'}, {receipt.model.evidence} by the signer) was asked: {receipt.question}",
        f"It gave the answer whose SHA-256 is {receipt.answer_digest}, from {len(receipt.passages)} passages"
        + (f" of version {receipt.knowledge_base_version} of the knowledge base {base}." if base else "."),
        "To give it again: openbook replay",
    ]
