"""`openbook diagnose`: what the model knows, what retrieval fixes, and what only a better reader can fix."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from openbook.cli.asking import (
    check_places,
    greedy_options,
    open_asked,
    question_file_options,
    reading_options,
    surveyed,
)
from openbook.cli.scoping import scope_of
from openbook.errors import ConfigError, EngineError, OpenBookError

if TYPE_CHECKING:
    from openbook.config import Settings
    from openbook.diagnosis.probes import ProbeRun
    from openbook.diagnosis.questions import Question, Survey
    from openbook.diagnosis.report import Extras
    from openbook.diagnosis.runner import Bench
    from openbook.diagnosis.summary import ModelSummary
    from openbook.knowledge import KnowledgeBase
    from openbook.knowledge.scope import Scope
    from openbook.records import Embedder


class _RunIsMeant(click.Group):
    """`openbook diagnose FILE` is short for `openbook diagnose run FILE`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_RunIsMeant)
def diagnose() -> None:
    """Measure on your own questions what the model knows, what retrieval fixes, and what only a better reader can fix.

    \b
    openbook diagnose questions.jsonl --docs handbook/
    openbook diagnose run --help
    """  # noqa: D301  click keeps the lines after this control character as they are


class _Share(click.FloatRange):
    """A number from 0 to 1; FloatRange alone takes "nan" for one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found: float = super().convert(value, param, ctx)
        if math.isnan(found):
            self.fail(f"{value!r} is not a number from 0 to 1.", param, ctx)
        return found


def _more_options(command: Callable[..., None]) -> Callable[..., None]:
    """What else is measured: `probes` and `judge`."""
    for option in (
        click.option(
            "--probes",
            is_flag=True,
            help="Also run the probes of openbook probe on these questions, for the same report.",
        ),
        click.option(
            "--judge", help="Let this model judge each answer, and report how often it agrees with the rules."
        ),
    ):
        command = option(command)
    return command


@diagnose.command()
@click.argument("questions", type=click.Path(path_type=Path))
@reading_options
@question_file_options
@click.option("--model", "models", multiple=True, help="A stored model (repeatable: they are compared).")
@_more_options
@click.option("--limit", type=click.IntRange(1), help="Ask only the first N questions.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the results (default: in OpenBook's home).")
@click.option(
    "--csv", "csv_file", type=click.Path(path_type=Path), help="Write a CSV table with a line for each question."
)
@click.option(
    "--fail-under",
    type=_Share(0.0, 1.0),
    help="Fail when a smaller share of all questions is right with documents; one on which the model failed is not right.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def run(
    questions: Path,
    docs: tuple[Path, ...],
    kb: Path | None,
    models: tuple[str, ...],
    as_of: str | None,
    where: str,
    labels: tuple[str, ...],
    file_format: str,
    with_drafts: bool,
    probes: bool,
    judge: str | None,
    limit: int | None,
    out: Path | None,
    csv_file: Path | None,
    fail_under: float | None,
    as_json: bool,
    **reading: object,
) -> None:
    """Ask QUESTIONS (JSON Lines, SQuAD or RAGAS) alone, with documents, and with the right passage; give each a verdict.

    What was asked is kept: a run that was stopped goes on with the same command.
    """
    from openbook.cli import session
    from openbook.diagnosis import results

    check_places(docs, kb, questions)
    _check_table(csv_file)  # before the work, not after it
    found = surveyed(questions, file_format, with_drafts=with_drafts)
    current = session.settings(kb=kb, **reading)
    base, embedder = open_asked(current, docs)
    scope = scope_of(base, as_of, where, labels)
    folder = out or current.diagnoses_dir / _name(questions, found, base, scope, current)
    job = _Job(questions, file_format, found, limit, folder, probes=probes)
    files = []
    more: dict[str, Extras] = {}
    # What is computed of altered passages must not outlive the run: no purge of a document would find it.
    kept = {"kv_disk": 0} if probes else {}
    for name in dict.fromkeys(models or (current.model,)):
        file, probed = _examined(job, session.settings(kb=kb, model=name, **kept, **reading), base, embedder, scope)
        files.append(file)
        more |= probed
    if judge is not None:
        more = _judged(session.settings(kb=kb, model=judge, **reading), files, more, limit)
    summaries = _reported(job, files, more, as_json=as_json)
    if csv_file is not None:
        results.write_csv(csv_file, files, limit)
    _must_have_measured(summaries, files)
    _must_reach(summaries, fail_under)


def _check_table(csv_file: Path | None) -> None:
    """Raises StorageError if no file can be put there."""
    from openbook.files import check_replaceable, storage_errors

    if csv_file is not None:
        with storage_errors(f"write {csv_file}"):
            check_replaceable(csv_file)


@dataclass(frozen=True, slots=True)
class _Job:
    """What is asked, and where it is kept. `probes`: whether they are put to the questions as well."""

    questions: Path
    file_format: str
    survey: Survey
    limit: int | None
    folder: Path
    probes: bool = False

    @property
    def total(self) -> int:
        return min(self.limit or self.survey.questions, self.survey.questions)

    def asked(self) -> Iterator[Question]:
        """Raises ConfigError when the file has changed since the survey."""
        from openbook.diagnosis.questions import load_questions, unchanged

        return islice(unchanged(load_questions(self.questions, self.file_format), self.survey), self.limit)


def _examined(
    job: _Job, current: Settings, base: KnowledgeBase, embedder: Embedder, scope: Scope
) -> tuple[Path, dict[str, Extras]]:
    """Put the questions to the model of the settings: the file of what was observed, and by its name what else was."""
    from openbook.cli import session
    from openbook.diagnosis.report import Extras
    from openbook.diagnosis.results import observations_path
    from openbook.diagnosis.run_log import open_run_log
    from openbook.diagnosis.runner import Bench, run_questions

    options = greedy_options(current)
    model = session.model_opener(current)()
    try:
        bench = Bench(model, base, embedder, scope, options).pinned()
        path = observations_path(job.folder, model.identity)
        with open_run_log(path, bench.header(job.survey.digest)) as log, session.add_progress() as progress:
            run_questions(
                job.asked(), bench, log, total=job.total, progress=lambda done, of: progress("diagnose", done, of)
            )
        more = {model.identity.name: Extras(_probed(job, bench))} if job.probes else {}
        return path, more
    finally:
        model.close()


def _probed(job: _Job, bench: Bench) -> ProbeRun:
    """Put the probes to the questions. What was seen is kept beside the observations, and not asked again."""
    from openbook.cli import session
    from openbook.diagnosis.probes import run_probes
    from openbook.diagnosis.results import probes_path

    with session.add_progress() as progress:
        return run_probes(
            job.asked(),
            bench,
            job.survey.digest,
            path=probes_path(job.folder, bench.model.identity),
            total=job.total,
            progress=lambda done, of: progress("probe", done, of),
        )


def _reported(job: _Job, files: Sequence[Path], more: Mapping[str, Extras], *, as_json: bool) -> list[ModelSummary]:
    """Write the numbers and the page, also of models that were asked before, and show those of these files."""
    from openbook.cli import display, display_diagnosis
    from openbook.diagnosis import results

    title = f"Diagnosis of {job.questions.name}"
    others = results.of_other_models(files)
    summaries, comparisons = results.write_results(job.folder, title, [*files, *others], job.limit, more)
    asked, before = summaries[: len(files)], summaries[len(files) :]
    if as_json:
        display.print_json({**results.numbers(title, summaries, comparisons, more), "folder": str(job.folder)})
    else:
        display_diagnosis.print_diagnosis(asked, comparisons, job.folder, more)
    if before:
        names = ", ".join(f"{display.printable(each.name)} ({each.overall.questions} questions)" for each in before)
        click.echo(f"Also in the report, because they were asked before: {names}.", err=True)
    return asked


def _judged(
    current: Settings, files: Sequence[Path], more: Mapping[str, Extras], limit: int | None
) -> dict[str, Extras]:
    """What else was measured, with what the model of the settings says of the answers in these observations."""
    from openbook.cli import session
    from openbook.diagnosis.llm_judge import second_opinion
    from openbook.diagnosis.report import Extras
    from openbook.diagnosis.results import opinions_path
    from openbook.diagnosis.run_log import read_observations

    found = dict(more)
    judge = session.model_opener(current)()
    try:
        for file in files:
            model = read_observations(file)[0].model
            path = opinions_path(file.parent, judge.identity, model)
            with session.add_progress() as progress:
                opinion = second_opinion(
                    file, judge, path, limit=limit, progress=lambda done, of: progress("judge", done, of)
                )
            found[model.name] = replace(found.get(model.name, Extras()), opinion=opinion)
        return found
    finally:
        judge.close()


def _name(questions: Path, survey: Survey, base: KnowledgeBase, scope: Scope, current: Settings) -> str:
    """Where the results go by default: another place for other questions, documents or settings."""
    from openbook.records import canonical_json, sha256_hex

    reading = [current.passages, current.strategy, current.max_tokens, current.context_tokens]
    of = [survey.digest, base.id, base.kept_version(scope.as_of), scope.where, sorted(scope.labels), reading]
    return f"{questions.name.partition('.')[0][:40]}-{sha256_hex(canonical_json(of))[:12]}"


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
    """Raises OpenBookError for a model that is right on too few questions. One on which it failed is not right.

    0.55 is 55 of 100, and not the binary number next to it.
    """
    if wanted is None:
        return
    for summary in summaries:
        group = summary.overall
        if group.right.share is None or group.right.count < Fraction(str(wanted)) * group.questions:
            failed = f", {group.failed} of which failed" if group.failed else ""
            raise OpenBookError(
                f"{summary.name} is right, or rightly silent, on {group.right.count} of {group.questions} questions{failed}: "
                f"less than --fail-under {wanted:g}."
            )


@diagnose.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def compare(files: tuple[Path, ...], as_json: bool) -> None:
    """Compare the diagnoses in FILES (each a diagnosis.json): every model with the first, on the questions both have.

    The same question is one with the same words and accepted answers; others are left out, and their number is said.
    """
    import dataclasses

    from openbook.cli import display, display_diagnosis
    from openbook.diagnosis.comparison import compare as compare_two
    from openbook.diagnosis.results import read_outcomes

    found = [replace(each, name=f"{each.name} ({file})") for file in files for each in read_outcomes(file)]
    if len(found) < 2:
        raise ConfigError("There is only one model in there. Give two files or more, or one of several models.")
    comparisons = [compare_two(found[0], other) for other in found[1:]]
    if as_json:
        display.print_json({"comparisons": [dataclasses.asdict(each) for each in comparisons]})
        return
    display_diagnosis.print_comparisons(comparisons)
