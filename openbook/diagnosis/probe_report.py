"""What probes found as HTML: a section for a report, or a page of its own (`templates/`). Self-contained, every text escaped."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from openbook.diagnosis.passage_probes import PROBES, Result
from openbook.diagnosis.probe_run import Probed
from openbook.diagnosis.report import visible
from openbook.diagnosis.report_style import STYLE
from openbook.files import replace_file, storage_errors

if TYPE_CHECKING:
    from jinja2 import Environment

MOST_SHOWN = 100  # trials of one probe


def write_page(path: Path, title: str, probed: Probed) -> None:
    """Raises StorageError."""
    page = _environment().get_template("probes_page.html").render(title=title, style=STYLE, **_context(probed))
    with storage_errors(f"write {path}"):
        replace_file(path, f"{page}\n".encode("utf-8", "replace"))


def section(probed: Probed) -> str:
    """For the body of a page with the style of reports; it needs no script."""
    return _environment().get_template("probes.html").render(_context(probed))


def _context(probed: Probed) -> dict[str, object]:
    shown = [(PROBES[name].title, result, *_trials(result)) for name, result in probed.results.items()]
    return {"probed": probed, "results": shown, "most_shown": MOST_SHOWN}


def _trials(result: Result) -> tuple[list[str], list[list[str]]]:
    """(names of columns, a row for each trial) of the fields that can be put into a table; none where they say nothing more."""
    first = result.trials[0] if result.trials else None
    heads = [f.name for f in fields(first) if not isinstance(getattr(first, f.name), tuple)] if first else []
    if set(heads) <= {"id", "outcome", "failure"}:
        return [], []
    words = {True: "yes", False: "no"}
    rows = [[getattr(trial, head) for head in heads] for trial in result.trials]
    return heads, [[words[value] if isinstance(value, bool) else str(value) for value in row] for row in rows]


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    return Environment(
        loader=PackageLoader("openbook.diagnosis"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else visible(value),
        trim_blocks=True,
        lstrip_blocks=True,
    )
