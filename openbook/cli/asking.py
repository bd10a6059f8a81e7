"""The options that `ask`, `chat`, `diagnose` and `probe` share: what is asked, how it is read, and from which questions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from openbook.cli.scoping import scope_options
from openbook.errors import ConfigError

if TYPE_CHECKING:
    from openbook.answer import Options
    from openbook.config import Settings
    from openbook.diagnosis.questions import Survey
    from openbook.knowledge import KnowledgeBase
    from openbook.records import Embedder

_Command: TypeAlias = Callable[..., Any]


def reading_options(command: _Command) -> _Command:
    """Which documents are asked and how they are read: `docs`, `kb`, those of `scope_options`, and settings."""
    return _with(
        command,
        click.option(
            "--docs", multiple=True, type=click.Path(path_type=Path), help="Ask these files or folders (repeatable)."
        ),
        click.option("--kb", type=click.Path(path_type=Path), help="Ask this knowledge base (default: your own)."),
        scope_options,
        click.option("--passages", type=int, help="How many passages the model reads."),
        click.option(
            "--strategy",
            type=click.Choice(["auto", "each", "parallel", "checked", "together"]),
            help="Read each passage on its own and answer from one, or from all (parallel), or all in one prompt (auto: what suits the model).",
        ),
        click.option("--max-tokens", type=int, help="Longest answer, in tokens."),
        click.option("--base-url", help="Use an OpenAI-compatible server instead of a local model."),
    )


def question_file_options(command: _Command) -> _Command:
    """How the file of questions is read: `file_format` and `with_drafts`."""
    from_file = "openbook, squad or ragas (default: detected from the file)."
    return _with(
        command,
        click.option("--format", "file_format", default="", help=from_file),
        click.option("--with-drafts", is_flag=True, help="Also ask proposed questions that nobody has reviewed."),
    )


def _with(command: _Command, *options: Callable[[_Command], _Command]) -> _Command:
    """The command with these options, which its help shows in this order."""
    for option in reversed(options):
        command = option(command)
    return command


def check_places(docs: Iterable[Path], kb: Path | None, *files: Path) -> None:
    """Raises ConfigError for documents and a knowledge base at once, KnowledgeError for what is not there."""
    from openbook.knowledge.discovery import check_exists

    docs = list(docs)
    if docs and kb is not None:
        raise ConfigError("--docs and --kb exclude each other; give one of them.")
    for path in (*files, *docs):
        check_exists(path)


def surveyed(questions: Path, file_format: str, *, with_drafts: bool) -> Survey:
    """What the file holds. Raises ConfigError, also for drafts that are not meant; StorageError."""
    from openbook.diagnosis.questions import load_questions, survey

    found = survey(load_questions(questions, file_format))
    if found.drafts and not with_drafts:
        raise ConfigError(
            f"{found.drafts} of the {found.questions} questions are drafts that nobody has reviewed. Review them, or give --with-drafts to openbook diagnose."
        )
    return found


def greedy_options(current: Settings) -> Options:
    """How the settings have questions answered, always the same."""
    from openbook.answer import Options
    from openbook.cli import session
    from openbook.records import Decoding

    return Options(current.passages, session.strategy(current), Decoding(max_tokens=current.max_tokens))


def open_asked(current: Settings, docs: tuple[Path, ...], full_check: bool = False) -> tuple[KnowledgeBase, Embedder]:
    """The knowledge base of exactly these documents, or without any that of the settings; it holds something."""
    from openbook.cli import display, session
    from openbook.knowledge.docs_cache import for_documents

    if not docs:
        base, embedder = session.open_base(current, full_check=full_check)
        display.must_hold_documents(base, str(current.default_kb))
        return base, embedder
    embedder = session.open_embedder(current, full_check=full_check)
    sizing = session.sizing_of(current)
    with session.run_options(current) as options:
        base, report = for_documents(docs, current.cache_dir, embedder, options, sizing)
    if report is not None:
        display.print_verdicts(report.verdicts, only_problems=True)
    display.must_hold_documents(base, ", ".join(map(str, docs)))
    return base, embedder
