"""`openbook replay` and `openbook log verify`: do answers hold what their receipts say?"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from openbook.config import Settings
    from openbook.inference import FrozenModel
    from openbook.knowledge import KnowledgeBase
    from openbook.records import Receipt
    from openbook.replay import ReplayResult


@click.command()
@click.argument("receipt", type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--kb",
    type=click.Path(path_type=Path),
    help="The knowledge base that was asked (default: the one that the receipt names, where it was when it was last asked).",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def replay(receipt: Path, kb: Path | None, as_json: bool) -> None:
    """Answer again from RECEIPT and compare byte for byte: the file of `openbook ask --json`, or the receipt in it.

    `-` is standard input. Of a folder with a log (`openbook ask --log`) every answer is compared. Exits with 0 if all
    answers are identical, else with 1, and says what differs.
    """
    from openbook.cli import display, session
    from openbook.receipts import receipts_in

    current = session.settings(kb=kb)
    with ExitStack() as to_close:
        again = _replayer(current, kb, to_close)
        results = [again(each) for each in (receipts_in(receipt) if receipt.is_dir() else [_read(receipt)])]
    different = [number for number, result in enumerate(results) if not result.identical]
    if as_json:
        values = [{"identical": r.identical, "differences": r.differences, "answer": r.answer} for r in results]
        display.print_json({"identical": not different, "answers": values} if receipt.is_dir() else values[0])
    elif receipt.is_dir():
        for number in different:
            click.echo(display.printable(f"Line {number + 1}: {' '.join(results[number].differences)}"))
        click.echo(f"{len(results) - len(different):,} of {len(results):,} answers are identical.")
    else:
        for difference in results[0].differences:
            click.echo(display.printable(difference))
        if (answer := results[0].answer) is not None:
            click.echo(display.printable(f"{'Now' if different else 'Identical'}: {answer}"))
    if different:
        raise click.exceptions.Exit(1)


def _read(path: Path) -> Receipt:
    from openbook.errors import StorageError
    from openbook.receipts import MAX_RECEIPT_BYTES, parse_receipt

    try:
        with sys.stdin.buffer if str(path) == "-" else path.open("rb") as stream:
            return parse_receipt(stream.read(MAX_RECEIPT_BYTES + 1))
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror or error}.") from error


def _replayer(current: Settings, kb: Path | None, to_close: ExitStack) -> Callable[[Receipt], ReplayResult]:
    """Replays one receipt after the other. Each model and knowledge base is opened once."""
    from openbook.cli import session
    from openbook.errors import ReceiptError
    from openbook.inference import load_model
    from openbook.replay import knowledge_base_of
    from openbook.replay import replay as answer_again

    states, store = session.states(current), session.store(current)
    bases: dict[str | None, KnowledgeBase | None] = {}

    @functools.cache
    def opened(digest: str) -> FrozenModel:
        reference = store.resolve(digest)
        store.check_fast(reference)
        return to_close.enter_context(closing(load_model(reference, states=states, **session.engine_sizes(current))))

    def again(receipt: Receipt) -> ReplayResult:
        if receipt.model.evidence != "verified":
            raise ReceiptError(
                f"The answer is from {receipt.model.name}, a model that a server claimed to have; only a local one can be "
                "replayed."
            )
        name = receipt.knowledge_base
        if name not in bases:
            bases[name] = knowledge_base_of(receipt, _candidates(current, receipt, kb))
        return answer_again(receipt, opened(receipt.model.digest), bases[name])

    return again


def _candidates(current: Settings, receipt: Receipt, kb: Path | None) -> list[KnowledgeBase]:
    """The knowledge bases that may be the receipt's: the one named; or one's own, that of --docs, and the one last asked with this id."""
    from openbook.cli import session
    from openbook.errors import KnowledgeBaseMissing
    from openbook.knowledge import KnowledgeBase

    if (name := receipt.knowledge_base) is None:
        return []
    if kb is not None:
        return [KnowledgeBase.open(kb)]
    of_docs = current.cache_dir / "docs" / name if name.isalnum() else None
    found = []
    for folder in (current.default_kb, of_docs, session.remembered_place(current, name)):
        with suppress(KnowledgeBaseMissing):
            if folder is not None:
                found.append(KnowledgeBase.open(folder))
    return found


@click.group()
def log() -> None:
    """Logs of receipts, which `openbook ask --log DIR` writes."""


@log.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--head", default="", help="Also check that the line with this digest is still in the log.")
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
