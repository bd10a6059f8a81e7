"""`openbook replay` and `openbook log verify`: do answers hold what their receipts say?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from openbook.config import Settings
    from openbook.knowledge import KnowledgeBase
    from openbook.records import Receipt


@click.command()
@click.argument("receipt", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--kb", type=click.Path(path_type=Path), help="The knowledge base that was asked (default: your own).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def replay(receipt: Path, kb: Path | None, as_json: bool) -> None:
    """Answer again from RECEIPT and compare: the file of `openbook ask --json`, or the receipt in it (`-`: standard input).

    Exits with 0 when the answer is identical, byte for byte, and with 1 when something differs, which is then said.
    """
    from openbook.cli import display, session
    from openbook.errors import ReceiptError, StorageError
    from openbook.inference import load_model
    from openbook.receipts import MAX_RECEIPT_BYTES, parse_receipt
    from openbook.replay import knowledge_base_of
    from openbook.replay import replay as answer_again

    try:
        stream = sys.stdin.buffer if str(receipt) == "-" else receipt.open("rb")
        with stream:
            found = parse_receipt(stream.read(MAX_RECEIPT_BYTES + 1))
    except OSError as error:
        raise StorageError(f"Cannot read {receipt}: {error.strerror or error}.") from error
    if found.model.evidence != "verified":
        raise ReceiptError(
            f"The answer is from {found.model.name}, a model that a server claimed to have; only a local one can be replayed."
        )
    current = session.settings(kb=kb)
    models = session.store(current)
    reference = models.resolve(found.model.digest)
    models.check_fast(reference)
    base = knowledge_base_of(found, _candidates(current, found, kb))
    model = load_model(
        reference,
        context_tokens=current.context_tokens,
        threads=current.threads,
        states=session.states(current),
    )
    result = answer_again(found, model, base)
    if as_json:
        display.print_json({"identical": result.identical, "differences": result.differences, "answer": result.answer})
    elif result.identical:
        click.echo(f"Identical: {display.printable(result.answer or '')}")
    else:
        for difference in result.differences:
            click.echo(display.printable(difference))
        if result.answer is not None:
            click.echo(f"Now: {display.printable(result.answer)}")
    if not result.identical:
        raise click.exceptions.Exit(1)


def _candidates(current: Settings, receipt: Receipt, kb: Path | None) -> list[KnowledgeBase]:
    """The knowledge bases that may be the receipt's: the one named, or one's own and that of --docs."""
    from openbook.errors import KnowledgeBaseMissing
    from openbook.knowledge import KnowledgeBase

    if receipt.knowledge_base is None:
        return []
    if kb is not None:
        return [KnowledgeBase.open(kb)]
    found = []
    name = receipt.knowledge_base
    of_docs = [current.cache_dir / "docs" / name] if name.isalnum() else []
    for folder in (current.default_kb, *of_docs):
        try:
            found.append(KnowledgeBase.open(folder))
        except KnowledgeBaseMissing:
            continue
    return found


@click.group()
def log() -> None:
    """Logs of receipts, which `openbook ask --log DIR` writes."""


@log.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--head", default="", help="Look also whether the line of this digest is still in it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def verify(folder: Path, head: str, as_json: bool) -> None:
    """Read the log in FOLDER and say whether its chain holds. Keep the digest that is printed: it names all lines."""
    import dataclasses

    from openbook.cli import display
    from openbook.receipts import verify as verify_log

    found = verify_log(folder, head)
    if as_json:
        display.print_json(dataclasses.asdict(found))
    else:
        click.echo(
            f"{found.receipts:,} receipts, none altered, none missing in between. The last line is {found.head}."
        )
