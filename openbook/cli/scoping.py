"""The options with which `ask` and `search` say what they may see."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from openbook.knowledge import KnowledgeBase, Scope


def scope_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--label", "labels", multiple=True, help="An access label that you hold (repeatable)."),
        click.option(
            "--where", default="", help="Only documents that match, such as \"type = 'pdf' and date >= 2025-01-01\"."
        ),
        click.option(
            "--as-of",
            help="A kept version: its number, a tag or a time (UTC) such as 2026-01-31T12:00; a date means its end.",
        ),
    ):
        command = option(command)
    return command


def scope_of(base: KnowledgeBase, as_of: str | None, where: str, labels: tuple[str, ...]) -> Scope:
    """Raises QuestionError or KnowledgeError for what is not valid; says so when no document has a key of the filter."""
    from openbook.cli.session import error_console
    from openbook.errors import did_you_mean
    from openbook.knowledge.filter_parser import parse_filter
    from openbook.knowledge.scope import Scope, checked_labels
    from openbook.knowledge.versions import resolve_version

    scope = Scope(resolve_version(base, as_of) if as_of is not None else None, where.strip(), checked_labels(labels))
    if scope.where:
        known = base.metadata_keys(scope)
        asked = parse_filter(scope.where).keys
        for key in asked:
            if key not in known:
                note = f"No document has {key!r}.{did_you_mean(key, known)} Keys: {', '.join(sorted(known)[:30])}"
                error_console().print(note, style="yellow", markup=False, soft_wrap=True)
    return scope
