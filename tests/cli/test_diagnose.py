"""`openbook diagnose` as a user meets them, with fakes for the model and the embedder."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from openbook.answers import opening
from openbook.core.config import Settings
from openbook.core.records import Prompt
from openbook.inference import FrozenModel
from tests.cli.conftest import Out
from tests.conftest import base_with
from tests.diagnosis.table_engine import FAILS, TableEngine, question_in
from tests.diagnosis.test_runner import BRIDGE, FERRY, NOWHERE, TEXTS, WORLD, good

QUESTIONS = [
    asdict(each) for each in (replace(BRIDGE, tags=("[red]who",)), replace(FERRY, phrasings=()), NOWHERE, WORLD)
]


ENGINES: dict[str, Callable[[Prompt], str]] = {
    "good": good,
    "bad": lambda prompt: "Somebody.",
    "fails": lambda prompt: FAILS,
    # As good, but every other question is refused.
    "overloaded": lambda prompt: FAILS if question_in(prompt).startswith("Who") else good(prompt),
}


@pytest.fixture
def opened(fakes: None, monkeypatch: pytest.MonkeyPatch) -> list[tuple[TableEngine, Settings]]:
    """The engines that were opened, in order, and with which settings. The model `name` is ENGINES[name]."""
    engines: list[tuple[TableEngine, Settings]] = []

    def opener(current: Settings, *_: object) -> Callable[[], FrozenModel]:
        engine = TableEngine(ENGINES[current.model], current.model)
        engines.append((engine, current))
        return lambda: FrozenModel(engine)

    monkeypatch.setattr(opening, "model_opener", opener)
    return engines


def lines_of(questions: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(each) + "\n" for each in questions)


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text(lines_of(QUESTIONS))
    return path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documents, and a knowledge base of them."""
    folder = tmp_path_factory.mktemp("built")
    base_with(folder, TEXTS).close()
    return folder


@pytest.fixture
def kb(built: Path, tmp_path: Path, opened: object) -> Path:
    return Path(shutil.copytree(built / "kb", tmp_path / "kb"))


@pytest.fixture
def diagnose(out: Out, questions: Path, kb: Path) -> Out:
    return out.of("diagnose", questions, "--kb", kb)


def test_certainty_is_judged_by_the_limits_of_the_settings_and_nothing_is_asked_again(
    diagnose: Out, questions: Path, opened: list[tuple[TableEngine, Settings]], monkeypatch: pytest.MonkeyPatch
) -> None:
    questions.write_text(lines_of({**QUESTIONS[0], "id": n} for n in range(30)))
    monkeypatch.setenv("OPENBOOK_SUPPORTED_FROM", "1")
    words = diagnose.json("--model", "good")["models"][0]["calibration"]["words"]
    assert (words["supported"]["of"], words["likely"]["count"] + words["check it"]["count"]) == (0, 30)
    (proposed,) = [line for line in diagnose.ok("--model", "good").splitlines() if line.startswith("supported_from = ")]
    monkeypatch.setenv("OPENBOOK_SUPPORTED_FROM", proposed.partition(" = ")[2])
    stdout = diagnose.ok("--model", "good")
    assert re.search(r"^supported +30/30 = 100%", stdout, re.MULTILINE)
    assert [bool(engine.asked) for engine, _ in opened] == [True, False, False]


def test_the_same_command_resumes_its_run_and_other_settings_begin_another(
    diagnose: Out, opened: list[tuple[TableEngine, Settings]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third, limited = (
        diagnose.json("--model", "good", *more) for more in (("--limit", "2"), (), (), ("--limit", "1"))
    )
    assert [each["models"][0]["overall"]["questions"] for each in (first, second, third, limited)] == [2, 4, 4, 1]
    assert first["folder"] == second["folder"]
    assert Path(first["folder"]).parent.name == "diagnoses"
    asked = [len(engine.asked) for engine, _ in opened]
    assert 0 < asked[1] < 2 * asked[0]
    assert asked[2:] == [0, 0]
    folders = set()
    for name, value in (("THREADS", "1"), ("PASSAGES", "1"), ("MAX_TOKENS", "9")):
        monkeypatch.setenv(f"OPENBOOK_{name}", value)
        folders.add(diagnose.json("--model", "good")["folder"])
    assert len(folders) == 3


def test_questions_are_asked_as_they_were_when_the_run_began(
    diagnose: Out, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = questions.read_text()

    def edits(prompt: Prompt) -> str:
        questions.write_text(before.replace("Who designed the lighthouse", "Who sold the lighthouse"))
        return good(prompt)

    monkeypatch.setitem(ENGINES, "edits", edits)
    arguments = ("--model", "edits", "--model", "good", "--output", tmp_path / "r")
    diagnose.ok(*arguments)
    assert "sold" not in "".join(path.read_text() for path in (tmp_path / "r").glob("observations-*"))
    diagnose.refused(2, "differs in its questions", *arguments)


def test_fail_under_exits_with_1_below_the_exact_share(diagnose: Out, questions: Path) -> None:
    for model, share, code in (
        ("good", "1", 0),
        ("bad", "0.5", 1),
        ("bad", "0", 0),
        ("overloaded", "0.5", 0),
        ("overloaded", "0.51", 1),
        ("good", "nan", 2),
        ("good", "1.1", 2),
    ):
        found, stdout, error = diagnose("--model", model, "--fail-under", share)
        assert (found, "report" in stdout, "--fail-under" in error) == (code, code != 2, code != 0), (model, share)
    for right, of, share, code in (
        (7, 25, "0.28", 0),
        (0, 3, "0.3333333333333333", 1),
        (1, 3, "0.3333333333333333", 0),
    ):
        lines = [{**QUESTIONS[0], "id": n, "answers": ["Somebody" if n < right else "Lila Ortega"]} for n in range(of)]
        questions.write_text(lines_of(lines))
        assert diagnose("--model", "bad", "--fail-under", share)[0] == code, share


def test_a_run_in_which_every_request_failed_is_an_error_and_asked_again(
    diagnose: Out, opened: list[tuple[TableEngine, Settings]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for more in ((), ("--fail-under", "0")):
        code, stdout, error = diagnose("--model", "fails", *more)
        assert code == 3
        assert "fails failed on all 4 questions. The engine fell over." in error
        assert "it asks them again" in " ".join(stdout.split())
    assert opened[1][0].asked
    monkeypatch.setitem(ENGINES, "fails", good)
    code, stdout, error = diagnose("--model", "fails")
    assert (code, error, "failed" in stdout) == (0, "", False)
