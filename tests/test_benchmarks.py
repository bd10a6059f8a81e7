"""What counts in benchmarks, where a slip would change a number."""

from __future__ import annotations

import pytest

from benchmarks.hot_swap import Fact


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
