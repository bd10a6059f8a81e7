"""`openbook diagnose`: what the model knows, what retrieval fixes, and what only a better reader can fix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from openbook.cli.scoping import scope_of, scope_options
from openbook.cli.teach import teach
from openbook.errors import ConfigError, OpenBookError

if TYPE_CHECKING:
    from openbook.config import Settings
    from openbook.diagnosis.questions import Survey
    from openbook.diagnosis.summary import ModelSummary
    from openbook.knowledge import KnowledgeBase
    from openbook.knowledge.scope import Scope
    from openbook.records import Embedder


class _RunIsMeant(click.Group):
    """`openbook diagnose FILE` is short for `openbook diagnose run FILE`, and `--teach` is another word for `teach`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] == "--teach":
            args = ["teach", *args[1:]]
        elif args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_RunIsMeant)
def diagnose() -> None:
    """Measure on your own questions what the model knows, what retrieval fixes, and what only a better reader can fix.

    \b
    openbook diagnose questions.jsonl --docs handbook/
    openbook diagnose run --help
    openbook diagnose --teach --help   what does a fact cost, by training and by retrieval?
    """  # noqa: D301  click keeps the lines after this control character as they are


@diagnose.command()
@click.argument("questions", type=click.Path(path_type=Path))
@click.option("--docs", multiple=True, type=click.Path(path_type=Path), help="Ask these files or folders (repeatable).")
@click.option("--kb", type=click.Path(path_type=Path), help="Ask this knowledge base (default: your own).")
@click.option("--model", "models", multiple=True, help="A stored model (repeatable: they are compared).")
@click.option("--passages", type=int, help="How many passages the model reads.")
@click.option(
    "--strategy",
    type=click.Choice(["auto", "each", "together"]),
    help="Read each passage on its own, or all in one prompt (auto: what suits the model).",
)
@scope_options
@click.option("--max-tokens", type=int, help="Longest answer, in tokens.")
@click.option("--base-url", help="Use an OpenAI-compatible server instead of a local model.")
@click.option("--format", "file_format", default="", help="openbook, squad or ragas (default: by what is in the file).")
@click.option("--with-drafts", is_flag=True, help="Also ask proposed questions that nobody has reviewed.")
@click.option("--limit", type=click.IntRange(1), help="Only the first so many questions.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the results (default: in OpenBook's home).")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="Write a table with a line for each question.")
@click.option(
    "--fail-under", type=click.FloatRange(0.0, 1.0), help="Fail when a smaller share is right with documents."
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
    from openbook.cli import display, display_diagnosis, session
    from openbook.cli.ask import open_asked
    from openbook.diagnosis import results
    from openbook.diagnosis.questions import load_questions, survey
    from openbook.knowledge.discovery import check_exists

    if docs and kb is not None:
        raise ConfigError("--docs and --kb exclude each other; give one of them.")
    for path in (questions, *docs):
        check_exists(path)
    found = survey(load_questions(questions, file_format))
    if found.drafts and not with_drafts:
        raise ConfigError(
            f"{found.drafts} of the {found.questions} questions are drafts that nobody has reviewed. Review them, or give --with-drafts."
        )
    current = session.settings(kb=kb, **reading)
    base, embedder = open_asked(current, docs)
    scope = scope_of(base, as_of, where, labels)
    folder = out or current.diagnoses_dir / _name(questions, found, base, scope, current)
    job = _Job(questions, file_format, found, limit, folder)
    files = []
    for name in dict.fromkeys(models or (current.model,)):
        files.append(_examined(job, session.settings(kb=kb, model=name, **reading), base, embedder, scope))
    title = f"Diagnosis of {questions.name}"
    summaries, comparisons = results.write_results(folder, title, files, limit)
    if csv_file is not None:
        results.write_csv(csv_file, files, limit)
    if as_json:
        display.print_json({**results.numbers(title, summaries, comparisons), "folder": str(folder)})
    else:
        display_diagnosis.print_diagnosis(summaries, comparisons, folder)
    _must_reach(summaries, fail_under)


@dataclass(frozen=True, slots=True)
class _Job:
    """What is asked, and where it is kept."""

    questions: Path
    file_format: str
    survey: Survey
    limit: int | None
    folder: Path


def _examined(job: _Job, current: Settings, base: KnowledgeBase, embedder: Embedder, scope: Scope) -> Path:
    """Put the questions to the model of the settings. The file of what was observed."""
    from openbook.answer import Options
    from openbook.cli import session
    from openbook.diagnosis.examining import Bench, examine, header_for
    from openbook.diagnosis.observations import recording
    from openbook.diagnosis.questions import load_questions
    from openbook.diagnosis.results import observations_path
    from openbook.records import Decoding

    decoding = Decoding(max_tokens=current.max_tokens, stop=("\n",))
    options = Options(current.passages, session.strategy(current), decoding)
    model = session.model_opener(current)()
    try:
        bench = Bench(model, base, embedder, scope, options).pinned()
        path = observations_path(job.folder, model.identity)
        total = min(job.limit or job.survey.questions, job.survey.questions)
        asked = islice(load_questions(job.questions, job.file_format), job.limit)
        with recording(path, header_for(bench, job.survey.digest)) as record, session.add_progress() as progress:
            examine(asked, bench, record, total=total, progress=lambda done, of: progress("diagnose", done, of))
        return path
    finally:
        model.close()


def _name(questions: Path, survey: Survey, base: KnowledgeBase, scope: Scope, current: Settings) -> str:
    """Where the results go by default: another place for other questions, documents or settings."""
    from openbook.records import canonical_json, sha256_hex

    reading = [current.passages, current.strategy, current.max_tokens, current.context_tokens]
    of = [survey.digest, base.id, base.kept_version(scope.as_of), scope.where, sorted(scope.labels), reading]
    return f"{questions.name.partition('.')[0][:40]}-{sha256_hex(canonical_json(of))[:12]}"


def _must_reach(summaries: Sequence[ModelSummary], wanted: float | None) -> None:
    """Raises OpenBookError for a model that is right on too few questions."""
    for summary in summaries:
        right = summary.overall.right
        if wanted is not None and (right.share is None or right.share < wanted):
            raise OpenBookError(
                f"{summary.name} is right, or rightly silent, on {right}: less than --fail-under {wanted:g}."
            )


diagnose.add_command(teach)


@diagnose.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def compare(files: tuple[Path, ...], as_json: bool) -> None:
    """Compare the diagnoses in FILES (each a diagnosis.json): every model with the first, on the questions both have."""
    import dataclasses

    from openbook.cli import display, display_diagnosis
    from openbook.diagnosis.results import read_outcomes
    from openbook.diagnosis.summary import compare as compare_outcomes

    found = [(f"{name} ({file})", outcomes) for file in files for name, outcomes in read_outcomes(file)]
    if len(found) < 2:
        raise ConfigError("There is only one model in there. Give two files or more, or one of several models.")
    (first, one), *others = found
    comparisons = [compare_outcomes(first, one, second, other) for second, other in others]
    if as_json:
        display.print_json({"comparisons": [dataclasses.asdict(each) for each in comparisons]})
        return
    display_diagnosis.print_comparisons(comparisons)
