"""Commands that change and list documents, over fakes."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from openbook.answers import opening
from openbook.cli import context
from openbook.core.records import ReaderFormat
from openbook.knowledge import KnowledgeBase
from openbook.knowledge.ingest import discovery
from openbook.testing import echo_model
from tests.cli.conftest import Out, running
from tests.parsers.samples import make_pdf
from tests.serving.conftest import eventually


@pytest.fixture
def docs(fakes: None, own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "ferry.md").write_text("# Ferry\n\nThe ferry leaves at nine.\n")
    (folder / "bees.txt").write_text("Bees make honey. A hive holds fifty thousand of them.\n")
    monkeypatch.setenv("OPENBOOK_KB", str(tmp_path / "kb"))
    return folder


def test_pages_of_documents_are_shown(docs: Path, out: Out) -> None:
    (docs / "old.pdf").write_bytes(make_pdf([["The old ferry."], ["It sank."]]))
    out.ok("add", docs / "old.pdf")
    assert re.fullmatch(rf"926 bytes    2 pages  \d\S+:\d\d  {docs}/old.pdf\n", out.ok("ls", "*.pdf"))
    assert out.ok("grep", "sank") == f"{docs}/old.pdf:3 (page 2): It sank.\n"
    assert out.ok("read", "old.pdf", "--page", "2").strip() == "It sank."


def test_watch_syncs_after_each_change_until_it_is_interrupted(
    docs: Path, out: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changes(folders: list[Path]) -> Iterator[int]:
        assert folders == [docs]
        yield 0
        (docs / "new.txt").write_text("A text about lighthouses.")
        yield 1
        raise KeyboardInterrupt

    monkeypatch.setattr(discovery, "folder_changes", changes)
    code, stdout, stderr = out("sync", docs, "--watch")
    assert (code, f"Watching {docs}. Ctrl-C ends it." in stderr) == (0, True)
    assert ["2 added" in stdout, "1 added, 2 unchanged" in stdout] == [True, True]


@pytest.mark.laws
def test_watch_follows_changes_in_a_process_of_its_own(docs: Path, tmp_path: Path) -> None:
    with running("Watching", "sync", docs, "--watch", "--json"):
        (docs / "new.txt").write_text("A text about lighthouses.")
        eventually(lambda: len(KnowledgeBase.open(tmp_path / "kb").documents()) == 3)


def test_a_log_that_cannot_be_written_is_refused_before_a_model_is_opened(
    docs: Path, out: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    out.ok("add", docs)
    monkeypatch.setattr(opening, "model_opener", lambda *_, **__: pytest.fail("A model was opened."))
    for command in (["ask", "What do bees make?"], ["chat"]):
        out.refused(5, "bees.txt is not a folder", *command, "--log", docs / "bees.txt")


def test_precompute_reads_what_ask_reads(docs: Path, out: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader of several windows reads passages one by one where the setting `strategy` says so."""
    reader = ReaderFormat("Answer from the passages.", "The passages do not say.", passages=4)
    monkeypatch.setattr(context, "ready_model", lambda *_: None)
    monkeypatch.setattr(opening, "open_stored", lambda *_: echo_model(reader=reader))
    (docs / "long.md").write_text("".join(f"Ferry {i} leaves at noon from pier {i}.\n\n" for i in range(90)))
    out.ok("add", docs)
    passages = out.json("status")["passages"]
    windows = int(out.ok("precompute").split()[0])
    assert windows < passages
    monkeypatch.setenv("OPENBOOK_STRATEGY", "each")
    assert out.ok("precompute").startswith(f"{passages} of {passages} passages are precomputed")
    monkeypatch.setenv("OPENBOOK_STRATEGY", "parallel")
    assert out.ok("precompute").startswith(f"{windows} of {windows} passages are precomputed")


@pytest.mark.laws
@pytest.mark.model
@pytest.mark.usefixtures("reader_reference", "embedder_reference")
def test_precomputed_passages_give_the_same_answer_and_are_purged(
    tmp_path: Path, home_of_models: Path, out: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "ferry.md").write_text("# Ferry\n\nThe ferry leaves at noon from pier 4.\n")
    (docs / "library.md").write_text("# Library\n\nThe library closes on Mondays.\n")

    def states() -> int:
        return int(out.json("status")["kept_states"]["states"])

    out.ok("add", docs)
    assert states() == 0
    assert out.ok("precompute", "-n", "1").startswith("1 of 1 passages are precomputed")
    assert out.ok("precompute").startswith("2 of 2 passages are precomputed")
    assert states() == 3  # and the instruction's
    assert "0 of them new" in out.ok("precompute")
    assert re.search("^Kept states +3 states, ", out.ok("status"), re.MULTILINE)
    question = ("ask", "When does the ferry leave?")
    monkeypatch.setenv("OPENBOOK_PASSAGES", "2")
    warm = out.json(*question)
    assert "noon" in warm["answer"]
    assert states() == 3  # nothing had to be read
    shutil.rmtree(home_of_models / "derived" / "states")
    cold = out.json(*question)
    assert cold["receipt"] == warm["receipt"]
    assert out.json("purge", docs / "ferry.md", "--yes")["states_deleted"] == 2
