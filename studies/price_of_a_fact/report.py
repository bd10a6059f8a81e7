"""What the arms say: two tables as Markdown, and the figure (`price.svg.j2`).

Shares stand with their 95 % interval (Wilson). Facts are the unit of recall: a fact's two questions stand or fall together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from studies.price_of_a_fact.experiment import GIVEN, Arm
from studies.price_of_a_fact.facts import FORMS
from studies.price_of_a_fact.training import TEMPLATES

COLOURS = {
    "documents": "#2f7d5b",
    "verbatim": "#b3425e",
    "paraphrased": "#d9922e",
    "questions": "#7d4ba0",
    "base": "#8a929b",
    "reader": "#5aa873",
    "trained": "#d9922e",
}
WAYS = {
    "nothing": "nothing",
    "passage": "its document",
    "guide": "its document and the guide",
    "documents": "what it finds",
}
BARS = (  # of the figure: who is asked, what is given, and how that is called
    ("base", "passage", "base, with the document"),
    ("base", "guide", "base, and a guide to the task"),
    ("base", "documents", "base, guide and documents found"),
    ("reader", "documents", "reader, guide and documents found"),
    ("trained", "passage", "trained, with the document"),
    ("trained", "documents", "trained, documents added later"),
)


@dataclass(frozen=True, slots=True)
class Share:
    """A mean with its interval, all from 0 to 1; nan where there is no data."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.mean):
            return "no data"
        return f"{100 * self.mean:.0f} % [{100 * self.low:.0f}, {100 * self.high:.0f}]"


def share(score: tuple[int, int], questions_a_case: int = 1) -> Share:
    """Of (right, of) with Wilson's interval, which for scores between 0 and 1 is wider than it must be."""
    right, of = score
    if not of:
        return Share(math.nan, math.nan, math.nan)
    n, z = of / questions_a_case, 1.96
    mean = right / of
    centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
    spread = z * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return Share(mean, max(0.0, centre - spread), min(1.0, centre + spread))


def name_of(arm: Arm) -> str:
    if arm.given == "nothing":
        return "the base alone"
    if arm.given == "documents":
        return f"one document each, the {arm.model} reads"
    return f"training, {arm.given}, {arm.exposures} exposure{'s' if arm.exposures > 1 else ''}"


def cpu_seconds_a_fact(arm: Arm) -> float:
    return arm.cost.cpu_seconds / (arm.scores["recall"][1] / 2)


def tables(arms: Sequence[Arm]) -> str:
    """One of the facts, one of each skill, as Markdown."""
    rows = ["|  | recall | left after deletion | known facts | passages read right | CPU-s a fact | MB to teach |"]
    rows.append("|---|---:|---:|---:|---:|---:|---:|")
    for arm in arms:
        if arm.subject == "facts":
            shares = [str(share(arm.scores[name], 2)) for name in ("recall", "left")]
            shares += [
                str(share(arm.scores[name])) if name in arm.scores else "as the base" for name in ("known", "reading")
            ]
            memory = f"{arm.cost.peak_mb:,.0f}" if arm.cost.peak_mb else ""
            rows.append(f"| {' | '.join([name_of(arm), *shares, f'{cpu_seconds_a_fact(arm):.2f}', memory])} |")
    rows += ["", "| skill | what is given | base | reader | base after training |", "|---|---|---:|---:|---:|"]
    by_key = {(arm.subject, arm.given, arm.model): arm for arm in arms}
    for skill in dict.fromkeys(arm.subject for arm in arms if arm.subject != "facts"):
        for given in GIVEN:
            cells = [str(share(by_key[skill, given, model].scores["right"])) for model in ("base", "reader", "trained")]
            rows.append(f"| {' | '.join([skill, WAYS[given], *cells])} |")
    return "\n".join(rows) + "\n"


def figure(arms: Sequence[Arm], skills: Sequence[str]) -> str:
    """As SVG: recall against CPU-seconds a fact, by powers of ten; and how often each of `skills` is done right."""
    spots: dict[str, list[tuple[Arm, float, Share]]] = {given: [] for given in ("nothing", "documents", *FORMS)}
    for arm in arms:
        if arm.subject == "facts":
            power = math.log10(max(cpu_seconds_a_fact(arm), 1e-3))
            spots[arm.given].append((arm, power, share(arm.scores["recall"], 2)))
    powers = [power for given, each in spots.items() if given != "nothing" for _, power, _ in each]
    first, last = math.floor(min(powers)), math.ceil(max(powers))
    by_key = {(arm.subject, arm.model, arm.given): arm for arm in arms}
    return TEMPLATES.get_template("price.svg.j2").render(
        powers=range(first, max(last, first + 1) + 1),
        spots=spots,
        forms=FORMS,
        bars={skill: [(*bar, share(by_key[skill, *bar[:2]].scores["right"])) for bar in BARS] for skill in skills},
        colours=COLOURS,
    )
