"""Two figures as SVG: recall against cost, for each remedy; and how many of a skill's answers are right, for each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from openbook.diagnosis.report import text
from openbook.diagnosis.scoring import Interval
from openbook.diagnosis.teaching.fact_arms import FactArm
from openbook.diagnosis.teaching.findings import cost_of, cpu_seconds_each, mean_of, name_of
from openbook.diagnosis.teaching.skill_arms import SkillArm

STYLE = """
:root { --retrieval: #2f7d5b; --verbatim: #b3425e; --paraphrased: #d9922e; --questions: #7d4ba0; --base: #8a929b;
--reader: #5aa873; --trained: #d9922e; }
@media (prefers-color-scheme: dark) { :root { --retrieval: #4fa883; --verbatim: #d3647f; --paraphrased: #e0a44d;
--questions: #a97acb; --base: #9aa3ad; --reader: #7cc795; --trained: #e0a44d; } }
.figures { display: flex; flex-wrap: wrap; gap: 1.2rem 2.5rem; align-items: flex-start; padding: .8rem; margin: 0 -.8rem; }
.figures .legend { font-size: .87rem; }
.figures figure { margin: 0; flex: 1 1 30rem; min-width: 0; max-width: 40rem; } figcaption { font-weight: 600; margin-bottom: .4rem; }
svg.plot { width: 100%; height: auto; display: block; } svg.plot text { font: 13px system-ui, sans-serif; fill: var(--ink); }
svg.plot text.soft { fill: var(--soft); } svg.plot text.head { font-weight: 600; } svg.plot .grid { stroke: var(--line); } svg.plot .error { opacity: .45; fill: none; }
svg.plot .halo { paint-order: stroke; stroke: var(--page); stroke-width: 4px; }
.confirmed { color: var(--retrieval); } .contradicted { color: var(--verbatim); }
"""
WIDTH, HEIGHT = 560, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 16, 14, 46
_ROW, _NAME = 21, 258  # of the second figure: the height of a row, the width of its name
LABELLED = 0.1  # recall from which on points are labelled
SHOWN = (
    ("base", "passage", "base, with the passage"),
    ("base", "guide", "base, and a guide to the task"),
    ("base", "documents", "base, guide and documents found"),
    ("reader", "documents", "reader, guide and documents found"),
    ("trained", "passage", "trained, with the passage"),
    ("trained", "documents", "trained, documents added later"),
)


def facts_svg(arms: Sequence[FactArm]) -> str:
    """Recall on the vertical axis; CPU-seconds a fact, by powers of ten, on the other. Without them there is none."""
    dear = [arm for arm in priced(arms) if arm.remedy != "none"]
    if not dear:
        return ""
    costs = [cost(arm) for arm in dear]
    low, high = math.floor(math.log10(min(costs))), math.ceil(math.log10(max(costs)) + 0.05)
    scale = _Scale(low, max(high, low + 1))
    parts = [f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Recall against cost">']
    parts += _axes(scale)
    parts += (part for arm in arms if arm.remedy == "none" for part in _floor(arm, scale))
    for form in dict.fromkeys(arm.form for arm in dear if arm.form):
        parts += _line(sorted((a for a in dear if a.form == form), key=lambda a: a.exposures), form, scale)
    for arm in dear:
        if arm.remedy == "retrieval":
            parts += _star(arm, scale, above=arm is max((a for a in dear if not a.form), key=lambda a: sum(a.recall)))
    return "\n".join([*parts, "</svg>"])


def priced(arms: Sequence[FactArm]) -> list[FactArm]:
    """Those whose cost was measured."""
    return [arm for arm in arms if cpu_seconds_each(arm) is not None]


def unpriced(arms: Sequence[FactArm]) -> str:
    """Which are not, and why; empty: all are."""
    names = [name_of(arm) for arm in arms if cpu_seconds_each(arm) is None]
    return f"not shown, because the cost was not measured: {'; '.join(names)}" if names else ""


def cost(arm: FactArm) -> float:
    """CPU-seconds a fact of one that is shown, more than 0, as powers of ten need it."""
    return max(cost_of(arm).cpu_seconds or 0.0, 1e-3) / max(1, len(arm.recall))


class _Scale:
    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high

    def x(self, cost: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * (math.log10(cost) - self.low) / (self.high - self.low)

    def y(self, share: float) -> float:
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * share


def _axes(scale: _Scale) -> Iterator[str]:
    for percent in (0, 25, 50, 75, 100):
        y = scale.y(percent / 100)
        yield f'<path class="grid" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>'
        yield f'<text class="soft" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{percent} %</text>'
    for power in range(scale.low, scale.high + 1):
        x = scale.x(10.0**power)
        yield f'<path class="grid" d="M{x:.1f} {_TOP}V{HEIGHT - _BOTTOM}"/>'
        yield f'<text class="soft" x="{x:.1f}" y="{HEIGHT - _BOTTOM + 18}" text-anchor="middle">{10.0**power:g}</text>'
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    yield f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">CPU-seconds to teach one fact</text>'


def _floor(arm: FactArm, scale: _Scale) -> Iterator[str]:
    found = mean_of(arm.recall)
    y = scale.y(found.mean)
    yield f'<path d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}" stroke="var(--base)" stroke-width="2" stroke-dasharray="3 5"/>'


def _error(found: Interval, x: float, colour: str, scale: _Scale) -> str:
    low, high = scale.y(found.low), scale.y(found.high)
    return (
        f'<path class="error" stroke="var(--{colour})" stroke-width="1.5" '
        f'd="M{x:.1f} {low:.1f}V{high:.1f}M{x - 4:.1f} {low:.1f}h8M{x - 4:.1f} {high:.1f}h8"/>'
    )


def _line(arms: Sequence[FactArm], form: str, scale: _Scale) -> Iterator[str]:
    """A point for each number of exposures, which stands beside it where the points of all forms do not lie on each other."""
    places = [(scale.x(cost(arm)), scale.y(mean_of(arm.recall).mean)) for arm in arms]
    way = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    yield f'<path d="M{way}" fill="none" stroke="var(--{form})" stroke-width="2.5"/>'
    for arm, (x, y) in zip(arms, places, strict=True):
        yield _error(mean_of(arm.recall), x, form, scale)
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="var(--{form})"/>'
        if mean_of(arm.recall).mean > LABELLED:
            yield f'<text class="halo soft" x="{x - 8:.1f}" y="{max(_TOP + 12.0, y - 8):.1f}" text-anchor="end">{arm.exposures}×</text>'


def _star(arm: FactArm, scale: _Scale, *, above: bool) -> Iterator[str]:
    found = mean_of(arm.recall)
    x, y = scale.x(cost(arm)), scale.y(found.mean)
    corners = []
    for i in range(10):
        radius, angle = (10.0 if i % 2 == 0 else 4.4), math.pi * (i / 5 - 0.5)
        corners.append(f"{x + radius * math.cos(angle):.1f},{y + radius * math.sin(angle):.1f}")
    yield _error(found, x, "retrieval", scale)
    yield f'<polygon points="{" ".join(corners)}" fill="var(--retrieval)"/>'
    yield f'<text class="halo" x="{x + 15:.1f}" y="{y + (0 if above else 8):.1f}">retrieval, {text(arm.model)} reads</text>'


def facts_legend(arms: Sequence[FactArm]) -> str:
    names = {
        "verbatim": "training, always in the same words",
        "paraphrased": "training, paraphrased",
        "questions": "training on questions and answers",
    }
    rows = [_dot("retrieval", "one document added")] if any(arm.remedy == "retrieval" for arm in arms) else []
    rows += [_dot(form, name) for form, name in names.items() if any(arm.form == form for arm in arms)]
    rows += [_dot("base", "nothing taught")] if any(arm.remedy == "none" for arm in arms) else []
    rows += [f"<li>{text(missing)}</li>"] if (missing := unpriced(arms)) else []
    return f'<ul class="legend">{"".join(rows)}</ul>'


def _dot(colour: str, name: str) -> str:
    return (
        f'<li><svg width="14" height="10"><circle cx="5" cy="5" r="5" fill="var(--{colour})"/></svg>{text(name)}</li>'
    )


def skills_svg(arms: Sequence[SkillArm]) -> str:
    """A bar for each way, grouped by skill, with its interval."""
    by_key = {(arm.skill, arm.model, arm.given): arm for arm in arms}
    skills = list(dict.fromkeys(arm.skill for arm in arms))
    rows = {skill: [row for row in SHOWN if (skill, *row[:2]) in by_key] for skill in skills}
    height = sum(36 + _ROW * len(each) for each in rows.values()) + 26
    parts = [f'<svg class="plot" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="Accuracy by remedy">']
    room = WIDTH - _NAME - 76
    y = 6.0
    for percent in (0, 50, 100):
        x = _NAME + room * percent / 100
        parts.append(f'<path class="grid" d="M{x} 6V{height - 26}"/>')
        parts.append(f'<text class="soft" x="{x}" y="{height - 8}" text-anchor="middle">{percent} %</text>')
    for skill in skills:
        parts.append(f'<text x="0" y="{y + 16:.1f}" class="head">{text(skill)}</text>')
        y += 26
        for model, given, name in rows[skill]:
            if (skill, "base", "guide") not in by_key:
                name = name.replace("guide and ", "")
            parts += _bar(mean_of(by_key[skill, model, given].right), model, name, y, room)
            y += _ROW
        y += 10
    return "\n".join([*parts, "</svg>"])


def _bar(found: Interval, model: str, name: str, y: float, room: float) -> Iterator[str]:
    low, high = _NAME + room * found.low, _NAME + room * found.high
    middle = y + 8
    yield f'<text class="soft" x="10" y="{y + 12.5:.1f}">{text(name)}</text>'
    yield f'<rect x="{_NAME}" y="{y:.1f}" width="{max(1.0, room * found.mean):.1f}" height="16" fill="var(--{model})"/>'
    yield (
        f'<path stroke="currentColor" opacity=".6" fill="none" d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 4}v8'
        f'M{high:.1f} {middle - 4}v8"/>'
    )
    yield f'<text x="{WIDTH}" y="{y + 12.5:.1f}" text-anchor="end">{100 * found.mean:.0f} %</text>'
