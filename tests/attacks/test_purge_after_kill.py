"""Killed with SIGKILL at every step of whatever writes a document's text, nothing of it is left after a purge.

What is left is looked for by code of the test's own: every file below the folder, in plain text, in JSON and as a state.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from openbook.cli import run
from openbook.core.config import Settings
from openbook.inference.kv_cache import KVCache
from openbook.knowledge import KnowledgeBase
from openbook.knowledge.docs_cache import for_documents
from openbook.models import ModelReference
from openbook.models.runs import DOCUMENTS
from openbook.proofs.purge import PurgedEverywhere, finish_purge_everywhere, purge_everywhere
from openbook.testing import HashEmbedder
from tests.conftest import ROOT, base_with

pytestmark = pytest.mark.skipif(os.name != "posix", reason="no SIGKILL there")

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
WORD = b"zeppelin"
SECRET = "The safe of the harbour office opens with the number zeppelin-7341.\n" + "".join(
    f"Remark {i} on the zeppelin: it was seen over pier {i * 7} at {i % 24} o'clock, and nobody knows \u201cwhy\u201d.\n"
    for i in range(30)
)
NUMBERS = b"".join(bytes([i, 255 - i]) * 5 for i in range(256))  # what a model would have computed of it

# Every scenario writes something of `docs/secret.txt` below `home`.
SCENARIOS = {
    "state": """
states = KVCache(home / "derived")
states.put(b"k" * 32, numbers, states.purge_mark())
states.put(b"l" * 32, numbers * 2, states.purge_mark())
""",
    "half a state": """
from openbook.core.locks import atomic_file
place = home / "derived" / "states" / "6b"
place.mkdir(parents=True)
with atomic_file(place / "00ff.new", place / ((b"k" * 32).hex() + ".state")) as stream:
    stream.write(numbers[:2000])
    stream.flush()
    sys.audit("openbook.test")
    stream.write(numbers[2000:])
os._exit(0)
""",
    "upload": """
from io import BytesIO
from openbook.knowledge import RunOptions
from openbook.serving.uploads import add_uploads
folder = home / "uploads" / base.id / "local"
add_uploads(base, embedder, folder, {"mine.txt": BytesIO(secret.encode())}, RunOptions(labels=frozenset({"hr"})))
""",
    "kept pdf": """
from io import BytesIO
from openbook.knowledge import RunOptions
from openbook.serving.uploads import add_uploads
from tests.parsers.samples import make_pdf
page = make_pdf([secret.encode("ascii", "replace").decode().splitlines()[:5]])
folder, kept = home / "uploads" / base.id / "local", home / "derived" / "uploads" / base.id
add_uploads(base, embedder, folder, {"mine.pdf": BytesIO(page)}, RunOptions(labels=frozenset({"hr"})), kept)
""",
    "standing answer": """
from openbook.core.config import Settings
from openbook.answers.retrieval import Corpus, Options
from openbook.answers.standing_questions import QuestionStore, ask_again
from openbook.testing import echo_model
store = QuestionStore(Settings(home), base.id)
question = store.add("local", "With which number opens the safe of the harbour office?")
ask_again(store, question, frozenset(), Corpus(base, embedder), echo_model(), Options(min_similarity=-1.0))
store.remove("local", question.id)
""",
    "docs": """
from openbook.knowledge.docs_cache import for_documents
for_documents([home.parent / "docs"], home / "derived", embedder)
""",
    "diagnosis": """
from openbook.core.files import replace_file
place = home / "diagnoses" / "one"
place.mkdir(parents=True)
with (place / "observations-a.jsonl").open("wb", buffering=0) as stream:
    stream.write(json.dumps({"format": 1}).encode() + b"\\n")
    sys.audit("openbook.test")
    line = json.dumps({"passages": [{"text": secret}]}).encode()
    stream.write(line[:700])
    sys.audit("openbook.test")
    stream.write(line[700:] + b"\\n")
replace_file(place / "report.html", secret.encode())
""",
    "replace": """
from openbook.core.files import replacing
with replacing(home / "diagnoses" / "two" / "report.html") as stream:
    stream.write(secret.encode()[:1000])
    stream.flush()
    sys.audit("openbook.test")
    stream.write(secret.encode()[1000:])
(home / "diagnoses" / "two" / "report.html").unlink()
""",
    "run": """
from openbook.core.files import replace_file
from openbook.models.runs import DOCUMENTS, write_json
run = home / "runs" / "one"
run.mkdir(parents=True)
(run / ".lock").touch()
write_json(run / "samples.json", [{"question": "?", "before": secret}])
(run / "samples.json").unlink()
replace_file(run / DOCUMENTS, json.dumps({"text": secret}, ensure_ascii=False).encode() + b"\\n")
""",
}
# These write a text of their own, which no version has when they are killed.
RUNS = {
    "add": """
from openbook.knowledge import add
add(base, [home.parent / "more"], embedder)
""",
    "sync": """
from openbook.knowledge import sync
sync(base, home.parent / "more", embedder)
""",
    "upload": SCENARIOS["upload"].replace("secret.encode()", "(home.parent / 'more' / 'new.txt').read_bytes()"),
    "kept pdf": SCENARIOS["kept pdf"].replace("secret.encode", "(home.parent / 'more' / 'new.txt').read_text().encode"),
}
NEW = SECRET.replace("zeppelin", "narwhal")
# Each step is a call that changes the disk, before which the process is killed; the n-th process dies before the n-th step.
PROGRAM = """
import json, os, shutil, signal, sys
from pathlib import Path
from openbook.inference.kv_cache import KVCache
from openbook.knowledge import KnowledgeBase
from openbook.parsers.sandbox.pool import ParserPool
from openbook.testing import HashEmbedder
from tests.conftest import parse_here
ParserPool.parse_all = parse_here
folder, secret, numbers = Path(sys.argv[1]), sys.argv[2], bytes.fromhex(sys.argv[3])
embedder = HashEmbedder()
EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.link", "os.truncate", "os.rmdir", "sqlite3.connect", "openbook.test",
          "fcntl.flock"}
def killing(step):
    left = step
    def hook(event, arguments):
        nonlocal left
        if event in EVENTS and (event != "open" or str(arguments[0]).startswith(str(folder))):
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
    return hook
exec("\\n".join(line for line in sys.argv[4].splitlines() if line.startswith("from ")))  # once, for all children
for step in range(1, 400, int(sys.argv[5])):
    here = folder / f"at-{step}"
    shutil.copytree(folder / "before", here)
    child = os.fork()
    if not child:
        home = here / "home"
        base = KnowledgeBase.open(home / "kb")
        sys.addaudithook(killing(step))
        exec(sys.argv[4])
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(step, os.waitstatus_to_exitcode(status), flush=True)
    if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
        break
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`before/docs` and `before/home`, with a knowledge base of them."""
    before = tmp_path / "before"
    base_with(before / "docs", {"secret.txt": SECRET}, place=before / "home" / "kb").close()
    return tmp_path


def killed(folder: Path, scenario: str, stride: int = 1) -> Iterator[Path]:
    """The home folder that each killed process left, one for every `stride` steps, and that of one that came to its end."""
    command = [sys.executable, "-c", PROGRAM, str(folder), SECRET, NUMBERS.hex(), scenario, str(stride)]
    done = subprocess.run(command, capture_output=True, check=True, env=ENVIRONMENT)
    steps = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert [code for _, code in steps] == [-signal.SIGKILL] * (len(steps) - 1) + [0], done.stderr.decode()
    assert len(steps) > 3
    yield from (folder / f"at-{step}" / "home" for step, _ in steps)


def purged(home: Path) -> PurgedEverywhere:
    base = KnowledgeBase.open(home / "kb")
    try:
        secret = [path for path in base.documents() if path.endswith(("secret.txt", ".pdf"))]
        return purge_everywhere(base, secret, Settings(home), copies=True)
    finally:
        base.close()


def left_in(home: Path, word: bytes = WORD) -> list[Path]:
    found = []
    for path in home.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        for form in (word, word.decode().encode("utf-16-le"), NUMBERS[:32], NUMBERS[1000:1032], NUMBERS[-32:]):
            if form in content or form in str(path).encode():
                found.append(path)
    return found


STRIDES = {"docs": 12, "upload": 5, "kept pdf": 6, "standing answer": 4}


@pytest.mark.parametrize(
    "scenario", [each if each == "replace" else pytest.param(each, marks=pytest.mark.laws) for each in SCENARIOS]
)
def test_nothing_is_left(folder: Path, scenario: str) -> None:
    seen = 0
    for home in killed(folder, SCENARIOS[scenario], STRIDES.get(scenario, 1)):
        seen += bool([each for each in left_in(home) if "kb" not in each.parts])
        done = purged(home)
        listed = {each.path for each in done.out_of_reach if each.reason == "traces"}
        assert set(left_in(home)) == listed
        assert done.proved == (not listed)
        assert not [path for path in listed if path.name != "samples.json"]  # a whole one belongs to a whole run
        shutil.rmtree(home.parent)
    assert seen  # or the scenario tries nothing


@pytest.mark.parametrize(
    ("scenario", "stride"),
    [
        ("sync", 12),
        *(pytest.param(each, 4, marks=pytest.mark.laws) for each in RUNS),
        *(pytest.param(each, 1, marks=pytest.mark.slow) for each in RUNS),
    ],
)
def test_the_next_command_deletes_what_no_version_has(
    folder: Path, scenario: str, stride: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "before" / "more").mkdir()
    (folder / "before" / "more" / "new.txt").write_text(NEW)
    commands = ["tag now", "purge new.txt --yes", "prune --keep 1", "restore 0", "remove secret.txt"]
    seen = finished = 0
    for number, home in enumerate(killed(folder, RUNS[scenario], stride)):
        with closing(KnowledgeBase.open(home / "kb")) as base:
            if base.version > 1:  # it had committed
                finished += 1
                continue
            unreferenced = base.status().unreferenced
        was_left = left_in(home, b"narwhal")
        seen += bool(was_left)
        command = commands[number % len(commands)]
        monkeypatch.setenv("OPENBOOK_HOME", str(home))
        code = run([*command.split(), "--kb", str(home / "kb")])
        said = capsys.readouterr().err
        assert code == (4 if command.startswith("purge") else 0)
        assert not command.startswith("purge") or not unreferenced or "1 text" in said
        assert left_in(home, b"narwhal") == []
    assert seen
    assert finished


PURGE = """
from openbook.core.config import Settings
from openbook.proofs.purge import purge_everywhere
purge_everywhere(base, base.documents(), Settings(home))
"""


@pytest.mark.parametrize(
    "stride", [30, pytest.param(5, marks=pytest.mark.laws), pytest.param(1, marks=pytest.mark.slow)]
)
def test_the_next_purge_finishes_one_that_was_killed(folder: Path, embedder: HashEmbedder, stride: int) -> None:
    home = folder / "before" / "home"
    states = KVCache(home / "derived")
    states.put(b"k" * 32, NUMBERS, states.purge_mark())
    for_documents([folder / "before" / "docs"], home / "derived", embedder)[0].close()
    for path in (home / "runs" / "one" / DOCUMENTS, home / "diagnoses" / "one" / "report.html"):
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"text": SECRET}))
    finished = again = 0
    for home in killed(folder, PURGE, stride):
        with closing(KnowledgeBase.open(home / "kb")) as base:
            if base.documents():
                again += 1
                assert purge_everywhere(base, base.documents(), Settings(home)).proved
            else:
                finished += finish_purge_everywhere(base, Settings(home))
        assert left_in(home) == []
        shutil.rmtree(home.parent)
    assert again
    assert finished


READING = """
import os, signal, sys
from pathlib import Path
from openbook.inference import load_model
from openbook.inference.kv_cache import KVCache
from openbook.models import ModelStore
from openbook.core.records import Prompt
def hook(event, arguments):
    if event == "os.rename" and str(arguments[0]).endswith(".new"):
        hook.left -= 1
        if not hook.left:
            os.kill(os.getpid(), signal.SIGKILL)
hook.left = int(sys.argv[4])
sys.addaudithook(hook)
reference = ModelStore(Path(sys.argv[1])).resolve("smollm2-135m-instruct")
model = load_model(reference, context_tokens=1024, states=KVCache(Path(sys.argv[2])), threads=1)
model.read_ahead(Prompt("Answer.", (sys.argv[3],), "?"))
model.close()
"""


@pytest.mark.slow
@pytest.mark.model
def test_no_number_that_a_model_computed_of_it_is_left(folder: Path, model_reference: ModelReference) -> None:
    """The key/value state of a fresh reading is what a killed one left before the purge, and nothing of it after."""
    home = folder / "before" / "home"
    base = KnowledgeBase.open(home / "kb")
    passage = base.passages(base.documents()[0])[0]
    base.close()

    def read(states: Path, kill_at: int) -> int:
        store = model_reference.path.parent
        command = [sys.executable, "-c", READING, str(store), str(states), passage.text, str(kill_at)]
        return subprocess.run(command, env=ENVIRONMENT, check=False).returncode

    assert read(folder / "fresh", 0) == 0
    whole = sorted((folder / "fresh").rglob("*.state"), key=lambda path: path.stat().st_size)
    content = whole[-1].read_bytes()
    before = b"".join(path.read_bytes() for path in whole[:-1])  # of the instruction, which is no secret
    parts = [content[at : at + 64] for at in range(0, len(content) - 64, len(content) // 97)]
    parts = [part for part in parts if part not in before and len(set(part)) > 16]
    assert len(parts) > 20
    assert read(home / "derived", len(whole)) == -signal.SIGKILL

    def left() -> int:
        files = [path.read_bytes() for path in home.rglob("*") if path.is_file()]
        return sum(any(part in each for each in files) for part in parts)

    assert left() >= len(parts) - 1  # all but what stands in the header
    assert purged(home).proved
    assert left() == 0
