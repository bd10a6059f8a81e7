"""The text for a person to judge by, and what is read back from it."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from benchmarks import hand_check
from openbook.core.errors import ConfigError
from tests.diagnosis.table_engine import SILENT, observation

RECORDS = {f"set/model/q{n}": {"by_chance": n == 1, "verdict": "known", **asdict(observation(n))} for n in range(3)}
TEXT = hand_check.HEAD + hand_check.written(RECORDS)


def test_the_text_shows_what_is_needed_and_not_the_verdict() -> None:
    _, first, second, _ = TEXT.split("\n## ")
    for part in ("When does ferry 0 leave?", "00:40", "No idea.", "leaves at 00:40 from pier 3.", "read, rank 1"):
        assert part in first
    assert "known" not in first
    assert ("many other questions" in first, "many other questions" in second) == (False, True)
    text = hand_check.written({"x": {"by_chance": False, **asdict(observation(opened=SILENT, holding=()))}})
    assert f"with documents: {SILENT} (abstains)" in text
    assert "with the right passage: none is known" in text


def test_what_is_filled_in_is_read_back() -> None:
    assert (hand_check.read(TEXT), hand_check.names(TEXT)) == ({}, list(RECORDS))
    first, second, third, end = TEXT.split("right verdict:\n")
    filled = f"{first}right verdict: distracted\n{second}right verdict:\n{third}right verdict:known\n{end}"
    assert hand_check.read(filled) == {"set/model/q0": "distracted", "set/model/q2": "known"}
    with pytest.raises(ConfigError, match=r"set/model/q0: 'knwon' is no verdict\. Did you mean 'known'"):
        hand_check.read(f"{first}right verdict: knwon\n{second}")


@pytest.mark.parametrize(
    ("pairs", "kappa"),
    [
        # by hand: 20 both yes, 5 first yes, 10 second yes, 15 both no: 0.7 agree, 0.5 by chance
        ([("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15, "kappa 0.40"),
        ([("a", "b"), ("b", "a")], "kappa -1.00"),
        ([("a", "b")] * 9, "kappa 0.00"),
        ([("a", "a")] * 9, "no kappa"),  # nothing to tell apart
        ([], "no data, no kappa"),
    ],
)
def test_cohens_kappa(pairs: list[tuple[str, str]], kappa: str) -> None:
    assert hand_check.agreement(pairs).endswith(kappa)
