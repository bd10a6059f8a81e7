"""A run as one self-contained HTML page: the outcome, the curves, answers before and after, and the recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from jinja2 import Environment, PackageLoader

from openbook.core.files import replace_file
from openbook.models import runs

Points: TypeAlias = Sequence[tuple[float, float]]
WIDTH, HEIGHT, MARGIN_LEFT, MARGIN = 640, 220, 48, 26


def write_report(folder: Path) -> None:
    """Write `report.html`. Raises TrainingError, OSError."""
    replace_file(folder / runs.REPORT, report(runs.read_run(folder)).encode())


def report(run: runs.RunSummary) -> str:
    result = run.result or {}
    outcome = [
        ("model", result.get("model", "not done yet")),
        ("trained from", result.get("parent") or "nothing"),
        ("recipe", run.recipe_digest),
        ("steps", f"{result.get('step', '-')} of {run.steps[-1]['steps'] if run.steps else '-'}"),
        ("tokens", f"{result.get('tokens', 0):,}"),
        ("numeric class", result.get("numeric_class", "")),
        *((name.replace("_", " "), f"{value:.3f}") for name, value in sorted(result.get("numbers", {}).items())),
        *(("short of its target", sentence) for sentence in result.get("missed", [])),
    ]
    loss = [(float(step["step"]), float(step["loss"])) for step in run.steps]
    lines: dict[str, dict[str, Points]] = {"Training loss (nats a token)": {"faint": loss, "bold": smoothed(loss)}}
    for name in sorted({key for evaluation in run.evaluations for key in runs.numbers_of(evaluation)}):
        points = [(float(e["step"]), float(e[name])) for e in run.evaluations if name in e]
        lines[f"Dev data: {name.replace('_', ' ')}"] = {"bold": points}
    charts = [(title, _chart(each)) for title, each in lines.items() if any(each.values())]
    environment = Environment(
        loader=PackageLoader("openbook.training"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.get_template("report.html")
    return template.render(run=run, outcome=outcome, charts=charts, recipe=sorted(_flat(run.recipe).items()))


def _flat(value: object, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    return found


def smoothed(points: Points) -> Points:
    """The exponential mean, corrected for its start at 0."""
    found, mean, total, weight = [], 0.0, 0.0, 0.9
    for x, y in points:
        mean, total = weight * mean + (1 - weight) * y, weight * total + (1 - weight)
        found.append((x, mean / total))
    return found


def _chart(lines: Mapping[str, Points]) -> dict[str, Any]:
    """A chart in SVG coordinates. The y axis includes 0."""
    xs = [x for points in lines.values() for x, _ in points]
    ys = [0.0, *(y for points in lines.values() for _, y in points)]
    low_x, low_y = min(xs), min(ys)
    span_x, span_y = (max(xs) - low_x) or 1.0, (max(ys) - low_y) or 1.0
    right, bottom = WIDTH - MARGIN, HEIGHT - MARGIN

    def place(x: float, y: float) -> tuple[float, float]:
        share_x, share_y = (x - low_x) / span_x, (y - low_y) / span_y
        return round(MARGIN_LEFT + share_x * (right - MARGIN_LEFT), 1), round(bottom - share_y * (bottom - MARGIN), 1)

    x_values = [low_x + share * span_x for share in (0.0, 0.5, 1.0)]
    y_values = [low_y + share * span_y for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "left": MARGIN_LEFT,
        "right": right,
        "x_ticks": [(place(value, 0)[0], f"step {value:.0f}") for value in x_values],
        "y_ticks": [(place(0, value)[1], f"{value:.2f}") for value in y_values],
        "lines": [(style, [place(*point) for point in points]) for style, points in lines.items()],
    }
