"""How much of a long run is in memory: the questions, a few numbers for each, and no more than some of what was observed."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from openbook.core.parallel import Progress
from openbook.diagnosis import report, verdicts
from openbook.diagnosis.report import write_results
from openbook.diagnosis.run_log import Observation
from openbook.diagnosis.runner import run_questions
from openbook.diagnosis.verdicts import QuestionVerdict
from openbook.inference import FrozenModel
from tests.conftest import base_with
from tests.diagnosis.table_engine import SILENT, TableEngine, bench_with, logged, observation


def alive() -> int:
    """How many observations are in memory."""
    return sum(type(each) is Observation for each in gc.get_objects())


def watch(at: int) -> tuple[list[int], Progress]:
    """(how many more observations are in memory than now when so many questions are done, what must be told of the progress)."""
    before, seen = alive(), list[int]()

    def progress(done: int, total: int) -> None:
        if done == at:
            seen.append(alive() - before)

    return seen, progress


def test_a_run_holds_no_observation_that_is_written_down(tmp_path: Path) -> None:
    base = base_with(tmp_path, {"harbour.txt": "The harbour master opens the lock at high water."})
    bench = bench_with(FrozenModel(TableEngine(lambda prompt: SILENT)), base)
    asked = [observation(n).question for n in range(8)]
    seen, progress = watch(len(asked))
    run_questions(asked, bench, "digest", path=tmp_path / "o.jsonl", progress=progress)
    assert seen[0] <= 2


@pytest.fixture
def observed(tmp_path: Path) -> Path:
    return logged(tmp_path / "observations-a.jsonl", *(observation(n) for n in range(60)))


def test_the_report_holds_an_observation_and_its_neighbours(
    tmp_path: Path, observed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, seen, why = alive(), list[int](), verdicts.reason

    def reason(each: Observation, found: QuestionVerdict) -> str:
        if each.question.id == "q30":
            seen.append(alive() - before)
        return why(each, found)

    monkeypatch.setitem(report._environment().globals, "reason", reason)
    monkeypatch.setattr(verdicts, "CONTROLS", 8)
    write_results(tmp_path, "Diagnosis", [observed], limit=50)
    assert seen[0] <= 2 * 8 + 2
