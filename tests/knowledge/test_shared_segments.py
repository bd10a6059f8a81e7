"""Machines are index folders here; the rows are one database."""

from __future__ import annotations

import errno
import json
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from threading import Barrier, Event, Thread, current_thread

import pytest

from openbook.codec import decode
from openbook.errors import KnowledgeError, StorageError
from openbook.knowledge import KnowledgeBase, index_store, purge, shared_segments, sync
from openbook.knowledge import indexes as module
from openbook.knowledge.blobs import Entry
from openbook.knowledge.check import check
from openbook.knowledge.indexes import Indexes
from openbook.knowledge.schema import FILE_NAME
from openbook.knowledge.shared_segments import Manifest
from openbook.records import canonical_json
from openbook.testing import HashEmbedder, MemoryBlobs
from tests.knowledge.small_bases import Base, Text, ids, search
from tests.knowledge.test_erasure import SECRET

QUERY = "When does the harbour ferry leave?"
ID = "0" * 32


class FailingBlobs(MemoryBlobs):
    """Calls `before` with the name of the method and its key first; every call is in `calls`."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, str]] = []
        self.before: Callable[[str, str], None] = lambda method, key: None

    def _call(self, method: str, key: str) -> None:
        self.calls.append((method, key))
        self.before(method, key)

    def get(self, key: str) -> bytes:
        self._call("get", key)
        return super().get(key)

    def fetch(self, key: str, path: Path) -> None:
        self._call("fetch", key)
        super().fetch(key, path)

    def put(self, key: str, data: bytes | Path, *, if_absent: bool = False) -> bool:
        self._call("put", key)
        return super().put(key, data, if_absent=if_absent)

    def delete(self, key: str) -> None:
        self._call("delete", key)
        super().delete(key)

    def entries(self, prefix: str) -> Iterator[Entry]:
        self._call("entries", prefix)
        return super().entries(prefix)

    def methods(self) -> set[str]:
        return {method for method, _ in self.calls}


def refuse(method: str, key: str) -> None:
    raise StorageError("Cannot use memory:: it cannot be reached.")


@pytest.fixture
def blobs() -> FailingBlobs:
    return FailingBlobs()


@pytest.fixture
def base() -> Base:
    return Base()


@pytest.fixture
def contents(base: Base) -> list[int]:
    return [base.add(text(n)) for n in range(8)]


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return tmp_path / "one"


@pytest.fixture
def two(tmp_path: Path) -> Path:
    return tmp_path / "two"


def text(number: int) -> Text:
    return Text(
        f"Part {number}", ((("Times",), f"The ferry number{number} leaves at {number}. "), ((), "The bridge is open."))
    )


def expected(base: Base, contents: list[int]) -> list[tuple[object, ...]]:
    return search(base, Indexes.open(Path("absent"), base.source(), ids(*contents)), contents, QUERY)


def write(blobs: FailingBlobs, folder: Path, base: Base, *contents: int, forget: bool = False) -> Indexes:
    return Indexes.refresh(folder, base.source(), ids(*contents), blobs=blobs, forget=forget)


def opened(blobs: FailingBlobs, folder: Path, base: Base, contents: list[int]) -> int:
    """How many of the contents a reader builds from their rows. What it finds is compared."""
    indexes = Indexes.open(folder, base.source(), ids(*contents), blobs=blobs)
    assert search(base, indexes, contents, QUERY) == expected(base, contents)
    saved = module.contents_of([each.segment for each in index_store.read(folder, base.source())[0]])
    return len({*contents} - {*saved.tolist()})


def manifest(blobs: MemoryBlobs) -> Manifest:
    return decode(blobs.get(max(blobs.list(f"{ID}/manifests/"))), Manifest, "", ValueError)


def named(blobs: MemoryBlobs) -> set[str]:
    return {f"{ID}/segments/{digest}.npy" for files in manifest(blobs).segments for _, digest in files.values()}


def stored(blobs: MemoryBlobs) -> set[str]:
    return set(blobs.list(f"{ID}/segments/"))


# --- readers ----------------------------------------------------------------------------------------------------------


def test_what_one_machine_wrote_another_fetches_once(
    blobs: FailingBlobs, one: Path, two: Path, base: Base, contents: list[int]
) -> None:
    write(blobs, one, base, *contents)
    assert stored(blobs) == named(blobs) != set()
    assert opened(blobs, two, base, contents) == 0
    blobs.calls.clear()
    assert opened(blobs, two, base, contents) == 0
    assert opened(blobs, one, base, contents) == 0
    assert blobs.calls == [("entries", f"{ID}/manifests/")] * 2


def test_only_what_is_new_is_fetched_and_put(
    blobs: FailingBlobs, one: Path, two: Path, base: Base, contents: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SMALL", 1)
    write(blobs, one, base, *contents[:7])
    opened(blobs, two, base, contents[:7])
    blobs.calls.clear()
    write(blobs, one, base, *contents)
    put = {key for method, key in blobs.calls if method == "put" and "/segments/" in key}
    opened(blobs, two, base, contents)
    fetched = {key for method, key in blobs.calls if method == "fetch"}
    assert put == fetched
    assert 0 < len(put) < len(named(blobs))


def test_a_reader_never_writes_to_the_store(
    blobs: FailingBlobs, one: Path, two: Path, base: Base, contents: list[int]
) -> None:
    write(blobs, one, base, *contents[:4])
    blobs.calls.clear()
    assert opened(blobs, two, base, contents) == 4
    shutil.rmtree(two)
    assert opened(blobs, two, base, contents) == 4
    assert blobs.methods() == {"entries", "get", "fetch"}


def test_a_store_that_cannot_be_reached_costs_time(
    blobs: FailingBlobs, one: Path, two: Path, base: Base, contents: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    write(blobs, one, base, *contents)
    blobs.before = refuse
    assert opened(blobs, two, base, contents) == 8
    assert opened(blobs, one, base, contents) == 0
    assert "it cannot be reached. What is not on this machine is built from the rows" in caplog.text
    blobs.before = lambda method, key: None
    assert opened(blobs, two, base, contents) == 0


def test_a_store_that_fails_in_the_middle_costs_time(
    blobs: FailingBlobs, one: Path, two: Path, base: Base, contents: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SMALL", 1)
    write(blobs, one, base, *contents[:7])
    write(blobs, one, base, *contents)
    for number in (1, 2, 4, 16):
        shutil.rmtree(two, ignore_errors=True)
        blobs.before = fail_after(number)
        opened(blobs, two, base, contents)
        blobs.before = lambda method, key: None
        assert opened(blobs, two, base, contents) == 0


@pytest.mark.parametrize("damage", ["short", "changed", "absent"])
def test_an_object_that_is_not_what_was_put_is_refused_and_put_again_by_the_next_writer(
    blobs: FailingBlobs,
    one: Path,
    two: Path,
    base: Base,
    contents: list[int],
    damage: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    three = two.with_name("three")
    write(blobs, one, base, *contents)
    for array in ("contents", "vectors"):
        key = f"{ID}/segments/{manifest(blobs).segments[0][array][1]}.npy"
        whole = blobs.get(key)
        if damage == "absent":
            blobs.delete(key)
        else:
            blobs.put(key, whole[:-1] if damage == "short" else whole[:-1] + bytes([whole[-1] ^ 1]))
        for folder in (two, three):
            shutil.rmtree(folder, ignore_errors=True)
            caplog.clear()
            assert opened(blobs, folder, base, contents) == 8
        assert "not what was put there" in caplog.text
        write(blobs, two, base, *contents)
        assert blobs.get(key) == whole
        assert opened(blobs, three, base, contents) == 0


def test_a_damaged_copy_is_fetched_again(blobs: FailingBlobs, one: Path, base: Base, contents: list[int]) -> None:
    write(blobs, one, base, *contents)
    for array in ("terms", "vectors"):
        (path,) = (one / "index").glob(f"segment-*/{array}.npy")
        path.write_bytes(path.read_bytes()[:-1] + b"\x00\x01")
        blobs.calls.clear()
        assert opened(blobs, one, base, contents) == 0
        assert "fetch" in blobs.methods()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b'{"about": [], "segments": [], "retired": {}}',
        b"\xff\xfe",
        b" " * ((16 << 20) + 1),
        b'{"about":[],"segments":[{}],"retired":{},"token":""}',
    ],
)
def test_a_manifest_that_is_none_is_replaced_by_the_next_writer(
    blobs: FailingBlobs, one: Path, two: Path, base: Base, contents: list[int], data: bytes
) -> None:
    write(blobs, one, base, *contents)
    blobs.put(f"{ID}/manifests/0000000007.json", data)
    assert opened(blobs, two, base, contents) == 8
    assert opened(blobs, one, base, contents) == 0
    write(blobs, one, base, *contents)
    assert list(blobs.list(f"{ID}/manifests/")) == [f"{ID}/manifests/0000000008.json"]
    assert opened(blobs, two, base, contents) == 0


@pytest.mark.parametrize("name", ["../../escape", "a" * 63, "A" * 64])
def test_a_manifest_cannot_name_what_is_no_digest(
    blobs: FailingBlobs, one: Path, two: Path, base: Base, contents: list[int], name: str
) -> None:
    write(blobs, one, base, *contents)
    value = json.loads(blobs.get(f"{ID}/manifests/0000000001.json"))
    value["segments"][0]["terms"][1] = name
    blobs.put(f"{ID}/manifests/0000000002.json", json.dumps(value).encode())
    blobs.calls.clear()
    assert opened(blobs, two, base, contents) == 8
    assert "fetch" not in blobs.methods()


def test_a_full_disk_of_the_cache_costs_time_and_leaves_nothing_half(
    blobs: FailingBlobs, one: Path, two: Path, base: Base, contents: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    write(blobs, one, base, *contents)

    def full(method: str, key: str) -> None:
        if method == "fetch":
            raise OSError(errno.ENOSPC, "No space left on device")

    blobs.before = full
    assert opened(blobs, two, base, contents) == 8
    assert "No space left on device." in caplog.text
    assert not list((two / "index").glob("segment-*"))


def test_a_cache_in_a_folder_that_is_a_link_is_refused(
    blobs: FailingBlobs, one: Path, two: Path, base: Base, contents: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    write(blobs, one, base, *contents)
    two.mkdir()
    (two / "index").symlink_to(one)
    assert opened(blobs, two, base, contents) == 8
    assert "is a link" in caplog.text


def test_segments_of_another_embedder_or_base_stay_apart(
    blobs: FailingBlobs, one: Path, two: Path, base: Base, contents: list[int]
) -> None:
    write(blobs, one, base, *contents)
    other = "1" * 32
    Indexes.refresh(two, base.source(base_id=other), ids(*contents[:3]), blobs=blobs)
    assert {key.partition("/")[0] for key in blobs.list("")} == {ID, other}
    assert Indexes.refresh(one, base.source(), ids(*contents), blobs=blobs, forget=True).contents().tolist() == contents
    assert any(blobs.list(f"{other}/segments/"))
    newer = base.source(embedder="e" * 64)
    Indexes.refresh(two, newer, ids(*contents), blobs=blobs)
    assert manifest(blobs).about == index_store.about(newer)
    assert opened(blobs, one, base, contents) == 0  # what it had of the old one


# --- writers ----------------------------------------------------------------------------------------------------------


def test_a_writer_goes_on_with_what_the_other_wrote(
    blobs: FailingBlobs, one: Path, two: Path, base: Base, contents: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SMALL", 1)
    for number in range(3, 7):
        write(blobs, (one, two)[number % 2], base, *contents[:number])
        assert opened(blobs, one, base, contents[:number]) == opened(blobs, two, base, contents[:number]) == 0


def test_of_two_writers_at_once_one_manifest_wins_and_no_segment_is_lost(
    blobs: FailingBlobs, tmp_path: Path, base: Base, contents: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SMALL", 0)
    write(blobs, tmp_path / "before", base, *contents[:4])
    together, first_is_done, tried = Barrier(2, timeout=60), Event(), list[tuple[str, str]]()

    def meet(method: str, key: str) -> None:
        if method == "put" and "/manifests/" in key:
            tried.append((current_thread().name, key))
            if len(tried) <= 2:
                together.wait()
                assert current_thread().name == "first" or first_is_done.wait(60)

    def run(name: str, wanted: list[int]) -> None:
        rows = tmp_path / f"{name}.sqlite"
        own = Base.__new__(Base)
        own.connection = sqlite3.connect(rows)
        write(blobs, tmp_path / name, own, *wanted)
        own.connection.close()
        if name == "first":
            first_is_done.set()

    blobs.before = meet
    writers = [Thread(target=run, args=each, name=each[0]) for each in (("first", contents[:5]), ("second", contents))]
    for writer in writers:
        base.connection.execute("VACUUM INTO ?", (str(tmp_path / f"{writer.name}.sqlite"),))
        writer.start()
    for writer in writers:
        writer.join(60)
    blobs.before = lambda method, key: None
    numbers = [int(key[-15:-5]) for _, key in sorted(tried)]
    assert numbers == [2, 2, 3]  # the first one's, the second one's, and the second one's again
    for folder in ("before", "first", "second"):
        assert opened(blobs, tmp_path / folder, base, contents) == 0


def test_a_number_that_is_long_outdated_does_not_win(
    blobs: FailingBlobs, one: Path, two: Path, base: Base, contents: list[int]
) -> None:
    write(blobs, one, base, *contents[:2])
    rivals = iter([contents[:4], contents[:6]])

    def overtake(method: str, key: str) -> None:
        if method == "put" and "/manifests/" in key and (rival := next(rivals, None)):
            before, blobs.before = blobs.before, lambda method, key: None
            write(blobs, one, base, *rival)
            write(blobs, one, base, *contents[: len(rival) + 1])
            blobs.before = before

    blobs.before = overtake
    write(blobs, two, base, *contents)
    blobs.before = lambda method, key: None
    shutil.rmtree(one)
    assert opened(blobs, one, base, contents) == 0


def test_a_writer_that_is_always_late_says_so_and_keeps_its_segments(
    blobs: FailingBlobs, one: Path, base: Base, contents: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    number = 0

    def overtake(method: str, key: str) -> None:
        nonlocal number
        if method == "put" and "/manifests/" in key:
            number += 1
            MemoryBlobs.put(blobs, key, canonical_json(asdict(shared_segments._NOTHING)))

    blobs.before = overtake
    write(blobs, one, base, *contents)
    assert number == shared_segments.TRIES
    assert "other writers change it all the time" in caplog.text
    blobs.before = lambda method, key: None
    assert search(base, Indexes.open(one, base.source(), ids()), contents, QUERY) == expected(base, contents)


def test_a_reply_that_is_lost_is_no_loss(one: Path, base: Base, contents: list[int]) -> None:
    class Repeating(FailingBlobs):
        def put(self, key: str, data: bytes | Path, *, if_absent: bool = False) -> bool:
            super().put(key, data, if_absent=if_absent)
            return super().put(key, data, if_absent=if_absent)

    repeating = Repeating()
    write(repeating, one, base, *contents)
    assert list(repeating.list(f"{ID}/manifests/")) == [f"{ID}/manifests/0000000001.json"]


def test_what_a_writer_cannot_put_is_put_by_its_next_refresh(
    blobs: FailingBlobs, one: Path, two: Path, base: Base, contents: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    for step in (0, 2, 8, 15, 16, 40):
        blobs.before = fail_after(step)
        write(blobs, one, base, *contents)
        failed, blobs.before = "are on this machine alone" in caplog.text, lambda method, key: None
        caplog.clear()
        assert opened(blobs, one, base, contents) == 0
        if not failed:
            break
        write(blobs, one, base, *contents)
        assert opened(blobs, two, base, contents) == 0
        for folder in (one, two):
            shutil.rmtree(folder)
        for key in list(blobs.list("")):
            blobs.delete(key)
    assert step == 40


def raised(work: Callable[[], object]) -> str:
    """What the StorageError says, if there is one."""
    try:
        work()
    except StorageError as error:
        return str(error)
    return ""


def fail_after(calls: int) -> Callable[[str, str], None]:
    left = calls

    def fail(method: str, key: str) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            refuse(method, key)

    return fail


# --- what is not needed any more --------------------------------------------------------------------------------------


def test_what_no_manifest_names_stays_for_a_while(
    blobs: FailingBlobs, one: Path, base: Base, contents: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(blobs, one, base, *contents[:4])
    first = named(blobs)
    blobs.put(f"{ID}/segments/{'f' * 64}.npy", b"of a writer that was killed")
    write(blobs, one, base, *contents)
    assert named(blobs) | first < stored(blobs)
    first -= named(blobs)  # ids of contents may be the bytes of ids of passages
    assert len(list(blobs.list(f"{ID}/manifests/"))) == 1
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + shared_segments.GRACE_S + 2)
    monkeypatch.setattr(module, "MOST_DROPPED", 0.0)
    write(blobs, one, base, *contents[:7])
    second = stored(blobs)
    assert not first & second
    assert f"{ID}/segments/{'f' * 64}.npy" not in second


def test_to_forget_is_to_delete_at_once(
    blobs: FailingBlobs, one: Path, two: Path, base: Base, contents: list[int]
) -> None:
    write(blobs, one, base, *contents[:4])
    write(blobs, one, base, *contents)
    blobs.put(f"{ID}/segments/{'f' * 64}.npy", b"of a writer that was killed")
    assert opened(blobs, two, base, contents) == 0
    write(blobs, two, base, *contents[1:], forget=True)
    assert stored(blobs) == named(blobs)
    assert opened(blobs, one, base, contents[1:]) == 0
    assert {path.name for path in (one / "index").glob("segment-*/*")} == {
        f"{array}.npy" for array in manifest(blobs).segments[0]
    }


def test_to_forget_where_the_store_fails_is_finished_by_the_next(
    blobs: FailingBlobs, one: Path, base: Base, contents: list[int]
) -> None:
    for step in (0, 2, 9, 17, 19, 21, 25, 60):
        for key in list(blobs.list("")):
            blobs.delete(key)
        write(blobs, one, base, *contents)
        old, blobs.before = stored(blobs), fail_after(step)
        failed = raised(lambda: write(blobs, one, base, *contents[2:], forget=True))
        blobs.before = lambda method, key: None
        if not failed:
            break
        assert "bytes of them may still be in memory:" in failed
        write(blobs, one, base, *contents[2:], forget=True)
        assert stored(blobs) == named(blobs)
        assert not old & stored(blobs)
    assert step == 60


# --- whole knowledge bases --------------------------------------------------------------------------------------------


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for number in range(6):
        (folder / f"plain{number}.txt").write_text(f"The ferry number {number} leaves at {number} o'clock sharp.")
    (folder / "very-secret-plan.txt").write_text(SECRET)
    return folder


@pytest.fixture
def kb(tmp_path: Path, docs: Path, embedder: HashEmbedder, blobs: FailingBlobs) -> KnowledgeBase:
    kb = KnowledgeBase.ensure(tmp_path / "kb", embedder.identity)
    kb.indexes.blobs = blobs
    sync(kb, docs, embedder)
    return kb


def test_a_purge_reaches_the_store(kb: KnowledgeBase, blobs: FailingBlobs, embedder: HashEmbedder, docs: Path) -> None:
    before = set(blobs.list(f"{kb.id}/segments/"))
    assert before
    vector = next(
        v
        for (v,) in kb.connection.execute(
            "SELECT e.vector FROM embeddings e JOIN passages USING (embedding_key) JOIN contents c ON c.id = content_id "
            "WHERE c.text LIKE 'The secret%'"
        )
    )
    assert any(vector in blobs.get(key) for key in before)
    (docs / "very-secret-plan.txt").unlink()
    purged = purge(kb, ["very-secret-plan.txt"])
    after = {key: blobs.get(key) for key in blobs.list("")}
    assert not before & set(after)
    assert not any(vector in data for data in after.values())
    assert (purged.objects, purged.object_bytes) == (len(after), sum(map(len, after.values())))
    assert "older versions in a bucket with versioning" in purged.remains[0]
    assert not any("secret" in hit.passage.text for hit in kb.search("secret launch code", embedder)[1])


def test_a_purge_is_refused_before_anything_is_deleted_where_the_store_cannot_be_reached(
    kb: KnowledgeBase, blobs: FailingBlobs
) -> None:
    blobs.before = refuse
    with pytest.raises(StorageError, match="cannot be reached"):
        purge(kb, ["very-secret-plan.txt"])
    blobs.before = lambda method, key: None
    assert len(kb.documents()) == 7
    assert purge(kb, ["very-secret-plan.txt"]).objects > 0


def test_a_purge_during_which_the_store_goes_down_is_finished_by_the_next_writer(
    kb: KnowledgeBase, blobs: FailingBlobs, embedder: HashEmbedder, docs: Path
) -> None:
    before = set(blobs.list(f"{kb.id}/segments/"))
    (docs / "very-secret-plan.txt").unlink()
    blobs.before = fail_after(3)
    with pytest.raises(StorageError, match="bytes of them may still be in memory:"):
        purge(kb, ["very-secret-plan.txt"])
    with pytest.raises(StorageError):
        sync(kb, docs, embedder)
    blobs.before = lambda method, key: None
    sync(kb, docs, embedder)
    assert not before & set(blobs.list(""))


def test_a_purge_says_what_others_put_there(kb: KnowledgeBase, blobs: FailingBlobs) -> None:
    blobs.put(f"{kb.id}/mine.txt", b"notes")
    with pytest.raises(KnowledgeError, match=r"1 objects of this knowledge base .*mine\.txt"):
        purge(kb, ["very-secret-plan.txt"])


def test_another_machine_drops_its_copies_with_its_next_search(
    kb: KnowledgeBase, blobs: FailingBlobs, embedder: HashEmbedder, tmp_path: Path
) -> None:
    replica = tmp_path / "replica"
    replica.mkdir()
    (replica / FILE_NAME).symlink_to(kb.folder / FILE_NAME)  # the rows are the same ones
    reader = KnowledgeBase.open(replica)
    reader.indexes.blobs = blobs
    reader.search("secret", embedder)
    before, meanwhile = {path.read_bytes() for path in replica.glob("index/segment-*/vectors.npy")}, list[str]()

    def search_meanwhile(method: str, key: str) -> None:
        if method == "put" and "/manifests/" in key:  # the rows are gone, and the segments are not
            blobs.before = lambda method, key: None
            meanwhile.extend(hit.passage.text for hit in reader.search("secret", embedder)[1])

    blobs.before = search_meanwhile
    purge(kb, ["very-secret-plan.txt"])
    assert meanwhile
    assert not any("secret" in text for text in meanwhile)
    assert not any("secret" in hit.passage.text for hit in reader.search("secret", embedder)[1])
    after = {path.read_bytes() for path in replica.glob("index/segment-*/vectors.npy")}
    assert len(before) == len(after) == 1
    assert before != after
    reader.close()


def test_check_compares_the_store_and_repairs_it(
    kb: KnowledgeBase, blobs: FailingBlobs, embedder: HashEmbedder
) -> None:
    assert check(kb).index_problems == ()
    key = next(blobs.list(f"{kb.id}/segments/"))
    whole = blobs.get(key)
    blobs.put(key, b"\x00" * len(whole))
    found = check(kb)
    assert found.repaired
    assert found.index_problems == (f"memory:: {key} is not what was put there",)
    assert blobs.get(key) == whole
    assert check(kb).index_problems == ()
