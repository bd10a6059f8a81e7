"""Options shared by several commands."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from openbook.cli import display
from openbook.core.config import parse_place, shown_url
from openbook.core.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from openbook.library import Library, View

Command: TypeAlias = Callable[..., Any]

PATH = click.Path(path_type=Path)


class _ExistingPath(click.Path):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Raises KnowledgeError, suggesting the nearest name, if nothing is there."""
        from openbook.knowledge.ingest.discovery import check_exists

        path: Any = super().convert(value, param, ctx)
        if not (self.allow_dash and value == "-"):
            check_exists(path)
        return path


def _replicas(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9][0-9]{0,3})(?:-([1-9][0-9]{0,3}))?", text)
    least, most = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if least > most:
        raise click.BadParameter(f"{text!r} is neither a number from 1 to 9999 nor two, such as 1-4.")
    return least, most


EXISTING = _ExistingPath(path_type=Path)
EXISTING_OR_DASH = _ExistingPath(path_type=Path, allow_dash=True)


class _Place(click.Path):
    """A folder or a database URL."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and "://" in value:
            return parse_place(value, source="--kb")
        if value == "":
            self.fail("an empty text names no folder.", param, ctx)
        return super().convert(value, param, ctx)


PLACE = _Place(path_type=Path)
KB = click.option(
    "--kb", type=PLACE, help="The knowledge base: a folder, or postgresql://host/name (default: your own)."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
DOCS = click.option(
    "--docs", multiple=True, type=EXISTING, help="Ask these files or folders instead of a knowledge base (repeatable)."
)
MODEL = click.option("--model", help="The name of a model. To see them: openbook models list --available")
REPLICAS = click.option(
    "--replicas",
    type=_replicas,
    metavar="N|MIN-MAX",
    help="How many replicas, or MIN-MAX as the load demands (default: 1).",
)
BASE_URL = click.option("--base-url", help="Use an OpenAI-compatible server instead of a local model.")
LABEL = click.option(
    "--label", "labels", multiple=True, help="Include documents that require this access label (repeatable)."
)
LOG = click.option("--log", type=PATH, help="Add each receipt to the log in this folder.")


def _webhook(url: str) -> str:
    if not re.fullmatch(r"https?://[^/\s]\S*", url):
        raise ConfigError(f"A webhook begins with http:// or https:// and a host, not {shown_url(url)!r}.")
    return url


WEBHOOK = click.option(
    "--webhook", metavar="URL", type=_webhook, help="Post each changed answer of a standing question here, as JSON."
)
YES = click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")


def cluster_option(does: str, *, by_client: bool = False) -> Callable[[Command], Command]:
    """`--cluster`. `does`: its use, for the help. `by_client`: Ray's client works too."""
    client = "ray://HOST:PORT, " if by_client else ""
    addresses = f"HOST:PORT, {client}auto, or local for a new one on this machine"
    return click.option("--cluster", metavar="ADDRESS", help=f"{does} this Ray cluster: {addresses}.")


@dataclass(frozen=True, slots=True)
class ScopeOptions:
    as_of: str | None
    where: str
    labels: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.as_of or self.where or self.labels)

    def view_of(self, library: Library) -> View:
        """Raises QuestionError or KnowledgeError; notes filter keys that no document has."""
        from openbook.knowledge.index.filter_parser import parse_filter

        view = library.labels(*self.labels)
        view = view if self.as_of is None else view.as_of(self.as_of)
        if where := self.where.strip():
            keys = parse_filter(where).keys
            known = view.resources.base().metadata_keys(view.scope)
            for key in keys:
                if key not in known:
                    listed = ", ".join(sorted(known)[:30])
                    display.note(f"No document has {key!r}.{did_you_mean(key, known)} Keys: {listed}", style="yellow")
            view = view.where(where)
        view.resources.base().kept_version(view.scope.as_of)
        return view


def scope_options(command: Command) -> Command:
    """Add `--as-of`, `--where` and `--label`, passed to the command as `scope: ScopeOptions`."""

    @functools.wraps(command)
    def with_scope(*args: Any, as_of: str | None, where: str, labels: tuple[str, ...], **others: Any) -> Any:
        return command(*args, scope=ScopeOptions(as_of, where, labels), **others)

    as_of = click.option(
        "--as-of",
        help="Use an older version: its number, a tag, a date (as it was when that day ended) or a time in UTC.",
    )
    where = click.option("--where", default="", help='Only documents that match, such as "date >= 2025-01-01".')
    return as_of(where(LABEL(with_scope)))
