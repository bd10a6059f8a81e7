"""Damage of a knowledge base's files: an answer is what it was, or a sentence says what is wrong and what to do."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.damage import build, trials
from openbook.cli import run
from openbook.core.errors import KnowledgeBaseDamaged
from openbook.core.records import PassageReference
from openbook.knowledge import KnowledgeBase, RunOptions, Scope, add, remove, sync
from openbook.knowledge.check import check
from openbook.knowledge.erasure import purge
from openbook.knowledge.ingest.embeddings import embed_missing
from openbook.knowledge.ingest.long_run import in_slices
from openbook.knowledge.store import integrity, schema
from openbook.knowledge.updates import reembed
from openbook.knowledge.versions import diff, drop_tag, history, prune, restore, set_retention, tag
from openbook.proofs.replay import passage_of
from openbook.testing import HashEmbedder

FERRY = "The ferry to Sandhavn leaves at nine. A ticket costs four crowns."
MAYOR = "Mayor Lila Ortega opened the bridge on 14 March 2026."
TWICE = """INSERT INTO documents SELECT id + 9, path || 'x', content_id, bytes, stat, metadata, labels, given_labels,
  added_in, removed_in, identity, digest FROM documents WHERE id = 1"""
SALARY = "The captain earns four thousand crowns a month."


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "ferry.md").write_text(FERRY)
    (docs / "mayor.txt").write_text(MAYOR)
    (docs / "salary.txt").write_text(SALARY)
    return docs


@pytest.fixture
def folder(tmp_path: Path, docs: Path, embedder: HashEmbedder) -> Path:
    """Three documents, one of them with a label, two versions, a tag."""
    with closing(KnowledgeBase.ensure(tmp_path / "kb", embedder.identity)) as base:
        add(base, [docs / "ferry.md", docs / "mayor.txt"], embedder)
        tag(base, "spring")
        add(base, [docs / "salary.txt"], embedder, RunOptions(labels=frozenset({"hr"})))
    return tmp_path / "kb"


def sql(folder: Path, *statements: str) -> None:
    """As a disk would do it: behind the back of the code that keeps digests."""
    with closing(sqlite3.connect(folder / schema.FILE_NAME, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def in_file(folder: Path, old: bytes, new: bytes) -> None:
    """One byte otherwise, wherever it stands in the SQLite file."""
    data = (folder / schema.FILE_NAME).read_bytes()
    assert old in data
    assert sum(a != b for a, b in zip(old, new, strict=True)) == 1
    (folder / schema.FILE_NAME).write_bytes(data.replace(old, new))


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [1, 4096, 20_000])
def test_a_file_that_was_cut_off_is_damaged(folder: Path, lost: int) -> None:
    data = (folder / schema.FILE_NAME).read_bytes()
    (folder / schema.FILE_NAME).write_bytes(data[:-lost])
    said = r"(cut off|malformed).*Restore it from a backup, or move it away and add"
    for work in (KnowledgeBase.open, lambda f: schema.connect(f, writable=True)):
        with pytest.raises(KnowledgeBaseDamaged, match=said), schema.database_errors(folder):
            work(folder)


def test_a_file_that_is_cut_while_it_is_open_is_damaged_for_the_next_thread(
    folder: Path, embedder: HashEmbedder
) -> None:
    with closing(KnowledgeBase.open(folder)) as base:
        base.search("ferry", embedder)
        os.truncate(folder / schema.FILE_NAME, (folder / schema.FILE_NAME).stat().st_size - 7)
        with ThreadPoolExecutor(1) as pool, pytest.raises(KnowledgeBaseDamaged, match=r"cut off|malformed"):
            pool.submit(base.search, "ferry", embedder).result()


@pytest.fixture(scope="module")
def whole_with_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its three last versions stand in the log, as a killed process leaves it."""
    return build(tmp_path_factory.mktemp("work"), None, HashEmbedder(), log=True)


@pytest.fixture
def with_log(whole_with_log: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole_with_log, tmp_path / "kb"))


def test_pages_that_stand_in_the_log_are_not_lost(
    folder: Path, docs: Path, tmp_path: Path, embedder: HashEmbedder
) -> None:
    """Who is killed while the log is written back may leave a first page that counts pages which only the log has."""
    with_log = tmp_path / "with-log"
    (docs / "long.txt").write_text("".join(f"Line {n} says {n * n}. " for n in range(3000)))
    with (
        closing(KnowledgeBase.open(folder)) as reader,
        closing(KnowledgeBase.open(folder)) as base,
        reader.snapshot() as connection,
    ):
        connection.execute("SELECT count(*) FROM versions").fetchone()
        add(base, [docs], embedder)
        shutil.copytree(folder, with_log, ignore=shutil.ignore_patterns("*-shm"))
    log = (with_log / "kb.sqlite3-wal").read_bytes()
    frames = [log[at : at + 4120] for at in range(32, len(log) - 4119, 4120)]
    first = [frame[24:] for frame in frames if frame[:4] == (1).to_bytes(4)][-1]
    data = bytearray((with_log / schema.FILE_NAME).read_bytes())
    pages = len(data) // 4096
    assert int.from_bytes(first[28:32]) > pages
    data[:4096] = first
    (with_log / schema.FILE_NAME).write_bytes(data)
    shutil.copytree(with_log, tmp_path / "second")
    with closing(KnowledgeBase.open(with_log)) as base:
        assert base.version == 3
        assert check(base).damaged == ()
    os.truncate(tmp_path / "second" / "kb.sqlite3-wal", 32)
    with pytest.raises(KnowledgeBaseDamaged, match=r"cut off|malformed"):
        KnowledgeBase.open(tmp_path / "second")


@pytest.mark.parametrize("how", ["deleted", "cut", "flipped"])
def test_versions_that_a_lost_log_took_along_are_missed(with_log: Path, how: str) -> None:
    log = with_log / "kb.sqlite3-wal"
    if how == "deleted":
        log.unlink()
    elif how == "cut":
        os.truncate(log, log.stat().st_size - 1)
    else:
        data = bytearray(log.read_bytes())
        data[-2000] ^= 1
        log.write_bytes(data)
    with pytest.raises(KnowledgeBaseDamaged, match=r"version 4 was committed, but its newest is \d.*Restore it"):
        KnowledgeBase.open(with_log)
    (with_log / ".newest").unlink()  # as the sentence says, for who has put back an older file
    with closing(KnowledgeBase.open(with_log)) as base:
        assert base.version < 4


def test_who_reads_an_older_state_while_another_commits_is_not_told_that_versions_are_lost(
    folder: Path, docs: Path, embedder: HashEmbedder
) -> None:
    with closing(KnowledgeBase.open(folder, damaged=True)) as reader, closing(KnowledgeBase.open(folder)) as base:
        with reader.snapshot() as connection:
            assert connection.execute("SELECT max(version) FROM versions").fetchone() == (2,)
            remove(base, [str(docs / "ferry.md")])
            assert reader.kept_version() == 2
        assert reader.kept_version() == 3


def test_a_writer_leaves_no_log_though_others_have_the_base_open(
    folder: Path, docs: Path, embedder: HashEmbedder
) -> None:
    with closing(KnowledgeBase.open(folder)) as reader, closing(KnowledgeBase.open(folder)) as base:
        reader.search("ferry", embedder)
        (docs / "new.txt").write_text("A lighthouse stands on the rock.")
        add(base, [docs], embedder)
        assert (folder / "kb.sqlite3-wal").stat().st_size == 0
        assert reader.version == 3


def test_a_damaged_description_of_the_tables_is_a_sentence(folder: Path) -> None:
    data = (folder / schema.FILE_NAME).read_bytes()
    (folder / schema.FILE_NAME).write_bytes(data.replace(b"CREATE TABLE sums", b"CR\xb4ATE TABLE sums", 1))
    with pytest.raises(KnowledgeBaseDamaged, match="Restore it from a backup"):
        KnowledgeBase.open(folder)


# --- rows -------------------------------------------------------------------------------------------------------------


def test_an_altered_name_is_not_answered_and_the_rest_is(folder: Path, embedder: HashEmbedder) -> None:
    in_file(folder, b"Lila Ortega", b"Lila Ortegb")
    with closing(KnowledgeBase.open(folder)) as base:
        ferry, mayor = (next(d for d in base.documents() if name in d) for name in ("ferry", "mayor"))
        assert base.text(ferry) == FERRY
        assert base.search("ferry Sandhavn ticket", embedder, 1)[1][0].passage.text == FERRY
        for read in (
            lambda: base.search("Who opened the bridge?", embedder),
            lambda: base.text(mayor),
            lambda: base.passages(mayor),
            lambda: base.content(mayor),
            lambda: diff(base, 0, 2),
        ):
            with pytest.raises(KnowledgeBaseDamaged, match=r"content|passage.*not what was stored"):
                read()


def test_a_replay_says_that_a_passage_is_damaged_and_not_that_it_is_gone(folder: Path, docs: Path) -> None:
    with closing(KnowledgeBase.open(folder)) as base:
        remove(base, [str(docs / "mayor.txt")])
        passage = base.passages(str(docs / "mayor.txt"), 2)[0]
        reference = PassageReference(passage.id, passage.digest, passage.document)
        assert passage_of(base, reference, 2, ()) == passage
    in_file(folder, b"Lila Ortega", b"Lila Ortegb")
    with closing(KnowledgeBase.open(folder)) as base, pytest.raises(KnowledgeBaseDamaged):
        passage_of(base, reference, 2, ())


def test_a_passage_is_found_though_its_id_is_damaged_in_one_of_two_places(folder: Path, docs: Path) -> None:
    with closing(KnowledgeBase.open(folder)) as base:
        passage = base.passages(str(docs / "ferry.md"))[0]
    data = (folder / schema.FILE_NAME).read_bytes()
    places = [at for at in range(len(data)) if data.startswith(passage.id.encode(), at)]
    assert len(places) == 2  # the row, and its entry in the index
    for place in places:
        damaged = bytearray(data)
        damaged[place + 3] ^= 1
        (folder / schema.FILE_NAME).write_bytes(damaged)
        with closing(KnowledgeBase.open(folder)) as base:
            assert base.passage(passage.id, Scope()) == passage  # the index and the row both hold the id


@pytest.mark.parametrize(
    "damage", ["UPDATE passages SET id = 77 WHERE id = 1", "UPDATE contents SET id = 77 WHERE id = 1"]
)
def test_a_row_under_another_number_is_damage_and_not_gone(
    folder: Path, docs: Path, embedder: HashEmbedder, damage: str
) -> None:
    with closing(KnowledgeBase.open(folder)) as base:
        passage = base.passages(str(docs / "ferry.md"))[0]
    sql(folder, "PRAGMA foreign_keys = OFF", damage)
    with closing(KnowledgeBase.open(folder)) as base:
        for read in (
            lambda: base.passage(passage.id, Scope()),
            lambda: base.passages(passage.document),
            lambda: base.search("ferry", embedder),
        ):
            with pytest.raises(KnowledgeBaseDamaged):
                read()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE documents SET labels = '[]'",
        "UPDATE identities SET labels = '[]'",
        "DELETE FROM identities WHERE id = 3",
        "DELETE FROM documents WHERE id = 2",
        TWICE,
        "DELETE FROM versions WHERE version = 2",
        "UPDATE tags SET version = 2",
        "DELETE FROM meta WHERE key = 'sizing'",
        "UPDATE sums SET value = value + 1",
        "DELETE FROM sums",
        "DROP TABLE sums",
    ],
)
def test_a_row_that_is_wrong_missing_or_too_many_ends_every_answer(
    folder: Path, embedder: HashEmbedder, damage: str
) -> None:
    sql(folder, damage)
    with pytest.raises(KnowledgeBaseDamaged, match=r"damaged: .*Restore it from a backup, or move it away"):
        KnowledgeBase.open(folder)
    with closing(KnowledgeBase.open(folder, damaged=True)) as base:
        for read in (
            lambda: base.search("ferry", embedder),
            base.documents,
            base.labels,
            base.status,
            lambda: history(base),
            lambda: base.version,
        ):
            with pytest.raises(KnowledgeBaseDamaged):
                read()
        assert check(base).damaged


def test_every_column_that_decides_what_is_seen_counts(folder: Path) -> None:
    with closing(schema.connect(folder, writable=True)) as connection:
        with integrity.changing(connection, ()):
            connection.execute("INSERT INTO sources VALUES ('docs', '{}')")
        assert list(integrity.problems(connection)) == []
        for table in integrity.TABLES:
            for _, column, *_ in connection.execute(f"PRAGMA table_info({table})").fetchall():
                if column in ("bytes", "stat", "digest"):  # compared when the row is read
                    continue
                connection.execute("BEGIN")
                connection.execute("PRAGMA defer_foreign_keys = ON")
                connection.execute(f"UPDATE {table} SET {column} = coalesce({column}, '') || '9'")
                assert "is not what was" in " ".join(integrity.problems(connection)), (table, column)
                connection.execute("ROLLBACK")


@pytest.mark.parametrize("damage", ["UPDATE documents SET labels = '[]'", "UPDATE identities SET labels = '[]'"])
def test_a_writer_that_did_not_notice_damage_does_not_make_it_whole(
    folder: Path, docs: Path, embedder: HashEmbedder, damage: str
) -> None:
    with closing(KnowledgeBase.open(folder)) as base:
        sql(folder, damage)
        remove(base, [str(docs / "ferry.md")])
        for read in (lambda: base.search("captain", embedder), lambda: base.version, base.documents):
            with pytest.raises(KnowledgeBaseDamaged, match="is not what was written"):
                read()
        assert check(base).damaged


@pytest.mark.parametrize("column", ["bytes", "stat", "digest"])
def test_the_other_columns_of_a_document_count_when_it_is_read(
    folder: Path, docs: Path, embedder: HashEmbedder, column: str
) -> None:
    sql(folder, f"UPDATE documents SET {column} = 9")
    with closing(KnowledgeBase.open(folder)) as base:
        for read in (lambda: base.search("ferry", embedder), lambda: base.text(str(docs / "ferry.md"))):
            with pytest.raises(KnowledgeBaseDamaged, match="the document 1 is not what was stored"):
                read()
        assert "the document 1 is not what was stored" in " ".join(check(base).damaged)


def test_a_label_that_is_lost_while_a_server_runs_opens_nothing(folder: Path, embedder: HashEmbedder) -> None:
    with closing(KnowledgeBase.open(folder)) as base:
        assert len(base.search("captain crowns", embedder)[1]) == 2
        sql(folder, "UPDATE documents SET labels = '[]'")
        with pytest.raises(KnowledgeBaseDamaged):
            base.search("captain crowns", embedder, scope=Scope(where="type = 'txt'"))


def test_changing_a_damaged_row_does_not_make_it_whole(folder: Path) -> None:
    sql(folder, "UPDATE documents SET labels = '[]'")
    with closing(schema.connect(folder, writable=True)) as connection:
        for statement in ("UPDATE documents SET removed_in = 9 WHERE id = 3", "DELETE FROM documents WHERE id = 3"):
            with schema.transaction(connection), connection.changing(None):
                connection.execute(statement)
            assert list(integrity.problems(connection))


def test_every_verb_keeps_the_digests_true(folder: Path, docs: Path, embedder: HashEmbedder) -> None:
    with closing(KnowledgeBase.open(folder)) as base:
        verbs: list[Callable[[], object]] = [
            lambda: sync(base, docs, embedder),
            lambda: (docs / "ferry.md").write_text(FERRY + " It takes an hour."),
            lambda: (docs / "broken.pdf").write_bytes(b"%PDF-1.4 broken"),
            lambda: sync(base, docs, embedder),
            lambda: os.utime(docs / "mayor.txt"),
            lambda: sync(base, docs, embedder),
            lambda: add(base, [docs / "mayor.txt"], embedder, RunOptions(labels=frozenset({"hr"}))),
            lambda: remove(base, [str(docs / "mayor.txt")]),
            lambda: tag(base, "autumn"),
            lambda: drop_tag(base, "spring"),
            lambda: restore(base, 2),
            lambda: set_retention(base, 3),
            lambda: prune(base, 2),
            lambda: purge(base, [str(docs / "ferry.md")]),
            lambda: (docs / "broken.pdf").unlink(),
            lambda: sync(base, docs, embedder),
        ]
        for number, verb in enumerate(verbs):
            verb()
            with closing(schema.connect(folder, writable=False)) as connection:
                assert list(integrity.problems(connection)) == [], number
        assert check(base).damaged == ()
        reembed(base, HashEmbedder(32))
    with closing(KnowledgeBase.open(folder)) as base:
        assert check(base).damaged == ()


def test_a_text_that_was_damaged_is_not_embedded(folder: Path, embedder: HashEmbedder) -> None:
    sql(folder, "DELETE FROM embeddings")
    in_file(folder, b"Lila Ortega", b"Lila Ortegb")
    with (
        closing(KnowledgeBase.open(folder)) as base,
        pytest.raises(KnowledgeBaseDamaged, match="passage 2 of content 2"),
    ):
        in_slices(base, lambda run: embed_missing(run, [1, 2, 3], embedder, lambda *_: None, None), 1.0)


def test_damaged_text_is_not_quoted_in_the_sentence(folder: Path, docs: Path) -> None:
    data = (folder / schema.FILE_NAME).read_bytes()
    (folder / schema.FILE_NAME).write_bytes(data.replace(b"earns four thousand", b"earns\xfffour thousand"))
    with closing(KnowledgeBase.open(folder)) as base:
        with pytest.raises(KnowledgeBaseDamaged, match="a stored text is not UTF-8") as caught:
            base.text(str(docs / "salary.txt"))
        assert "thousand" not in str(caught.value)
        assert "thousand" not in " ".join(check(base).damaged)


def test_check_names_everything(folder: Path, docs: Path) -> None:
    sql(
        folder,
        "UPDATE tags SET version = 1",
        "UPDATE tags SET version = 2",
        "UPDATE documents SET metadata = '{}' WHERE id = 1",
        "UPDATE contents SET title = 'x' WHERE id = 2",
        "UPDATE passages SET headings = '[\"x\"]' WHERE id = 3",
        "UPDATE embeddings SET vector = (SELECT max(vector) FROM embeddings)",
    )
    with closing(KnowledgeBase.open(folder, damaged=True)) as base:
        found = "\n".join(check(base).damaged)
    for part in (
        "a row of documents, identities, sources, tags, versions or meta is not what was written, or is missing",
        f"the document 1 is not what was stored: it is {docs / 'ferry.md'}",
        f"the content 2 is not what was stored: it is the text of {docs / 'mayor.txt'}",
        f"the passage 3 of content 3 is not what was stored: it is the text of {docs / 'salary.txt'}",
        "2 vectors are not what was stored",
    ):
        assert part in found


# --- anywhere ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("log", "flips", "cuts"),
    [(False, 4, 2), *(pytest.param(log, 16, 8, marks=pytest.mark.laws) for log in (False, True))],
)
def test_random_damage_is_never_answered_otherwise(
    whole_with_log: Path, tmp_path: Path, embedder: HashEmbedder, log: bool, flips: int, cuts: int
) -> None:
    whole = whole_with_log if log else build(tmp_path / "work", None, embedder)
    found = list(trials(whole, whole.parent / "docs", embedder, flips, cuts, random.Random(11 + log), tmp_path))
    assert [each for each in found if each[2] not in ("same", "sentence")] == []
    assert {each[2] for each in found} == {"same", "sentence"}


# --- the edges --------------------------------------------------------------------------------------------------------


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut": lambda folder: os.truncate(folder / schema.FILE_NAME, (folder / schema.FILE_NAME).stat().st_size - 9),
    "tables": lambda folder: sql(folder, "UPDATE documents SET content_id = 1"),
    "version": lambda folder: sql(folder, "DELETE FROM versions"),
    "garbage": lambda folder: (folder / schema.FILE_NAME).write_bytes(b"no database" * 1000),
}


@pytest.mark.parametrize(
    "damage", ["tables", *(pytest.param(each, marks=pytest.mark.laws) for each in ("cut", "garbage", "version"))]
)
def test_every_command_says_it_in_one_sentence(
    tmp_path: Path, docs: Path, capsys: pytest.CaptureFixture[str], damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openbook.answers.opening.open_embedder", lambda *_, **__: HashEmbedder())
    folder = tmp_path / "kb"
    with closing(KnowledgeBase.ensure(folder, HashEmbedder().identity)) as base:
        sync(base, docs, HashEmbedder())
    DAMAGES[damage](folder)
    plain = "search ferry|sync|status|verify|ls|history|diff 0|restore 0|tag x|prune"
    ferry = str(docs / "ferry.md")
    for words in (*map(str.split, plain.split("|")), ["add", ferry], ["purge", ferry, "--yes"], ["remove", ferry]):
        assert run([*words, "--kb", str(folder)]) == 4, words
        said = capsys.readouterr().err
        assert "damaged" in said, words
        assert "Restore it from a backup" in said, words


def test_digests_have_64_bits_and_depend_on_every_value() -> None:
    one = integrity.row_digest(1, "a", None, b"x")
    assert -(2**63) <= one < 2**63
    others = (
        (2, "a", None, b"x"),
        (1, "b", None, b"x"),
        (1, "a", 0, b"x"),
        (1, "a", None, b"y"),
        ("1a", "", None, b"x"),
    )
    assert len({one, *(integrity.row_digest(*values) for values in others)}) == 6
    assert one == 4121389943704319446  # of this format for ever
    assert integrity.row_digest("ä", "", 0) == 1277950302724716172
