"""Commands that change and list documents, over fakes."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from openbook.answers import opening
from openbook.answers.retrieval import Corpus, Options
from openbook.answers.standing_questions import QuestionStore, ask_again
from openbook.cli import context
from openbook.core.config import Settings
from openbook.core.records import ReaderFormat
from openbook.knowledge import KnowledgeBase, add
from openbook.knowledge.ingest import discovery
from openbook.testing import HashEmbedder, echo_model
from tests.cli.conftest import Out, TypeIn, running
from tests.conftest import flip
from tests.parsers.samples import make_pdf
from tests.serving.conftest import eventually


@pytest.fixture
def docs(fakes: None, own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "ferry.md").write_text(
        "---\nstatus: final\ndate: 2026-03-01\n---\n# Ferry\n\nThe ferry leaves at nine.\n"
    )
    (folder / "bees.txt").write_text("Bees make honey. A hive holds fifty thousand of them.\n")
    (folder / "film.mp4").write_bytes(b"\0\0")
    monkeypatch.setenv("OPENBOOK_KB", str(tmp_path / "kb"))
    return folder


def documents(out: Out, *arguments: object) -> set[str]:
    return {Path(each["path"]).name for each in out.json("ls", *arguments)["documents"]}


def found(out: Out, query: str, *options: str) -> set[str]:
    return {Path(hit["passage"]["document"]).name for hit in out.json("search", query, *options)["hits"]}


def test_sync_history_diff_and_as_of(docs: Path, out: Out) -> None:
    code, stdout, stderr = out("sync", docs)
    assert (code, "2 added, 1 skipped. " in stdout, "characters of text" in stdout) == (0, True, True)
    assert "video is not read" in stderr
    out("tag", "spring")
    out.refused(2, "--drop takes the name of a tag alone", "tag", "spring", "1", "--drop")
    (docs / "ferry.md").write_text("# Ferry\n\nThe ferry leaves at ten.\n")
    (docs / "bees.txt").rename(docs / "insects.txt")
    report = out.json("sync")  # the folder is remembered
    outcomes = {Path(each["path"]).name: each["outcome"] for each in report["verdicts"]}
    assert outcomes == {"bees.txt": "removed", "insects.txt": "added", "ferry.md": "updated", "film.mp4": "skipped"}
    assert report["passages_embedded"] == 1
    stdout = out.ok("history")
    assert [line.split()[0] for line in stdout.splitlines()] == ["2", "1", "0"]
    assert "1 added, 1 updated, 1 removed" in stdout
    assert "[spring]" in stdout
    stdout = out.ok("diff", "spring")
    assert "leaves at [-nine.-]{+ten.+}" in stdout
    assert "passages_added" in out.json("diff", "spring")
    question = "When does the ferry leave?"
    assert "at nine" in out.ok("search", question, "-n", "1", "--as-of", "spring")
    assert "at ten" in out.ok("search", question, "-n", "1")
    answer = out.json("ask", question, "--as-of", "1")
    assert answer["receipt"]["knowledge_base_version"] == 1
    assert "nine" in answer["passages"][0]["passage"]["text"]
    assert "Version 3 has the documents of version spring." in out.ok("restore", "spring")
    assert "Kept: 1, 3." in out.ok("prune", "--keep", "1")
    out.refused(4, "Version 2 is not kept", "search", "ferry", "--as-of", "2")
    assert "already" in out.ok("reembed", "minilm-l6-int8")


def test_documents_are_listed_below_a_folder_by_a_pattern_and_as_of_a_version(
    docs: Path, out: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    out.ok("sync", docs)
    (docs / "old").mkdir()
    (docs / "old" / "ferry.pdf").write_bytes(make_pdf([["The old ferry."], ["It sank."]]))
    out.ok("add", docs / "old", "--require-label", "board")
    assert re.fullmatch(rf" *54 bytes {{13}}\d\S+:\d\d  {docs}/bees.txt\n", out.ok("ls", "bees.txt"))
    listed = out.ok("ls", docs / "old", "--label", "board")
    assert re.fullmatch(rf"926 bytes    2 pages  \d\S+:\d\d  {docs}/old/ferry.pdf  \[board\]\n", listed)
    monkeypatch.chdir(docs)
    assert documents(out, ".") == {"bees.txt", "ferry.md"}
    assert documents(out, "*FERRY*", "--label", "board") == {"ferry.md", "ferry.pdf"}
    assert documents(out, "--label", "board", "--as-of", "1") == {"bees.txt", "ferry.md"}
    out.refused(4, "No document 'old'", "ls", "old")
    assert out("find", "zebra") == out("ls", "*.zip") == (0, "", "Nothing was found.\n")


def test_filters_and_labels(docs: Path, out: Out) -> None:
    out("add", docs / "bees.txt", "--require-label", "keepers", "--require-label", "board")
    out("add", docs / "ferry.md")
    query = "ferry honey"
    assert found(out, query) == {"ferry.md"}
    assert found(out, query, "--label", "keepers", "--label", "board") == {"ferry.md", "bees.txt"}
    assert found(out, query, "--where", "status = 'final' and date >= 2026-01-01") == {"ferry.md"}
    assert found(out, query, "--where", "type = 'txt'") == set()
    assert "Did you mean 'status'?" in out("search", "ferry", "--where", "stattus = 'final'")[2]
    out.refused(2, "expected a value", "search", "ferry", "--where", "status = ")
    assert re.search("^Access labels +board, keepers$", out.ok("status"), re.MULTILINE)
    assert "bees.txt  [board, keepers]\n" in out.ok("ls", "--label", "keepers", "--label", "board")
    out("add", docs / "bees.txt", "--unlabel", "board", "--unlabel", "keepers")
    assert "[" not in out.ok("ls")
    assert "1 with other metadata or labels" in out.ok("diff", "1")
    assert "bees.txt" in found(out, "honey")


def test_remove_purge_and_check(docs: Path, tmp_path: Path, own_home: Path, out: Out) -> None:
    out("sync", docs)
    out.ok("ask", "What do bees make?", "--docs", docs)  # a cache that holds it
    stdout = out.ok("remove", "bees.txt")
    assert ("1 removed" in stdout, "The next sync adds it again" in stdout) == (True, True)
    assert "honey" in out.ok("search", "honey", "--as-of", "1")
    stdout = out.ok("purge", "bees.txt", "--yes")
    for words in ("except what other documents hold too", "Deleted too: 1 cached", "Still on this disk"):
        assert words in stdout
    left = [path for folder in (tmp_path / "kb", own_home / "derived") for path in folder.rglob("*") if path.is_file()]
    assert not any(word in path.read_bytes() for path in left for word in (b"fifty thousand", b"bees.txt"))
    assert "match their digests" in out.ok("verify")
    assert "video is not read" in out.ok("status")
    assert documents(out) == {"ferry.md"}
    (docs / "ferry.md").unlink()
    assert "next sync" not in out.ok("remove", "ferry.md")


def test_a_purge_counts_the_recorded_changes_of_standing_questions_that_it_deletes(
    docs: Path, out: Out, type_in: TypeIn, own_home: Path, tmp_path: Path
) -> None:
    out.ok("sync", docs)
    settings = Settings(home=own_home)
    base = KnowledgeBase.open(tmp_path / "kb")
    store = QuestionStore(settings, base.id)
    question = store.add("somebody", "What do bees make?")
    model, options = echo_model(), Options.of(settings)
    for text in ("Bees make honey.", "Bees make wax."):
        (docs / "bees.txt").write_text(text)
        add(base, [docs / "bees.txt"], HashEmbedder())
        ask_again(store, question, frozenset(), Corpus(base, HashEmbedder()), model, options)
    type_in("n")
    out.refused(130, "and 1 recorded change of answers to standing questions?", "purge", "bees.txt")
    stdout = out.ok("purge", "bees.txt", "--yes")
    assert "1 recorded answer change." in stdout
    assert store.answer(question) is None


def test_a_purge_by_the_new_name_names_the_old_one(docs: Path, out: Out) -> None:
    out("sync", docs)
    (docs / "bees.txt").write_text("The hives stand on the roof of the school.")
    out("sync", docs)
    (docs / "bees.txt").rename(docs / "hives.txt")
    out("sync", docs)
    out.refused(4, "bees.txt", "purge", "hives.txt", "--yes")
    stdout = out.ok("purge", "hives.txt", "--yes", "--copies")
    assert "1 document and 1 passage purged" in stdout
    (said,) = (line for line in stdout.splitlines() if "purge them by name" in line)
    assert "bees.txt" in said
    assert "honey" in out.ok("search", "honey", "--as-of", "1")


def test_verify_rebuilds_a_damaged_index(docs: Path, tmp_path: Path, out: Out) -> None:
    out("sync", docs)
    for path in (tmp_path / "kb" / "derived" / "index").rglob("*.npy"):
        flip(path, bits=0xFF)
    assert "rebuilt" in out.ok("verify")
    assert "rebuilt" not in out.ok("verify")


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


def test_globs_and_labels_of_a_folder_hold_until_reset(docs: Path, out: Out) -> None:
    label, closes = ("--label", "hr"), ("--require-label", "hr")
    out("sync", docs, "--exclude", "bees.txt", *closes)
    assert (documents(out), documents(out, *label)) == (set(), {"ferry.md"})
    assert (found(out, "ferry"), found(out, "ferry", *label)) == (set(), {"ferry.md"})
    (docs / "ferry.md").write_text("# Ferry\n\nThe ferry leaves at eleven.\n")
    out("sync", docs)
    assert (documents(out), documents(out, *label)) == (set(), {"ferry.md"})
    out("sync", docs, "--reset")
    assert documents(out) == {"ferry.md", "bees.txt"}
    assert "ferry.md" in found(out, "ferry")
    for options in (["--reset"], ["--ocr", "eng"]):
        out.refused(2, "need a folder", "sync", *options)
    assert out.json("sync", docs, "--forget") == {"forgotten": str(docs)}
    out.refused(4, "No folder was synced", "sync")
    assert documents(out) == {"ferry.md", "bees.txt"}


def test_a_missing_folder_is_reported_and_the_others_are_synced(docs: Path, tmp_path: Path, out: Out) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "x.txt").write_text("Soon gone.")
    out("sync", docs)
    out("sync", other)
    shutil.rmtree(other)
    (docs / "new.txt").write_text("The harbour has four cranes.")
    code, stdout, stderr = out("sync")
    assert (code, "1 added" in stdout, "1 of 2 could not be synced" in stderr) == (4, True, True)
    assert "Soon gone" in out.ok("search", "soon gone", "-n", "1")


def test_purge_asks_for_confirmation(docs: Path, out: Out, type_in: TypeIn) -> None:
    (docs / "copy.txt").write_bytes((docs / "bees.txt").read_bytes())
    assert "carries no label" not in out.ok("sync", docs)
    for answer in (["n"], []):  # nothing is what a script without a terminal gives
        type_in(*answer)
        out.refused(130, "Delete 3 documents (", "purge", docs)
    assert len(documents(out)) == 3
    assert out("purge", "nothing.txt")[0] == 4
    # An open document with the text of a labelled one is named.
    said = out.ok("add", docs / "bees.txt", "--require-label", "hr").replace("\n", " ")
    assert "copy.txt holds the same text and carries no label" in said
    assert "carries no label" not in out.ok("add", docs / "copy.txt", "--require-label", "hr")


def test_adding_nothing_readable_is_an_error(docs: Path, tmp_path: Path, out: Out) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "broken.pdf").write_bytes(b"%PDF-1.7 nothing")
    for _ in range(2):
        code, _, stderr = out("add", tmp_path / "bad")
        assert (code, "broken.pdf" in stderr, "Nothing readable" in stderr) == (4, True, True)
        code, _, stderr = out("ask", "Why?")
        assert (code, "nothing to ask" in stderr) == ((4, True) if not documents(out) else (0, False))
        out.ok("add", docs)


@pytest.mark.parametrize("command", [["ask", "What do bees make?"], ["chat"]])
def test_a_log_that_cannot_be_written_is_refused_before_a_model_is_opened(
    command: list[str], docs: Path, tmp_path: Path, out: Out, type_in: TypeIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    out.ok("add", docs)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(opening, "model_opener", lambda *_, **__: pytest.fail("A model was opened."))
    type_in("What do bees make?")
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


def test_files_that_failed_have_an_exit_code(docs: Path, out: Out) -> None:
    (docs / "photo.png").write_bytes(b"\x89PNG")  # skipped: it is no document
    out.ok("sync", docs)
    (docs / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    code, stdout, stderr = out("add", docs / "broken.pdf", docs, "--json")
    assert (code, "1 file could not be read" in " ".join(stderr.split())) == (8, True)
    assert '"outcome": "failed"' in stdout
    assert out("sync", docs)[0] == 8
    for verb in ("add", "sync"):
        out.ok(verb, docs, "--lenient")
