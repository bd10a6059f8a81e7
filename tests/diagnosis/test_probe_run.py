"""Probes that are stopped, killed or run again: nothing is asked twice, and the result is that of one run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from openbook.answer import Options
from openbook.diagnosis.examining import Bench, header_for
from openbook.diagnosis.probe_run import Probed, keeping, probe, to_json
from openbook.diagnosis.questions import Question
from openbook.errors import ConfigError, EngineError
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase, add
from openbook.records import Prompt
from openbook.testing import HashEmbedder
from tests.diagnosis.table_engine import FAILS, SILENT, TableEngine, question_in

TIMES = {"Arvik": "06:10", "Brekkan": "07:15", "Corrie": "08:20"}
QUESTIONS = [Question(f"q-{h}", f"When does the ferry to {h} leave?", (t,)) for h, t in TIMES.items()]


def reads(prompt: Prompt) -> str:
    harbour = question_in(prompt).removeprefix("When does the ferry to ").partition(" ")[0]
    _, found, rest = " ".join(prompt.passages).partition(f"ferry to {harbour} leaves at ")
    return rest[:5] if found else SILENT


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeBase:
    """Read only: no test of this module changes it."""
    folder = tmp_path_factory.mktemp("base")
    for harbour, leaves in TIMES.items():
        (folder / f"{harbour}.txt").write_text(f"The ferry to {harbour} leaves at {leaves} from the pier.")
    embedder = HashEmbedder()
    made = KnowledgeBase.ensure(folder / "kb", embedder.identity)
    add(made, [folder / f"{harbour}.txt" for harbour in TIMES], embedder)
    return made


@pytest.fixture
def engine() -> TableEngine:
    return TableEngine(reads)


@pytest.fixture
def bench(base: KnowledgeBase, engine: TableEngine) -> Bench:
    return Bench(FrozenModel(engine), base, HashEmbedder(), options=Options(min_similarity=-1.0))


def kept_run(
    path: Path,
    bench: Bench,
    stop_after: float = float("inf"),
    questions: int = 3,
) -> Probed:
    engine = bench.model.engine
    assert isinstance(engine, TableEngine)
    with keeping(path, header_for(bench, "digest")) as kept:
        return probe(
            QUESTIONS[:questions], bench, "digest", kept=kept, cancelled=lambda: len(engine.asked) >= stop_after
        )


def test_a_stopped_run_goes_on_and_gives_what_one_run_gives(tmp_path: Path, bench: Bench, engine: TableEngine) -> None:
    whole = probe(QUESTIONS, bench, "digest")
    requests, engine.asked = len(engine.asked), []
    path = tmp_path / "probes.jsonl"
    steps = [kept_run(path, bench, stop_after=requests // 8)]
    while steps[-1].stopped and len(steps) < 9:
        steps.append(kept_run(path, bench, stop_after=len(engine.asked) + len(steps) * requests // 8))
    assert len(steps) > 2
    assert to_json(steps[-1]) == to_json(whole)
    engine.asked = []
    assert to_json(kept_run(path, bench)) == to_json(whole)
    assert engine.asked == []


def test_more_questions_later_ask_only_for_them(tmp_path: Path, bench: Bench, engine: TableEngine) -> None:
    path = tmp_path / "probes.jsonl"
    assert kept_run(path, bench, questions=1).questions == 1
    lines = path.read_bytes()
    path.write_bytes(lines + b'{"question":"q-Bre')  # what a killed process leaves
    engine.asked = []
    assert kept_run(path, bench, questions=3).questions == 3
    assert path.read_bytes().startswith(lines)
    assert engine.asked != []
    assert not any("Arvik" in prompt.question for prompt in engine.asked)
    assert kept_run(path, bench, questions=1).questions == 1


def test_what_is_of_something_else_is_refused(tmp_path: Path, bench: Bench) -> None:
    path = tmp_path / "probes.jsonl"
    kept_run(path, bench)
    other = replace(bench, options=replace(bench.options, passages=1))
    with pytest.raises(ConfigError, match="another passages"):
        kept_run(path, other)
    with keeping(path, header_for(bench, "digest")) as kept, pytest.raises(ConfigError, match="line 2 holds no trials"):
        probe(QUESTIONS[::-1], bench, "digest", kept=kept)


def test_a_model_that_only_fails_is_asked_again(tmp_path: Path, base: KnowledgeBase) -> None:
    many = [replace(QUESTIONS[0], id=f"q{n}") for n in range(40)]
    path = tmp_path / "probes.jsonl"
    for answer in (lambda prompt: FAILS, reads):
        bench = Bench(FrozenModel(TableEngine(answer)), base, HashEmbedder(), options=Options(min_similarity=-1.0))
        with keeping(path, header_for(bench, "digest")) as kept:
            if answer is reads:
                again = probe(many, bench, "digest", ["abstention"], kept=kept)
                assert to_json(again) == to_json(probe(many, bench, "digest", ["abstention"]))
            else:
                with pytest.raises(EngineError, match="16 questions in a row"):
                    probe(many, bench, "digest", ["abstention"], kept=kept)


def test_a_failure_between_answers_is_kept_and_asked_again(
    tmp_path: Path, bench: Bench, engine: TableEngine, base: KnowledgeBase
) -> None:
    whole = to_json(probe(QUESTIONS, bench, "digest"))
    failing = TableEngine(lambda prompt: FAILS if "Brekkan" in prompt.question else reads(prompt))
    down = Bench(FrozenModel(failing), base, HashEmbedder(), options=Options(min_similarity=-1.0))
    path = tmp_path / "probes.jsonl"
    first = to_json(kept_run(path, down))
    assert first != whole
    lines = path.read_bytes().splitlines()
    failing.asked = []
    assert to_json(kept_run(path, down)) == first
    assert failing.asked != []
    assert all("Brekkan" in prompt.question for prompt in failing.asked)
    engine.asked = []
    assert to_json(kept_run(path, bench)) == whole
    assert all("Brekkan" in prompt.question for prompt in engine.asked)
    now = path.read_bytes().splitlines()
    assert [old == new for old, new in zip(lines, now, strict=True)].count(False) == 1


def test_files_of_the_version_with_five_probes_are_gone_on_with(
    tmp_path: Path, bench: Bench, engine: TableEngine
) -> None:
    path = tmp_path / "probes.jsonl"
    whole = to_json(kept_run(path, bench))
    header, *lines = path.read_text().splitlines()
    old = [json.loads(line) for line in lines]
    for each in old:
        each["trials"]["causality"] = {"id": each["question"], "outcome": "changed"}
    path.write_text("\n".join([header, *map(json.dumps, old), ""]))
    engine.asked = []
    assert to_json(kept_run(path, bench)) == whole
    assert engine.asked == []
