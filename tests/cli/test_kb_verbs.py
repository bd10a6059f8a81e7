"""The verbs of a living knowledge base, as a user meets them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Out
from tests.cli.test_cli import home as home

pytestmark = pytest.mark.model


@pytest.fixture
def docs(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "ferry.md").write_text(
        "---\nstatus: final\ndate: 2026-03-01\n---\n# Ferry\n\nThe ferry leaves at nine.\n"
    )
    (folder / "bees.txt").write_text("Bees make honey. A hive holds fifty thousand of them.\n")
    (folder / "film.mp4").write_bytes(b"\0\0")
    monkeypatch.setenv("OPENBOOK_KB", str(tmp_path / "kb"))
    return folder


def test_sync_history_diff_and_as_of(docs: Path, out: Out) -> None:
    code, stdout, stderr = out("sync", str(docs))
    assert code == 0
    assert "2 added, 1 skipped. " in stdout
    assert "characters of text" in stdout
    assert "audio or video" in stderr
    out("tag", "spring")
    (docs / "ferry.md").write_text("# Ferry\n\nThe ferry leaves at ten.\n")
    (docs / "bees.txt").rename(docs / "insects.txt")
    code, stdout, _ = out("sync", "--json")  # the folder is remembered
    report = json.loads(stdout)
    assert code == 0
    assert {Path(v["path"]).name: v["outcome"] for v in report["verdicts"]} == {
        "bees.txt": "removed",
        "insects.txt": "added",
        "ferry.md": "updated",
        "film.mp4": "skipped",
    }
    assert report["passages_embedded"] == 1
    _, stdout, _ = out("history")
    assert [line.split()[0] for line in stdout.splitlines()] == ["2", "1", "0"]
    assert "1 added, 1 updated, 1 removed" in stdout
    assert "[spring]" in stdout
    _, stdout, _ = out("diff", "spring")
    assert "leaves at ten" in stdout
    assert "leaves at nine" in stdout
    assert "at nine" in out("search", "When does the ferry leave?", "-n", "1", "--as-of", "spring")[1]
    assert "at ten" in out("search", "When does the ferry leave?", "-n", "1")[1]
    _, stdout, _ = out("ask", "When does the ferry leave?", "--as-of", "1", "--json")
    answer = json.loads(stdout)
    assert answer["receipt"]["knowledge_base_version"] == 1
    assert "nine" in answer["passages"][0]["passage"]["text"]
    assert "Version 3 has the documents of version 1." in out("restore", "spring")[1]
    assert "Kept: 1, 3." in out("prune", "--keep", "1")[1]
    code, _, stderr = out("search", "ferry", "--as-of", "2")
    assert code == 4
    assert "Version 2 is not kept" in stderr


def test_filters_and_labels(docs: Path, out: Out) -> None:
    out("add", str(docs / "bees.txt"), "--label", "keepers")
    out("add", str(docs / "ferry.md"))
    search = ("search", "ferry honey", "--json")

    def found(*options: str) -> set[str]:
        return {Path(h["passage"]["document"]).name for h in json.loads(out(*search, *options)[1])["hits"]}

    assert found() == {"ferry.md"}
    assert found("--label", "keepers") == {"ferry.md", "bees.txt"}
    assert found("--where", "status = 'final' and date >= 2026-01-01") == {"ferry.md"}
    assert found("--where", "type = 'txt'") == set()
    code, _, stderr = out("search", "ferry", "--where", "stattus = 'final'")
    assert code == 0
    assert "Did you mean 'status'?" in stderr
    code, _, stderr = out("search", "ferry", "--where", "status = ")
    assert code == 2
    assert "expected a value" in stderr


def test_remove_purge_and_check(docs: Path, tmp_path: Path, out: Out) -> None:
    out("sync", str(docs))
    assert out("ask", "What do bees make?", "--docs", docs)[0] == 0  # a cache that holds it
    code, stdout, _ = out("remove", "bees.txt")
    assert (code, "1 removed" in stdout) == (0, True)
    assert "honey" in out("search", "honey", "--as-of", "1")[1]
    code, stdout, _ = out("purge", "bees.txt", "--yes")
    assert code == 0
    assert "nothing is left that no other document holds" in stdout
    assert "1 cached knowledge base" in stdout
    assert "Still on this disk" in stdout
    assert "models trained on it" in stdout
    left = b"".join(
        p.read_bytes() for folder in ("kb", "home/cache") for p in (tmp_path / folder).rglob("*") if p.is_file()
    )
    assert b"fifty thousand" not in left
    assert b"bees.txt" not in left
    code, stdout, _ = out("status", "--check")
    assert code == 0
    assert "are what their digests say" in stdout
    assert "audio or video" in stdout
    assert out("status", "--documents")[1].splitlines() == [str(docs / "ferry.md")]


def test_a_wrong_index_is_mended_and_a_wrong_truth_is_named(docs: Path, tmp_path: Path, out: Out) -> None:
    import sqlite3

    out("sync", str(docs))
    for path in (tmp_path / "kb" / "index").rglob("*.npy"):
        data = bytearray(path.read_bytes())
        data[-1] ^= 0xFF
        path.write_bytes(data)
    code, stdout, _ = out("status", "--check")
    assert code == 0
    assert "built anew" in stdout
    assert "built anew" not in out("status", "--check")[1]
    connection = sqlite3.connect(tmp_path / "kb" / "kb.sqlite3")
    connection.execute("UPDATE contents SET text = replace(text, 'honey', 'money')")
    connection.commit()
    connection.close()
    code, stdout, stderr = out("status", "--check")
    assert code == 4
    assert f"the content 1 is not what was stored: it is the text of {docs / 'bees.txt'}" in stdout + stderr


def test_watch_follows_changes_until_interrupted(docs: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "openbook", "sync", str(docs), "--watch", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "Watching" not in (line := process.stderr.readline()):
        assert line, "it ended"
    time.sleep(0.5)
    (docs / "new.txt").write_text("A new one about lighthouses.")
    from openbook.knowledge import KnowledgeBase

    deadline = time.monotonic() + 30
    while len(KnowledgeBase.open(tmp_path / "kb").documents()) < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert len(KnowledgeBase.open(tmp_path / "kb").documents()) == 3


def test_reembed_says_when_there_is_nothing_to_do(docs: Path, out: Out) -> None:
    out("sync", str(docs))
    code, stdout, _ = out("reembed", "minilm-l6-int8")
    assert (code, "already" in stdout) == (0, True)
    code, _, stderr = out("reembed", "minilm")
    assert code == 3
    assert "Did you mean" in stderr


def test_what_a_folder_was_synced_with_holds_until_it_is_reset(docs: Path, out: Out) -> None:
    def documents() -> set[str]:
        return {Path(p).name for p in json.loads(out("status", "--documents", "--json")[1])["documents"]}

    def found(*more: str) -> bool:
        return "ferry leaves" in out("search", "ferry", "-n", "1", *more)[1]

    out("sync", str(docs), "--exclude", "bees.txt", "--label", "hr")
    assert documents() == {"ferry.md"}
    assert (found(), found("--label", "hr")) == (False, True)
    (docs / "ferry.md").write_text("# Ferry\n\nThe ferry leaves at eleven.\n")
    out("sync", str(docs))
    assert documents() == {"ferry.md"}
    assert (found(), found("--label", "hr")) == (False, True)
    out("sync", str(docs), "--reset")
    assert documents() == {"ferry.md", "bees.txt"}
    assert found()
    code, _, stderr = out("sync", "--reset")
    assert (code, "need a folder" in stderr) == (2, True)
    assert out("sync", str(docs), "--forget")[0] == 0
    code, _, stderr = out("sync")
    assert (code, "No folder was synced" in stderr) == (4, True)
    assert documents() == {"ferry.md", "bees.txt"}


def test_a_folder_that_is_gone_costs_the_others_nothing_but_is_told(docs: Path, tmp_path: Path, out: Out) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "x.txt").write_text("Soon gone.")
    out("sync", str(docs))
    out("sync", str(other))
    (other / "x.txt").unlink()
    other.rmdir()
    (docs / "new.txt").write_text("The harbour has four cranes.")
    code, stdout, stderr = out("sync")
    assert code == 4
    assert "1 added" in stdout
    assert "1 of 2 folders could not be synced" in stderr
    assert "Soon gone" in out("search", "soon gone", "-n", "1")[1]


def test_purge_asks_first_and_no_means_no(docs: Path, out: Out) -> None:
    out("sync", str(docs))
    for answer in ("n\n", ""):  # "" is what a script without a terminal gives
        done = subprocess.run(
            [sys.executable, "-m", "openbook", "purge", str(docs)],
            input=answer,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 130
        assert "Delete 2 documents (" in done.stderr
    assert len(json.loads(out("status", "--documents", "--json")[1])["documents"]) == 2
    assert out("purge", "nothing.txt")[0] == 4


def test_what_remove_cannot_keep_away_is_said(docs: Path, out: Out) -> None:
    out("sync", str(docs))
    assert "the next sync takes it in again" in out("remove", "bees.txt")[1]
    (docs / "ferry.md").unlink()
    assert "next sync" not in out("remove", "ferry.md")[1]


def test_an_open_document_with_the_text_of_a_labelled_one_is_named(docs: Path, out: Out) -> None:
    (docs / "copy.txt").write_bytes((docs / "bees.txt").read_bytes())
    assert "carries no label" not in out("sync", str(docs))[1]
    assert "copy.txt holds the same text and carries no label" in out("add", str(docs / "bees.txt"), "--label", "hr")[
        1
    ].replace("\n", " ")
    assert "carries no label" not in out("add", str(docs / "copy.txt"), "--label", "hr")[1]


def test_labels_are_listed_and_can_be_taken_away(docs: Path, out: Out) -> None:
    out("sync", str(docs))
    out("add", str(docs / "bees.txt"), "--label", "hr", "--label", "board")
    assert "bees.txt  [board, hr]" in out("status", "--documents")[1]
    assert "1 with other metadata or labels" in out("diff", "1")[1]
    out("add", str(docs / "bees.txt"), "--unlabel", "board")
    assert "bees.txt  [hr]" in out("status", "--documents")[1]
    out("add", str(docs / "bees.txt"), "--unlabel", "hr")
    assert "[" not in out("status", "--documents")[1]
    out("sync")
    assert "honey" in out("search", "honey", "-n", "1")[1]
