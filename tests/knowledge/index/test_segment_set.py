from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from openbook.knowledge.check import index_problems
from openbook.knowledge.index import segment_set as module
from openbook.knowledge.index.search import best_passages
from openbook.knowledge.index.segment_builder import IndexSource, build
from openbook.knowledge.index.segment_set import SegmentSet
from tests.knowledge import small_bases
from tests.knowledge.small_bases import (
    DIMENSIONS,
    EMBEDDER,
    QUERY,
    Base,
    Text,
    expected,
    ids,
    reseal,
    search,
    timetable,
)

TWICE = """INSERT INTO passages SELECT NULL, content_id, passage_id, start_char, end_char, page, headings, embedding_key,
  digest FROM passages WHERE id = 1"""


def problems(folder: Path, source: IndexSource, *contents: int) -> list[str]:
    return list(index_problems(folder, source, ids(*contents)))


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in (folder / "index").iterdir())


def times(folder: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*")}


@pytest.fixture
def base() -> Base:
    return Base()


@pytest.fixture
def contents(base: Base) -> list[int]:
    return [base.add(timetable(n)) for n in range(6)]


def test_new_contents_are_found_before_they_are_saved_and_opening_never_writes(
    tmp_path: Path, base: Base, contents: list[int]
) -> None:
    SegmentSet.refresh(tmp_path / "first", base.source(), ids(*contents[:5]))
    before = times(tmp_path / "first")
    SegmentSet.refresh(tmp_path / "first", base.source(), ids(*contents[:5]))
    assert before == times(tmp_path / "first")  # there was nothing to do
    shutil.copytree(tmp_path / "first", tmp_path / "copy", copy_function=shutil.copyfile)  # of other times
    for folder in (tmp_path / "first", tmp_path / "copy"):
        before = times(folder)
        opened = SegmentSet.open(folder, base.source(), ids(contents[5]))
        assert opened.contents().tolist() == contents
        assert small_bases.bm25(opened.shard(ids(contents[5])), "number5", 3)[0][0] > 0
        assert times(folder) == before


def test_a_view_needs_its_contents(base: Base, contents: list[int]) -> None:
    opened = SegmentSet.open(Path("absent"), base.source(), ids(*contents[:2]))
    with pytest.raises(ValueError, match="1 of 2 contents are not indexed"):
        opened.shard(ids(contents[0], contents[5]))
    empty = opened.shard(ids())
    assert empty.rows == 0
    assert best_passages(empty, QUERY, EMBEDDER.embed_query(QUERY), 5) == []
    assert small_bases.dense(empty, QUERY, 5) == []


def test_one_text_under_two_contents_is_one_passage(base: Base) -> None:
    plain = Text("", (((), "The ferry leaves at nine."),))
    titled = Text("Timetable", ((("Boats",), "The ferry leaves at nine."),))
    first, second, third, fourth = (base.add(each) for each in (plain, titled, titled, plain))
    results = [expected(base, some) for some in ([first, second], [third, fourth], [second, first, third, fourth])]
    assert results[0] == results[1] == results[2]
    assert results[0][0] == ("passages", 1)
    alone = expected(base, [second])
    assert alone[0] == ("passages", 1)
    assert expected(base, [third]) == alone


def test_segments_stay_few_and_large_ones_stay_alone(
    tmp_path: Path, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SMALL", 2)
    contents: list[int] = []
    for n in range(60):
        contents.append(base.add(timetable(n)))
        SegmentSet.refresh(tmp_path, base.source(), ids(*contents))
        assert len(names(tmp_path)) <= module.MAX_SEGMENTS + 1
    assert len(names(tmp_path)) > 2
    assert search(base, SegmentSet.open(tmp_path, base.source(), ids()), contents, QUERY) == expected(base, contents)
    assert not problems(tmp_path, base.source(), *contents)


def test_many_chunks_become_one_segment(
    tmp_path: Path, base: Base, contents: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openbook.knowledge.index.segment_builder.ROWS", 3)
    monkeypatch.setattr("openbook.knowledge.index.segments._BLOCK", 2)
    monkeypatch.setattr("openbook.knowledge.index.segments._POSTINGS_BLOCK", 5)
    saved = SegmentSet.refresh(tmp_path, base.source(), ids(*contents))
    assert len(names(tmp_path)) == 2
    assert search(base, saved, contents, QUERY) == expected(base, contents)
    assert not problems(tmp_path, base.source(), *contents)


def test_unused_contents_are_dropped_when_they_are_many(tmp_path: Path, base: Base, contents: list[int]) -> None:
    for kept, indexed in ((contents, contents), (contents[1:], contents), (contents[2:], contents[2:]), ([], [])):
        assert SegmentSet.refresh(tmp_path, base.source(), ids(*kept)).contents().tolist() == indexed
    assert names(tmp_path) == ["state.json"]


def test_readers_keep_their_open_segments(tmp_path: Path, base: Base) -> None:
    contents = [base.add(Text("", tuple(((), f"word{n} {'long ' * 30}") for n in range(900))))]
    contents.append(base.add(timetable(1)))
    reader = SegmentSet.refresh(tmp_path, base.source(), ids(*contents))
    before = search(base, reader, contents, "word7")
    SegmentSet.refresh(tmp_path, base.source(), ids(contents[1]), forget=True)
    assert search(base, reader, contents, "word7") == before


@pytest.mark.parametrize(
    ("of", "problem"),
    [({"base_id": "1" * 32}, "another"), ({"embedder": "other"}, "another"), ({}, "restored from a backup")],
)
def test_the_index_of_another_base_embedder_or_past_is_ignored(
    tmp_path: Path, base: Base, contents: list[int], of: dict[str, str], problem: str
) -> None:
    """A database from a backup meets the index of its later past."""
    SegmentSet.refresh(tmp_path, base.source(**of), ids(*contents))
    other = Base()
    mine = [other.add(timetable(0)), other.add(Text("", (((), "Other words altogether."),)))]
    assert mine == contents[:2]
    opened = SegmentSet.open(tmp_path, other.source(), ids(*mine))
    assert search(other, opened, mine, "other words") == expected(other, mine, "other words")
    assert problem in " ".join(problems(tmp_path, other.source(), *mine))
    SegmentSet.refresh(tmp_path, other.source(), ids(*mine))
    assert not problems(tmp_path, other.source(), *mine)


def test_an_id_reused_after_a_restored_backup_is_noticed(tmp_path: Path, base: Base) -> None:
    contents = [base.add(timetable(0)), base.add(Text("", (((), " \n"),)))]
    SegmentSet.refresh(tmp_path, base.source(), ids(*contents))
    other = Base()
    assert [other.add(timetable(0)), other.add(timetable(1))] == contents
    opened = SegmentSet.open(tmp_path, other.source(), ids(*contents))
    assert search(other, opened, contents, QUERY) == expected(other, contents)


def test_only_own_old_folders_are_deleted(tmp_path: Path, base: Base, contents: list[int]) -> None:
    index = tmp_path / "index"
    for name in ("segment-99", "mine", "segment-x"):
        (index / name).mkdir(parents=True)
        (index / name / "file").write_text("x")
    (index / "notes.txt").write_text("mine")
    (index / ".state.json.17-00ff").write_text("x")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("keep")
    (index / "segment-5").symlink_to(outside)
    SegmentSet.refresh(tmp_path, base.source(), ids(*contents))
    assert names(tmp_path) == ["mine", "notes.txt", "segment-100", "segment-x", "state.json"]
    assert (outside / "file").read_text() == "keep"


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("DELETE FROM embeddings", "no vector of"),
        ("UPDATE embeddings SET vector = x'00'", "no vector of"),
        (f"UPDATE embeddings SET vector = x'{'ff' * 2 * DIMENSIONS}'", "numbers that are not finite"),
        ("UPDATE passages SET passage_id = 'what'", "passage's id"),
        ("UPDATE passages SET headings = '{'", "headings"),
        ("PRAGMA foreign_keys = OFF; DELETE FROM contents", "is not there"),
        ("DELETE FROM passages WHERE content_id = 2 AND start_char > 0", "do not cover its text"),
        ("DELETE FROM passages WHERE content_id = 2 AND start_char = 0", "do not cover its text"),
        (TWICE, "do not cover its text"),
    ],
)
def test_wrong_rows_are_refused(tmp_path: Path, base: Base, contents: list[int], sql: str, message: str) -> None:
    base.connection.executescript(sql)
    reseal(base.connection)
    with pytest.raises(sqlite3.DatabaseError, match=message):
        SegmentSet.refresh(tmp_path, base.source(), ids(*contents))


def test_an_index_serves_if_its_newest_content_is_damaged(tmp_path: Path, base: Base, contents: list[int]) -> None:
    before = expected(base, contents)
    SegmentSet.refresh(tmp_path, base.source(), ids(*contents))
    base.connection.execute("UPDATE contents SET title = 'Other' WHERE id = (SELECT max(id) FROM contents)")
    assert search(base, SegmentSet.open(tmp_path, base.source(), ids(*contents)), contents, QUERY) == before


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM passages WHERE content_id = 3; DELETE FROM contents WHERE id = 3",
        "UPDATE passages SET passage_id = 'p0123456789abcdef0000' WHERE id = 3",
        "UPDATE contents SET title = 'Other' WHERE id = 3",
    ],
)
def test_differences_from_the_database_are_found(tmp_path: Path, base: Base, contents: list[int], sql: str) -> None:
    SegmentSet.refresh(tmp_path, base.source(), ids(*contents))
    assert not problems(tmp_path, base.source(), *contents)
    base.connection.executescript(sql)
    reseal(base.connection)
    assert " are not those of the database" in " ".join(problems(tmp_path, base.source(), 1, 2))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("segment-1/vectors.npy", None), ("segment-1/vectors.npy", ""), ("state.json", None), ("state.json", ""),
        ("state.json", "{"), ("state.json", "[]"), ("state.json", "[" * 10_000),
        ("state.json", '{"segments": [{"name": "../x"}], "digest": ""}'),
    ],
)  # fmt: skip
def test_a_foreign_file_is_damage_and_blocks_nothing(
    tmp_path: Path, base: Base, contents: list[int], name: str, text: str | None
) -> None:
    SegmentSet.refresh(tmp_path, base.source(), ids(*contents))
    path = tmp_path / "index" / name
    path.unlink()
    if text is None:
        os.mkfifo(path)
    else:
        path.write_text(text)
    assert problems(tmp_path, base.source(), *contents)
    opened = SegmentSet.open(tmp_path, base.source(), ids(*contents))
    assert search(base, opened, contents, QUERY) == expected(base, contents)
    SegmentSet.refresh(tmp_path, base.source(), ids(*contents))
    assert not problems(tmp_path, base.source(), *contents)


def test_forgetting_leaves_no_byte(tmp_path: Path, base: Base, contents: list[int]) -> None:
    secret = Text("", (((), "The zanzibar codeword is xylophone."),))
    gone = base.add(secret)
    SegmentSet.refresh(tmp_path, base.source(), ids(*contents, gone))
    (segment,) = build(base.source(), [gone])
    (others,) = build(base.source(), contents)
    traces = [segment.keys.tobytes(), segment.vectors.tobytes()]
    traces += [term.tobytes() for term in segment.terms if term not in others.terms]
    assert len(traces) > 4
    everything = b"".join(p.read_bytes() for p in tmp_path.rglob("*.npy"))
    assert all(trace in everything for trace in traces)
    (tmp_path / "index/segment-77").mkdir()  # what a killed run left
    (tmp_path / "index/segment-77/vectors.npy").write_bytes(traces[1])
    base.remove(gone)
    after = SegmentSet.refresh(tmp_path, base.source(), ids(*contents), forget=True)
    everything = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert not any(trace in everything for trace in traces)
    assert search(base, after, contents, QUERY) == expected(base, contents)


def killed_after(steps: int, work: Callable[[], object]) -> bool:
    """Run `work` in a process that dies before its (steps + 1)th change of the disk. True if it died."""
    child = os.fork()
    if child == 0:
        left = steps

        def count(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            writes = event == "open" and isinstance(arguments[1], str) and arguments[1][:1] in ("x", "w")
            if writes or event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir"):
                if left == 0:
                    os._exit(9)
                left -= 1

        sys.addaudithook(count)
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("forget", [False, True])
@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.laws)])
def test_killed_at_every_step(tmp_path: Path, forget: bool, stride: int) -> None:
    steps, died = 0, True
    while died:
        folder = tmp_path / str(steps)
        folder.mkdir()
        base = Base(folder)
        contents = [base.add(timetable(n)) for n in range(4)]
        SegmentSet.refresh(folder, base.source(), ids(*contents[:3]))
        keep = contents[1:] if forget else contents
        change = partial(SegmentSet.refresh, forget=forget)
        died = killed_after(steps, lambda: change(folder, base.source(), ids(*keep)))  # noqa: B023  called at once
        opened = SegmentSet.open(folder, base.source(), ids(*keep))
        assert search(base, opened, keep, QUERY) == expected(base, keep)
        change(folder, base.source(), ids(*keep))
        assert not problems(folder, base.source(), *keep)
        assert len(names(folder)) == 2
        assert json.loads((folder / "index/state.json").read_bytes())["segments"][0]["name"] in names(folder)
        steps += stride
    assert steps > 20
