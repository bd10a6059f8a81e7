"""`openbook ask`: one question, one answer with its sources."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from openbook.cli.asking import check_places, open_asked, reading_options
from openbook.cli.scoping import scope_of
from openbook.cli.verify import check_signing, write_signed
from openbook.errors import ConfigError

if TYPE_CHECKING:
    from openbook.cli import display
    from openbook.inference import FrozenModel


@click.command()
@click.argument("question")
@reading_options
@click.option("--closed-book", is_flag=True, help="Ask the model alone, without documents.")
@click.option("--model", help="Name of a stored model, or a model of the server at --base-url.")
@click.option("--temperature", type=click.FloatRange(0.0, 5.0), default=0.0, help="0: always the most likely token.")
@click.option("--top-p", type=click.FloatRange(0.0, 1.0, min_open=True), default=1.0, help="Used when temperature > 0.")
@click.option("--seed", type=int, default=0, help="Used when temperature > 0: the same seed, the same answer.")
@click.option("--quote", is_flag=True, help="Answer only with a verbatim span of a passage.")
@click.option("--full-check", is_flag=True, help="Verify every byte of the models before answering.")
@click.option("--log", "log", type=click.Path(path_type=Path), help="Add the receipt to the log in this folder.")
@click.option(
    "--sign", type=click.Path(path_type=Path), help="Write the receipt to this file, signed. See: openbook verify"
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def ask(
    question: str,
    docs: tuple[Path, ...],
    kb: Path | None,
    closed_book: bool,
    model: str | None,
    as_of: str | None,
    where: str,
    labels: tuple[str, ...],
    temperature: float,
    top_p: float,
    seed: int,
    quote: bool,
    full_check: bool,
    log: Path | None,
    sign: Path | None,
    as_json: bool,
    **reading: object,
) -> None:
    """Answer QUESTION from documents, with citations, or say that the documents do not hold the answer."""
    from openbook.answer import Options, checked_question
    from openbook.answer import ask as answer_question
    from openbook.cli import display, session
    from openbook.knowledge import KnowledgeBase
    from openbook.knowledge.scope import EVERYTHING
    from openbook.receipts import append
    from openbook.records import Decoding

    if sum([bool(docs), kb is not None, closed_book]) > 1:
        raise ConfigError("--docs, --kb and --closed-book exclude each other; give one of them.")
    if closed_book and (as_of or where or labels):
        raise ConfigError("--as-of, --where and --label choose documents; --closed-book reads none.")
    if not (math.isfinite(temperature) and math.isfinite(top_p)):
        raise ConfigError(f"--temperature and --top-p must be numbers, not {temperature} and {top_p}.")
    checked_question(question)
    check_places(docs, kb)
    current = session.settings(kb=kb, model=model, **reading)
    if sign is not None:
        check_signing(sign, current.home)
    decoding = Decoding(temperature, top_p, seed, current.max_tokens, quote=quote)
    options = Options(current.passages, session.strategy(current), decoding)
    if not (docs or closed_book):
        KnowledgeBase.open(current.default_kb).close()  # a missing one is reported before anything is downloaded
    open_model = session.model_opener(current, full_check=full_check)
    with opened_beside(open_model) as reader:
        base, embedder = (None, None) if closed_book else open_asked(current, docs, full_check)
        scope = scope_of(base, as_of, where, labels) if base else EVERYTHING
        with while_reading(quiet=as_json) as words:
            answer = answer_question(
                question,
                reader.result(),
                base,
                embedder,
                options,
                scope=scope,
                on_text=words.show,
                progress=words.parts,
            )
        if log is not None:
            append(log, answer.receipt, timeout_s=current.lock_timeout_s)
        if sign is not None:
            write_signed(sign, current.home, answer.receipt)
        display.show_answer(answer, as_json=as_json, words=words)


@contextmanager
def opened_beside(open_model: Callable[[], FrozenModel]) -> Iterator[Future[FrozenModel]]:
    """The weights are mapped on a thread, while the documents are looked at. Closed in the end."""
    with ThreadPoolExecutor(1) as opening:
        model = opening.submit(open_model)
        try:
            yield model
        finally:
            if model.exception() is None:
                model.result().close()


@contextmanager
def while_reading(*, quiet: bool) -> Iterator[display.Words]:
    """While the model reads: a spinner, then the words as they come."""
    from openbook.cli import display, session

    if quiet:
        yield display.Words(None, None)
        return
    out = display.console() if sys.stdout.isatty() else None
    if sys.stderr.isatty():
        with session.error_console().status("Reading...") as status:
            yield display.Words(out, status)
    else:
        yield display.Words(out, None)
