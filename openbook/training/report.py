"""A run as one HTML page that needs nothing else: what was learned, how, from what, and answers before and after."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openbook import runs

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 640, 220, 48, 26, 12, 12
QUESTION_CHARS = 300  # the end of a long prompt is what is asked
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: .3rem .6rem .3rem 0; vertical-align: top;
border-bottom: 1px solid #ddd; } td.n { font-variant-numeric: tabular-nums; } code { font-size: .85em; word-break: break-all; }
svg { width: 100%; height: auto; } .axis { stroke: #999; } .grid { stroke: #eee; } .tick { font-size: 11px; fill: #666; }
.faint { stroke: #b8c7e0; fill: none; } .bold { stroke: #1f4e9c; stroke-width: 2; fill: none; } .right { color: #17693a; }
"""


def write_report(folder: Path) -> Path:
    """`report.html` in the folder of a run. Raises TrainingError, OSError."""
    run = runs.read_run(folder)
    path = folder / runs.REPORT
    staged = path.with_name(f".{path.name}")
    staged.write_text(report(run), encoding="utf-8")
    staged.replace(path)
    return path


def report(run: runs.RunSummary) -> str:
    title = f"Training run {run.name}"
    loss = [(float(s["step"]), float(s["loss"])) for s in run.steps]
    parts = [f"<h1>{_text(title)}</h1>", _outcome(run), "<h2>Loss of the training examples (nats a token)</h2>"]
    parts.append(chart([("faint", loss), ("bold", smoothed(loss))], floor=0.0))
    for name in _measured(run):
        points = [(float(e["step"]), float(e[name])) for e in run.evaluations if name in e]
        parts += [f"<h2>Dev data: {_text(name.replace('_', ' '))}</h2>", chart([("bold", points)], floor=0.0)]
    if run.samples:
        parts += ["<h2>Answers before and after</h2>", _samples(run.samples)]
    parts += ["<h2>Recipe</h2>", _table(sorted(runs.flat(run.recipe).items()))]
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>\n'
        f"<style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def _outcome(run: runs.RunSummary) -> str:
    result = run.result or {}
    rows: list[tuple[str, object]] = [
        ("model", result.get("model", "not done yet")),
        ("trained from", result.get("parent") or "nothing"),
        ("recipe", run.recipe_digest),
        ("steps", f"{result.get('step', '-')} of {run.steps[-1]['steps'] if run.steps else '-'}"),
        ("tokens", f"{result.get('tokens', 0):,}"),
        ("numeric class", result.get("numeric_class", "")),
    ]
    rows += [(name.replace("_", " "), f"{value:.3f}") for name, value in sorted(result.get("numbers", {}).items())]
    rows += [("short of its target", sentence) for sentence in result.get("missed", [])]
    return _table(rows)


def _measured(run: runs.RunSummary) -> list[str]:
    return sorted({key for evaluation in run.evaluations for key in evaluation} - {"kind", "step"})


def _samples(samples: Sequence[Mapping[str, Any]]) -> str:
    rows = ["<tr><th>question</th><th>expected</th><th>before</th><th>after</th></tr>"]
    for sample in samples:
        question = str(sample["question"]).removeprefix("Question:").strip()[-QUESTION_CHARS:]
        after = str(sample.get("after", ""))
        right = ' class="right"' if after == sample["expected"] else ""
        rows.append(
            f"<tr><td>{_text(question)}</td><td>{_text(sample['expected'])}</td><td>{_text(sample['answer'])}</td>"
            f"<td{right}>{_text(after)}</td></tr>"
        )
    return f"<table>{''.join(rows)}</table>"


def _table(rows: Sequence[tuple[str, object]]) -> str:
    cells = (f"<tr><td>{_text(name)}</td><td class=n><code>{_text(value)}</code></td></tr>" for name, value in rows)
    return f"<table>{''.join(cells)}</table>"


def smoothed(points: Sequence[tuple[float, float]], weight: float = 0.9) -> list[tuple[float, float]]:
    """An exponential mean, without a bias towards the beginning."""
    found, mean, total = [], 0.0, 0.0
    for x, y in points:
        mean, total = weight * mean + (1 - weight) * y, weight * total + (1 - weight)
        found.append((x, mean / total))
    return found


def chart(lines: Sequence[tuple[str, Sequence[tuple[float, float]]]], *, floor: float | None = None) -> str:
    """An SVG of lines, each with its CSS class, over one pair of axes."""
    xs = [x for _, points in lines for x, _ in points]
    ys = [y for _, points in lines for _, y in points] + ([floor] if floor is not None else [])
    if not xs:
        return "<p>Nothing was measured.</p>"
    low_x, high_x, low_y, high_y = min(xs), max(xs), min(ys), max(ys)
    span_x, span_y = (high_x - low_x) or 1.0, (high_y - low_y) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            _LEFT + (x - low_x) / span_x * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - (y - low_y) / span_y * (_HEIGHT - _TOP - _BOTTOM),
        )

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">']
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        value = low_y + share * span_y
        _, y = place(low_x, value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.2f}</text>')
    for share in (0.0, 0.5, 1.0):
        value = low_x + share * span_x
        x, _ = place(value, low_y)
        anchor = "start" if share == 0 else "end" if share == 1 else "middle"
        parts.append(f'<text class="tick" x="{x:.1f}" y="{_HEIGHT - 8}" text-anchor="{anchor}">step {value:.0f}</text>')
    parts.append(
        f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{_HEIGHT - _BOTTOM}" y2="{_HEIGHT - _BOTTOM}"/>'
    )
    for style, points in lines:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
        parts.append(f'<polyline class="{style}" points="{path}"/>')
    return "".join([*parts, "</svg>"])


def _text(value: object) -> str:
    return html.escape(str(value))
