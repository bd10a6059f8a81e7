"""The text for a person to judge by, and what is read back from it."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from benchmarks import hand_check
from openbook.errors import ConfigError
from tests.diagnosis.table_engine import SILENT, observation

RECORDS = {
    f"set/model/q{n}": {"by_chance": n == 1, "verdict": "known", **json.loads(json.dumps(asdict(observation(n))))}
    for n in range(3)
}


def test_the_text_shows_what_is_needed_and_not_the_verdict() -> None:
    text = hand_check.HEAD + hand_check.written(RECORDS)
    _, first, second, _ = text.split("\n## ")
    for part in ("When does ferry 0 leave?", "00:40", "No idea.", "leaves at 00:40 from pier 3.", "read, rank 1"):
        assert part in first
    assert "known" not in first
    assert "many other questions" in second
    assert "many other questions" not in first
    silent = json.loads(json.dumps(asdict(observation(opened=SILENT, holding=()))))
    text = hand_check.written({"x": {"by_chance": False, **silent}})
    assert f"with documents: {SILENT} (abstains)" in text
    assert "with the right passage: none is known" in text


def test_what_is_filled_in_is_read_back() -> None:
    text = hand_check.HEAD + hand_check.written(RECORDS)
    assert hand_check.read(text) == {}
    assert hand_check.names(text) == list(RECORDS)
    first, *rest = text.split("right verdict:\n")
    filled = (
        first + "right verdict: distracted\n" + "right verdict:\n".join(rest[:-1]) + "right verdict:known\n" + rest[-1]
    )
    assert hand_check.read(filled) == {"set/model/q0": "distracted", "set/model/q2": "known"}


def test_a_word_that_is_no_verdict_is_named() -> None:
    text = hand_check.HEAD + hand_check.written(RECORDS).replace("\nright verdict:", "\nright verdict: knwon", 1)
    with pytest.raises(ConfigError, match=r"set/model/q0: 'knwon' is no verdict\. Did you mean 'known'"):
        hand_check.read(text)
