"""`openbook diagnose, probe`: what the model knows, what retrieval fixes, and what disturbs its answers."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import click

import openbook
from openbook.cli import INTERRUPTED, context, display, on_cluster
from openbook.cli.options import DOCS, EXISTING, JSON, KB, MODEL, PATH, ScopeOptions, cluster_option, scope_options
from openbook.config import Place
from openbook.errors import ConfigError, EngineError, OpenBookError
from openbook.records import canonical_json, sha256_hex

if TYPE_CHECKING:
    from openbook import FrozenModel, KnowledgeBase, Scope
    from openbook.config import Settings
    from openbook.diagnosis.bench import Bench
    from openbook.diagnosis.probes import ProbeRun
    from openbook.diagnosis.questions import Question
    from openbook.diagnosis.report import Extras
    from openbook.diagnosis.summary import Comparison, ModelSummary, Share


class _RunByDefault(click.Group):
    """`openbook diagnose FILE` is short for `openbook diagnose run FILE`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_RunByDefault)
def diagnose() -> None:
    """Measure what the model knows and what retrieval fixes.

    It asks your own questions. It also shows what only a better reader can fix.

    \b
    openbook diagnose questions.jsonl --docs handbook/
    openbook diagnose run --help
    """  # noqa: D301  click keeps the lines after this control character as they are


@diagnose.command()
@click.argument("questions", type=EXISTING)
@DOCS
@KB
@scope_options
@click.option("--model", "models", multiple=True, help="The name of a model (repeatable: they are compared).")
@click.option("--probes", is_flag=True, help="Also run the probes of openbook probe on these questions.")
@click.option("--judge", help="Let this model judge each answer, and report how often it agrees with the rules.")
@click.option("--limit", type=click.IntRange(1), help="Ask only the first N questions.")
@click.option("-o", "--output", type=PATH, help="Folder for the results (default: in OpenBook's home).")
@click.option("--csv", "table", type=PATH, help="Write a CSV table with a line for each question.")
@click.option(
    "--fail-under",
    type=click.FloatRange(0, 1),
    help="Exit with 1 if a smaller share of the answers with documents (0 to 1) is right.",
)
@cluster_option("Let the models answer on all machines of")
@JSON
def run(
    questions: Path,
    docs: tuple[Path, ...],
    kb: Place | None,
    scope: ScopeOptions,
    models: tuple[str, ...],
    probes: bool,
    judge: str | None,
    limit: int | None,
    output: Path | None,
    table: Path | None,
    fail_under: float | None,
    cluster: str | None,
    as_json: bool,
) -> None:
    """Ask each question three ways, and give it a verdict.

    QUESTIONS (JSON Lines, SQuAD or RAGAS) are asked alone, with documents, and with the right passage. What was asked
    is kept: a run that was stopped goes on with the same command.
    """
    from openbook.diagnosis import results
    from openbook.diagnosis.bench import Bench
    from openbook.diagnosis.questions import questions_digest
    from openbook.diagnosis.report import Extras

    if fail_under is not None and math.isnan(fail_under):
        raise ConfigError("--fail-under must be a number from 0 to 1, not nan.")
    settings = context.read_settings(docs=docs, kb=kb)
    table = _writable(table, questions)
    asked = _reviewed(questions)
    digest = questions_digest(asked)
    base, embedder = context.open_asked(settings, docs)
    seen = scope.of(base)
    folder = output or settings.diagnoses_dir / _name(questions, digest, base, seen, settings)
    files: list[Path] = []
    more: dict[str, Extras] = {}
    with on_cluster.models(settings, cluster) as (open_model, at_once):
        for name in dict.fromkeys(models or (settings.model,)):
            # What is computed of altered passages must not outlive the run: no purge of a document would find it.
            own = replace(settings, model=name, kv_disk=0 if probes else settings.kv_disk)
            with closing(open_model(own)) as model:
                bench = Bench(model, base, embedder, seen, openbook.Options.of(own), at_once).pinned()
                path, probed = _ask_all(asked[:limit], bench, digest, folder, probes=probes)
                files += [] if path in files else [path]  # one model may be asked for by two names
                if probed is not None:
                    more[model.identity.name] = Extras(probed)
        if judge is not None:
            with closing(open_model(replace(settings, model=judge))) as judging:
                _judge(judging, at_once, files, more, len(asked[:limit]))

    title = f"Diagnosis of {questions.name}"
    others = results.of_other_models(files)
    summaries, comparisons, numbers = results.write_results(folder, title, [*files, *others], limit, more)
    summaries, before = summaries[: len(files)], summaries[len(files) :]
    display.show(as_json, {**numbers, "folder": folder}, _print_diagnosis, summaries, comparisons, folder, more)
    if before:
        names = ", ".join(f"{each.name} ({each.overall.questions} questions)" for each in before)
        display.note(f"Also in the report, because they were asked before: {names}.")
    if table is not None:
        results.write_csv(table, files, limit)
    _check_results(summaries, files, fail_under)


def _ask_all(
    asked: Sequence[Question], bench: Bench, digest: str, folder: Path, *, probes: bool
) -> tuple[Path, ProbeRun | None]:
    """Ask the questions in all ways. Returns the file of what was observed, and what the probes found."""
    from openbook.diagnosis import results
    from openbook.diagnosis.runner import run_probes, run_questions

    path = results.observations_path(folder, bench.model.identity)
    with display.progress("diagnose") as show:
        run_questions(asked, bench, digest, path=path, progress=show)
    if not probes:
        return path, None
    with display.progress("probe") as show:
        found = results.probes_path(folder, bench.model.identity)
        return path, run_probes(asked, bench, digest, path=found, progress=show)


def _writable(table: Path | None, questions: Path) -> Path | None:
    """Where the table goes; a link to it stays one. Raises ConfigError, StorageError."""
    table = table and table.resolve()
    if table == questions.resolve():
        raise ConfigError(f"{table} holds the questions. Choose another file with --csv.")
    context.check_writable(table)
    return table


def _reviewed(path: Path) -> list[Question]:
    """The questions of the file. Raises ConfigError, also for drafts; StorageError."""
    from openbook.diagnosis.importers import load_questions

    questions = load_questions(path)
    drafts = sum(not question.reviewed for question in questions)
    if drafts:
        raise ConfigError(
            f"{drafts} of the {len(questions)} questions are drafts that nobody has reviewed. Review them: "
            f"openbook questions review {path}"
        )
    return questions


def _name(file: Path, digest: str, base: KnowledgeBase, scope: Scope, settings: Settings) -> str:
    """Where the results go by default: another place for other questions, documents or settings."""
    reading = [settings.passages, settings.strategy, settings.max_tokens, settings.context_tokens]
    asked = [digest, base.id, base.kept_version(scope.as_of), scope.where, sorted(scope.labels), reading]
    return f"{file.name.partition('.')[0][:40]}-{sha256_hex(canonical_json(asked))[:12]}"


def _judge(judge: FrozenModel, at_once: int, files: Sequence[Path], more: dict[str, Extras], questions: int) -> None:
    """Let a model judge the answers in these observations; its opinion goes into `more`."""
    from openbook.diagnosis.llm_judge import second_opinion
    from openbook.diagnosis.report import Extras
    from openbook.diagnosis.results import opinions_path
    from openbook.diagnosis.run_log import read_observations

    with display.progress("judge") as show:
        for file in files:
            model = read_observations(file)[0].model
            path = opinions_path(file.parent, judge.identity, model)
            opinion = second_opinion(file, judge, path, questions, at_once=at_once, progress=show)
            more[model.name] = replace(more.get(model.name, Extras()), opinion=opinion)


def _check_results(summaries: Sequence[ModelSummary], files: Sequence[Path], wanted: float | None) -> None:
    """Raises EngineError for a model that failed on everything, OpenBookError for one that is right on too few questions."""
    from openbook.diagnosis.run_log import read_observations

    for summary, file in zip(summaries, files, strict=True):
        group = summary.overall
        if group.failed == group.questions:
            why = next(each.failure for each in read_observations(file)[1])
            raise EngineError(
                f"Nothing was measured: {summary.name} failed on all {group.failed} questions. {why} "
                "When that is put right, run the same command: it asks them again."
            )
        # 0.55 is 55 of 100, exactly.
        if wanted is not None and group.right.count < Fraction(str(wanted)) * group.questions:
            failed = f", {group.failed} of which failed" if group.failed else ""
            raise OpenBookError(
                f"{summary.name} is right, or abstained rightly, on {group.right.count} of {group.questions} questions{failed}: "
                f"less than --fail-under {wanted:g}."
            )


@diagnose.command()
@click.argument("files", nargs=-1, required=True, type=PATH)
@JSON
def compare(files: tuple[Path, ...], as_json: bool) -> None:
    """Compare the models of diagnoses, each with the first.

    FILES are diagnosis.json files. Only questions that both models were asked are compared: the same words and the same
    accepted answers. Other questions are left out and counted.
    """
    from openbook.diagnosis.results import read_outcomes
    from openbook.diagnosis.summary import compare as compare_two

    found = [replace(each, name=f"{each.name} ({file})") for file in files for each in read_outcomes(file)]
    if len(found) < 2:
        raise ConfigError("There is only one model in there. Give two files or more, or one of several models.")
    comparisons = [compare_two(found[0], other) for other in found[1:]]
    display.show(as_json, {"comparisons": comparisons}, _print_comparisons, comparisons)


# --- probes -----------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("questions", type=EXISTING)
@DOCS
@KB
@MODEL
@click.option(
    "--probe",
    "probes",
    type=click.Choice(["counterfactual", "abstention", "noise"]),
    multiple=True,
    help="One of those above (repeatable; default: all).",
)
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Only the first N questions.")
@JSON
def probe(
    questions: Path,
    docs: tuple[Path, ...],
    kb: Place | None,
    model: str | None,
    probes: tuple[str, ...],
    limit: int,
    as_json: bool,
) -> None:
    """Find out whether answers follow the passages.

    QUESTIONS is a file of questions. The probes also show what disturbs the answers.

    \b
    counterfactual  a value in the passage is altered: does the answer follow?
    abstention      the passage is withheld: does the model say so or invent?
    noise           the passage at each rank, among more and more others

    Documents are never changed. Ctrl-C stops and shows what was measured so far. `openbook diagnose --probes` does the
    same with all options of a diagnosis, goes on where it was stopped, and writes a page for a browser.
    """  # noqa: D301  click keeps the lines after this control character as they are
    from openbook.diagnosis.bench import Bench
    from openbook.diagnosis.probes import PROBES, to_json
    from openbook.diagnosis.questions import questions_digest
    from openbook.diagnosis.runner import run_probes

    # What is computed of altered passages must not outlive the run: no purge of a document would find it.
    settings = context.read_settings(docs=docs, kb=kb, kv_disk=0, model=model)
    asked = _reviewed(questions)
    base, embedder = context.open_asked(settings, docs)
    with (
        closing(context.model_opener(settings)()) as opened,
        display.progress("probe") as show,
        _until_interrupted() as interrupted,
    ):
        probed = run_probes(
            asked[:limit],
            Bench(opened, base, embedder, options=openbook.Options.of(settings)),
            questions_digest(asked),
            probes or PROBES,
            progress=show,
            cancelled=interrupted,
        )
    display.show(as_json, to_json(probed), _print_probes, probed)
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


# --- what is printed --------------------------------------------------------------------------------------------------

_MAX_TAGS = 15
_MAX_MOVES = 10


def _print_diagnosis(
    summaries: Sequence[ModelSummary], comparisons: Sequence[Comparison], folder: Path, more: Mapping[str, Extras]
) -> None:
    from openbook.diagnosis.results import NUMBERS, REPORT

    for summary in summaries:
        _print_model(summary)
        found = more.get(summary.name)
        if found and found.probe_run:
            _print_probes(found.probe_run)
        if found and found.opinion:
            display.say(f"\n{found.opinion}")
    _print_comparisons(comparisons)
    display.say(
        f"\nreport  {display.short_path(folder / REPORT)}\nnumbers {display.short_path(folder / NUMBERS)}", "dim"
    )


def _print_model(summary: ModelSummary) -> None:
    from openbook.diagnosis.advice import advice
    from openbook.diagnosis.summary import SHARED

    group = summary.overall
    failed = f", {group.failed} failed and not counted" if group.failed else ""
    display.say(f"\n{summary.name}: {group.questions} questions{failed}", "bold")
    verdicts = [(verdict.replace("_", " "), *_in_words(group.verdicts[verdict])) for verdict in SHARED]
    _print_table(("verdict", "questions", "share", "95 %"), verdicts)
    for name, groups in (("kind", summary.by_kind if len(summary.by_kind) > 1 else {}), ("tag", summary.by_tag)):
        most = sorted(groups.items(), key=lambda each: (-each[1].questions, each[0]))[:_MAX_TAGS]
        if most:
            rows = [(key, str(each.questions), str(each.right)) for key, each in most]
            _print_table((name, "questions", "right, or abstained rightly"), rows)
        if len(groups) > len(most):
            display.say(f"and {len(groups) - len(most)} more in the report", "dim")
    for finding in advice(summary):
        display.say(f"• {finding}")


def _in_words(found: Share) -> tuple[str, str, str]:
    """(how many of how many, the share, its interval)."""
    if found.share is None or found.low is None or found.high is None:
        return f"{found.count}/{found.of}", "no data", ""
    return f"{found.count}/{found.of}", f"{found.share:.1%}", f"{100 * found.low:.0f} to {100 * found.high:.0f}"


def _print_probes(probed: ProbeRun) -> None:
    """For each probe a table and what it means."""
    from openbook.diagnosis.probes import PROBES

    stopped = " before it was stopped" if probed.stopped else ""
    display.say(f"\n{probed.header.model.name}: {probed.questions} questions probed{stopped}", "bold")
    for name, result in probed.results.items():
        display.say(f"\n{PROBES[name].title}", "cyan")
        rows = [(what, *_in_words(share)) for what, share in result.rows()]
        _print_table(("", "questions", "share", "95 %"), rows)
        display.say(result.meaning())
        if result.left_out:
            reasons = ", ".join(f"{reason}: {number}" for reason, number in result.left_out.items())
            display.say(f"Left out: {reasons}", "dim")


def _print_comparisons(comparisons: Sequence[Comparison]) -> None:
    for each in comparisons:
        display.say(f"\n{each.first} against {each.second}, {each.questions} questions", "bold")
        rows = {"right in both": each.both_right, f"only {each.first}": each.only_first}
        rows[f"only {each.second}"] = each.only_second
        _print_table(("", "questions"), [(name, str(number)) for name, number in rows.items()])
        for line in each.all_notes():
            display.say(line, "yellow")
        display.say(f"McNemar's test, two-sided: p = {each.p_text}")
        for before, after, number in each.moved[:_MAX_MOVES]:
            display.say(f"{number:>5}  {before.replace('_', ' ')} → {after.replace('_', ' ')}")


def _print_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, pad_edge=False, show_edge=False, header_style="dim")
    for head in heads:
        table.add_column(head, justify="right" if head in ("questions", "share") else "left")
    for row in rows:
        table.add_row(*(Text(display.printable(cell)) for cell in row))
    display.console().print(table)
