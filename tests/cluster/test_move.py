"""A knowledge base that was moved is the same knowledge base: it answers every version alike, and receipts replay."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from openbook.answers.ask import ask
from openbook.answers.retrieval import Corpus, Options
from openbook.cluster import move as moving
from openbook.cluster.move import move
from openbook.core.config import DatabaseUrl, Place
from openbook.core.errors import KnowledgeBaseDamaged, KnowledgeBaseInvalid, KnowledgeBaseMissing
from openbook.core.records import ReaderFormat
from openbook.knowledge import KnowledgeBase, Scope, add, purge, remove, sync, versions
from openbook.knowledge.check import check
from openbook.knowledge.ingest.contents import RunOptions
from openbook.knowledge.store import schema
from openbook.proofs.replay import knowledge_base_of, replay
from openbook.testing import HashEmbedder, echo_model
from tests.cli.conftest import Out

EMBEDDER = HashEmbedder()
MODEL = echo_model(reader=ReaderFormat("Answer from the passage.", "The passages do not say."))
QUESTIONS = ("Which pump holds oil?", "Who signs the log?", "What weighs the anchor?")
SECRET = Scope(labels=frozenset({"crew"}))


def write(folder: Path, **texts: str) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.md").write_text(text)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six versions: one is pruned, one has a tag, a document was renamed, one was removed, one carries a label."""
    folder = tmp_path_factory.mktemp("made")
    files = folder / "files"
    write(
        files,
        pump="# Pumps\n\nPump 1 holds 12 litres of oil.\n\nPump 2 holds 20.",
        log="The mate signs the log.\n" * 40,
    )
    with closing(KnowledgeBase.ensure(folder / "kb", EMBEDDER.identity)) as base:
        sync(base, files, EMBEDDER)
        write(files, anchor="---\nauthor: Marr\n---\nThe anchor weighs 900 kg.", pump="Pump 1 holds 14 litres of oil.")
        sync(base, files, EMBEDDER)
        versions.tag(base, "spring")
        (files / "log.md").rename(files / "journal.md")
        sync(base, files, EMBEDDER)
        write(folder / "more", wages="The mate earns 4,000 a month. Who signs the log?")
        add(base, [folder / "more"], EMBEDDER, RunOptions(labels=SECRET.labels))
        remove(base, [str(files / "anchor.md")])
        versions.prune(base, 3)
    return folder


@pytest.fixture
def source(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "kb", tmp_path / "kb"))


@pytest.fixture(params=["folder", pytest.param("postgresql", marks=pytest.mark.laws)])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return tmp_path / "target"
    return DatabaseUrl(request.getfixturevalue("new_postgres_url"))


def seen(place: Place) -> dict[str, Any]:
    """All that a caller can see of a knowledge base, version by version."""
    with closing(KnowledgeBase.open(place)) as base:
        history = versions.history(base)
        found: dict[str, Any] = {
            "id": base.id,
            "history": history,
            "labels": base.labels(),
            "status": base.status().not_indexed,
        }
        for version in [each.version for each in history]:
            for scope in (Scope(as_of=version), Scope(as_of=version, labels=SECRET.labels)):
                documents = base.documents(scope)
                found[f"{scope}"] = [
                    documents,
                    {path: (base.text(path, version), base.passages(path, version)) for path in documents},
                    # Two stores that go on alike do so at different times.
                    [each._replace(created_at="") for each in base.document_info(documents, scope).values()],
                    [base.search(question, EMBEDDER, 5, scope) for question in QUESTIONS],
                ]
        return found


LEFT = {"contents": "id", "passages": "content_id", "embeddings": "embedding_key"}  # by what the rows below are found


def leave_behind(folder: Path) -> None:
    """What an interrupted run leaves: a content with a passage and its vector, of which no document is."""
    with closing(sqlite3.connect(folder / schema.FILE_NAME, isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        for table in LEFT:
            row = dict(connection.execute(f"SELECT * FROM {table}").fetchone())
            own = {"id": 99, "content_id": 99, "key": b"k" * 32, "embedding_key": b"k" * 32}
            row |= {key: value for key, value in own.items() if key in row}
            connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", list(row.values()))


def left_behind(folder: Path) -> list[int]:
    with closing(sqlite3.connect(folder / schema.FILE_NAME)) as connection:
        values = {"embedding_key": b"k" * 32}
        counted = (
            connection.execute(f"SELECT count(*) FROM {table} WHERE {key} = ?", (values.get(key, 99),))
            for table, key in LEFT.items()
        )
        return [count for each in counted for (count,) in each]


def test_there_and_back_again_it_is_the_same(source: Path, target: Place, tmp_path: Path) -> None:
    before = seen(source)
    leave_behind(source)
    assert left_behind(source) == [1, 1, 1]
    assert [each.version for each in before["history"]] == [5, 4, 3, 2]
    there = move(source, target)
    assert seen(target) == before
    assert seen(source) == before
    back = move(target, tmp_path / "back")
    assert seen(tmp_path / "back") == before
    assert there == back
    assert left_behind(tmp_path / "back") == [0, 0, 0]
    assert (there.id, there.version, there.versions, there.documents) == (before["id"], 5, 4, 3)
    with closing(KnowledgeBase.open(tmp_path / "back")) as base:
        assert check(base).damaged == ()


def test_both_go_on_alike(source: Path, made: Path, target: Place) -> None:
    """Ids that are given after the move are the next ones, so that nothing new is taken for something old."""
    move(source, target)
    write(made / "files", valve="Valve 3 is red.", anchor="The anchor weighs 950 kg.")
    for place in (source, target):
        with closing(KnowledgeBase.open(place)) as base:
            assert sync(base, made / "files", EMBEDDER).version == 6
            versions.tag(base, "summer")
    for name in ("valve", "anchor"):
        (made / "files" / f"{name}.md").unlink()
    there, here = seen(target), seen(source)
    for each in (there, here):
        del each["history"]  # whose times differ
    assert there == here
    with closing(KnowledgeBase.open(target)) as base:
        purge(base, [str(made / "more" / "wages.md")])
        assert base.documents(Scope(as_of=5, labels=SECRET.labels)) == base.documents(Scope(as_of=5))


class Killed(BaseException):
    """As a signal would."""


@pytest.mark.parametrize(
    ("at", "changes"),
    [pytest.param(1, False, marks=pytest.mark.laws), (2, True), pytest.param(8, False, marks=pytest.mark.laws)],
)  # the last while rows are compared
def test_a_move_that_is_interrupted_shows_nothing_and_goes_on(
    at: int, changes: bool, source: Path, made: Path, target: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = move(source, tmp_path / "whole")
    monkeypatch.setattr(moving, "BATCH", 2)
    stages: list[str] = []

    def killed(stage: str, *_: int) -> None:
        stages.append(stage)
        if len(stages) > at:
            raise Killed

    with pytest.raises(Killed):
        move(source, target, killed)
    assert stages[-1] == ("compare" if at == 8 else "copy")
    with closing(KnowledgeBase.open(target)) as base:
        assert (base.version, base.documents()) == (0, [])
    if changes:
        with closing(KnowledgeBase.open(source)) as base:
            purge(base, [str(made / "files" / "journal.md")], copies=True)
        assert move(source, target).digest != whole.digest
    else:
        assert move(source, target) == whole
    assert seen(target) == seen(source)
    with closing(KnowledgeBase.open(target)) as base, base.snapshot() as connection:
        assert moving.MOVING not in schema.meta(connection)


def test_rows_that_came_differently_are_not_shown(source: Path, target: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = moving._copy_visible

    def changed(source: Any, reading: Any, writing: Any, meta: dict[str, str]) -> None:
        copied(source, reading, writing, meta)
        writing.execute("UPDATE tags SET version = 4")

    with monkeypatch.context() as patch:
        patch.setattr(moving, "_copy_visible", changed)
        with pytest.raises(KnowledgeBaseDamaged, match="Rows of tags in "):
            move(source, target)
    with closing(KnowledgeBase.open(target)) as base:
        assert base.documents() == []
    move(source, target)
    assert seen(target) == seen(source)


def test_what_cannot_be_moved(source: Path, target: Place, tmp_path: Path) -> None:
    with pytest.raises(KnowledgeBaseMissing):
        move(tmp_path / "nothing", target)
    with closing(KnowledgeBase.ensure(tmp_path / "other", EMBEDDER.identity)):
        pass
    with pytest.raises(KnowledgeBaseInvalid, match="holds a knowledge base already"):
        move(source, tmp_path / "other")
    with pytest.raises(KnowledgeBaseInvalid, match="holds a knowledge base already"):
        move(source, source)
    with closing(KnowledgeBase.open(source)) as base, base.writing(1.0) as connection:
        connection.execute("INSERT INTO meta VALUES ('purging', '')")
    with pytest.raises(KnowledgeBaseInvalid, match=r"A purge of .* was interrupted"):
        move(source, target)
    with pytest.raises(KnowledgeBaseMissing):
        KnowledgeBase.open(target)


def test_receipts_replay_after_the_move(source: Path, target: Place, out: Out) -> None:
    with closing(KnowledgeBase.open(source)) as base:
        scopes = [Scope(as_of=version) for version in (2, 3, 5)]
        answers = [
            ask(QUESTIONS[0], MODEL, Corpus(base, EMBEDDER, each), Options(min_similarity=-1.0)) for each in scopes
        ]
    text = out.ok("cluster", "move", source, getattr(target, "url", target), "--json")
    assert (json.loads(text)["version"], json.loads(text)["target"]) == (5, str(target))
    with closing(KnowledgeBase.open(target)) as base:
        assert all(replay(each.receipt, MODEL, knowledge_base_of(each.receipt, [base])).identical for each in answers)
