"""`openbook ask` and `openbook search`: an answer with its sources, or passages alone."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from openbook.answers.answer_text import printable
from openbook.cli import context, display
from openbook.cli.options import (
    BASE_URL,
    EXISTING_OR_DASH,
    JSON,
    KB,
    LOG,
    MODEL,
    PATH,
    ScopeOptions,
    cluster_option,
    scope_options,
)
from openbook.core.config import STRATEGIES, Place
from openbook.core.errors import ConfigError, NotCertainEnough

_STANDARD_INPUT = Path("-")
_MAX_QUESTION_BYTES = 1 << 20


@click.command()
@click.argument("question")
@click.option(
    "--docs",
    multiple=True,
    type=EXISTING_OR_DASH,
    help="Ask these files or folders instead of a knowledge base; - is a text on standard input (repeatable).",
)
@KB
@scope_options
@MODEL
@BASE_URL
@click.option("--closed-book", is_flag=True, help="Ask the model alone, without documents.")
@click.option(
    "--strategy",
    type=click.Choice(STRATEGIES),
    hidden=True,  # the setting `strategy` is for experiments: "auto" suits every model
)
@click.option("--quote", is_flag=True, help="Answer only with a verbatim span of a passage.")
@click.option(
    "--at-least",
    type=click.FloatRange(0, 1),
    default=0.0,
    help="Exit with 1, without an answer, if its certainty is unknown or less than this (0 to 1).",
)
@LOG
@click.option("--sign", type=PATH, help="Write the receipt to this file, signed. See: openbook verify")
@click.option(
    "--output", type=click.Choice(["text", "md", "json"]), default="text", help="md: Markdown with numbered sources."
)
@JSON
def ask(
    question: str,
    docs: tuple[Path, ...],
    kb: Place | None,
    scope: ScopeOptions,
    model: str | None,
    base_url: str | None,
    closed_book: bool,
    strategy: str | None,
    quote: bool,
    at_least: float,
    log: Path | None,
    sign: Path | None,
    output: str,
    as_json: bool,
) -> None:
    """Answer QUESTION from documents, with citations.

    If the documents do not hold the answer, it says so. A QUESTION of - is read from standard input.
    """
    from openbook.core.parallel import Listener
    from openbook.proofs.receipts import LOG_FILE, append_receipt

    if closed_book and (docs or kb or scope):
        raise ConfigError(
            "--closed-book reads no documents: it and --docs, --kb, --as-of, --where, --label exclude each other."
        )
    question = _question(question, docs)
    settings = context.read_settings(docs=docs, kb=kb, model=model, base_url=base_url, strategy=strategy)
    if sign is not None:
        context.check_signing(sign, settings)
    context.check_writable(log and log / LOG_FILE)
    with _files(docs, settings.max_file_mb) as files, context.library(settings, files) as library:
        context.prepared(library, scope.as_of, closed_book=closed_book)
        view = library if closed_book else scope.view_of(library)
        with display.while_reading(quiet=as_json or output != "text") as live:
            listener = Listener(None if at_least else live.show, live.found, live.progress)
            answer = view.ask(question, quote=quote, closed_book=closed_book, listener=listener)
        if log is not None:
            append_receipt(log, answer.receipt)
        if sign is not None:
            context.write_signed(sign, settings, answer.receipt)
        if not answer.declined and (answer.certainty or 0.0) < at_least:
            has = "no certainty" if answer.certainty is None else f"a certainty of {answer.certainty:.2f}"
            raise NotCertainEnough(f"The answer has {has}, not at least {at_least:g}, so it is not shown.")
        if output == "md" and not as_json:
            click.echo(printable(answer.to_markdown()), nl=False)
        else:
            display.show(as_json or output == "json", answer.to_json(), display.print_answer, answer, live)


def _question(question: str, docs: tuple[Path, ...]) -> str:
    """Read from standard input if it is `-`. Checked here, so that a wrong one is refused before anything is opened."""
    from openbook.answers.prompts import checked_question

    if question == "-":
        if _STANDARD_INPUT in docs:
            raise ConfigError("Standard input (-) cannot hold both the question and a document.")
        question = sys.stdin.buffer.read(_MAX_QUESTION_BYTES).decode("utf-8", "replace")
    return checked_question(question)


@contextmanager
def _files(docs: tuple[Path, ...], max_file_mb: int) -> Iterator[tuple[Path, ...]]:
    """The documents; standard input as a file that lasts as long as the block."""
    if _STANDARD_INPUT not in docs:
        yield docs
        return
    with tempfile.TemporaryDirectory(prefix="openbook-") as folder:
        text = Path(folder, "standard input.txt")
        text.write_bytes(sys.stdin.buffer.read(max_file_mb * 1_000_000 + 1))  # one byte too many is refused as a file
        yield tuple(text if each == _STANDARD_INPUT else each for each in docs)


@click.command()
@click.argument("query")
@KB
@scope_options
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=5, show_default=True, help="How many passages.")
@cluster_option("Search in shards on", by_client=True)
@JSON
def search(query: str, kb: Place | None, scope: ScopeOptions, limit: int, cluster: str | None, as_json: bool) -> None:
    """Find passages by meaning and words, without a language model."""
    from openbook.answers.ask import search as search_for

    with context.library(context.read_settings(kb=kb)) as library, context.joined(cluster):
        corpus, base = scope.view_of(library).corpus, library.base
        if cluster is not None:
            from openbook.cluster.shards import RayShards, ShardedSearch

            base.shards = ShardedSearch(RayShards(base.store.place))
        version, hits = search_for(query, corpus, limit)
        found = {"query": query, "knowledge_base": base.id, "version": version, "hits": hits}
        display.show(as_json, found, display.print_hits, query, hits)
