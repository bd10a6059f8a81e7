"""`openbook diagnose --teach` as a user meets it: with fakes for models and training, and once with a real training."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from openbook.cli import INTERRUPTED, session, teach
from openbook.cli import run as run_verb
from openbook.cli.display import sparkline
from openbook.cli.training_process import LESSON, LOG, ProcessTrainer
from openbook.diagnosis.teaching.facts import digest_of, generated
from openbook.diagnosis.teaching.lessons import fact_lesson
from openbook.diagnosis.teaching.seams import NOT_MEASURED, Progress, Seams
from openbook.errors import TrainingError
from openbook.models import ModelReference, ModelStore
from openbook.purging import diagnoses_showing
from tests.cli.test_train import write_recipe
from tests.conftest import ROOT
from tests.diagnosis.teaching.school import FACTS, ByHeart, seams_with

Out = Callable[..., tuple[int, str, str]]
SMALL = ("--facts", 4, "--exposures", "1,3", "--known", 3, "--reading", 1, "--skills", "adding", "--skill-tests", 2)


class Kind(NamedTuple):
    kind: str = "language-model"


class Model(NamedTuple):
    """What the verb asks of a reference."""

    name: str
    digest: str
    manifest: Kind = Kind()
    base: Any = None
    path: Path = Path()


@pytest.fixture
def trainer() -> ByHeart:
    return ByHeart()


@pytest.fixture
def out(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], trainer: ByHeart, tmp_path: Path) -> Out:
    models = {
        "reader": Model("reader", "r" * 64, Kind("adapter"), Model("small", "b" * 64)),
        "words": Model("words", "w" * 64),
    }
    models["minilm"] = Model("minilm", "e" * 64, Kind("embedder"))
    monkeypatch.setattr(session, "ready_model", lambda current, name, full_check=False: models[name])

    def seams(*arguments: Any) -> Seams:
        progress: Progress = arguments[-1]
        return replace(seams_with(trainer), progress=progress)

    monkeypatch.setattr(teach, "seams_of", seams)

    def run(*arguments: object, folder: str = "price") -> tuple[int, str, str]:
        words = ["diagnose", "--teach", *arguments, "--out", tmp_path / folder]
        code = run_verb([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_from_beginning_to_end_and_again(out: Out, trainer: ByHeart, tmp_path: Path) -> None:
    code, stdout, stderr = out(*SMALL)
    assert code == 0, stderr
    assert "8 parts; about " in stderr
    assert "facts-paraphrased-3 (6 of 8)" in stderr
    assert "retrieval, the base reads" in stdout
    assert "Retrieval beats fine-tuning" in stdout
    assert "recall, verbatim: ▁█ with 1, 3 exposures" in stdout
    assert "\x1b" not in stdout
    assert [lesson.name for lesson in trainer.lessons][:1] == ["verbatim-1"]
    taught = len(trainer.lessons)
    value = json.loads((tmp_path / "price" / "price.json").read_bytes())
    assert [arm["remedy"] for arm in value["facts"]] == ["none", "retrieval", *["training"] * 4]
    assert "The price of a skill" in (tmp_path / "price" / "price.html").read_text()

    code, stdout, stderr = out(*SMALL, "--json")
    assert json.loads(stdout)["facts"] == value["facts"]
    assert "8 of them measured before; about 0 minutes" in stderr
    assert len(trainer.lessons) == taught

    code, _, stderr = out("--exposures", "1,3,10", *SMALL[:2], *SMALL[4:])
    assert code == 0
    assert [lesson.name for lesson in trainer.lessons][taught:] == ["verbatim-10", "paraphrased-10"]


def test_a_task_of_ones_own(out: Out, trainer: ByHeart, tmp_path: Path) -> None:
    lines = [
        {
            "title": f"Ticket {i}",
            "passage": f"Where is card {i}?",
            "questions": [{"question": f"Intent of ticket {i}?", "answers": ["card"]}],
        }
        for i in range(8)
    ]
    lines.append({"passage": "?", "questions": [{"question": "Intent?"}]})
    source, guide = tmp_path / "tickets.jsonl", tmp_path / "guide.md"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    guide.write_text("Where things are: card.")
    words = ("--facts", 0, "--skill-file", source, "--skill-tests", 3)
    code, stdout, stderr = out(*words, "--guide", guide)
    assert code == 0, stderr
    assert "2 parts; about " in stderr
    assert "tickets: 5 examples to learn from, 200 were asked for." in stdout
    assert "Left out of tickets.jsonl, because unanswered, too long or there twice: 1 questions." in " ".join(
        stdout.split()
    )
    assert [lesson.name for lesson in trainer.lessons] == ["skill-tickets"]
    value = json.loads((tmp_path / "price" / "price.json").read_bytes())
    assert value["about"]["skills"] == "tickets (5 to learn, 3 to measure)"
    assert {arm["given"] for arm in value["skills"]} == {"nothing", "passage", "guide", "documents"}
    assert "base, guide and documents found" in (tmp_path / "price" / "price.html").read_text()
    for text in ("Where is card 3?", "Where things are: card."):
        assert diagnoses_showing(tmp_path, [text]) == [tmp_path / "price"]

    code, stdout, stderr = out(*words, "--skills", "adding", folder="other")
    assert code == 0, stderr
    value = json.loads((tmp_path / "other" / "price.json").read_bytes())
    without = {arm["given"] for arm in value["skills"] if arm["skill"] == "tickets"}
    assert without == {"nothing", "passage", "documents"}
    page = (tmp_path / "other" / "price.html").read_text()
    assert "base, documents found" in page
    assert "adding" in page


def test_ctrl_c_keeps_what_was_measured_and_the_same_command_goes_on(
    out: Out, trainer: ByHeart, tmp_path: Path
) -> None:
    trainer.interrupted = True
    code, _, stderr = out(*SMALL)
    assert code == INTERRUPTED
    assert "facts-retrieval-base" in stderr
    assert len(list((tmp_path / "price" / "parts").iterdir())) == 2
    code, _, stderr = out(*SMALL)
    assert code == 0
    assert "2 of them measured before" in stderr


def test_an_estimate_and_a_budget(out: Out, trainer: ByHeart, tmp_path: Path) -> None:
    code, stdout, stderr = out(*SMALL, "--dry-run")
    assert (code, stdout) == (0, "")
    assert "8 parts; about " in stderr
    assert not (tmp_path / "price").exists()
    code, stdout, stderr = out(*SMALL, "--budget-minutes", "0.001")
    assert code == 0
    assert "of which 0.001 may be used" in stderr
    others = [f"facts-{form}-{exposures}" for exposures in (1, 3) for form in ("verbatim", "paraphrased")]
    left_out = ["facts-alone", "facts-retrieval-base", *others, "skill-adding-base", "skill-adding-trained"]
    assert f"Left out, because the time was too short: {', '.join(left_out)}" in " ".join(stdout.split())
    assert json.loads((tmp_path / "price" / "price.json").read_bytes())["left_out"] == left_out
    page = (tmp_path / "price" / "price.html").read_text()
    assert all(f"Left out, because the time was too short: {name}<" in page for name in left_out)
    assert not trainer.lessons


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--exposures", "1,x"), "--exposures must be numbers from 1 to 10000"),
        (("--exposures", "0"), "not '0'"),
        (("--forms", "aloud"), "There is no form 'aloud'"),
        (("--skills", "juggling"), "There is no skill 'juggling'"),
        (("--facts", "0", "--skills", ""), "Nothing is to be measured"),
        (("--facts", "1000"), "--facts must be from 1 to 200"),
        (("--base", "minilm"), "minilm is an embedder, which cannot be taught"),
        (("--from", "none.jsonl"), "none.jsonl"),
        (("--skill-file", "none.jsonl"), "none.jsonl"),
        (("--guide", "guide.md"), "Give that file too"),
    ],
)
def test_bad_input_is_refused(out: Out, words: tuple[str, ...], message: str) -> None:
    code, _, stderr = out(*words)
    assert code != 0
    assert message in stderr
    assert "Traceback" not in stderr


def test_without_pytorch_it_says_what_to_install(out: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    from openbook.cli import train

    monkeypatch.setattr(train, "NEEDED", ("torch_of_another_name",))
    code, _, stderr = out(*SMALL)
    assert code == 2
    assert "pip install 'openbook[train]'" in stderr


def test_a_purge_of_a_document_deletes_what_was_learned_from_it(out: Out, tmp_path: Path) -> None:
    quote = "All staff have 28 days"
    line = {"id": "a", "question": "How long?", "answers": ["28 days"], "gold": {"quote": quote}}
    (tmp_path / "q.jsonl").write_text(json.dumps(line) + "\n")
    code, stdout, stderr = out(
        *("--from", tmp_path / "q.jsonl", "--exposures", "1", "--skills", "", "--forms", "verbatim"),
        folder="home/price-1",
    )
    assert code == 0, stderr
    assert "gives no paraphrases" in stdout
    assert diagnoses_showing(tmp_path / "home", ["Another text."]) == []
    assert diagnoses_showing(tmp_path / "home", [f"# Leave\n{quote} of leave."]) == [tmp_path / "home" / "price-1"]


def test_what_was_learned_before_is_found_by_a_purge_of_it(out: Out, tmp_path: Path) -> None:
    few = ("--exposures", "1", "--skills", "", "--forms", "verbatim")
    for quote in ("All staff have 28 days", "The ferry leaves at 09:40\u2028 from pier 3", "All staff have 28 days"):
        line = {"id": "a", "question": "How long?", "answers": ["28 days"], "gold": {"quote": quote}}
        (tmp_path / "q.jsonl").write_text(json.dumps(line) + "\n")
        code, _, stderr = out("--from", tmp_path / "q.jsonl", *few, folder="home/price-1")
        assert code == 0, stderr
    for quote in ("All staff have 28 days", "The ferry leaves at 09:40\u2028 from pier 3"):
        assert diagnoses_showing(tmp_path / "home", [f"# Text\n{quote}."]) == [tmp_path / "home" / "price-1"]
    written = tmp_path / "home" / "price-1" / "facts.jsonl"
    header, *lines = map(json.loads, written.read_bytes().splitlines())
    assert (header, len(lines)) == ({"format": 1, "facts": 2}, 2)

    for content in (
        b"",
        b'{"format": 1}\n{"id": "a"',
        b'{"format": 9}\n',
        b'{"format": 1}\n{"id": "a", "passages": [7]}\n',
    ):
        written.write_bytes(content)
        code, _, stderr = out("--from", tmp_path / "q.jsonl", *few, folder="home/price-1")
        assert code == 2
        assert "facts.jsonl is damaged" in " ".join(stderr.split())
        assert written.read_bytes() == content


def test_another_task_has_a_folder_of_its_own(out: Out, tmp_path: Path, own_home: Path) -> None:
    def names_after(*words: object) -> set[str]:
        assert run_verb(["diagnose", "--teach", *map(str, words), "--skill-tests", "2"]) == 0
        return {path.name for path in (own_home / "diagnoses").iterdir()}

    for name in "ab":
        lines = [
            {"passage": f"Where is {name}{i}?", "questions": [{"question": "Intent?", "answers": ["card"]}]}
            for i in range(4)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    first = names_after("--facts", 0, "--skill-file", tmp_path / "a.jsonl")
    second = names_after("--facts", 0, "--skill-file", tmp_path / "b.jsonl")
    assert (len(first), len(second)) == (1, 2)
    assert names_after("--facts", 0, "--skill-file", tmp_path / "a.jsonl", "--skill-examples", 1) == second
    assert names_after("--facts", 0, "--skills", "adding") == {*second, f"price-{digest_of([])[:12]}"}  # as it was


def test_a_curve_is_drawn_as_far_as_the_terminal_can() -> None:
    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert sparkline([0.0, 0.5, 1.0], "ascii") == "049"
    assert sparkline([]) == ""


# --- the process ------------------------------------------------------------------------------------------------------

CHILD = """
import json, os, signal, sys, time
from pathlib import Path
folder = Path(sys.argv[sys.argv.index("--folder") + 1])
folder.mkdir(parents=True, exist_ok=True)
mode = Path(sys.argv[0]).with_name("mode").read_text()
if mode == "fails":
    sys.exit("Error: The memory is not enough.")
if mode == "lingers":
    (folder / "lingers").write_text(f"{os.getpid()}\\n")
    for _ in range(600):
        if Path(sys.argv[0]).with_name("go").exists():
            break
        time.sleep(0.05)
if mode == "waits":
    signal.signal(signal.SIGINT, lambda *_: ((folder / "stopped").touch(), sys.exit(130)))
    (folder / "waits").touch()
    time.sleep(60)
(folder / "metrics.jsonl").write_text('{"kind": "step", "step": 3, "steps": 4}\\n{"kind": ')
time.sleep(0.2)
(folder / "result.json").write_text(json.dumps({"model": "m" * 64, "tokens": 77}) + "\\n")
"""

PARENT = """
import sys
from pathlib import Path
from tests.cli.test_teach import LESSON_OF_ONE, trainer_in
trainer_in(Path(sys.argv[1])).train(LESSON_OF_ONE, lambda *step: None)
"""

INTERRUPTER = """
import os, signal, sys, time
from pathlib import Path
while not list(Path(sys.argv[2]).glob("*/run/waits")):
    time.sleep(0.02)
os.kill(int(sys.argv[1]), signal.SIGINT)
"""


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProcessTrainer:
    from openbook.cli import training_process

    monkeypatch.setattr(training_process, "POLL_S", 0.05)
    (tmp_path / "child.py").write_text(CHILD)
    (tmp_path / "mode").write_text("learns")
    return trainer_in(tmp_path)


def trainer_in(folder: Path) -> ProcessTrainer:
    """Starts a script that does what the file `mode` says."""
    base: Any = Model("small", "b" * 64)
    store = ModelStore(folder / "models")
    (store.root / base.digest).mkdir(parents=True, exist_ok=True)
    return ProcessTrainer(store, base, folder / "runs", 1, program=(sys.executable, str(folder / "child.py")))


LESSON_OF_ONE = fact_lesson(FACTS, "verbatim", 1, 1)


def test_what_was_trained_is_not_trained_again(process: ProcessTrainer, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    first = process.train(LESSON_OF_ONE, lambda *step: seen.append(step))
    assert (first.model, first.tokens) == ("m" * 64, 77)
    assert first.cost.seconds is not None
    assert first.cost.seconds > 0.2
    assert (first.cost.peak_mb > 5) == hasattr(os, "wait4")
    assert seen
    assert set(seen) == {("learn", 3, 4)}
    (tmp_path / "mode").write_text("fails")
    assert process.train(LESSON_OF_ONE, lambda *step: None) == first


def test_what_the_child_says_when_it_fails_is_said(process: ProcessTrainer, tmp_path: Path) -> None:
    (tmp_path / "mode").write_text("fails")
    with pytest.raises(TrainingError, match=rf"Training verbatim-1-\w+ failed: The memory is not enough\..*{LOG}"):
        process.train(LESSON_OF_ONE, lambda *step: None)
    (tmp_path / "mode").write_text("learns")
    after = process.train(LESSON_OF_ONE, lambda *step: None)
    (spent,) = (tmp_path / "runs").glob("*/spent.json")
    assert json.loads(spent.read_bytes())["seconds"] == after.cost.seconds  # of both


def test_ctrl_c_is_passed_on_to_the_child(process: ProcessTrainer, tmp_path: Path) -> None:
    (tmp_path / "mode").write_text("waits")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def steps() -> Iterator[Path]:
        return (tmp_path / "runs").glob("*/run/waits")

    interrupter = subprocess.Popen([sys.executable, "-c", INTERRUPTER, str(os.getpid()), str(tmp_path / "runs")])
    try:
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            process.train(LESSON_OF_ONE, lambda *step: None)
        assert time.monotonic() - started < 50  # it did not wait for the child's own end
    finally:
        signal.signal(signal.SIGINT, before)
        interrupter.kill()
        interrupter.wait()
    (waited,) = steps()
    assert waited.with_name("stopped").exists()
    (tmp_path / "mode").write_text("learns")
    cost = process.train(LESSON_OF_ONE, lambda *step: None).cost  # of both processes
    assert cost.cpu_seconds is not None
    assert cost.cpu_seconds > 0


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
@pytest.mark.parametrize("both", [False, True])
def test_what_a_killed_process_did_not_measure_is_not_said_to_cost_nothing(
    process: ProcessTrainer, tmp_path: Path, both: bool
) -> None:
    (tmp_path / "mode").write_text("lingers")
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT) as parent:
        lingers = written(tmp_path / "runs", "lingers")
        parent.kill()
    if both:
        os.kill(int(lingers.read_text()), signal.SIGKILL)
        (tmp_path / "mode").write_text("learns")
    else:  # the child goes on, and nobody sees its end
        (tmp_path / "go").touch()
        written(tmp_path / "runs", "result.json")
    trained = process.train(LESSON_OF_ONE, lambda *step: None)
    assert (trained.tokens, trained.cost) == (77, NOT_MEASURED)
    assert process.train(LESSON_OF_ONE, lambda *step: None) == trained


def written(folder: Path, name: str) -> Path:
    """The file of that name in a run, once its line is whole."""
    for _ in range(1200):
        for path in folder.glob(f"*/run/{name}"):
            if path.read_bytes().endswith(b"\n"):
                return path
        time.sleep(0.05)
    raise AssertionError(f"{name} was not written")


def test_a_cost_that_an_older_version_lost_is_not_measured(process: ProcessTrainer, tmp_path: Path) -> None:
    process.train(LESSON_OF_ONE, lambda *step: None)
    (spent,) = (tmp_path / "runs").glob("*/spent.json")
    spent.unlink()
    assert process.train(LESSON_OF_ONE, lambda *step: None).cost == NOT_MEASURED
    (spent.parent / "run" / "result.json").unlink()
    assert process.train(LESSON_OF_ONE, lambda *step: None).cost == NOT_MEASURED


def test_a_real_training_leaves_the_base_as_it_was(own_home: Path, tmp_path: Path) -> None:
    own_home.mkdir()
    recipe = write_recipe(tmp_path, steps=2)
    text = recipe.read_text()
    dev = text.index("[[dev]]")
    recipe.write_text(text[:dev] + text[text.index("[method]") :])
    command = [sys.executable, "-m", "openbook", "train", str(recipe), "--json"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    home = ModelStore(own_home / "models")
    base: ModelReference = home.resolve("tiny-candidate")
    store = ModelStore(tmp_path / "models")
    trainer = ProcessTrainer(store, base, tmp_path / "runs", 1)
    trained = trainer.train(fact_lesson(generated(2), "verbatim", 2, 1), lambda *step: None)
    reference = store.resolve(trained.model)
    assert (reference.manifest.kind, reference.manifest.lineage) == ("adapter", base.digest)
    assert trained.tokens > 0
    assert trained.cost.cpu_seconds is not None
    assert trained.cost.cpu_seconds > 0
    assert home.findings(base) == ()
    assert not list((tmp_path / "runs").glob("*/run/checkpoints"))
    assert len(list((tmp_path / "runs").glob(f"*/{LESSON}"))) == 1
