"""`openbook diagnose, probe`: what the model knows, what retrieval fixes, and what disturbs its answers."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from openbook.cli import INTERRUPTED, context, display
from openbook.cli.options import DOCS, JSON, KB, MODEL, PATH, ScopeOptions, scope_options
from openbook.errors import ConfigError, EngineError, OpenBookError
from openbook.files import check_replaceable, storage_errors

if TYPE_CHECKING:
    from openbook.config import Settings
    from openbook.diagnosis.questions import Question
    from openbook.diagnosis.report import Extras
    from openbook.diagnosis.summary import ModelSummary
    from openbook.knowledge import KnowledgeBase
    from openbook.knowledge.scope import Scope
    from openbook.records import Embedder


class _RunByDefault(click.Group):
    """`openbook diagnose FILE` is short for `openbook diagnose run FILE`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_RunByDefault)
def diagnose() -> None:
    """Measure on your own questions what the model knows, what retrieval fixes, and what only a better reader can fix.

    \b
    openbook diagnose questions.jsonl --docs handbook/
    openbook diagnose run --help
    """  # noqa: D301  click keeps the lines after this control character as they are


@diagnose.command()
@click.argument("questions", type=PATH)
@DOCS
@KB
@scope_options
@click.option("--model", "models", multiple=True, help="The name of a model (repeatable: they are compared).")
@click.option("--probes", is_flag=True, help="Also run the probes of openbook probe on these questions.")
@click.option("--judge", help="Let this model judge each answer, and report how often it agrees with the rules.")
@click.option("--limit", type=click.IntRange(1), help="Ask only the first N questions.")
@click.option("--out", type=PATH, help="Folder for the results (default: in OpenBook's home).")
@click.option("--csv", "table", type=PATH, help="Write a CSV table with a line for each question.")
@click.option("--fail-under", type=click.FloatRange(0, 1), help="Fail when a smaller share is right with documents.")
@JSON
def run(
    questions: Path,
    docs: tuple[Path, ...],
    kb: Path | None,
    scope: ScopeOptions,
    models: tuple[str, ...],
    probes: bool,
    judge: str | None,
    limit: int | None,
    out: Path | None,
    table: Path | None,
    fail_under: float | None,
    as_json: bool,
) -> None:
    """Ask QUESTIONS (JSON Lines, SQuAD or RAGAS) alone, with documents, and with the right passage; give each a verdict.

    What was asked is kept: a run that was stopped goes on with the same command.
    """
    from openbook.diagnosis import results

    if fail_under is not None and math.isnan(fail_under):
        raise ConfigError("--fail-under must be a number from 0 to 1, not nan.")
    context.check_places(docs, kb, questions)
    if table is not None:
        with storage_errors(f"write {table}"):  # before the work, not after it
            check_replaceable(table)
    asked = _reviewed(questions)
    current = context.settings(kb=kb)
    base, embedder = context.open_asked(current, docs)
    seen = scope.of(base)
    folder = out or current.diagnoses_dir / _name(questions, asked, base, seen, current)
    job = _Job(questions, asked, limit, folder, probes=probes)
    files: list[Path] = []
    more: dict[str, Extras] = {}
    for name in dict.fromkeys(models or (current.model,)):
        # What is computed of altered passages must not outlive the run: no purge of a document would find it.
        own = replace(current, model=name, kv_disk=0 if probes else current.kv_disk)
        file, probed = _examine(job, own, base, embedder, seen)
        files.append(file)
        more |= probed
    if judge is not None:
        more = _judge(replace(current, model=judge), files, more, limit)
    summaries = _report(job, files, more, as_json=as_json)
    if table is not None:
        results.write_csv(table, files, limit)
    _must_have_measured(summaries, files)
    _must_reach(summaries, fail_under)


def _reviewed(path: Path) -> list[Question]:
    """The questions of the file. Raises ConfigError, also for drafts; StorageError."""
    from openbook.diagnosis.questions import load_questions

    questions = load_questions(path)
    drafts = sum(not question.reviewed for question in questions)
    if drafts:
        raise ConfigError(
            f"{drafts} of the {len(questions)} questions are drafts that nobody has reviewed. Review them: "
            f"openbook questions review {path}"
        )
    return questions


@dataclass(frozen=True, slots=True)
class _Job:
    """The questions of a file, and where the answers are kept. `probes`: whether they are put to the questions as well."""

    file: Path
    questions: Sequence[Question]
    limit: int | None
    folder: Path
    probes: bool = False


def _examine(
    job: _Job, current: Settings, base: KnowledgeBase, embedder: Embedder, scope: Scope
) -> tuple[Path, dict[str, Extras]]:
    """Put the questions to the model of the settings: the file of what was observed, and by its name what else was."""
    from openbook.diagnosis.probes import run_probes
    from openbook.diagnosis.questions import questions_digest
    from openbook.diagnosis.report import Extras
    from openbook.diagnosis.results import observations_path, probes_path
    from openbook.diagnosis.run_log import Observation, open_run_log
    from openbook.diagnosis.runner import Bench, run_questions

    digest, asked = questions_digest(job.questions), job.questions[: job.limit]

    with context.opened_model(current) as model, display.progress() as progress:
        bench = Bench(model, base, embedder, scope, context.answer_options(current)).pinned()
        path = observations_path(job.folder, model.identity)
        with open_run_log(path, bench.header(digest), Observation) as log:
            run_questions(asked, bench, log, progress=partial(progress, "diagnose"))
        if not job.probes:
            return path, {}
        probe_run = run_probes(
            asked,
            bench,
            digest,
            path=probes_path(job.folder, model.identity),
            progress=partial(progress, "probe"),
        )
        return path, {model.identity.name: Extras(probe_run)}


def _judge(
    current: Settings, files: Sequence[Path], more: Mapping[str, Extras], limit: int | None
) -> dict[str, Extras]:
    """What else was measured, with what the model of the settings says of the answers in these observations."""
    from openbook.diagnosis.llm_judge import second_opinion
    from openbook.diagnosis.report import Extras
    from openbook.diagnosis.results import opinions_path
    from openbook.diagnosis.run_log import read_observations

    found = dict(more)
    with context.opened_model(current) as judge, display.progress() as progress:
        for file in files:
            model = read_observations(file)[0].model
            path = opinions_path(file.parent, judge.identity, model)
            opinion = second_opinion(file, judge, path, limit=limit, progress=partial(progress, "judge"))
            found[model.name] = replace(found.get(model.name, Extras()), opinion=opinion)
    return found


def _report(job: _Job, files: Sequence[Path], more: Mapping[str, Extras], *, as_json: bool) -> list[ModelSummary]:
    """Write the numbers and the page, also of models that were asked before, and show those of these files."""
    from openbook.diagnosis import results

    title = f"Diagnosis of {job.file.name}"
    others = results.of_other_models(files)
    summaries, comparisons = results.write_results(job.folder, title, [*files, *others], job.limit, more)
    asked, before = summaries[: len(files)], summaries[len(files) :]
    if as_json:
        display.print_json({**results.numbers(title, summaries, comparisons, more), "folder": job.folder})
    else:
        display.print_diagnosis(asked, comparisons, job.folder, more)
    if before:
        names = ", ".join(f"{each.name} ({each.overall.questions} questions)" for each in before)
        display.note(f"Also in the report, because they were asked before: {names}.")
    return asked


def _name(file: Path, questions: Sequence[Question], base: KnowledgeBase, scope: Scope, current: Settings) -> str:
    """Where the results go by default: another place for other questions, documents or settings."""
    from openbook.diagnosis.questions import questions_digest
    from openbook.records import canonical_json, sha256_hex

    reading = [current.passages, current.strategy, current.max_tokens, current.context_tokens]
    of = [
        questions_digest(questions),
        base.id,
        base.kept_version(scope.as_of),
        scope.where,
        sorted(scope.labels),
        reading,
    ]
    return f"{file.name.partition('.')[0][:40]}-{sha256_hex(canonical_json(of))[:12]}"


def _must_have_measured(summaries: Sequence[ModelSummary], files: Sequence[Path]) -> None:
    """Raises EngineError for a model that failed on everything."""
    from openbook.diagnosis.run_log import read_observations

    for summary, file in zip(summaries, files, strict=True):
        if summary.overall.failed == summary.overall.questions:
            why = next(each.failure for each in read_observations(file)[1])
            raise EngineError(
                f"Nothing was measured: {summary.name} failed on all {summary.overall.failed} questions. {why} "
                "When that is put right, run the same command: it asks them again."
            )


def _must_reach(summaries: Sequence[ModelSummary], wanted: float | None) -> None:
    """Raises OpenBookError for a model that is right on too few questions. 0.55 is 55 of 100, exactly."""
    for summary in summaries if wanted is not None else ():
        group = summary.overall
        if group.right.share is None or group.right.count < Fraction(str(wanted)) * group.questions:
            failed = f", {group.failed} of which failed" if group.failed else ""
            raise OpenBookError(
                f"{summary.name} is right, or rightly silent, on {group.right.count} of {group.questions} questions{failed}: "
                f"less than --fail-under {wanted:g}."
            )


@diagnose.command()
@click.argument("files", nargs=-1, required=True, type=PATH)
@JSON
def compare(files: tuple[Path, ...], as_json: bool) -> None:
    """Compare the diagnoses in FILES (each a diagnosis.json): every model with the first, on the questions both have.

    The same question is one with the same words and accepted answers; others are left out, and their number is said.
    """
    from openbook.diagnosis.comparison import compare as compare_two
    from openbook.diagnosis.results import read_outcomes

    found = [replace(each, name=f"{each.name} ({file})") for file in files for each in read_outcomes(file)]
    if len(found) < 2:
        raise ConfigError("There is only one model in there. Give two files or more, or one of several models.")
    comparisons = [compare_two(found[0], other) for other in found[1:]]
    if as_json:
        display.print_json({"comparisons": comparisons})
    else:
        display.print_comparisons(comparisons)


# --- probes -----------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("questions", type=PATH)
@DOCS
@KB
@MODEL
@click.option("--probe", "probes", multiple=True, help="One of those above (repeatable; default: all).")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Only the first N questions.")
@click.option("--report", type=PATH, help="Write what was found as a page for a browser.")
@JSON
def probe(
    questions: Path,
    docs: tuple[Path, ...],
    kb: Path | None,
    model: str | None,
    probes: tuple[str, ...],
    limit: int,
    report: Path | None,
    as_json: bool,
) -> None:
    """Find out with QUESTIONS whether answers follow the passages, and what disturbs them.

    \b
    counterfactual  a value in the passage is altered: does the answer follow?
    abstention      the passage is withheld: does the model say so or invent?
    noise           the passage at each rank, among more and more others

    Documents are never changed. Ctrl-C stops and shows what was measured so far. `openbook diagnose --probes` does the
    same with all options of a diagnosis, and goes on where it was stopped.
    """  # noqa: D301  click keeps the lines after this control character as they are
    from openbook.diagnosis.probes import PROBES, checked_names, run_probes, to_json
    from openbook.diagnosis.questions import questions_digest
    from openbook.diagnosis.report import write_probes_page
    from openbook.diagnosis.runner import Bench

    names = checked_names(probes or PROBES)
    context.check_places(docs, kb, questions)
    asked = _reviewed(questions)
    if report is not None:
        with storage_errors(f"write {report}"):  # before the work, not after it
            check_replaceable(report)
    # What is computed of altered passages must not outlive the run: no purge of a document would find it.
    current = context.settings(kb=kb, kv_disk=0, model=model)
    base, embedder = context.open_asked(current, docs)
    with (
        context.opened_model(current) as opened,
        display.progress() as progress,
        _until_interrupted() as interrupted,
    ):
        probed = run_probes(
            asked[:limit],
            Bench(opened, base, embedder, options=context.answer_options(current)),
            questions_digest(asked),
            names,
            progress=partial(progress, "probe"),
            cancelled=interrupted,
        )
    if as_json:
        display.print_json(to_json(probed))
    else:
        display.print_probes(probed)
    if report is not None:  # last: should the disk refuse it, what was found has been shown
        write_probes_page(report, f"Probes with {questions.name}", probed)
    if len(asked) > limit:
        display.note(f"The first {limit} of {len(asked):,} questions were taken; more with --limit.")
    if probed.stopped:
        display.note("Interrupted: what was measured until then is above.")
        raise click.exceptions.Exit(INTERRUPTED)


@contextmanager
def _until_interrupted() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed. The first one only asks to stop; a second ends the process as it does elsewhere."""
    asked = threading.Event()
    before = signal.getsignal(signal.SIGINT)

    def on_interrupt(_signal: int, _frame: object) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)
