"""`openbook questions`: draft questions from a knowledge base, and review them one by one."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from openbook.cli.scoping import scope_of, scope_options
from openbook.errors import ConfigError

if TYPE_CHECKING:
    from openbook.diagnosis.question_drafts import Drafts
    from openbook.diagnosis.question_review import Review
    from openbook.knowledge import KnowledgeBase

KEYS = "[a]ccept  [e]dit  [r]eject  [s]kip  [x] stop: "


@click.group()
def questions() -> None:
    """Draft questions to measure a model with, and review them."""


@questions.command()
@click.option("--kb", type=click.Path(path_type=Path), help="Draft from this knowledge base (default: your own).")
@click.option("-n", "count", type=click.IntRange(1, 100_000), default=200, help="How many at most (default: 200).")
@click.option("--seed", type=click.IntRange(0), default=0, help="The same seed, the same drafts.")
@click.option("--model", help="The model that writes them, such as qwen2.5-coder-1.5b-instruct (default: your own).")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The file to write, one a line.")
@click.option("--force", is_flag=True, help="Write over a file that exists, reviewed questions included.")
@scope_options
def draft(
    kb: Path | None,
    count: int,
    seed: int,
    model: str | None,
    output: Path,
    force: bool,
    as_of: str | None,
    where: str,
    labels: tuple[str, ...],
) -> None:
    """Let a model write questions whose answers stand in a knowledge base. They are drafts: review them before you use them.

    A run that was stopped goes on with the same command.
    """
    from openbook.cli import display, session
    from openbook.diagnosis import question_drafts
    from openbook.diagnosis.questions import write_questions
    from openbook.files import check_replaceable, storage_errors
    from openbook.knowledge import KnowledgeBase

    if output.exists() and not force:
        raise ConfigError(f"{output} exists and may hold what you reviewed; choose another name, or give --force.")
    # Each passage is read once, for questions only, so what is computed of it is not kept.
    current = session.settings(kb=kb, model=model, kv_disk=0)
    base = KnowledgeBase.open(current.default_kb)
    display.must_hold_documents(base, str(current.default_kb))
    scope = scope_of(base, as_of, where, labels)
    with storage_errors(f"write {output}"):  # before the work, not after it
        check_replaceable(output)
    log = question_drafts.ReplyLog(output.with_name(f"{output.name}.part"))
    opened = session.model_opener(current)()
    try:
        with session.add_progress() as progress:
            found = question_drafts.draft(
                base, opened, count, log, seed=seed, scope=scope, progress=lambda done, of: progress("draft", done, of)
            )
    finally:
        opened.close()
    if found.questions:
        write_questions(output, found.questions)
    log.path.unlink(missing_ok=True)
    _report(found, count, output)


def _report(found: Drafts, count: int, output: Path) -> None:
    from openbook.cli import display, session

    for reason, times in found.rejected.items():
        session.error_console().print(f"turned down {times:>5}: {reason}", style="dim", markup=False)
    if not found.questions:
        raise ConfigError(
            f"No question could be drafted: the model read {found.passages:,} passages, and nothing that it wrote passed the "
            "checks. Choose a larger model with --model, or write questions by hand, one JSON object a line."
        )
    out = display.console()
    few = f" of {count:,} wanted" if len(found.questions) < count else ""
    display.say(out, f"{len(found.questions):,} drafts{few} from {found.passages:,} passages, in {output}.")
    display.say(out, f"Nobody has read them yet. Review them: openbook questions review {output}")


@questions.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--kb", type=click.Path(path_type=Path), help="Where the passages are (default: your own).")
def review(file: Path, kb: Path | None) -> None:
    """Go through the drafts in FILE: accept, edit or reject each. Saved after every decision; run it again to go on."""
    from openbook.cli import display
    from openbook.diagnosis.question_review import Review

    out, work = display.console(), Review.open(file)
    drafts = work.drafts()
    base = _base_or_none(kb) if drafts else None
    for number, each in enumerate(drafts, start=1):
        display.say(out, f"\n{number} of {len(drafts)}", style="dim")
        _show_place(base, each)
        if not _decide(work, each):
            break
    if base is not None:
        base.close()
    left = len(work.drafts())
    again = f" To go on: openbook questions review {file}" if left else ""
    display.say(out, f"\nReviewed: {len(work.questions) - left:,}; still drafts: {left:,}.{again}")


def _base_or_none(kb: Path | None) -> KnowledgeBase | None:
    """The knowledge base; without one of your own, only the quotes are shown."""
    from openbook.cli import session
    from openbook.errors import KnowledgeBaseMissing
    from openbook.knowledge import KnowledgeBase

    try:
        return KnowledgeBase.open(session.settings(kb=kb).default_kb)
    except KnowledgeBaseMissing:
        if kb is not None:
            raise
        return None


def _show_place(base: KnowledgeBase | None, draft: dict[str, Any]) -> None:
    """The passage with the quote, and in it the answer, marked."""
    from rich.text import Text

    from openbook.cli import display
    from openbook.diagnosis.question_review import around
    from openbook.diagnosis.questions import texts

    out, gold = display.console(), draft.get("gold")
    if gold is None:
        display.say(out, "No passage is named.", style="yellow")
        return
    page = f" · page {gold['page']}" if gold.get("page") else ""
    display.say(out, display.printable(f"{gold.get('document', '')}{page}"), style="cyan")
    beside = around(base, draft) if base is not None else ("", "")
    if beside is None:
        display.say(
            out, "The quote does not stand there in this knowledge base; only the quote is shown.", style="yellow"
        )
    before, after = map(display.printable, beside or ("", ""))
    opened, closed = ("", "") if out.is_terminal else ("»", "«")  # where no colour can mark it
    quote = Text(f"{opened}{display.printable(gold.get('quote', ''))}{closed}", style="reverse")
    quote.highlight_words(texts(draft.get("answers")), style="bold underline")
    display.say(out, Text.assemble((before, "dim"), quote, (after, "dim")), indent=4)


def _decide(work: Review, draft: dict[str, Any]) -> bool:
    """Ask about one draft until it is decided or skipped. False: stop."""
    from openbook.cli import display
    from openbook.diagnosis.questions import texts

    out = display.console()
    while True:
        answers = texts(draft.get("answers"))
        display.say(out, f"\nQuestion: {display.printable(draft['question'])}", style="bold")
        display.say(out, f"Answers:  {display.printable(' | '.join(answers) or 'none: unanswerable')}")
        match (key := _typed(KEYS)) and key.lower():
            case "a" | "accept":
                work.accept(draft)
                return True
            case "r" | "reject":
                work.reject(draft)
                return True
            case "s" | "skip":
                return True
            case "e" | "edit":
                question = _typed("Question (empty: as it is): ") or draft["question"]
                given = _typed("Answers, with | between them (empty: as they are; |: none): ") or "|".join(answers)
                try:
                    work.edit(draft, question, [part.strip() for part in given.split("|") if part.strip()])
                except ConfigError as error:
                    display.say(out, display.printable(f"It stays as it is: {error}"), style="yellow")
            case "x" | "exit" | "quit" | None:
                return False
            case _:
                display.say(out, display.printable(f"{key!r} is none of a, e, r, s, x."), style="yellow")


def _typed(prompt: str) -> str | None:
    """One line that was typed, or came through a pipe; None at the end of it."""
    click.echo(prompt, nl=False)
    line = sys.stdin.readline()
    if not sys.stdin.isatty():
        click.echo()
    return line.strip() if line else None


@questions.command(name="import")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The file to write, one a line.")
@click.option("--format", "file_format", default="", help="openbook, squad or ragas (default: by what is in the file).")
@click.option("--force", is_flag=True, help="Write over a file that exists, reviewed questions included.")
def import_(source: Path, output: Path, file_format: str, force: bool) -> None:
    """Turn the questions in SOURCE, a SQuAD or RAGAS file, into a file of OpenBook's own."""
    from openbook.cli import display
    from openbook.diagnosis.questions import load_questions, write_questions
    from openbook.knowledge.discovery import check_exists

    check_exists(source)
    if output.exists() and not force:
        raise ConfigError(f"{output} exists and may hold what you reviewed; choose another name, or give --force.")
    found = [asdict(question) for question in load_questions(source, file_format)]
    write_questions(output, found)
    display.say(display.console(), f"{len(found):,} questions in {output}.")
