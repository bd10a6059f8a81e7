"""What the program makes is private, whatever the umask; a program that imports OpenBook keeps its umask."""

from __future__ import annotations

import json
import os
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from openbook.answers import opening
from openbook.cli import main
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase, add
from openbook.models import ModelStore, import_gguf
from openbook.proofs import receipts
from openbook.testing import HashEmbedder
from tests.cli.conftest import TypeIn, served
from tests.diagnosis.bases import DraftEngine
from tests.models.gguf_files import Recipe, llama
from tests.proofs.test_receipts import receipt_of
from tests.serving.conftest import QUESTION

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes are of POSIX")


def open_to_others(*roots: Path) -> dict[str, str]:
    """Paths with a mode bit of group or others; models in their private folder are left out."""
    modes = {path: stat.S_IMODE(path.stat().st_mode) for root in roots for path in (root, *root.rglob("*"))}
    models = {path for path, mode in modes.items() if "models" in path.parts and mode == 0o444}
    return {str(path): oct(mode) for path, mode in modes.items() if mode & 0o077 and path not in models}


@pytest.fixture
def docs(tmp_path: Path) -> Iterator[Path]:
    """Documents; meanwhile the umask is 0."""
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "bridge.txt").write_text("The bridge was opened on 14 March 2026 by mayor Lila Ortega.")
    (folder / "ferry.md").write_text("# Ferry\n\nThe ferry to Sandhavn leaves at nine on weekdays.")
    before = os.umask(0)
    yield folder
    os.umask(before)


@pytest.fixture
def openbook(fakes: None, type_in: TypeIn, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Runs `main` over fakes, as a process with umask 0 does."""
    monkeypatch.setattr(opening, "model_opener", lambda *_: lambda: FrozenModel(DraftEngine()))
    handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}

    def run(*words: object) -> None:
        type_in(QUESTION)
        os.umask(0)
        with pytest.raises(SystemExit) as ended:
            main(list(map(str, words)))
        assert ended.value.code == 0, words

    yield run
    for each, handler in handlers.items():
        signal.signal(each, handler)


def test_all_that_commands_make_is_private(
    openbook: Callable[..., None], tmp_path: Path, own_home: Path, docs: Path
) -> None:
    kb, log, out, talk = (tmp_path / name for name in ("kb", "log", "out", "talk.jsonl"))
    questions, tiny = tmp_path / "questions.jsonl", tmp_path / "tiny.gguf"
    questions.write_text(json.dumps({"id": "bridge", "question": QUESTION, "answers": ["14 March 2026"]}) + "\n")
    tiny.write_bytes(llama().build())
    for words in (
        ("sync", docs, "--kb", kb),
        ("sync", docs),
        ("ask", QUESTION, "--docs", docs),
        ("chat", "--save", talk, "--log", log),
        ("remove", docs / "ferry.md"),
        ("diagnose", questions, "--output", out),
        ("questions", "draft", "-o", out / "drafts.jsonl"),
        ("keys", "new", "Anna"),
        ("models", "import", tiny, "--name", "tiny", "--licence", "mit"),
        ("purge", docs / "ferry.md", "--yes"),
    ):
        openbook(*words)
        made = [each for each in (own_home, kb, log, out, talk) if each.exists()]
        assert open_to_others(*made) == {}, words
    assert len(made) == 5
    assert {each.name for each in own_home.iterdir()} >= {"kb", "derived", "models", "api-keys.json"}


@pytest.mark.laws
def test_all_that_the_server_makes_is_private(fakes: None, tmp_path: Path, own_home: Path, docs: Path) -> None:
    log = tmp_path / "deep" / "log"
    with served("--receipts", log, umask=0) as (client, _, _):
        body = {"model": "echo", "messages": [{"role": "user", "content": QUESTION}]}
        client.post("/v1/documents", files={"file": ("bridge.txt", (docs / "bridge.txt").read_bytes())})
        client.post("/v1/chat/completions", json=body)
        assert client.post("/v1/documents/purge", json={"documents": ["bridge.txt"]}).status_code == 200
        assert list(own_home.rglob("*-wal"))  # it is in use
        assert open_to_others(own_home, log.parent) == {}
    assert open_to_others(own_home, log.parent) == {}


def test_a_program_that_imports_openbook_keeps_its_umask_and_gets_private_folders(tmp_path: Path, docs: Path) -> None:
    home = tmp_path / "deep" / "home"
    base = KnowledgeBase.ensure(home / "kb", HashEmbedder().identity)
    add(base, [docs], HashEmbedder())
    base.close()
    receipts.append_receipt(tmp_path / "log", receipt_of(1))
    (tmp_path / "tiny.gguf").write_bytes(Recipe().build())
    import_gguf(ModelStore(tmp_path / "store" / "models"), tmp_path / "tiny.gguf", name="tiny")
    for folder in (home.parent, home, home / "kb", tmp_path / "log", tmp_path / "store"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder
    assert stat.S_IMODE((tmp_path / "log" / receipts.LOG_FILE).stat().st_mode) == 0o600
    assert os.umask(0) == 0
