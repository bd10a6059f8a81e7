"""What the program makes is its user's alone, whatever the umask; what was opened to others stays so, and is told."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import pytest

from openbook.answers import opening
from openbook.cli import permissions
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase, add
from openbook.models import ModelStore, import_gguf
from openbook.proofs import receipts
from openbook.testing import HashEmbedder
from tests.cli.conftest import Out, TypeIn, served
from tests.diagnosis.bases import DraftEngine
from tests.models.gguf_files import Recipe, llama
from tests.proofs.test_receipts import receipt_of
from tests.serving.conftest import QUESTION

Openbook: TypeAlias = Callable[..., str]

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes are of POSIX")


def modes(*roots: Path) -> dict[str, str]:
    """All that is there, by the bits that let somebody else in; nothing when nobody else may."""
    found = {}
    for root in roots:
        for path in (root, *root.rglob("*")):
            if not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) & 0o077:
                found[str(path)] = oct(stat.S_IMODE(path.stat().st_mode))
    return found


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "bridge.txt").write_text(
        "The bridge was opened on 14 March 2026 by mayor Lila Ortega. It has four lanes."
    )
    (folder / "ferry.md").write_text("# Ferry\n\nThe ferry to Sandhavn leaves at nine on weekdays.")
    return folder


@contextmanager
def started_under(umask: int = 0) -> Iterator[None]:
    """As in a process that was started under this umask; another `openbook` inside begins anew."""
    before = os.umask(umask)
    try:
        permissions.begin()
        yield
    finally:
        os.umask(before)
        permissions._umask_before = None


@pytest.fixture
def openbook(out: Out, fakes: None, type_in: TypeIn, monkeypatch: pytest.MonkeyPatch) -> Openbook:
    """Runs a verb over fakes, as a process of its own would: what it printed, both outputs together."""
    monkeypatch.setattr(opening, "model_opener", lambda *_: lambda: FrozenModel(DraftEngine()))

    def run(*words: object, umask: int = 0) -> str:
        type_in(QUESTION)
        with started_under(umask):
            code, stdout, stderr = out(*words)
        assert code == 0, (words, stdout, stderr)
        return stdout + stderr

    return run


def test_all_that_the_verbs_make_is_private(openbook: Openbook, tmp_path: Path, own_home: Path, docs: Path) -> None:
    kb, log, out, table = (tmp_path / name for name in ("kb", "log", "out", "talk.jsonl"))
    questions, tiny = tmp_path / "questions.jsonl", tmp_path / "tiny.gguf"
    questions.write_text(json.dumps({"id": "bridge", "question": QUESTION, "answers": ["14 March 2026"]}) + "\n")
    tiny.write_bytes(llama().build())
    for words in (
        ("sync", docs),
        ("sync", docs, "--kb", kb),
        ("ask", QUESTION, "--log", log),
        ("ask", QUESTION, "--docs", docs),
        ("chat", table, "--log", log),
        ("tag", "first"),
        ("remove", docs / "ferry.md"),
        ("restore", "1"),
        ("diagnose", questions),
        ("diagnose", questions, "--output", out),
        ("diagnose", questions, "--probes", "--output", out / "probed"),
        ("questions", "draft", "-o", out / "drafts.jsonl"),
        ("keys", "new", "Anna"),
        ("models", "import", tiny, "--name", "tiny", "--licence", "mit"),
        ("purge", docs / "ferry.md", "--yes"),
        ("prune", "--keep", "1"),
        ("verify",),
    ):
        openbook(*words)
        store = {str(path) for path in (own_home / "models").glob("*/*") if path.parent.name != "names"}
        open_to_others = modes(own_home, *(each for each in (kb, log, out, table) if each.exists()))
        assert {path: mode for path, mode in open_to_others.items() if path not in store} == {}, words
        assert {mode for path, mode in open_to_others.items() if path in store} <= {"0o444"}
    assert {each.name for each in own_home.iterdir()} >= {"kb", "derived", "diagnoses", "models", "api-keys.json"}
    assert (log / receipts.LOG_FILE).is_file()
    assert table.is_file()
    assert any(store)


def test_all_that_the_server_makes_is_private(openbook: Openbook, tmp_path: Path, own_home: Path, docs: Path) -> None:
    openbook("sync", docs)
    log = tmp_path / "deep" / "log"
    with served("--receipts", log, umask=0) as (client, said, _):
        body = {"model": "echo", "messages": [{"role": "user", "content": QUESTION}]}
        answers = [
            client.post("/v1/chat/completions", json=body),
            client.post("/v1/documents", files={"file": ("tower.txt", b"The tower is 55 metres high.")}),
            client.post("/v1/chat/completions", json=body),
            client.post("/v1/documents/purge", json={"documents": [str(docs / "ferry.md")]}),
        ]
        assert [each.status_code for each in answers] == [200] * 4
        assert list(own_home.rglob("*-wal"))  # it is in use
        assert modes(own_home, log.parent) == {}
        assert "Others" not in said
    assert modes(own_home, log.parent) == {}
    assert (log / receipts.LOG_FILE).is_file()


def shares(path: Path, mode: int) -> None:
    for each in (path, *path.rglob("*")):
        each.chmod(mode if each.is_dir() else mode & 0o666)


def test_a_knowledge_base_that_is_shared_with_a_group_stays_so_and_is_told(
    openbook: Openbook, tmp_path: Path, own_home: Path, docs: Path
) -> None:
    kb = tmp_path / "kb"
    openbook("sync", docs, "--kb", kb)
    shares(kb, 0o2770)
    (docs / "more.txt").write_text("The tower is 55 metres high.")
    for lock in (".lock", ".turn"):  # which a backup may lack
        (kb / lock).unlink()
    openbook("sync", docs, "--kb", kb, umask=0o002)
    for path in kb.rglob("*"):
        wanted = 0o070 if path.is_dir() else 0o060
        assert path.stat().st_mode & wanted == wanted, path  # the group's others can read and write it
        assert not path.stat().st_mode & 0o007, path
    openbook("ask", QUESTION, "--kb", kb, "--log", tmp_path / "log", umask=0o002)
    openbook("ask", QUESTION, "--docs", docs, umask=0o002)
    for root in (own_home, tmp_path / "log"):  # nobody else gets in, whatever the modes of what is in it
        assert stat.S_IMODE(root.stat().st_mode) == 0o700, root
    said = openbook("status", "--kb", kb)
    assert f"Others can read {kb} (mode 2770)" in said
    assert f"chmod -R go= {kb}" in said
    told = json.loads(openbook("status", "--kb", kb, "--json"))
    assert told["open_folders"] == [str(kb)]
    with served("--kb", kb, umask=0o002) as (client, said, _):
        assert f"Others can read {kb}" in said
        files = {"file": ("tower.txt", b"The tower is 55 metres high.")}
        assert client.post("/v1/documents", files=files).status_code == 200
    for path in kb.rglob("*"):
        assert path.stat().st_mode & 0o077 == (0o070 if path.is_dir() else 0o060), path


def test_never_more_open_than_the_umask_allowed_and_never_written_by_all(
    openbook: Openbook, tmp_path: Path, docs: Path
) -> None:
    for umask, most in ((0o077, 0o700), (0o027, 0o750), (0o000, 0o775)):
        kb = tmp_path / f"kb-{umask}"
        kb.mkdir()
        kb.chmod(0o777)
        openbook("sync", docs, "--kb", kb, umask=umask)
        for path in kb.rglob("*"):
            assert stat.S_IMODE(path.stat().st_mode) & ~most == 0, (oct(umask), path)


def test_a_home_that_was_open_is_told_with_what_to_do(openbook: Openbook, own_home: Path, docs: Path) -> None:
    own_home.mkdir()
    own_home.chmod(0o755)
    openbook("sync", docs, umask=0o022)
    assert f"chmod -R go= {own_home}" in openbook("status", umask=0o022)
    openbook("keys", "new", "Anna")
    assert stat.S_IMODE((own_home / "api-keys.json").stat().st_mode) == 0o600
    subprocess.run(["chmod", "-R", "go=", str(own_home)], check=True)
    assert "Others can read" not in openbook("status")
    (docs / "more.txt").write_text("The tower is 55 metres high.")
    openbook("sync", docs)
    assert modes(own_home) == {}


def test_who_imports_it_keeps_the_umask_and_gets_folders_of_ones_own(tmp_path: Path, docs: Path) -> None:
    mask = os.umask(0)
    try:
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
    finally:
        os.umask(mask)
