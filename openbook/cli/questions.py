"""`openbook questions`: draft questions from a knowledge base, and review them one by one."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from openbook.cli.scoping import scope_of, scope_options
from openbook.errors import ConfigError

if TYPE_CHECKING:
    from openbook.diagnosis.drafting import Drafting
    from openbook.diagnosis.reviewing import Review
    from openbook.knowledge import KnowledgeBase

KEYS = "[a]ccept  edit [q]uestion  edit ans[w]ers  [r]eject  [s]kip  [x] stop: "


@click.group()
def questions() -> None:
    """Draft questions to measure a model with, and review them."""


@questions.command()
@click.option("--kb", type=click.Path(path_type=Path), help="Draft from this knowledge base (default: your own).")
@click.option("-n", "count", type=click.IntRange(1, 100_000), default=200, help="How many at most (default: 200).")
@click.option("--seed", type=click.IntRange(0), default=0, help="The same seed, the same drafts.")
@click.option("--model", help="Let this stored model pose questions too, where no rule does.")
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
    """Propose questions whose answers stand in a knowledge base. They are drafts: review them before you use them."""
    from openbook.cli import display, session
    from openbook.diagnosis import drafting
    from openbook.diagnosis.drafts import write_questions

    if output.exists() and not force:
        raise ConfigError(f"{output} exists and may hold what you reviewed; choose another name, or give --force.")
    current = session.settings(kb=kb, model=model)
    base, embedder = session.open_base(current)
    display.must_hold_documents(base, str(current.default_kb))
    _check_writable(output)  # before the work, not after it
    scope = scope_of(base, as_of, where, labels)
    opened = session.model_opener(current)() if model else None
    try:
        with session.add_progress() as progress:
            found = drafting.draft(
                base,
                embedder,
                count,
                seed=seed,
                model=opened,
                scope=scope,
                progress=lambda done, total: progress("draft", done, total),
            )
    finally:
        if opened is not None:
            opened.close()
    if found.drafts:
        write_questions(output, [each.to_json() for each in found.drafts])
    _report(found, count, output)


def _check_writable(path: Path) -> None:
    """Raises StorageError where no file can be put there. Nothing is left behind, not even a folder."""
    from openbook.models.durable import replace_file, storage_errors

    new = [folder for folder in path.parents if not folder.exists()]
    trial = path.with_name(f".{path.name}.trial")
    with storage_errors(f"write {path}"):
        try:
            replace_file(trial, b"")
        finally:
            with suppress(OSError):
                trial.unlink(missing_ok=True)
                for folder in filter(Path.is_dir, new):
                    folder.rmdir()


def _report(found: Drafting, count: int, output: Path) -> None:
    from openbook.cli import display, session

    notes = session.error_console()
    for document in found.not_english[:5]:
        text = f"Not in English, so the rules cannot ask about it: {display.short_path(document)}"
        notes.print(display.printable(text), style="yellow", markup=False, soft_wrap=True)
    if len(found.not_english) > 5:
        notes.print(f"... and {len(found.not_english) - 5} more documents that are not in English.", markup=False)
    for reason, times in found.rejected.items():
        notes.print(f"turned down {times:>5}: {reason}", style="dim", markup=False)
    if not found.drafts:
        raise ConfigError(
            f"No question could be drafted from {found.documents} documents. The rules read English statements and tables; "
            "write questions by hand, one JSON object a line, or try --model."
        )
    out, without = display.console(), sum(each.kind == "unanswerable" for each in found.drafts)
    few = f" of {count:,} wanted; the documents gave no more" if len(found.drafts) < count else ""
    display.say(out, f"{len(found.drafts):,} drafts{few}, {without:,} of them without an answer, in {output}.")
    display.say(out, f"Nobody has read them yet. Review them: openbook questions review {output}")


@questions.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--kb", type=click.Path(path_type=Path), help="Where the passages are (default: your own).")
def review(file: Path, kb: Path | None) -> None:
    """Go through the drafts in FILE: accept, edit or reject each. Saved after every decision; run it again to go on."""
    from openbook.cli import display
    from openbook.diagnosis.reviewing import Review

    out = display.console()
    with Review.open(file) as work:
        base = _base_or_none(kb) if work.waiting() else None
        total, stopped = len(work.waiting()), False
        for number, at in enumerate(work.waiting(), start=1):
            display.say(out, f"\n{number} of {total}", style="dim")
            _show_place(base, work.questions[at])
            if not _decide(work, at):
                stopped = True
                break
        if base is not None:
            base.close()
    left = len(work.waiting())
    kept = len(work.questions) - len(work.rejected) - left
    end = "Stopped. " if stopped else ""
    again = f" To go on: openbook questions review {file}" if left else ""
    display.say(out, f"\n{end}Reviewed: {kept:,}; still drafts: {left:,}.{again}")


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


def _show_place(base: KnowledgeBase | None, question: dict[str, Any]) -> None:
    """The passage with the quote, and in it the answer, marked."""
    from rich.text import Text

    from openbook.cli import display
    from openbook.diagnosis.drafts import answers_of
    from openbook.diagnosis.reviewing import place

    out, found = display.console(), place(base, question)
    if found is None:
        display.say(out, "No passage: the question is meant to have no answer in the documents.", style="yellow")
        return
    page = f" · page {found.page}" if found.page else ""
    display.say(out, display.printable(f"{found.document}{page}"), style="cyan")
    if found.note:
        display.say(out, found.note, style="yellow")
    opened, closed = ("", "") if out.is_terminal else ("»", "«")  # where no colour can mark it
    quote = Text(f"{opened}{display.printable(found.quote)}{closed}", style="reverse")
    for answer in answers_of(question):
        quote.highlight_words([answer], style="bold underline")
    before, after = display.printable(found.before), display.printable(found.after)
    display.say(out, Text.assemble((before, "dim"), quote, (after, "dim")), indent=4)


def _decide(work: Review, at: int) -> bool:
    """Ask for one draft until it is decided or skipped. False: stop."""
    from openbook.cli import display
    from openbook.diagnosis.drafts import answers_of

    out = display.console()
    while True:
        question, problem = work.questions[at], ""
        display.say(out, f"\nQuestion: {display.printable(question['question'])}", style="bold")
        answers = " | ".join(answers_of(question)) or "none: unanswerable"
        display.say(out, f"Answers:  {display.printable(answers)}")
        key = _typed(KEYS)
        if key is None or key.lower() in ("x", "exit", "quit"):
            return False
        match key.lower():
            case "a" | "accept":
                problem = work.accept(at)
                if not problem:
                    return True
            case "r" | "reject":
                work.reject(at)
                return True
            case "s" | "skip":
                return True
            case "q" | "question":
                if text := _typed("New question (empty: as it is): "):
                    problem = work.edit(at, question=text)
            case "w" | "answers":
                if text := _typed("New answers, with | between them (empty: as they are): "):
                    problem = work.edit(at, answers=[part.strip() for part in text.split("|") if part.strip()])
            case _:
                problem = f"{display.printable(key)!r} is none of a, q, w, r, s, x."
        if problem:
            display.say(out, display.printable(problem), style="yellow")


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
@click.option(
    "--documents", type=click.Path(path_type=Path), help="Write the documents of a BEIR folder here, as Markdown."
)
@click.option("--split", default="", help="Which judgements of a BEIR folder (default: test, if there are some).")
@click.option(
    "--format", "file_format", default="", help="openbook, squad, ragas or beir (default: by what is in the file)."
)
@click.option("--force", is_flag=True, help="Write over files that exist, documents of the same names included.")
def import_(source: Path, output: Path, documents: Path | None, split: str, file_format: str, force: bool) -> None:
    """Turn the questions in SOURCE (SQuAD or RAGAS file, or BEIR folder) into a file of OpenBook's own."""
    from openbook.cli import display
    from openbook.diagnosis.drafts import write_questions
    from openbook.diagnosis.importing import to_import
    from openbook.diagnosis.importing_beir import is_beir, write_corpus
    from openbook.knowledge.discovery import check_exists
    from openbook.models.durable import storage_errors

    check_exists(source)
    if output.exists() and not force:
        raise ConfigError(f"{output} exists and may hold what you reviewed; choose another name, or give --force.")
    if (documents is not None or split) and not (file_format == "beir" or (not file_format and is_beir(source))):
        raise ConfigError(f"--documents and --split are for BEIR folders, and {source} is none.")
    with storage_errors(f"write {documents}"):
        if documents is not None and not force and documents.is_dir() and any(documents.iterdir()):
            raise ConfigError(f"{documents} holds files already; choose another folder, or give --force.")
    found = to_import(source, file_format, split)
    out, written = display.console(), write_corpus(source, documents) if documents is not None else 0
    write_questions(output, found)
    display.say(out, f"{len(found):,} questions in {output}.")
    if documents is not None:
        display.say(
            out, f"{written:,} documents in {documents}. Ask them: openbook diagnose {output} --docs {documents}"
        )
