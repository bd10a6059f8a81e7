"""What counts in benchmarks, where a slip would change a number or lose a figure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.hot_swap import Fact
from benchmarks.price import draw, plot_facts, plot_skills
from openbook.diagnosis.teaching.fact_arms import FactArm
from openbook.diagnosis.teaching.seams import NOT_MEASURED, Cost
from openbook.diagnosis.teaching.skill_arms import SkillArm

ROUNDED = (6, 21, 31)  # so many ones have a Wilson interval that ends below their mean, by rounding


class Axes:
    """Takes what matplotlib's takes, and refuses a negative error as it does."""

    def __init__(self) -> None:
        self.means: list[float] = []

    def errorbar(self, _x: list[float], means: list[float], errors: list[list[float]], **_style: Any) -> None:
        assert all(reach >= 0 for side in errors for reach in side)
        self.means += means

    def barh(self, _place: float, mean: float, *, xerr: list[list[float]], **style: Any) -> None:
        self.errorbar([], [mean], xerr, **style)

    def __getattr__(self, name: str) -> Any:
        return lambda *_arguments, **_named: None


def test_all_right_has_an_error_that_can_be_drawn() -> None:
    axes = Axes()
    arms = [FactArm("retrieval", "base", [1.0] * n, [], [], [], Cost(1.0, 1.0), 0.1, []) for n in ROUNDED]
    draw(axes, [*arms, FactArm("retrieval", "base", [0.0] * 11, [], [], [], Cost(1.0, 1.0), 0.1, [])], "")
    assert axes.means == [100.0, 100.0, 100.0, 0.0]
    plot_skills(axes, [SkillArm(f"skill {n}", "base", "passage", [1.0] * n, []) for n in ROUNDED])
    assert axes.means[4:] == [100.0] * 3


def test_what_has_no_cost_is_not_drawn() -> None:
    axes = Axes()
    trained = FactArm("training", "base", [1.0], [], [], [], Cost(1.0, 1.0), 0.1, [], "verbatim", 3)
    plot_facts(axes, [trained, replace(trained, recall=[0.0], cost=NOT_MEASURED)])
    assert axes.means == [100.0]


@pytest.mark.parametrize(
    ("answer", "side"),
    [
        ("It is in Washington, D.C.", 0),
        ("In washington, d.c., near the river", 0),
        ("Washington, D.C.isnot", None),
        ("Paris", 1),
        ("Parisian", None),
        ("Washington, D.C. or Paris", None),
    ],
)
def test_a_value_counts_where_it_stands_as_a_word(answer: str, side: int | None) -> None:
    assert Fact("Where?", "It is in", ("Washington, D.C.", "Paris")).says(answer) == side
