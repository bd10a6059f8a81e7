"""`openbook diagnose`: facts that the model knows, that retrieval adds, and that only training can."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import click

from openbook.answers.answer_text import printable
from openbook.cli import context, display, on_cluster
from openbook.cli.options import DOCS, EXISTING, JSON, KB, PATH, ScopeOptions, cluster_option, scope_options
from openbook.core.config import Place
from openbook.core.errors import ConfigError, EngineError, OpenBookError
from openbook.core.records import canonical_json, sha256_hex

if TYPE_CHECKING:
    from openbook.core.config import Settings
    from openbook.diagnosis.questions import Question
    from openbook.diagnosis.summary import Comparison, ModelSummary
    from openbook.knowledge import KnowledgeBase, Scope


class _RunByDefault(click.Group):
    """Makes `openbook diagnose FILE` mean `openbook diagnose run FILE`."""

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
@click.option("--limit", type=click.IntRange(1), help="Ask only the first N questions.")
@click.option("-o", "--output", type=PATH, help="Folder for the results (default: in OpenBook's home).")
@click.option(
    "--fail-under",
    type=click.FloatRange(0, 1),
    help="Exit with 1 if the share of right answers with documents (0 to 1) is smaller.",
)
@cluster_option("Let the models answer on all machines of")
@JSON
def run(
    questions: Path,
    docs: tuple[Path, ...],
    kb: Place | None,
    scope: ScopeOptions,
    models: tuple[str, ...],
    limit: int | None,
    output: Path | None,
    fail_under: float | None,
    cluster: str | None,
    as_json: bool,
) -> None:
    """Ask each question three ways, and give it a verdict.

    QUESTIONS (JSON Lines) are asked alone, with documents, and with the right passage. Answers
    are kept: to continue after a stop, run the same command again.
    """
    from openbook.answers.retrieval import Options
    from openbook.diagnosis import report
    from openbook.diagnosis.questions import questions_digest
    from openbook.diagnosis.runner import Bench, run_questions

    if fail_under is not None and math.isnan(fail_under):
        raise ConfigError("--fail-under must be a number from 0 to 1, not nan.")
    settings = context.read_settings(docs=docs, kb=kb)
    asked = _reviewed(questions)
    digest = questions_digest(asked)
    corpus = scope.view_of(context.prepared(context.library(settings, docs), scope.as_of, model=False)).corpus
    base, embedder, seen = corpus.base, corpus.embedder, corpus.scope
    folder = output or settings.diagnoses_dir / _name(questions, digest, base, seen, settings)
    files: list[Path] = []
    with on_cluster.models(settings, cluster) as (open_model, at_once):
        for name in dict.fromkeys(models or (settings.model,)):
            own = replace(settings, model=name)
            with closing(open_model(own)) as model:
                bench = Bench(model, base, embedder, seen, Options.of(own), at_once).pinned()
                path = report.observations_path(folder, model.identity)
                with display.progress("diagnose") as show:
                    run_questions(asked[:limit], bench, digest, path=path, progress=show)
                files += [] if path in files else [path]  # two names may mean one model

    title = f"Diagnosis of {questions.name}"
    limits = Options.of(settings).limits
    summaries, comparisons, numbers = report.write_results(folder, title, files, limit, limits)
    display.show(as_json, {**numbers, "folder": folder}, _print_diagnosis, summaries, comparisons, folder)
    _check_results(summaries, files, fail_under)


def _reviewed(path: Path) -> list[Question]:
    """Raises ConfigError, also for drafts."""
    from openbook.diagnosis.questions import load_questions

    questions = load_questions(path)
    drafts = sum(not question.reviewed for question in questions)
    if drafts:
        raise ConfigError(
            f"{drafts} of the {len(questions)} questions are unreviewed drafts. Review them: "
            f"openbook questions review {path}"
        )
    return questions


def _name(file: Path, digest: str, base: KnowledgeBase, scope: Scope, settings: Settings) -> str:
    """Other questions, documents or settings have another folder."""
    reading = [settings.passages, settings.strategy, settings.max_tokens, settings.context_tokens]
    asked = [digest, base.id, base.kept_version(scope.as_of), scope.where, sorted(scope.labels), reading]
    return f"{file.name.partition('.')[0][:40]}-{sha256_hex(canonical_json(asked))[:12]}"


def _check_results(summaries: Sequence[ModelSummary], files: Sequence[Path], wanted: float | None) -> None:
    """Raises EngineError if a model failed on everything, OpenBookError if it is right on too few questions."""
    from openbook.diagnosis.run_log import read_observations

    for summary, file in zip(summaries, files, strict=True):
        group = summary.overall
        if summary.nothing_measured:
            why = next(each.failure for each in read_observations(file)[1])
            raise EngineError(
                f"Nothing was measured: {summary.name} failed on all {group.failed} questions. {why} "
                "When that is put right, run the same command: it asks them again."
            )
        # 0.55 is exactly 55 of 100.
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
    from openbook.diagnosis.report import read_outcomes
    from openbook.diagnosis.summary import compare as compare_two

    found = [replace(each, name=f"{each.name} ({file})") for file in files for each in read_outcomes(file)]
    if len(found) < 2:
        raise ConfigError("There is only one model in there. Give two files or more, or one of several models.")
    comparisons = [compare_two(found[0], other) for other in found[1:]]
    display.show(as_json, {"comparisons": comparisons}, _print_comparisons, comparisons)


# --- what is printed --------------------------------------------------------------------------------------------------

_MAX_TAGS = 15
_MAX_MOVES = 10


def _print_diagnosis(summaries: Sequence[ModelSummary], comparisons: Sequence[Comparison], folder: Path) -> None:
    from openbook.diagnosis.report import NUMBERS, REPORT

    for summary in summaries:
        _print_model(summary)
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
    verdicts = [(verdict.replace("_", " "), str(group.verdicts[verdict])) for verdict in SHARED]
    _print_table(("verdict", "share and its 95 % interval"), verdicts)
    for name, groups in (("kind", summary.by_kind if len(summary.by_kind) > 1 else {}), ("tag", summary.by_tag)):
        most = sorted(groups.items(), key=lambda each: (-each[1].questions, each[0]))[:_MAX_TAGS]
        if most:
            rows = [(key, str(each.questions), str(each.right)) for key, each in most]
            _print_table((name, "questions", "right, or abstained rightly"), rows)
        if len(groups) > len(most):
            display.say(f"and {len(groups) - len(most)} more in the report", "dim")
    for finding in advice(summary):
        display.say(f"• {finding}")
    found = summary.calibration
    words = [(word, str(share)) for word, share in found.words.items() if share.of]
    _print_table(("certainty", "right"), words)
    for note in filter(None, (*found.notes(), found.settings)):
        display.say(note)


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
        table.add_column(head, justify="right" if head == "questions" else "left")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    display.console().print(table)
