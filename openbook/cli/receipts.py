"""`openbook replay, verify`: check answers, signed files, logs, models and knowledge bases."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from openbook.answers import opening
from openbook.cli import context, display
from openbook.cli.options import JSON, KB, PATH, PLACE
from openbook.core.config import Place
from openbook.core.derived import DOCS
from openbook.core.errors import (
    ConfigError,
    KnowledgeBaseDamaged,
    KnowledgeBaseMissing,
    OpenBookError,
    ProofError,
    ReceiptError,
)
from openbook.core.files import storage_errors
from openbook.core.records import Receipt

if TYPE_CHECKING:
    from openbook.core.config import Settings
    from openbook.inference import FrozenModel
    from openbook.knowledge import KnowledgeBase
    from openbook.knowledge.check import CheckResult
    from openbook.proofs.replay import ReplayResult
    from openbook.proofs.signatures import AbsenceProof, PurgeProof

_FILE = click.Path(path_type=Path, allow_dash=True)


def _read(path: Path, most: int) -> bytes:
    """At most `most` + 1 bytes; `-` is standard input."""
    with storage_errors(f"read {path}"), sys.stdin.buffer if str(path) == "-" else path.open("rb") as stream:
        return stream.read(most + 1)


@click.command()
@click.argument("receipt", type=_FILE)
@click.option("--kb", type=PLACE, help="The knowledge base that was asked (default: found by its id).")
@JSON
def replay(receipt: Path, kb: Place | None, as_json: bool) -> None:
    """Answer again from a receipt and compare the bytes.

    RECEIPT is a file with what `openbook ask --json` printed, or with the receipt in it. `-` is standard input. If
    RECEIPT is the folder of a log (`openbook ask --log`), every answer in it is compared. Exits with 0 if all answers
    are identical, else with 1, and says what differs.
    """
    from openbook.proofs.receipts import MAX_RECEIPT_BYTES, parse_receipt, receipts_in
    from openbook.proofs.replay import ReplayResult

    is_log = receipt.is_dir()
    with ExitStack() as to_close:
        again = _replayer(context.read_settings(kb=kb), kb, to_close)

        def of_log(each: Receipt) -> ReplayResult:
            """A receipt that cannot be replayed must not hide the others."""
            try:
                return again(each)
            except (ConfigError, KnowledgeBaseMissing):  # the user's mistake, whatever the receipt says
                raise
            except OpenBookError as error:
                return ReplayResult((str(error),), None)

        if is_log:
            results = [of_log(each) for each in receipts_in(receipt)]
        else:
            results = [again(parse_receipt(_read(receipt, MAX_RECEIPT_BYTES)))]
    different = [number for number, result in enumerate(results, start=1) if not result.identical]
    values = [{"identical": r.identical, "differences": r.differences, "answer": r.answer} for r in results]
    if is_log:
        lines = [f"Line {number}: {' '.join(results[number - 1].differences)}" for number in different]
        lines.append(f"{len(results) - len(different):,} of {len(results):,} answers are identical.")
        value: object = {"identical": not different, "answers": values}
    else:
        value, lines = values[0], list(results[0].differences)
        if (answer := results[0].answer) is not None:
            lines.append(f"{'Now' if different else 'Identical'}: {answer}")
    display.show(as_json, value, display.say_each, lines)
    if different:
        raise click.exceptions.Exit(1)


def _replayer(settings: Settings, kb: Place | None, to_close: ExitStack) -> Callable[[Receipt], ReplayResult]:
    """Opens each model and knowledge base once."""
    from openbook.proofs.replay import knowledge_base_of
    from openbook.proofs.replay import replay as answer_again

    states, store = opening.kv_cache(settings), context.store(settings)

    @functools.cache
    def opened(digest: str) -> FrozenModel:
        reference = store.resolve(digest)
        store.check_fast(reference)
        return to_close.enter_context(closing(opening.open_stored(settings, reference, states)))

    bases: dict[str | None, KnowledgeBase | None] = {}

    def again(receipt: Receipt) -> ReplayResult:
        if receipt.model.evidence != "verified":
            raise ReceiptError(
                f"The answer is from {receipt.model.name}, a model that a server claimed to have; only a local one can be "
                "replayed."
            )
        name = receipt.knowledge_base
        if name not in bases:
            bases[name] = knowledge_base_of(receipt, candidates(settings, receipt, kb))
        return answer_again(receipt, opened(receipt.model.digest), bases[name])

    return again


def candidates(settings: Settings, receipt: Receipt, kb: Place | None) -> list[KnowledgeBase]:
    """Only `kb`, or the user's knowledge base, that of --docs, and the one remembered by id."""
    from openbook.knowledge import KnowledgeBase

    if (name := receipt.knowledge_base) is None:
        return []
    if kb is not None:
        return [KnowledgeBase.open(kb)]
    of_docs = settings.derived_dir / DOCS / name if name.isalnum() else None
    found = []
    for place in (settings.kb_place, of_docs, opening.remembered_place(settings, name)):
        with suppress(KnowledgeBaseMissing):
            if place is not None:
                found.append(KnowledgeBase.open(place))
    return found


# --- verify -----------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("what", required=False)
@click.option("--key", default="", help="The signer's public key, obtained from the signer, never from the file.")
@click.option("--show-key", is_flag=True, help="Show your own public key instead, for others to verify with.")
@click.option("--head", help="Also check that the line with this digest is still in the log.")
@click.option("--absent", metavar="TEXT|FILE", help="Look for a text, or a file's text, wherever a purge looks.")
@click.option("--proof", type=PATH, help="With --absent: write a signed proof, without the text.")
@KB
@JSON
def verify(
    what: str | None,
    key: str,
    show_key: bool,
    head: str | None,
    absent: str | None,
    proof: Path | None,
    kb: Place | None,
    as_json: bool,
) -> None:
    """Check that nothing in WHAT was changed or lost.

    WHAT is a signed file (`purge --proof`, `ask --sign`; `-` is standard input), the folder of a log of receipts, or the
    name of a model. Without WHAT, all texts and indexes of the knowledge base are compared with their digests. A signed
    file passes only with the signer's key. With --absent, searches for a text and stores it nowhere. Exits with 0 only
    if every check passes.
    """
    from openbook.proofs.receipts import LOG_FILE

    if [what is not None, show_key, absent is not None].count(True) > 1:
        raise ConfigError("Give one of these: WHAT to verify, --absent TEXT, or --show-key.")
    is_log = what is not None and (Path(what) / LOG_FILE).exists()
    is_file = (
        what is not None and not is_log and (what == "-" or bool(key) or Path(what).exists() or what.endswith(".json"))
    )
    if (key and not is_file) or (head and not is_log) or (proof and absent is None) or (kb and what is not None):
        raise ConfigError(
            "--key goes with a signed file, --head with the folder of a log, --proof with --absent, and --kb with none of them."
        )
    if absent is not None:
        _look_for(absent, kb, proof, as_json)
    elif show_key:
        from openbook.proofs import signatures

        own = signatures.public_key(context.read_settings().home)
        about = {"public_key": own, "fingerprint": signatures.fingerprint_of(own)}
        said = "Public key   {public_key}\nFingerprint  {fingerprint}".format(**about)
        display.show(as_json, about, display.say, said)
    elif what is None:
        _verify_base(kb, as_json)
    elif is_log:
        _verify_log(Path(what), head, as_json)
    elif is_file:
        _verify_signed(Path(what), key, as_json)
    else:
        _verify_model(what, as_json)


def _verify_log(folder: Path, head: str | None, as_json: bool) -> None:
    """Check the chain. The printed digest covers all lines."""
    from openbook.models.aliases import is_digest
    from openbook.proofs.receipts import verify_log

    if head is not None and not is_digest(head):
        raise ConfigError(f"--head must be the 64 hex digits that `openbook verify FOLDER` printed, not {head!r}.")
    receipts, last = verify_log(folder, head or "")
    said = f"{receipts:,} receipts, none altered, none missing in between. The last line is {last}."
    display.show(as_json, {"receipts": receipts, "head": last}, display.say, said)


def _verify_model(name: str, as_json: bool) -> None:
    """Check every byte; for an adapter, also its base and their merged file."""
    from openbook.models.verify import raise_not_verified

    store = context.store(context.read_settings())
    reference = store.resolve(name)
    base = reference.needed_base if reference.manifest.kind == "adapter" else None
    parts = [part for part in (reference, base, reference.merged) if part is not None]
    with display.progress("verify") as progress:
        for part in parts:
            if found := store.findings(part, progress):
                raise_not_verified(part.digest[:12] if part is reference.merged else part.name, found)
    lines = [f"{part.name}: verified, {part.digest}" for part in parts]
    display.show(as_json, {"verified": {part.name: part.digest for part in parts}}, display.say_each, lines)


def _verify_base(kb: Place | None, as_json: bool) -> None:
    from openbook.knowledge import KnowledgeBase
    from openbook.knowledge.check import check

    settings = context.read_settings(kb=kb)
    found = check(KnowledgeBase.open(settings.kb_place, damaged=True))
    display.show(as_json, {"knowledge_base": settings.kb_place, "check": found}, _print_check, found)
    if found.damaged:
        raise KnowledgeBaseDamaged(
            f"The knowledge base in {settings.kb_place} is damaged: {found.damaged[0]}. Restore it from a backup, or move it away "
            "and add the documents again."
        )


def _print_check(found: CheckResult) -> None:
    if found.damaged:
        display.say("Damaged:", "red")
        for line in found.damaged:
            display.say(line, indent=2)
        return
    texts, passages = display.count(found.contents, "text"), display.count(found.passages, "passage")
    display.say(f"{texts} and {passages} match their digests.")
    for text in found.unreferenced:
        display.say(f"In no version, so the next change deletes it: {display.excerpt(text)}", indent=2)
    for problem in found.index_problems:
        display.say(f"index: {problem}", "yellow", indent=2)
    if found.index_problems:
        could_not = "The indexes could not be written; answers do not use them."
        display.say("The indexes were rebuilt." if found.repaired else could_not)


def _verify_signed(file: Path, key: str, as_json: bool) -> None:
    from openbook.proofs import signatures

    key = signatures.checked_key(key) if key else ""
    try:
        signed = signatures.verify_signed(_read(file, signatures.MAX_BYTES), key)
    except ProofError as error:
        raise ProofError(f"{file}: {error}") from error
    if not key:
        raise ProofError(
            f"{file} is intact, but the signer is unknown: it only matches the key inside the file (fingerprint "
            f"{signed.fingerprint}), and anyone can make a key. Get the public key from the signer, who sees it with "
            "`openbook verify --show-key`, and give it as --key."
        )
    content = signed.content
    about = {"verified": True, "public_key": signed.public_key, "fingerprint": signed.fingerprint, "content": content}
    stated = _receipt_lines(content) if isinstance(content, Receipt) else _proof_lines(content)
    lines = [" ".join(line.split()) for line in stated]  # signed text must not forge a line of output
    signer = f"Verified: signed by the key of fingerprint {signed.fingerprint}. Its holder states:"
    display.show(as_json, about, display.say_each, [signer, *lines])


def _proof_lines(proof: PurgeProof | AbsenceProof) -> list[str]:
    from openbook.proofs.signatures import PurgeProof

    lines = [f"Does not prove: {each}" for each in proof.beyond_reach]
    base = f"version {proof.knowledge_base_version} of the knowledge base {proof.knowledge_base} ({proof.store})"
    if isinstance(proof, PurgeProof):
        what = f"{display.count(proof.deleted.documents, 'document')} (passages: {proof.deleted.passages:,})"
        lines += [
            f"OpenBook {proof.openbook_version} purged {what} at {proof.time}; {base} began.",
            *(f"SHA-256 of a text: {digest}" for digest in proof.texts),
            *(f"SHA-256 of a path: {digest}" for digest in proof.paths),
            *(f"A model that has learned from them: {digest}" for digest in proof.models_that_learned_it),
        ]
    else:
        lines.append(f"OpenBook {proof.openbook_version} looked for a text at {proof.time}, in {base}.")
        lines.append(f"SHA-256 of the text: {proof.text}")
    scanned = ", ".join(f"{each.place}: {each.files:,} ({each.bytes:,} bytes)" for each in proof.scanned if each.files)
    lines.append(f"No trace was found in what was scanned: {scanned}.")
    lines += [f"Out of reach: {len(each.paths):,} ({each.reason})" for each in proof.out_of_reach]
    if any(each.reason != "weights" for each in proof.out_of_reach):
        lines.append("This does NOT prove that nothing is left.")
    return lines


def _look_for(text_or_file: str, kb: Place | None, proof: Path | None, as_json: bool) -> None:
    from openbook.knowledge import KnowledgeBase
    from openbook.proofs.absence import check_absent, look_for

    settings = context.read_settings(kb=kb)
    if proof is not None:
        context.check_signing(proof, settings)
    text = _text_of(text_or_file, settings)
    places, not_clean, content = look_for(KnowledgeBase.open(settings.kb_place), text, settings)
    if proof is not None and not places:
        context.write_signed(proof, settings, content)
    lines = [f"Found: {display.short_path(place)}" for place in places] or _proof_lines(content)
    lines += [f"Not looked at: {each.path} ({each.reason}): {each.advice}" for each in not_clean]
    display.show(as_json, {"places": places, "not_clean": not_clean, "content": content}, display.say_each, lines)
    check_absent(places, not_clean)


def _text_of(text_or_file: str, settings: Settings) -> str:
    """A text, or a file's as `openbook add` reads it; `-` is standard input. Raises ConfigError."""
    from openbook.parsers.sandbox.pool import ParserPool

    options, path, is_file = opening.run_options(settings), Path(text_or_file), text_or_file == "-"
    with suppress(OSError, ValueError):  # most texts are no valid file names
        is_file = is_file or path.is_file()
    if not is_file:
        display.note("No file has this name, so it is looked for as a text.")
    data = _read(path, options.limits.max_file_bytes) if is_file else os.fsencode(text_or_file)
    with ParserPool(options.limits, options.ocr, workers=1, by_value=True) as parsers:
        parsed = parsers.parse(path if is_file else Path("-"), data)
    if not isinstance(parsed, tuple):
        raise ConfigError(f"There is no text to look for: {parsed}.")
    return parsed[0].text


def _receipt_lines(receipt: Receipt) -> list[str]:
    model, passages, base = receipt.model, len(receipt.passages), receipt.knowledge_base
    where = f" of version {receipt.knowledge_base_version} of the knowledge base {base}" if base else ""
    return [
        f"The model {model.name} ({model.digest or 'no digest'}, {model.evidence} by the signer) was asked: {receipt.question}",
        f"It gave the answer whose SHA-256 is {receipt.answer_digest}, from {passages} passages{where}.",
        "To give it again: openbook replay FILE",
    ]
