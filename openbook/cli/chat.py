"""`openbook chat`: questions one after the other, in a transcript that is a file of the user's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import click

from openbook.cli.asking import check_places, greedy_options, open_asked, reading_options
from openbook.cli.display import Words, print_answer, printable
from openbook.cli.scoping import scope_of
from openbook.errors import ContextOverflow, QuestionError

if TYPE_CHECKING:
    from openbook.records import Answer

AskNext: TypeAlias = "Callable[[tuple[str, ...], str], tuple[str, Answer, Words]]"  # of the turns before and a question


@click.command()
@click.argument("transcript", required=False, type=click.Path(path_type=Path, dir_okay=False))
@reading_options
@click.option("--model", help="Name of a stored model, or a model of the server at --base-url.")
@click.option("--log", "log", type=click.Path(path_type=Path), help="Add the receipts to the log in this folder.")
def chat(
    transcript: Path | None,
    docs: tuple[Path, ...],
    kb: Path | None,
    model: str | None,
    as_of: str | None,
    where: str,
    labels: tuple[str, ...],
    log: Path | None,
    **reading: object,
) -> None:
    """Ask questions one after the other; one may refer back to those before it.

    The conversation is kept in the file TRANSCRIPT and nowhere else (default: a new one in this folder). Read it, change
    it, delete lines from it; give it again to go on. A question that stands last in it is answered first. Questions
    come from the terminal or, one a line, from standard input. Ctrl-D ends.
    """
    from openbook.answer import ask
    from openbook.cli import session
    from openbook.cli.ask import opened_beside, while_reading
    from openbook.cli.transcript import read_transcript
    from openbook.conversation import understood
    from openbook.receipts import append

    check_places(docs, kb)
    path = transcript or Path(f"conversation-{datetime.now().astimezone():%Y-%m-%d-%H%M%S}.jsonl")
    said = read_transcript(path)  # a broken one is reported before anything is opened
    current = session.settings(kb=kb, model=model, **reading)
    options = greedy_options(current)
    open_model = session.model_opener(current)
    with opened_beside(open_model) as reader:
        base, embedder = open_asked(current, docs)
        scope = scope_of(base, as_of, where, labels)

        def ask_next(earlier: tuple[str, ...], question: str) -> tuple[str, Answer, Words]:
            """What was searched for, and the answer."""
            meant = understood(reader.result(), earlier, question)
            if meant.rewritten:
                click.echo(f"Understood as: {printable(meant.question)}", err=True)
            elif meant.query != meant.question:
                click.echo(f"Searched for: {printable(' / '.join(meant.query.splitlines()))}", err=True)
            with while_reading(quiet=False) as words:
                answer = ask(
                    meant.question,
                    reader.result(),
                    base,
                    embedder,
                    options,
                    query=meant.query,
                    scope=scope,
                    on_text=words.show,
                )
            if log is not None:
                append(log, answer.receipt, timeout_s=current.lock_timeout_s)
            return meant.query, answer, words

        click.echo(f"Transcript: {path.absolute()} ({len(said.questions)} questions so far). Ctrl-D ends.", err=True)
        _talk(path, ask_next)


def _talk(path: Path, ask_next: AskNext) -> None:
    """Answer what is open in the transcript, and then each question that comes."""
    from openbook.cli.transcript import read_transcript

    _answer_open(path, ask_next)
    for question in _questions():
        try:
            _answer_open(path, ask_next)
            _answer(path, question, read_transcript(path).questions, ask_next)
        except (QuestionError, ContextOverflow) as error:
            if not sys.stdin.isatty():
                raise
            click.echo(f"Error: {error}", err=True)


def _answer_open(path: Path, ask_next: AskNext) -> None:
    """Answer the question that stands last in the transcript, if nobody has."""
    from openbook.cli.transcript import read_transcript

    said = read_transcript(path)
    if said.open_question is not None:
        click.echo(f"> {printable(said.open_question)}", err=True)
        _answer(path, said.open_question, said.questions[:-1], ask_next, stands=True)


def _answer(path: Path, question: str, earlier: tuple[str, ...], ask_next: AskNext, *, stands: bool = False) -> None:
    """`stands`: the question is in the transcript already. Its sources are shown once it was written."""
    from openbook.answer import checked_question
    from openbook.cli.transcript import add_exchange

    question = checked_question(question)
    searched, answer, words = ask_next(earlier, question)
    add_exchange(path, question, searched, answer, stands=stands)
    print_answer(answer, words)


def _questions() -> Iterator[str]:
    """What the user types, or the lines of standard input, until its end."""
    if not sys.stdin.isatty():
        yield from (line.strip() for line in sys.stdin if line.strip())
        return
    with suppress(ImportError):
        import readline  # noqa: F401  arrow keys; what was typed is kept in no file
    while True:
        try:
            line = input("\n> ").strip()
        except EOFError:
            click.echo()
            return
        except KeyboardInterrupt:
            click.echo()  # what is said of it does not belong behind the half-typed question
            raise
        if line:
            yield line
