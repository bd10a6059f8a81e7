"""Diagnoses, drafts and reading ahead on replicas give what one machine gives, whatever happens to the replicas and the run."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from openbook.cli import on_cluster
from openbook.cluster.connection import ray_module
from openbook.core.config import Settings
from openbook.core.errors import ClusterError
from openbook.core.parallel import Cancelled, never
from openbook.core.records import Completion, Decoding, Prompt
from openbook.inference import FrozenModel
from tests.cli.conftest import Out
from tests.cluster.run_models import HELD, RunEngine, fakes
from tests.conftest import ROOT, base_with
from tests.diagnosis.bases import EMBEDDER
from tests.serving.conftest import LONG_S, eventually

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

TEXTS = {
    f"{n}.txt": f"Harbour {n} has a crane, which lifts {n + 30} tonnes and was built in {n + 1950} by the port."
    for n in range(10)
}
QUESTIONS = [
    {"question": f"How many tonnes does the crane of Harbour {n} lift?", "answers": [f"{n + 30} tonnes"]}
    for n in range(10)
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A knowledge base `kb` and a file of questions. The models are RunEngines, which look for files in here."""
    for (where, name), fake in fakes(tmp_path).items():
        monkeypatch.setattr(where, name, fake)
    base_with(tmp_path / "docs", TEXTS, EMBEDDER, tmp_path / "kb").close()
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(each) + "\n" for each in QUESTIONS))
    return tmp_path


def diagnosis(folder: Path, name: str, *options: object) -> list[object]:
    return ["diagnose", folder / "questions.jsonl", "--kb", folder / "kb", "--output", folder / name, *options]


def drafts(folder: Path, name: str, *options: object) -> list[object]:
    return ["questions", "draft", "--kb", folder / "kb", "-n", 8, "-o", folder / name / "drafts.jsonl", *options]


def written(folder: Path) -> dict[str, list[Any]]:
    """What the command left in the folder, without seconds and the folder's name."""

    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: timeless(each) for key, each in value.items() if "seconds" not in key and key != "folder"}
        return [timeless(each) for each in value] if isinstance(value, list) else value

    texts = {path: path.read_text() for path in folder.iterdir() if path.suffix in (".json", ".jsonl")}
    values = {path.name: text.splitlines() if path.suffix == ".jsonl" else [text] for path, text in texts.items()}
    return {name: [timeless(json.loads(each)) for each in found] for name, found in values.items()}


# --- without Ray ------------------------------------------------------------------------------------------------------


class LateEngine(RunEngine):
    """Takes its time, another for each request."""

    def generate(
        self, prompt: Prompt, decoding: Decoding, cancelled: Cancelled = never
    ) -> Generator[str, None, Completion]:
        time.sleep(random.random() / 200)
        return (yield from super().generate(prompt, decoding, cancelled))


@pytest.fixture
def replicated(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings with which models were opened in replicas; there are none, and four requests at once go to one LateEngine."""
    opened: list[Settings] = []

    @contextmanager
    def replicas(*_: object) -> Iterator[tuple[Callable[[Settings], FrozenModel], int]]:
        def open_model(own: Settings) -> FrozenModel:
            opened.append(own)
            return FrozenModel(LateEngine(folder))

        yield open_model, 4

    monkeypatch.setattr(on_cluster, "replicas", replicas)
    return opened


@pytest.mark.parametrize("command", [diagnosis, drafts])
def test_several_at_once_leave_what_one_after_the_other_leaves(
    command: Callable[..., list[object]], folder: Path, replicated: list[Settings], out: Out
) -> None:
    for name, where in (("here", []), ("there", ["--cluster", "auto"])):
        out.ok(*command(folder, name, *where))
    here, there = written(folder / "here"), written(folder / "there")
    assert here.keys() == there.keys()
    assert here == there
    assert len(replicated) == 1


def test_a_diagnosis_goes_on_where_another_number_at_once_was_stopped(
    folder: Path, replicated: list[Settings], out: Out
) -> None:
    out.ok(*diagnosis(folder, "there", "--limit", 4, "--cluster", "auto"))
    out.ok(*diagnosis(folder, "there"))
    out.ok(*diagnosis(folder, "here"))
    assert written(folder / "here") == written(folder / "there")
    assert len(replicated) == 1


@pytest.mark.usefixtures("replicated")
def test_passages_are_read_ahead_once_each_and_what_has_no_room_is_said(
    folder: Path, out: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = out.ok("precompute", "--kb", folder / "kb", "--cluster", "auto", "--replicas", 4)
    assert said.startswith(f"{len(TEXTS)} of {len(TEXTS)} passages are precomputed (")
    assert len(list(folder.glob("read-*"))) == len(TEXTS)
    monkeypatch.setattr(RunEngine, "read_ahead", lambda self, prompt: 0 if HELD in prompt.passages[0] else 7)
    assert out.ok("precompute", "--kb", folder / "kb", "--cluster", "auto") == (
        "9 of 10 passages are precomputed (63 tokens).\n"
        "There is no room for the other 1. Raise kv_disk on the machines of the replicas to precompute them too.\n"
    )


@pytest.mark.laws
@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        ("precompute --replicas 2", "--replicas needs --cluster"),
        ("precompute --cluster local --replicas 1-4", "'1-4' is not a valid integer range"),
        ("serve --port 0 --replicas 2", "--replicas needs --cluster"),
        ("serve --port 0 --cluster local --replicas 0", "'0' is neither a number from 1 to 9999 nor two, such as 1-4"),
        ("serve --port 0 --cluster local --replicas 4-2", "'4-2' is neither a number"),
        ("serve --port 0 --cluster local --base-url http://[::1]:1", "--cluster and --base-url exclude each other"),
        ("serve --port 0 --cluster ray://head:10001", "answers cannot be streamed through Ray's client"),
        ("questions draft -o new.jsonl --cluster here", "'here' is not the address of a cluster"),
        ("diagnose questions.jsonl --cluster ray://head:10001", "answers cannot be streamed through Ray's client"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    command: str, wanted: str, folder: Path, out: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OPENBOOK_KB", str(folder / "kb"))
    out.refused(2, wanted, *command.split())


# --- on Ray -----------------------------------------------------------------------------------------------------------


@pytest.mark.laws
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("command", [diagnosis, pytest.param(drafts, marks=pytest.mark.slow)])
def test_replicas_of_which_one_is_killed_leave_what_one_machine_leaves(
    command: Callable[..., list[object]], folder: Path, out: Out
) -> None:
    out.ok(*command(folder, "here"))
    (folder / "kill").touch()
    there = command(folder, "there", "--cluster", "auto")
    code, _, error = out(*there)
    if code:  # the replica had begun to answer another request
        assert (code, "The replica that was answering is gone." in error) == (ClusterError.exit_code, True)
        out.ok(*there)
    assert not (folder / "kill").exists()
    assert written(folder / "here") == written(folder / "there")


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGINT])
def test_interrupted_run_resumes_and_leaves_no_replicas(ended_by: signal.Signals, folder: Path, out: Out) -> None:
    from ray import serve
    from ray._private.state import jobs

    (folder / "hold").touch()
    address = ray_module().get_runtime_context().gcs_address
    command = [sys.executable, "-c", CHILD, folder, *diagnosis(folder, "there", "--cluster", address)]
    with subprocess.Popen([*map(str, command)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
        eventually(lambda: len(lines(folder / "there")) >= 5 or child.poll() is not None)
        child.send_signal(ended_by)
        said, _ = child.communicate(timeout=LONG_S)
    assert child.returncode == (130 if ended_by == signal.SIGINT else -ended_by), said
    eventually(lambda: [each["IsDead"] for each in jobs() if each["DriverPid"] == child.pid] == [True])
    dead = {each["JobID"] for each in jobs() if each["IsDead"]}
    (folder / "hold").unlink()
    assert len(lines(folder / "there")) < 11
    out.ok(*diagnosis(folder, "there", "--cluster", "auto"))
    out.ok(*diagnosis(folder, "here"))
    assert written(folder / "here") == written(folder / "there")
    eventually(lambda: not [name for name in serve.status().applications if name.split("-")[1] in dead])


CHILD = """
import sys
from pathlib import Path
from tests.cluster.run_models import run_command

run_command(Path(sys.argv[1]), sys.argv[2:])
"""


def lines(folder: Path) -> list[bytes]:
    return [
        line for path in folder.glob("observations-*.jsonl") for line in path.read_bytes().splitlines(keepends=True)
    ]
