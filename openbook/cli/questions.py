"""`openbook questions`: standing questions, and questions to measure a model with."""

from __future__ import annotations

import json
import sys
import time
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from openbook.answers.answer_text import printable
from openbook.cli import context, display, on_cluster
from openbook.cli.options import JSON, KB, LABEL, MODEL, PATH, WEBHOOK, cluster_option
from openbook.core.config import Place
from openbook.core.errors import ConfigError, KnowledgeBaseMissing, OpenBookError, StorageError, did_you_mean

if TYPE_CHECKING:
    from openbook.answers.standing_questions import QuestionStore, SavedQuestion
    from openbook.diagnosis.questions import Review
    from openbook.knowledge import KnowledgeBase
    from openbook.library import Library

OWNER, LOCAL = "command-line", "local"  # of questions that are saved here, and at a server without a key
LOOK_S = 1.0  # between two looks for a new version
WAIT_S = 600.0  # for a check that a server began
KEYS = "[a]ccept  [e]dit  [r]eject  [s]kip  [x] stop: "


@click.group()
def questions() -> None:
    """Standing questions, and questions to measure a model with.

    Standing questions are saved (add, list, remove) and asked again after every new version of the documents (watch).
    Questions to measure a model with are drafted by a model and reviewed by you.
    """


@questions.command()
@KB
@click.option(
    "-n", "--limit", type=click.IntRange(1, 100_000), default=200, show_default=True, help="How many questions at most."
)
@MODEL
@cluster_option("Let the model write on all machines of")
@click.option("-o", "--output", required=True, type=PATH, help="The new file to write, one question a line.")
def draft(kb: Place | None, limit: int, model: str | None, cluster: str | None, output: Path) -> None:
    """Draft questions that a knowledge base answers, with a model. Review them before you use them.

    To continue after a stop, run the same command again.
    """
    from openbook.diagnosis import question_drafts
    from openbook.diagnosis.questions import write_questions

    if output.exists():
        raise ConfigError(f"{output} exists and may hold what you reviewed. Choose another name, or delete it.")
    context.check_writable(output)
    # Each passage is read once, for questions only, so results are not kept.
    settings = context.read_settings(kb=kb, model=model, kv_disk=0)
    base = context.prepared(context.library(settings), model=False).base
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
        display.note(f"rejected {times:>5}: {reason}", "dim")
    if not found.questions:
        raise ConfigError(
            f"No question could be drafted: the model read {found.passages:,} passages, and nothing that it wrote passed the "
            "checks. Choose a larger model with --model, or write questions by hand, one JSON object a line."
        )
    few = f" of {limit:,} wanted" if len(found.questions) < limit else ""
    display.say(f"{len(found.questions):,} drafts{few} from {found.passages:,} passages, in {output}.")
    display.say(f"Review them before you use them: openbook questions review {output}")


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
            base = context.library(context.read_settings(kb=kb)).base
        except KnowledgeBaseMissing:
            if kb is not None:
                raise  # without a knowledge base of your own, only the quotes are shown
    for number, each in enumerate(drafts, start=1):
        display.say(f"\n{number} of {len(drafts)}", "dim")
        _show_place(base, each)
        if not _decide(work, each):
            break
    left = len(work.drafts())
    again = f" To continue: openbook questions review {file}" if left else ""
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
    quote = Text(f"{opened}{printable(gold.get('quote', ''))}{closed}", style="reverse")
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
                question = _typed("Question (empty: keep it): ") or draft["question"]
                given = _typed("Answers, separated by | (empty: keep them; |: none): ") or "|".join(answers)
                try:
                    work.edit(draft, question, [part.strip() for part in given.split("|") if part.strip()])
                except ConfigError as error:
                    display.say(f"Not changed: {error}", "yellow")
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


# --- standing questions -----------------------------------------------------------------------------------------------


@questions.command()
@click.argument("question")
@KB
@click.option("--where", default="", help='Only documents that match, such as "date >= 2025-01-01".')
@LABEL
def add(question: str, kb: Place | None, where: str, labels: tuple[str, ...]) -> None:
    """Save QUESTION, to be asked again after every new version. Prints its id."""
    from openbook.knowledge.index.scope import checked_labels

    display.say(_store(kb)[0].add(OWNER, question, where, sorted(checked_labels(labels))).id)


@questions.command("list")
@KB
@JSON
def list_questions(kb: Place | None, as_json: bool) -> None:
    """Show the standing questions, their answers, and earlier answers."""
    from openbook.answers.standing_questions import described, visible

    store, base, name = _store(kb)
    found = [
        described(question, visible(store.answer(question), frozenset(question.labels), base), name)
        for question in store.questions(OWNER)
    ]
    display.show(as_json, {"questions": list(map(asdict, found))}, _print_questions, found)


def _print_questions(found: list[SavedQuestion]) -> None:
    for each in found:
        version = "" if each.version is None else f"  version {each.version}"
        display.say(f"{each.id}  {each.state:7}{version}  {each.question}", "bold")
        for line in filter(None, (each.answer, each.error)):
            display.say(line, indent=4)
        for change in each.changes:
            display.say(
                f"until version {change.version_before}: {display.excerpt(change.before.answer)}", "dim", indent=4
            )
    if not found:
        display.say("There are no standing questions. Save one with: openbook questions add QUESTION")


@questions.command()
@click.argument("question_id", metavar="ID")
@KB
def remove(question_id: str, kb: Place | None) -> None:
    """Delete a standing question, with its answer."""
    store = _store(kb)[0]
    if not store.remove(OWNER, question_id):
        hint = did_you_mean(question_id, [each.id for each in store.questions(OWNER)])
        raise ConfigError(f"No question {question_id!r}.{hint} To list them: openbook questions list")


@questions.command()
@KB
@click.option("--once", is_flag=True, help="Check once. Exit with 1 if an answer changed or a question failed.")
@WEBHOOK
@click.option("--json", "as_json", is_flag=True, help="Print each change as one line of JSON, with whole receipts.")
def watch(kb: Place | None, once: bool, webhook: str | None, as_json: bool) -> None:
    """Ask the standing questions again after every new version.

    Asks the questions that were saved here or at a server with the same home folder, and shows each answer that
    changed, until Ctrl-C. If the passages of a question did not change, the model is not asked.
    """
    from openbook.answers.standing_questions import QuestionStore, post
    from openbook.serving.keys import KeyFile

    settings, seen, told = context.read_settings(kb=kb), None, 0
    with context.library(settings) as library:
        store, key_file = QuestionStore(settings, library.base.id), KeyFile(settings.home)
        if not store.questions():
            raise ConfigError("There are no standing questions. Save one with: openbook questions add QUESTION")
        try:
            while seen is None or not once:
                labels = {key.id: key.labels for key in tuple(key_file.keys()) if key_file.days_left(key) != 0}
                stamp = (store.stamp(library.base), labels)
                if stamp == seen:
                    time.sleep(LOOK_S)
                    continue
                mark, events = store.derived.purge_mark(), list[dict[str, Any]]()
                for owner in dict.fromkeys(each.owner for each in store.questions()):
                    if owner in labels or owner in (OWNER, LOCAL):
                        told += _check(store, library, owner, labels.get(owner), events, as_json=as_json)
                for value in events if webhook else ():  # after the check, so that a slow webhook does not delay it
                    if mark == store.derived.purge_mark() and (why := post(str(webhook), value)):
                        display.note(why, "yellow")
                seen = stamp
        except KeyboardInterrupt:
            if once:
                raise
            click.echo("Ended.", err=True)
    if once and told:
        raise click.exceptions.Exit(1)


def _check(
    store: QuestionStore,
    library: Library,
    owner: str,
    labels: tuple[str, ...] | None,
    events: list[dict[str, Any]],
    *,
    as_json: bool,
) -> int:
    """Ask an owner's questions; show each change, add it to `events`, and show each error. Returns how many there were."""
    from openbook.answers.retrieval import Options
    from openbook.answers.standing_questions import ask_again, event

    def explain(error: OpenBookError) -> str:
        if owner == OWNER:
            return str(error)
        from openbook.serving.errors import api_error

        return api_error(error).message  # callers of a server may read it

    settings, told = library.resources.settings, 0
    ask = partial(ask_again, store, corpus=library.corpus, model=library.model, options=Options.of(settings))
    with store.checking(owner, WAIT_S) as held:
        if not held:
            raise StorageError("Another process is asking the standing questions. End it, or wait for it.")
        for question in store.due(owner):
            held_labels = frozenset(question.labels if labels is None else labels)
            fallback = library.resources.fallback()
            answer = ask(question=question, labels=held_labels, fallback=fallback, explain=explain)
            if answer is not None and answer.state == "failed":
                display.note(f"{question.id}  {question.question}\n    {answer.error}", "red")
                told += 1
            for change in store.take_untold(question):
                events.append(event(question, change, settings.kb_place.name))
                click.echo(json.dumps(events[-1])) if as_json else _print_change(events[-1])
                told += 1
    return told


def _print_change(value: dict[str, Any]) -> None:
    from openbook.knowledge.word_diff import word_diff

    before, after = value["before"], value["after"]
    versions = f"version {value['version_before']} to {value['version_after']}"
    display.say(f"\n{value['question']}  ({value['id']}, {versions})", "bold")
    display.say(f"before: {before['answer']}  ({before['confidence']})", indent=4)
    display.say(f"after:  {after['answer']}  ({after['confidence']})", indent=4)
    display.print_words(word_diff(before["answer"], after["answer"]))
    documents = ", ".join(map(display.short_path, value["documents"]))
    display.say(f"documents: {documents or 'none; the model or the order of passages changed'}", "cyan", indent=4)
    display.say(f"receipts: {before['receipt']['digest']} {after['receipt']['digest']}", "dim", indent=4)


def _store(kb: Place | None) -> tuple[QuestionStore, KnowledgeBase, str]:
    from openbook.answers.standing_questions import QuestionStore

    settings = context.read_settings(kb=kb)
    base = context.library(settings).base
    return QuestionStore(settings, base.id), base, settings.kb_place.name
