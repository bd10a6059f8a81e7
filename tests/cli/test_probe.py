"""`openbook probe` as a user meets it, with fakes for the model and the embedder."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from openbook.cli import run as run_verb
from openbook.cli import session
from openbook.config import Settings
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase, add
from openbook.records import Prompt
from openbook.testing import HashEmbedder
from tests.diagnosis.table_engine import FAILS, SILENT, TableEngine, question_in

TIMES = {"Arvik": "06:10", "Brekkan": "07:15", "Corrie": "08:20", "Dunvar": "09:25", "Eskmoor": "10:30"}
Out = Callable[..., tuple[int, str, str]]


def reads(prompt: Prompt) -> str:
    harbour = question_in(prompt).removeprefix("When does the ferry to ").partition(" ")[0]
    text = " ".join(prompt.passages)
    _, found, rest = text.partition(f"ferry to {harbour} leaves at ")
    return rest[:5] if found else SILENT


class Interrupting(TableEngine):
    """Ctrl-C is pressed at the twentieth request."""

    def count_prompt_tokens(self, prompt: Prompt) -> int:
        if len(self.asked) == 20:
            signal.raise_signal(signal.SIGINT)
        return super().count_prompt_tokens(prompt)


ENGINES: dict[str, Callable[[], TableEngine]] = {
    "reads": lambda: TableEngine(reads, "[red]reads"),
    "fails": lambda: TableEngine(lambda prompt: FAILS),
    "interrupted": lambda: Interrupting(reads),
}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings that a model was opened with."""
    seen: list[Settings] = []

    def opener(current: Settings, *, full_check: bool = False) -> Callable[[], FrozenModel]:
        seen.append(current)
        return lambda: FrozenModel(ENGINES[current.model]())

    monkeypatch.setattr(session, "model_opener", opener)
    monkeypatch.setattr(session, "open_embedder", lambda current, name="", full_check=False: HashEmbedder())
    return seen


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    lines = [{"question": f"When does the ferry to {h} leave?", "answers": [t]} for h, t in TIMES.items()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def kb(tmp_path: Path, embedder: HashEmbedder) -> Path:
    for harbour, leaves in TIMES.items():
        (tmp_path / f"{harbour}.txt").write_text(f"The ferry to {harbour} leaves at {leaves} from the pier.")
    base = KnowledgeBase.ensure(tmp_path / "kb", embedder.identity)
    add(base, [tmp_path / f"{harbour}.txt" for harbour in TIMES], embedder)
    base.close()
    return tmp_path / "kb"


@pytest.fixture
def out(capsys: pytest.CaptureFixture[str], opened: list[Settings], questions: Path, kb: Path) -> Out:
    def run(*arguments: object, model: str = "reads") -> tuple[int, str, str]:
        words = ["probe", questions, "--kb", kb, "--model", model, *arguments]
        code = run_verb([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_all_probes_on_the_terminal_and_as_a_page(out: Out, tmp_path: Path, opened: list[Settings]) -> None:
    before = signal.getsignal(signal.SIGINT)
    code, stdout, stderr = out("--report", tmp_path / "probes.html")
    assert code == 0, stderr
    assert "[red]reads: 5 questions probed\n" in stdout
    for title in ("Counterfactual:", "Abstention:", "Position and noise:"):
        assert f"\n{title}" in stdout
    assert "followed the altered passage" in stdout
    assert "5/5" in stdout
    assert "\x1b" not in stdout
    assert "<h3>Position and noise" in (tmp_path / "probes.html").read_text()
    assert signal.getsignal(signal.SIGINT) == before
    assert [current.kv_disk for current in opened] == [0]  # nothing of an altered passage is written down


def test_a_file_of_questions_that_changes_in_the_meantime_changes_nothing(out: Out, questions: Path) -> None:
    before = questions.read_text()

    def edits(prompt: Prompt) -> str:
        questions.write_text(before.replace("Brekkan", "Zandvoort"))
        return reads(prompt)

    ENGINES["edits"] = lambda: TableEngine(edits)
    _, undisturbed, _ = out("--probe", "abstention", "--json")
    code, disturbed, _ = out("--probe", "abstention", "--json", model="edits")
    assert code == 0
    assert json.loads(disturbed)["probes"] == json.loads(undisturbed)["probes"]


def test_a_page_that_cannot_be_written_is_refused_before_the_work(
    out: Out, tmp_path: Path, questions: Path, opened: list[Settings]
) -> None:
    for place, message in (
        (tmp_path, f"Cannot write {tmp_path}: it is a folder; give a file"),
        (questions / "page.html", f"{questions} is no folder"),
        (questions / "pages" / "page.html", f"{questions / 'pages'} is no folder"),
    ):
        code, stdout, stderr = out("--report", place)
        assert (code, stdout) == (5, "")
        assert message in " ".join(stderr.split())
    assert opened == []
    code, _, stderr = out("--probe", "abstention", "--report", tmp_path / "pages" / "new" / "page.html")
    assert code == 0, stderr
    assert (tmp_path / "pages" / "new" / "page.html").is_file()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_folder_that_may_not_be_written_is_refused_before_the_work(
    out: Out, tmp_path: Path, opened: list[Settings]
) -> None:
    (tmp_path / "shut").mkdir(mode=0o500)
    code, _, stderr = out("--report", tmp_path / "shut" / "page.html")
    assert code == 5
    assert "permission denied" in stderr
    assert opened == []


def test_what_was_found_is_shown_before_the_page_is_written(
    out: Out, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "page.html"

    def refuses_then(prompt: Prompt) -> str:
        place.mkdir(exist_ok=True)  # what stands there now no file can replace
        return reads(prompt)

    monkeypatch.setitem(ENGINES, "refused", lambda: TableEngine(refuses_then))
    code, stdout, stderr = out("--probe", "abstention", "--report", place, model="refused")
    assert code == 5
    assert "5 questions probed" in stdout
    assert f"Cannot write {place}" in " ".join(stderr.split())


def test_as_json_and_only_some(out: Out) -> None:
    code, stdout, stderr = out("--probe", "abstention", "--probe", "counterfactual", "--limit", 2, "--json")
    assert code == 0
    value = json.loads(stdout)
    assert list(value["probes"]) == ["counterfactual", "abstention"]
    assert value["questions"] == 2
    assert not value["stopped"]
    assert value["header"]["knowledge_base_version"] == 1
    assert value["probes"]["counterfactual"]["followed"]["passage"]["count"] == 2
    assert value["probes"]["abstention"]["meaning"].startswith("Without the passage")
    assert "The first 2 of 5 questions" in stderr


def test_ctrl_c_shows_what_was_measured(out: Out) -> None:
    before = signal.getsignal(signal.SIGINT)
    code, stdout, stderr = out(model="interrupted")
    assert code == 130
    assert "questions probed before it was stopped" in stdout
    assert "followed the altered passage" in stdout
    assert "Interrupted: what was measured until then is above." in stderr
    assert signal.getsignal(signal.SIGINT) == before


def test_failures_are_no_answers(out: Out) -> None:
    code, stdout, _ = out("--probe", "counterfactual", model="fails")
    assert code == 0
    assert "Left out: the model failed: 5" in stdout
    assert "no data" in stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--probe", "nose"), "'nose' is not a probe. Did you mean 'noise'?"),
        (("--docs", "."), "--docs and --kb exclude each other"),
        (("--limit", 0), "--limit"),
    ],
)
def test_bad_input_is_one_sentence(out: Out, arguments: tuple[object, ...], message: str) -> None:
    code, stdout, stderr = out(*arguments)
    assert code != 0
    assert stdout == ""
    assert message in stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no questions"),
        ("{", "line 1"),
        ('{"question": "Why?"}', "no answers"),
        ('{"question": "Why?", "answers": ["x"], "reviewed": false}', "drafts that nobody has reviewed"),
    ],
)
def test_bad_questions_are_named(out: Out, questions: Path, content: str, message: str) -> None:
    questions.write_text(content)
    code, _, stderr = out()
    assert code == 2
    assert message in stderr


def test_answers_in_no_passage_and_an_empty_knowledge_base(
    out: Out, questions: Path, tmp_path: Path, embedder: HashEmbedder
) -> None:
    questions.write_text(json.dumps({"question": "Who built the tower of Ostrevik?", "answers": ["Anna Berg"]}))
    code, stdout, _ = out("--probe", "counterfactual", "--probe", "noise")
    assert code == 0
    assert stdout.count("Left out: no passage holds the answer: 1") == 2
    KnowledgeBase.ensure(tmp_path / "empty", embedder.identity).close()
    code, _, stderr = out("--kb", tmp_path / "empty")
    assert code != 0
    assert "nothing to ask" in stderr
