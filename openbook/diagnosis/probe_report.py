"""What probes found as HTML: a section for a report, or a page of its own. Self-contained, and every text escaped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path

from openbook.diagnosis.leaks import Leaks
from openbook.diagnosis.probe_run import PROBES, Probed
from openbook.diagnosis.probing import Result
from openbook.diagnosis.report import keep, table, text
from openbook.diagnosis.report_style import STYLE
from openbook.diagnosis.summary import Share
from openbook.models.durable import replace_file, storage_errors

TITLES = {
    "counterfactual": "Counterfactual: does the answer follow the passage or the weights?",
    "abstention": "Abstention: what does it say when the passage is withheld?",
    "noise": "Position and noise: how much do other passages disturb?",
    "causality": "Citations: is what is cited the cause of the answer?",
    "leaks": "Leaks: does anything of one request appear in another?",
}
MOST_SHOWN = 100  # trials of one probe
_WIDTH = 200  # of a bar


def write_page(path: Path, title: str, probed: Probed) -> None:
    """Raises StorageError."""
    with storage_errors(f"write {path}"):
        replace_file(path, "".join(f"{part}\n" for part in _page(title, probed)).encode("utf-8", "replace"))


def _page(title: str, probed: Probed) -> Iterator[str]:
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    yield f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{text(title)}</title>'
    yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<style>{STYLE}</style></head><body><h1>{text(title)}</h1>"
    yield section(probed)
    yield "</body></html>"


def section(probed: Probed) -> str:
    """For the body of a page with the style of reports; it needs no script."""
    return "\n".join(_section(probed))


def _section(probed: Probed) -> Iterator[str]:
    header = probed.header
    yield f"<h2>Probes of {text(header.model.name)}</h2>"
    stopped = ", stopped before all were probed" if probed.stopped else ""
    yield (
        f'<p class="soft">{probed.questions:,} questions{stopped}; knowledge base {text(header.knowledge_base)}, '
        f"version {header.knowledge_base_version}; shares with their 95 % interval</p>"
    )
    for name in PROBES:
        if name in probed.results:
            yield from _probe(name, probed.results[name])


def _probe(name: str, result: Result) -> Iterator[str]:
    yield f"<h3>{text(TITLES[name])}</h3>"
    yield f"<p>{text(result.meaning())}</p>"
    yield table(["", "", ""], [[text(what), _bar(share), keep(text(share))] for what, share in result.rows()], raw=True)
    if left_out := getattr(result, "left_out", {}):
        reasons = ", ".join(f"{text(reason)}: {count}" for reason, count in left_out.items())
        yield f'<p class="soft">Left out: {reasons}</p>'
    yield from _trials(result)


def _bar(share: Share) -> str:
    """The share as a bar, and its interval as a line over it."""
    if share.share is None or share.low is None or share.high is None:
        return ""
    low, high = _WIDTH * share.low, _WIDTH * share.high
    return (
        f'<svg width="{_WIDTH}" height="14" role="img" aria-label="{text(share)}">'
        f'<rect width="{_WIDTH}" height="14" fill="currentColor" opacity=".08"></rect>'
        f'<rect class="known" width="{_WIDTH * share.share:.1f}" height="14" opacity=".7"></rect>'
        f'<path d="M{low:.1f} 7H{high:.1f}M{low:.1f} 3V11M{high:.1f} 3V11" stroke="currentColor" fill="none"></path></svg>'
    )


def _trials(result: Result) -> Iterator[str]:
    """Each question with what was said, where that can be put into a table."""
    heads, rows = _found(result) if isinstance(result, Leaks) else _plain(getattr(result, "trials", ()))
    if not rows or set(heads) <= {"id", "outcome", "failure"}:
        return
    more = f", the first {MOST_SHOWN} of {len(rows)}" if len(rows) > MOST_SHOWN else ""
    yield f'<details class="q"><summary>What was said{more}</summary>'
    yield table([head.replace("_", " ") for head in heads], rows[:MOST_SHOWN])
    yield "</details>"


def _found(result: Leaks) -> tuple[Sequence[str], list[list[str]]]:
    rows = [[leak.request.kind, leak.request.about, leak.code, leak.answer, leak.before] for leak in result.found]
    return ("request", "about", "code", "answer", "before"), rows


def _plain(trials: Sequence[object]) -> tuple[Sequence[str], list[list[str]]]:
    """Their fields, but for those that hold records of their own."""
    first = trials[0] if trials else None
    if first is None or not is_dataclass(first):
        return (), []
    heads = [field.name for field in fields(first) if not isinstance(getattr(first, field.name), tuple)]
    shown = [[getattr(trial, head) for head in heads] for trial in trials]
    return heads, [["" if value is None else _word(value) for value in row] for row in shown]


def _word(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
