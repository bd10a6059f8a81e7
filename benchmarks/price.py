"""What does a fact cost, by training and by retrieval, and what a skill? Tables and figure from a run of `openbook diagnose --teach`.

    openbook diagnose --teach --facts 16 --known 30 --forms verbatim,paraphrased,questions --skill-examples 160 --skill-tests 25 --out FOLDER
    python -m benchmarks.price FOLDER [FOLDER ...] [--plot FILE.png]

Prints the tables of all FOLDERs as Markdown, what they say, and as its last line one JSON document.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from openbook.diagnosis.scoring import Interval
from openbook.diagnosis.teaching.fact_arms import FactArm
from openbook.diagnosis.teaching.findings import fact_findings, mean_of, points, skill_findings
from openbook.diagnosis.teaching.page import NUMBERS, fact_rows, skill_rows
from openbook.diagnosis.teaching.plot import SHOWN, cost, priced, unpriced
from openbook.diagnosis.teaching.skill_arms import SkillArm

COLOURS = {"verbatim": "#b3425e", "paraphrased": "#d9922e", "questions": "#7d4ba0"}
BARS = {"base": "#8a929b", "reader": "#5aa873", "trained": "#d9922e"}
RETRIEVAL = "#2f7d5b"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    values = [json.loads((folder / NUMBERS).read_bytes()) for folder in options.folders]
    facts = [FactArm.of(each) for value in values for each in value["facts"]]
    skills = [SkillArm.of(each) for value in values for each in value["skills"]]
    if facts:
        print_table(*fact_rows(facts))
    if skills:
        print_table(*skill_rows(skills))
    findings = [*(fact_findings(facts) if facts else []), *skill_findings(skills)]
    for each in findings:
        found = f" {points(each.difference, signed=True)}: {each.outcome}." if each.difference else ""
        print(f"- {each.claim}:{found} {each.seen}")
    if options.plot:
        plot(facts, skills, options.plot)
    print(
        json.dumps({"about": [value["about"] for value in values], "findings": [each.to_json() for each in findings]})
    )


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for cells in (heads, ["---"] * len(heads), *rows):
        print(f"| {' | '.join(cells)} |")
    print()


def plot(facts: Sequence[FactArm], skills: Sequence[SkillArm], path: Path) -> None:
    import_module("matplotlib").use("Agg")
    pyplot = import_module("matplotlib.pyplot")
    panels = bool(facts) + bool(skills)
    figure, axes = pyplot.subplots(1, panels, figsize=(6 * panels, 4.6), squeeze=False)
    if facts:
        plot_facts(axes[0][0], facts)
    if skills:
        plot_skills(axes[0][-1], skills)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def plot_facts(axes: Any, arms: Sequence[FactArm]) -> None:
    if missing := unpriced(arms):
        axes.plot([], [], " ", label=missing)
    arms = priced(arms)
    ways = {name: [arm for arm in arms if arm.form == name] for name in COLOURS}
    for form, of in ways.items():
        if of:
            draw(axes, of, f"training, {form}", color=COLOURS[form], marker="o")
            for arm in of:
                place = (cost(arm), 100 * mean_of(arm.recall).mean)
                if place[1] > 10:  # below, the points of all forms lie on each other
                    axes.annotate(
                        f"{arm.exposures}×", place, (-6, 4), textcoords="offset points", ha="right", fontsize=8
                    )
    for arm in arms:
        if arm.remedy == "retrieval":
            draw(axes, [arm], "", color=RETRIEVAL, marker="*", markersize=15)
            place = (cost(arm), 100 * mean_of(arm.recall).mean)
            axes.annotate(f"retrieval, {arm.model} reads", place, (10, -3), textcoords="offset points", fontsize=9)
        if arm.remedy == "none":
            axes.axhline(100 * mean_of(arm.recall).mean, color="#8a929b", linestyle=":", label="nothing taught")
    axes.set(
        xscale="log", xlabel="CPU-seconds to teach one fact", ylabel="new questions answered right, %", ylim=(-4, 104)
    )
    axes.set_title("The price of a fact")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncol=3)


def draw(axes: Any, arms: Sequence[FactArm], label: str, **style: Any) -> None:
    """Recall against cost, with intervals."""
    found = [mean_of(arm.recall) for arm in arms]
    means = [100 * each.mean for each in found]
    axes.errorbar(list(map(cost, arms)), means, errors(found), label=label or None, elinewidth=0.8, capsize=3, **style)


def errors(found: Sequence[Interval]) -> list[list[float]]:
    """How far each interval reaches below its mean and above it, in per cent; rounding may not make it less than 0."""
    below, above = [each.mean - each.low for each in found], [each.high - each.mean for each in found]
    return [[100 * max(0.0, reach) for reach in side] for side in (below, above)]


def plot_skills(axes: Any, arms: Sequence[SkillArm]) -> None:
    by_key = {(arm.skill, arm.model, arm.given): arm for arm in arms}
    names, place = [], 0.0
    for skill in dict.fromkeys(arm.skill for arm in arms):
        for model, given, name in SHOWN:
            if (skill, model, given) in by_key:
                found = mean_of(by_key[skill, model, given].right)
                axes.barh(
                    place,
                    100 * found.mean,
                    xerr=errors([found]),
                    color=BARS[model],
                    capsize=3,
                    error_kw={"elinewidth": 0.8},
                )
                names.append((place, f"{skill}: {name}"))
                place -= 1.0
        place -= 0.6
    axes.set_yticks([at for at, _ in names], [name for _, name in names], fontsize=9)
    axes.set(xlabel="new examples done right, %", xlim=(0, 100))
    axes.set_title("The price of a skill")
    axes.grid(visible=True, axis="x", alpha=0.3)


if __name__ == "__main__":
    main()
