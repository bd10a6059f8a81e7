"""`openbook diagnose` as a user meets it, with fakes for the model and the embedder."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from openbook.cli import run as run_verb
from openbook.cli import session
from openbook.config import Settings
from openbook.diagnosis import results
from openbook.errors import StorageError
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase, add
from openbook.records import Prompt
from openbook.testing import HashEmbedder
from tests.diagnosis.table_engine import FAILS, SILENT, TableEngine, question_in

TEXTS = {
    "bridge.txt": "The bridge was opened on 14 March 2026 by mayor Lila Ortega. It has four lanes.",
    "ferry.txt": "The ferry to Hessay leaves at 09:40 from pier 3. Dogs may not enter the saloon.",
}
QUESTIONS: list[dict[str, object]] = [
    {"id": "bridge", "question": "Who opened the bridge?", "answers": ["Lila Ortega"], "tags": ["[red]who"]},
    {"id": "ferry", "question": "When does the ferry to Hessay leave?", "answers": ["09:40"], "tags": ["when"]},
    {"id": "tower", "question": "Who built the tower of Ostrevik?", "kind": "unanswerable"},
    {"id": "france", "question": "What is the capital of France?", "answers": ["Paris"], "kind": "world"},
]
ANSWERS = {str(q["question"]): str(q["answers"][0]) for q in QUESTIONS if "answers" in q}  # type: ignore[index]
Out = Callable[..., tuple[int, str, str]]


def good(prompt: Prompt) -> str:
    answer = ANSWERS.get(question_in(prompt), SILENT)
    if not prompt.passages:
        return answer if answer == "Paris" else "No idea."
    return answer if answer in "".join(prompt.passages) else SILENT


def bad(prompt: Prompt) -> str:
    return "Somebody."


def fails(prompt: Prompt) -> str:
    return FAILS


def overloaded(prompt: Prompt) -> str:
    """As good, but every other question is refused."""
    return FAILS if question_in(prompt).startswith("Who") else good(prompt)


ENGINES = {"good": good, "bad": bad, "fails": fails, "overloaded": overloaded, "yes": lambda prompt: "Yes."}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[TableEngine]:
    """The engines that were opened, in order. The model `name` is ENGINES[name]."""
    engines: list[TableEngine] = []

    def opener(current: Settings, *, full_check: bool = False) -> Callable[[], FrozenModel]:
        engine = TableEngine(ENGINES[current.model], current.model)
        engines.append(engine)
        return lambda: FrozenModel(engine)

    monkeypatch.setattr(session, "model_opener", opener)
    monkeypatch.setattr(session, "open_embedder", lambda current, name="", full_check=False: HashEmbedder())
    return engines


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(q) + "\n" for q in QUESTIONS))
    return path


@pytest.fixture
def kb(tmp_path: Path, embedder: HashEmbedder) -> Path:
    for name, text in TEXTS.items():
        (tmp_path / name).write_text(text)
    base = KnowledgeBase.ensure(tmp_path / "kb", embedder.identity)
    add(base, [tmp_path / name for name in TEXTS], embedder)
    return tmp_path / "kb"


@pytest.fixture
def out(capsys: pytest.CaptureFixture[str]) -> Out:
    def run(*arguments: object) -> tuple[int, str, str]:
        code = run_verb([str(each) for each in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_two_models_side_by_side(
    out: Out, opened: list[TableEngine], questions: Path, kb: Path, tmp_path: Path
) -> None:
    folder, table = tmp_path / "results", tmp_path / "table.csv"
    arguments = (
        "diagnose",
        questions,
        "--kb",
        kb,
        "--model",
        "good",
        "--model",
        "bad",
        "--out",
        folder,
        "--csv",
        table,
    )
    code, stdout, _ = out(*arguments)
    assert code == 0
    assert "fixed by retrieval" in stdout
    assert "[red]who" in stdout
    assert "good against bad, 4 questions" in stdout
    assert "McNemar" in stdout
    assert "\x1b" not in stdout
    assert "K" * 15 + "F" * 30 + "N" * 15 in stdout  # without colours the bar is of letters
    assert {p.name for p in folder.iterdir() if not p.name.startswith(".")} >= {"diagnosis.json", "report.html"}
    value = json.loads((folder / "diagnosis.json").read_text())
    assert [o["verdict"] for o in value["models"][0]["outcomes"]] == [
        "fixed_by_retrieval",
        "fixed_by_retrieval",
        "not_in_the_knowledge_base",
        "known",
    ]
    assert [o["verdict"] for o in value["models"][1]["outcomes"]][:3] == [
        "reader_gap",
        "reader_gap",
        "not_in_the_knowledge_base",
    ]
    with table.open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 8


def test_a_later_run_of_another_model_shows_the_earlier_one_beside_its_own(
    out: Out, opened: list[TableEngine], questions: Path, kb: Path
) -> None:
    arguments = ("diagnose", questions, "--kb", kb)
    first = json.loads(out(*arguments, "--model", "bad", "--limit", "3", "--json")[1])
    code, stdout, error = out(*arguments, "--model", "good", "--fail-under", "1")
    assert code == 0  # of the model that was asked now
    assert "good against bad, 3 questions" in stdout
    assert "bad: 3 questions" not in stdout
    assert "Also in the report, because they were asked before: bad (3 questions)." in error
    folder = Path(first["folder"])
    models = json.loads((folder / "diagnosis.json").read_text())["models"]
    assert [model["header"]["model"]["name"] for model in models] == ["good", "bad"]
    assert "<h2>bad</h2>" in (folder / "report.html").read_text()


def test_the_same_command_goes_on_and_asks_nothing_again(
    out: Out, opened: list[TableEngine], questions: Path, kb: Path
) -> None:
    arguments = ("diagnose", questions, "--kb", kb, "--model", "good", "--json")
    code, first, _ = out(*arguments, "--limit", "2")
    assert code == 0
    folder = Path(json.loads(first)["folder"])
    assert folder.parent.name == "diagnoses"
    assert json.loads(first)["models"][0]["overall"]["questions"] == 2
    asked = len(opened[0].asked)
    code, second, _ = out(*arguments)
    assert json.loads(second)["models"][0]["overall"]["questions"] == 4
    assert Path(json.loads(second)["folder"]) == folder
    assert len(opened[1].asked) < 2 * asked
    assert out(*arguments)[0] == 0
    assert opened[2].asked == []
    limited = json.loads(out(*arguments, "--limit", "1")[1])
    assert limited["models"][0]["overall"]["questions"] == 1


def test_other_settings_are_another_run(out: Out, opened: list[TableEngine], questions: Path, kb: Path) -> None:
    arguments = ("diagnose", questions, "--kb", kb, "--model", "good", "--json")
    folders = {
        json.loads(out(*arguments, *more)[1])["folder"] for more in ((), ("--passages", "1"), ("--max-tokens", "9"))
    }
    assert len(folders) == 3


def test_a_file_of_questions_that_changes_while_it_is_asked_ends_the_run(
    out: Out,
    opened: list[TableEngine],
    questions: Path,
    kb: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = questions.read_text()

    def edits(prompt: Prompt) -> str:
        questions.write_text(before.replace("Who built the tower", "Who sold the tower"))
        return good(prompt)

    monkeypatch.setitem(ENGINES, "edits", edits)
    arguments = ("diagnose", questions, "--kb", kb, "--model", "edits", "--model", "good", "--out", tmp_path / "r")
    code, _, error = out(*arguments)
    assert code == 2
    assert "The questions changed while they were asked: question 3 ('tower') is another one." in error
    assert "sold" not in "".join(path.read_text() for path in (tmp_path / "r").glob("observations-*"))
    questions.write_text(before)
    assert out(*arguments)[0] == 0


def test_a_changed_knowledge_base_is_refused_in_the_same_folder(
    out: Out, opened: list[TableEngine], questions: Path, kb: Path, tmp_path: Path, embedder: HashEmbedder
) -> None:
    arguments = ("diagnose", questions, "--kb", kb, "--model", "good", "--out", tmp_path / "r")
    assert out(*arguments, "--limit", "1")[0] == 0
    (tmp_path / "new.txt").write_text("Something new.")
    add(KnowledgeBase.open(kb), [tmp_path / "new.txt"], embedder)
    code, _, error = out(*arguments)
    assert code == 2
    assert "another knowledge base version: 1, now 2" in error
    assert out(*arguments, "--as-of", "1")[0] == 0


def test_documents_without_a_knowledge_base(
    out: Out, opened: list[TableEngine], questions: Path, kb: Path, tmp_path: Path
) -> None:
    code, stdout, _ = out("diagnose", questions, "--docs", tmp_path / "bridge.txt", "--model", "good", "--json")
    assert code == 0
    verdicts = {o["id"]: o["verdict"] for o in json.loads(stdout)["models"][0]["outcomes"]}
    assert verdicts["bridge"] == "fixed_by_retrieval"
    assert verdicts["ferry"] == "not_in_the_knowledge_base"


@pytest.mark.parametrize(
    ("model", "share", "code"),
    [
        ("good", "1.0", 0),
        ("bad", "0.5", 1),
        ("bad", "0", 0),
        ("overloaded", "0.5", 0),
        ("overloaded", "0.51", 1),
    ],
)
def test_fail_under(
    out: Out, opened: list[TableEngine], questions: Path, kb: Path, model: str, share: str, code: int
) -> None:
    found, stdout, error = out("diagnose", questions, "--kb", kb, "--model", model, "--fail-under", share)
    assert found == code
    assert "report" in stdout
    assert ("--fail-under" in error) == (code != 0)


@pytest.mark.parametrize(
    ("right", "of", "share", "code"),
    [(7, 25, "0.28", 0), (14, 25, "0.56", 0), (6, 25, "0.28", 1), (13, 25, "0.56", 1), (1, 3, "0.3333333333333333", 0)],
)
def test_fail_under_is_exact(
    out: Out, opened: list[TableEngine], kb: Path, tmp_path: Path, right: int, of: int, share: str, code: int
) -> None:
    lines = [{**QUESTIONS[0], "id": n, "answers": ["Somebody" if n < right else "Lila Ortega"]} for n in range(of)]
    path = tmp_path / "many.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert out("diagnose", path, "--kb", kb, "--model", "bad", "--fail-under", share)[0] == code


def test_fail_under_takes_numbers_from_0_to_1(out: Out, opened: list[TableEngine], questions: Path, kb: Path) -> None:
    for share in ("nan", "1.1", "half"):
        code, _, error = out("diagnose", questions, "--kb", kb, "--model", "good", "--fail-under", share)
        assert (code, "--fail-under" in error) == (2, True)
    assert opened == []


def test_a_run_in_which_every_request_failed_is_an_error_and_asked_again(
    out: Out, opened: list[TableEngine], questions: Path, kb: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("diagnose", questions, "--kb", kb, "--model", "fails")
    for more in ((), ("--fail-under", "0")):
        code, stdout, error = out(*arguments, *more)
        assert code == 3
        assert "fails failed on all 4 questions. The engine fell over." in error
        assert "it asks them again" in " ".join(stdout.split())
    assert opened[1].asked
    monkeypatch.setitem(ENGINES, "fails", good)
    code, stdout, error = out(*arguments)
    assert (code, error) == (0, "")
    assert "failed" not in stdout


def test_a_judge_that_fails_is_an_error(out: Out, opened: list[TableEngine], questions: Path, kb: Path) -> None:
    code, _, error = out("diagnose", questions, "--kb", kb, "--model", "good", "--judge", "fails")
    assert code == 3
    assert "The judge fails failed on an answer to 'bridge': The engine fell over." in " ".join(error.split())


def test_compare(out: Out, opened: list[TableEngine], questions: Path, kb: Path, tmp_path: Path) -> None:
    for name in ("good", "bad"):
        assert out("diagnose", "run", questions, "--kb", kb, "--model", name, "--out", tmp_path / name)[0] == 0
    files = [tmp_path / name / "diagnosis.json" for name in ("good", "bad")]
    code, stdout, _ = out("diagnose", "compare", *files, "--json")
    assert code == 0
    (comparison,) = json.loads(stdout)["comparisons"]
    assert (comparison["questions"], comparison["only_second"]) == (4, 0)
    code, stdout, _ = out("diagnose", "compare", *files)
    assert "fixed by retrieval → reader gap" in stdout
    code, _, error = out("diagnose", "compare", files[0])
    assert code == 2
    assert "only one model" in error


def test_ids_that_lines_gave_do_not_make_two_files_comparable(
    out: Out, opened: list[TableEngine], kb: Path, tmp_path: Path
) -> None:
    lines = [{key: value for key, value in q.items() if key != "id"} for q in QUESTIONS]
    for name, chosen in (("one", lines[:2]), ("other", lines[2:]), ("partly", [lines[3], lines[0]])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in chosen))
        run = ("diagnose", tmp_path / f"{name}.jsonl", "--kb", kb, "--model", "good", "--out", tmp_path / name)
        assert out(*run)[0] == 0
    one, other, partly = (tmp_path / name / "diagnosis.json" for name in ("one", "other", "partly"))
    code, stdout, error = out("diagnose", "compare", one, other)
    assert (code, stdout) == (2, "")
    assert "were asked other questions" in error
    code, stdout, _ = out("diagnose", "compare", one, partly)
    assert code == 0
    assert "1 questions" in stdout
    assert "only one of the two was asked them: 2." in stdout
    (comparison,) = json.loads(out("diagnose", "compare", one, partly, "--json")[1])["comparisons"]
    assert (comparison["questions"], comparison["left_out"], comparison["both_right"]) == (1, 2, 1)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], "holds no questions"),
        ([{"id": "a", "question": "Where?"}], "line 1 is no valid question"),
        ([QUESTIONS[0], QUESTIONS[0]], "second time"),
        ([{**QUESTIONS[0], "reviewed": False}], "1 of the 1 questions are drafts"),
    ],
)
def test_bad_questions_are_refused_before_a_model_is_opened(
    out: Out, opened: list[TableEngine], tmp_path: Path, kb: Path, lines: list[object], says: str
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, _, error = out("diagnose", path, "--kb", kb, "--model", "good")
    assert code == 2
    assert says in error
    assert "Traceback" not in error
    assert opened == []


def test_drafts_are_asked_when_one_says_so(out: Out, opened: list[TableEngine], tmp_path: Path, kb: Path) -> None:
    path = tmp_path / "drafts.jsonl"
    path.write_text(json.dumps({**QUESTIONS[0], "reviewed": False}) + "\n")
    assert out("diagnose", path, "--kb", kb, "--model", "good", "--with-drafts")[0] == 0


def test_places_that_are_not_there(
    out: Out, opened: list[TableEngine], questions: Path, kb: Path, tmp_path: Path
) -> None:
    assert out("diagnose", tmp_path / "none.jsonl", "--kb", kb)[0] == 4
    code, _, error = out("diagnose", questions, "--kb", tmp_path / "none", "--model", "good")
    assert (code, "No knowledge base in" in error) == (4, True)
    KnowledgeBase.ensure(tmp_path / "empty", HashEmbedder().identity)
    code, _, error = out("diagnose", questions, "--kb", tmp_path / "empty", "--model", "good")
    assert (code, "no document went in" in error) == (4, True)
    code, _, error = out("diagnose", questions, "--kb", kb, "--docs", tmp_path)
    assert (code, "exclude each other" in error) == (2, True)
    (tmp_path / "file").write_text("")
    code, _, error = out("diagnose", questions, "--kb", kb, "--model", "good", "--out", tmp_path / "file")
    assert (code, "Cannot write" in error) == (5, True)


def test_a_purge_deletes_the_diagnoses_that_show_the_text(
    out: Out, opened: list[TableEngine], questions: Path, kb: Path, tmp_path: Path
) -> None:
    folder = Path(json.loads(out("diagnose", questions, "--kb", kb, "--model", "good", "--json")[1])["folder"])
    code, stdout, _ = out("purge", tmp_path / "bridge.txt", "--kb", kb, "--yes", "--json")
    assert (code, json.loads(stdout)["diagnoses_dropped"]) == (0, 1)
    assert not folder.exists()
    code, stdout, _ = out("purge", tmp_path / "ferry.txt", "--kb", kb, "--yes", "--json")
    assert (code, json.loads(stdout)["diagnoses_dropped"]) == (0, 0)


def test_help_names_both_ways(out: Out) -> None:
    code, stdout, _ = out("diagnose", "--help")
    assert code == 0
    assert "compare" in stdout
    assert "--fail-under" in out("diagnose", "run", "--help")[1]
    assert out("diagnose")[0] == 0


def test_probes_in_the_same_report_and_asked_once(
    out: Out, opened: list[TableEngine], questions: Path, kb: Path, tmp_path: Path
) -> None:
    arguments = ("diagnose", questions, "--kb", kb, "--model", "good", "--out", tmp_path / "r", "--probes")
    code, stdout, _ = out(*arguments)
    assert code == 0
    assert "good: 4 questions probed" in stdout
    page = (tmp_path / "r" / "report.html").read_text()
    assert "<h2>Probes of good</h2>" in page
    assert page.index("<h3>Each question</h3>") < page.index("<h3>Abstention")
    (model,) = json.loads((tmp_path / "r" / "diagnosis.json").read_text())["models"]
    assert model["probes"]["probes"]["abstention"]["outcomes"]["abstained"]["count"] >= 1
    assert list(model["probes"]["probes"]) == ["counterfactual", "abstention", "noise"]
    assert out(*arguments)[0] == 0
    assert len(opened) == 2
    assert opened[1].asked == []


def test_wherever_the_disk_fails_a_page_with_probes_is_known_to_have_them(
    out: Out,
    opened: list[TableEngine],
    questions: Path,
    kb: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`purge` asks the numbers, so no page may have what they do not say."""
    arguments = ("diagnose", questions, "--kb", kb, "--model", "good", "--out", tmp_path / "r")
    for more in (("--probes",), ()):
        for failing in ("replace_file", "write_report"):
            with monkeypatch.context() as broken:
                broken.setattr(results, failing, full)
                assert out(*arguments, *more)[0] == 5
            page, numbers = tmp_path / "r" / "report.html", tmp_path / "r" / "diagnosis.json"
            has = page.exists() and "<h2>Probes of good</h2>" in page.read_text()
            assert not has or '"probes"' in numbers.read_text()
        assert out(*arguments, *more)[0] == 0


def full(*arguments: object) -> None:
    raise StorageError("No space left on device.")


def test_a_judge_says_how_far_it_agrees(
    out: Out, opened: list[TableEngine], questions: Path, kb: Path, tmp_path: Path
) -> None:
    arguments = ("diagnose", questions, "--kb", kb, "--model", "good", "--out", tmp_path / "r")
    assert out(*arguments)[0] == 0
    assert "judge" not in json.loads((tmp_path / "r" / "diagnosis.json").read_text())["models"][0]
    code, stdout, _ = out(*arguments, "--judge", "yes")
    assert code == 0
    assert "The judge yes agrees with the rules on 5/7" in " ".join(stdout.split())
    (model,) = json.loads((tmp_path / "r" / "diagnosis.json").read_text())["models"]
    assert (model["judge"]["too_mild"], model["judge"]["agreed"]["kappa"]) == (2, 0.0)
    assert "<h3>A second opinion</h3>" in (tmp_path / "r" / "report.html").read_text()
    asked = len(opened[-1].asked)
    assert out(*arguments, "--judge", "yes")[0] == 0
    assert asked > 0
    assert opened[-1].asked == []


def test_a_table_that_cannot_be_written_is_refused_before_the_work(
    out: Out, opened: list[TableEngine], questions: Path, kb: Path, tmp_path: Path
) -> None:
    code, _, error = out("diagnose", questions, "--kb", kb, "--model", "good", "--csv", tmp_path)
    assert (code, "it is a folder; give a file" in " ".join(error.split())) == (5, True)
    assert opened == []
