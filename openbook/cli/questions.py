"""`openbook questions`: draft questions from a knowledge base, and review them."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from openbook.cli import context, display, on_cluster
from openbook.cli.options import KB, MODEL, PATH, cluster_option
from openbook.config import Place
from openbook.errors import ConfigError, KnowledgeBaseMissing

if TYPE_CHECKING:
    from openbook.diagnosis.questions import Review
    from openbook.knowledge import KnowledgeBase

KEYS = "[a]ccept  [e]dit  [r]eject  [s]kip  [x] stop: "


@click.group()
def questions() -> None:
    """Draft questions to measure a model with, and review them."""


@questions.command()
@KB
@click.option(
    "-n", "--limit", type=click.IntRange(1, 100_000), default=200, show_default=True, help="How many questions at most."
)
@MODEL
@cluster_option("Let the model write on all machines of")
@click.option("-o", "--output", required=True, type=PATH, help="The new file to write, one question a line.")
def draft(kb: Place | None, limit: int, model: str | None, cluster: str | None, output: Path) -> None:
    """Let a model write questions that a knowledge base answers. They are drafts: review them before you use them.

    To continue after a stop, run the same command again.
    """
    from openbook.diagnosis import question_drafts
    from openbook.diagnosis.questions import write_questions

    if output.exists():
        raise ConfigError(f"{output} exists and may hold what you reviewed. Choose another name, or delete it.")
    context.check_writable(output)
    # Each passage is read once, for questions only, so results are not kept.
    settings = context.read_settings(kb=kb, model=model, kv_disk=0)
    base = context.ready_to_read(context.library(settings)).base
    part = output.with_name(f"{output.name}.part")
    with (
        on_cluster.models(settings, cluster) as (open_model, at_once),
        closing(open_model(settings)) as opened,
        display.progress("draft") as show,
    ):
        found = question_drafts.draft(base, opened, limit, part, at_once=at_once, progress=show)
    if found.questions:
        write_questions(output, found.questions)
    part.unlink(missing_ok=True)
    for reason, times in found.rejected.items():
        display.note(f"turned down {times:>5}: {reason}", "dim")
    if not found.questions:
        raise ConfigError(
            f"No question could be drafted: the model read {found.passages:,} passages, and nothing that it wrote passed the "
            "checks. Choose a larger model with --model, or write questions by hand, one JSON object a line."
        )
    few = f" of {limit:,} wanted" if len(found.questions) < limit else ""
    display.say(f"{len(found.questions):,} drafts{few} from {found.passages:,} passages, in {output}.")
    display.say(f"Nobody has read them yet. Review them: openbook questions review {output}")


@questions.command()
@click.argument("file", type=PATH)
@KB
def review(file: Path, kb: Place | None) -> None:
    """Go through the drafts in FILE: accept, edit or reject each. Saved after every decision; run it again to continue."""
    from openbook.diagnosis.questions import Review

    work, base = Review.open(file), None
    drafts = work.drafts()
    if drafts:
        try:
            base = context.open_base(context.read_settings(kb=kb))
        except KnowledgeBaseMissing:
            if kb is not None:
                raise  # without a knowledge base of your own, only the quotes are shown
    for number, each in enumerate(drafts, start=1):
        display.say(f"\n{number} of {len(drafts)}", "dim")
        _show_place(base, each)
        if not _decide(work, each):
            break
    left = len(work.drafts())
    again = f" To go on: openbook questions review {file}" if left else ""
    display.say(f"\nReviewed: {len(work.questions) - left:,}; still drafts: {left:,}.{again}")


def _show_place(base: KnowledgeBase | None, draft: dict[str, Any]) -> None:
    """Show the passage with quote and answer marked."""
    from rich.text import Text

    from openbook.diagnosis.questions import texts

    gold = draft.get("gold")
    if gold is None:
        display.say("No passage is named.", "yellow")
        return
    page = f" · page {gold['page']}" if gold.get("page") else ""
    display.say(f"{gold.get('document', '')}{page}", "cyan")
    before, after = _around(base, gold) if base is not None else ("", "")
    opened, closed = ("", "") if display.console().is_terminal else ("»", "«")  # no color can mark it
    quote = Text(f"{opened}{display.printable(gold.get('quote', ''))}{closed}", style="reverse")
    quote.highlight_words(texts(draft.get("answers")), style="bold underline")
    display.say(Text.assemble((before, "dim"), quote, (after, "dim")), indent=4)


def _around(base: KnowledgeBase, gold: dict[str, Any]) -> tuple[str, str]:
    """The passage's text before and after the quote."""
    from openbook.diagnosis.gold_passages import documents_named

    start, end, quote = gold.get("start", 0), gold.get("end", 0), gold.get("quote")
    for document in documents_named(base.documents(), gold.get("document") or ""):
        for passage in base.passages(document):
            inside = slice(start - passage.start, end - passage.start)
            if passage.start <= start and passage.text[inside] == quote:
                return passage.text[: inside.start].lstrip(), passage.text[inside.stop :].rstrip()
    display.say("This knowledge base does not have the quote at that place, so only the quote is shown.", "yellow")
    return "", ""


def _decide(work: Review, draft: dict[str, Any]) -> bool:
    """Ask until the draft is decided or skipped. False: stop."""
    from openbook.diagnosis.questions import texts

    while True:
        answers = texts(draft.get("answers"))
        display.say(f"\nQuestion: {draft['question']}", "bold")
        display.say(f"Answers:  {' | '.join(answers) or 'none: unanswerable'}")
        match (key := _typed(KEYS)) and key.lower():
            case "a" | "accept" | "r" | "reject" as choice:
                work.decide(draft, accepted=choice.startswith("a"))
                return True
            case "s" | "skip":
                return True
            case "e" | "edit":
                question = _typed("Question (empty: as it is): ") or draft["question"]
                given = _typed("Answers, with | between them (empty: as they are; |: none): ") or "|".join(answers)
                try:
                    work.edit(draft, question, [part.strip() for part in given.split("|") if part.strip()])
                except ConfigError as error:
                    display.say(f"It stays as it is: {error}", "yellow")
            case "x" | "exit" | "quit" | None:
                return False
            case _:
                display.say(f"Type a, e, r, s or x, not {key!r}.", "yellow")


def _typed(prompt: str) -> str | None:
    """A typed or piped line; None at the end."""
    click.echo(prompt, nl=False)
    line = sys.stdin.readline()
    if not sys.stdin.isatty():
        click.echo()
    return line.strip() if line else None
