"""Machines are index folders here; the rows are one database."""

from __future__ import annotations

import errno
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from openbook.core.codec import decode
from openbook.core.errors import KnowledgeError, StorageError
from openbook.core.records import canonical_json
from openbook.knowledge import KnowledgeBase, purge
from openbook.knowledge.check import check
from openbook.knowledge.index import segment_files, shared_segments
from openbook.knowledge.index import segment_set as module
from openbook.knowledge.index.segment_set import SegmentSet
from openbook.knowledge.index.segments import contents_of
from openbook.knowledge.index.shared_segments import Manifest
from openbook.knowledge.store.schema import FILE_NAME
from openbook.testing import HashEmbedder, MemoryBlobs
from tests.knowledge.conftest import Library, vectors_of
from tests.knowledge.small_bases import QUERY, Base, expected, ids, search, timetable
from tests.knowledge.test_erasure import PLAN, SECRET

ID = "0" * 32


class FailingBlobs(MemoryBlobs):
    """Calls `before` with the name of the method and its key first; every call is in `calls`."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, str]] = []
        self.recover()

    def recover(self) -> None:
        self.before: Callable[[str, str], None] = lambda method, key: None

    def fail_after(self, calls: int) -> None:
        left = calls

        def fail(method: str, key: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise StorageError("Cannot use memory:: it cannot be reached.")

        self.before = fail

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        return partial(self._call, found) if name in ("get", "fetch", "put", "delete", "list") else found

    def _call(self, method: Callable[..., object], key: str, *rest: object, **options: object) -> object:
        self.calls.append((method.__name__, key))
        self.before(method.__name__, key)
        return method(key, *rest, **options)

    def all_keys(self, prefix: str = "") -> set[str]:
        return {each.key for each in super().list(prefix)}

    def methods(self) -> set[str]:
        return {method for method, _ in self.calls}

    def clear(self) -> None:
        for key in self.all_keys():
            self.delete(key)


class Machines:
    """Folders of indexes, by name, of eight contents in one database, and what they share."""

    def __init__(self, place: Path) -> None:
        self.place, self.base, self.blobs = place, Base(), FailingBlobs()
        self.contents = [self.base.add(timetable(n)) for n in range(8)]

    def write(self, name: str, contents: list[int] | None = None, *, forget: bool = False) -> SegmentSet:
        wanted = ids(*(self.contents if contents is None else contents))
        return SegmentSet.refresh(self.place / name, self.base.source(), wanted, blobs=self.blobs, forget=forget)

    def built(self, name: str, contents: list[int] | None = None) -> int:
        """How many of the contents a reader builds from their rows. What it finds is compared, and it writes nothing to the store."""
        contents = self.contents if contents is None else contents
        folder, source, before = self.place / name, self.base.source(), len(self.blobs.calls)
        indexes = SegmentSet.open(folder, source, ids(*contents), blobs=self.blobs)
        assert {method for method, _ in self.blobs.calls[before:]} <= {"list", "get", "fetch"}
        assert search(self.base, indexes, contents, QUERY) == expected(self.base, contents)
        saved = contents_of(each.segment for each in segment_files.read(folder, source)[0])
        return len({*contents} - {*saved.tolist()})

    def lose(self, *names: str) -> None:
        for name in names:
            shutil.rmtree(self.place / name, ignore_errors=True)

    def manifest(self) -> Manifest:
        return decode(self.blobs.get(max(self.manifests())), Manifest, "", ValueError)

    def manifests(self) -> list[str]:
        return sorted(self.blobs.all_keys(f"{ID}/manifests/"))

    def named(self) -> set[str]:
        segments = self.manifest().segments
        return {f"{ID}/segments/{digest}.npy" for files in segments for _, digest in files.values()}

    def stored(self) -> set[str]:
        return self.blobs.all_keys(f"{ID}/segments/")


@pytest.fixture
def machines(tmp_path: Path) -> Machines:
    return Machines(tmp_path)


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SMALL", 1)


# --- readers ----------------------------------------------------------------------------------------------------------


def test_what_one_machine_wrote_another_fetches_once(machines: Machines) -> None:
    machines.write("one")
    assert machines.stored() == machines.named() != set()
    assert machines.built("two") == 0
    machines.blobs.calls.clear()
    assert machines.built("two") == machines.built("one") == 0
    assert machines.blobs.calls == [("list", f"{ID}/manifests/")] * 2


@pytest.mark.usefixtures("small_segments")
def test_only_what_is_new_is_fetched_and_put(machines: Machines) -> None:
    machines.write("one", machines.contents[:7])
    assert machines.built("two") == 1
    machines.blobs.calls.clear()
    machines.write("one")
    put = {key for method, key in machines.blobs.calls if method == "put" and "/segments/" in key}
    machines.built("two")
    fetched = {key for method, key in machines.blobs.calls if method == "fetch"}
    assert put == fetched
    assert 0 < len(put) < len(machines.named())


@pytest.mark.usefixtures("small_segments")
def test_a_store_that_cannot_be_reached_or_fails_in_the_middle_costs_time(
    machines: Machines, caplog: pytest.LogCaptureFixture
) -> None:
    machines.write("one", machines.contents[:7])
    machines.write("one")
    machines.blobs.fail_after(0)
    assert machines.built("two") == 8
    assert machines.built("one") == 0
    assert "it cannot be reached. What is not on this machine is built from the rows" in caplog.text
    for calls in (1, 2, 4, 16):
        machines.lose("two")
        machines.blobs.fail_after(calls)
        machines.built("two")
        machines.blobs.recover()
        assert machines.built("two") == 0


@pytest.mark.parametrize("damage", ["short", "changed", "absent"])
def test_an_object_that_is_not_what_was_put_is_refused_and_put_again_by_the_next_writer(
    machines: Machines, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    machines.write("one")
    for array in ("contents", "vectors"):
        key = f"{ID}/segments/{machines.manifest().segments[0][array][1]}.npy"
        whole = machines.blobs.get(key)
        if damage == "absent":
            machines.blobs.delete(key)
        else:
            machines.blobs.put(key, whole[:-1] if damage == "short" else whole[:-1] + bytes([whole[-1] ^ 1]))
        machines.lose("two", "three")
        for name in ("two", "three"):
            caplog.clear()
            assert machines.built(name) == 8
        assert "not what was put there" in caplog.text
        machines.write("two")
        assert machines.blobs.get(key) == whole
        assert machines.built("three") == 0


def test_a_damaged_copy_is_fetched_again(machines: Machines) -> None:
    machines.write("one")
    for array in ("terms", "vectors"):
        (path,) = (machines.place / "one" / "index").glob(f"segment-*/{array}.npy")
        path.write_bytes(path.read_bytes()[:-1] + b"\x00\x01")
        machines.blobs.calls.clear()
        assert machines.built("one") == 0
        assert "fetch" in machines.blobs.methods()


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"[]", b'{"about": [], "segments": [], "retired": {}}', b"\xff\xfe", b" " * ((16 << 20) + 1),
        b'{"about":[],"segments":[{}],"retired":{},"token":""}',
    ],
)  # fmt: skip
def test_a_manifest_that_is_none_is_replaced_by_the_next_writer(machines: Machines, data: bytes) -> None:
    machines.write("one")
    machines.blobs.put(f"{ID}/manifests/0000000007.json", data)
    assert machines.built("two") == 8
    assert machines.built("one") == 0
    machines.write("one")
    assert machines.manifests() == [f"{ID}/manifests/0000000008.json"]
    assert machines.built("two") == 0


@pytest.mark.parametrize("name", ["../../escape", "a" * 63, "A" * 64])
def test_a_manifest_cannot_name_what_is_no_digest(machines: Machines, name: str) -> None:
    machines.write("one")
    value = json.loads(machines.blobs.get(f"{ID}/manifests/0000000001.json"))
    value["segments"][0]["terms"][1] = name
    machines.blobs.put(f"{ID}/manifests/0000000002.json", json.dumps(value).encode())
    machines.blobs.calls.clear()
    assert machines.built("two") == 8
    assert "fetch" not in machines.blobs.methods()


def test_a_cache_that_is_full_or_a_link_costs_time_and_has_nothing_half(
    machines: Machines, caplog: pytest.LogCaptureFixture
) -> None:
    def full(method: str, key: str) -> None:
        if method == "fetch":
            raise OSError(errno.ENOSPC, "No space left on device")

    machines.write("one")
    machines.blobs.before = full
    assert machines.built("two") == 8
    assert "No space left on device." in caplog.text
    assert not list((machines.place / "two" / "index").glob("segment-*"))
    machines.blobs.recover()
    (machines.place / "three").mkdir()
    (machines.place / "three" / "index").symlink_to(machines.place / "one")
    assert machines.built("three") == 8
    assert "is a link" in caplog.text


def test_segments_of_another_embedder_or_base_stay_apart(machines: Machines) -> None:
    base, blobs, two, everything = machines.base, machines.blobs, machines.place / "two", ids(*machines.contents)
    machines.write("one")
    other = "1" * 32
    SegmentSet.refresh(two, base.source(base_id=other), ids(*machines.contents[:3]), blobs=blobs)
    assert {key.partition("/")[0] for key in blobs.all_keys()} == {ID, other}
    assert machines.write("one", forget=True).contents().tolist() == machines.contents
    assert blobs.all_keys(f"{other}/segments/")
    newer = base.source(embedder="e" * 64)
    SegmentSet.refresh(two, newer, everything, blobs=blobs)
    assert machines.manifest().about == segment_files.about(newer)
    assert machines.built("one") == 0  # what it had of the old one


# --- writers ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_segments")
def test_a_writer_goes_on_with_what_the_other_wrote(machines: Machines) -> None:
    for number in range(3, 7):
        some = machines.contents[:number]
        machines.write(("one", "two")[number % 2], some)
        assert machines.built("one", some) == machines.built("two", some) == 0


def test_of_two_writers_at_once_one_manifest_wins_and_no_segment_is_lost(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SMALL", 0)
    machines.write("before", machines.contents[:4])
    put: list[int] = []

    def overtake(method: str, key: str) -> None:
        if method == "put" and "/manifests/" in key:
            put.append(int(key[-15:-5]))
            if len(put) == 1:
                machines.write("first", machines.contents[:5])

    machines.blobs.before = overtake
    machines.write("second")
    machines.blobs.recover()
    assert put == [2, 2, 3]  # the second one's, the first one's in between, and the second one's again
    for name in ("before", "first", "second"):
        assert machines.built(name) == 0


def test_a_number_that_is_long_outdated_does_not_win(machines: Machines) -> None:
    contents = machines.contents
    machines.write("one", contents[:2])
    rivals = iter([contents[:4], contents[:6]])

    def overtake(method: str, key: str) -> None:
        if method == "put" and "/manifests/" in key and (rival := next(rivals, None)):
            machines.blobs.recover()
            machines.write("one", rival)
            machines.write("one", contents[: len(rival) + 1])
            machines.blobs.before = overtake

    machines.blobs.before = overtake
    machines.write("two")
    machines.blobs.recover()
    machines.lose("one")
    assert machines.built("one") == 0


def test_a_writer_that_is_always_late_says_so_and_keeps_its_segments(
    machines: Machines, caplog: pytest.LogCaptureFixture
) -> None:
    late = 0

    def overtake(method: str, key: str) -> None:
        nonlocal late
        if method == "put" and "/manifests/" in key:
            late += 1
            MemoryBlobs.put(machines.blobs, key, canonical_json(asdict(shared_segments._NOTHING)))

    machines.blobs.before = overtake
    machines.write("one")
    assert late == shared_segments.TRIES
    assert "other writers change it all the time" in caplog.text
    kept = SegmentSet.open(machines.place / "one", machines.base.source(), ids())
    assert search(machines.base, kept, machines.contents, QUERY) == expected(machines.base, machines.contents)


def test_a_reply_that_is_lost_is_no_loss(machines: Machines) -> None:
    class Repeating(FailingBlobs):
        def put(self, key: str, data: bytes | Path, *, if_absent: bool = False) -> bool:
            super().put(key, data, if_absent=if_absent)
            return super().put(key, data, if_absent=if_absent)

    machines.blobs = Repeating()
    machines.write("one")
    assert machines.manifests() == [f"{ID}/manifests/0000000001.json"]


def test_what_a_writer_cannot_put_is_put_by_its_next_refresh(
    machines: Machines, caplog: pytest.LogCaptureFixture
) -> None:
    for calls in (0, 2, 8, 15, 16, 40):
        machines.blobs.fail_after(calls)
        machines.write("one")
        failed = "are on this machine alone" in caplog.text
        machines.blobs.recover()
        caplog.clear()
        assert machines.built("one") == 0
        if not failed:
            break
        machines.write("one")
        assert machines.built("two") == 0
        machines.lose("one", "two")
        machines.blobs.clear()
    assert calls == 40


# --- what is not needed any more --------------------------------------------------------------------------------------

KILLED = f"{ID}/segments/{'f' * 64}.npy"


def test_what_no_manifest_names_stays_for_a_while(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    machines.write("one", machines.contents[:4])
    first = machines.named()
    machines.blobs.put(KILLED, b"of a writer that was killed")
    machines.write("one")
    assert machines.named() | first < machines.stored()
    first -= machines.named()  # ids of contents may be the bytes of ids of passages
    assert len(machines.manifests()) == 1
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + shared_segments.GRACE_S + 2)
    monkeypatch.setattr(module, "MAX_DROPPED", 0.0)
    machines.write("one", machines.contents[:7])
    assert not (first | {KILLED}) & machines.stored()


def test_to_forget_is_to_delete_at_once(machines: Machines) -> None:
    machines.write("one", machines.contents[:4])
    machines.write("one")
    machines.blobs.put(KILLED, b"of a writer that was killed")
    assert machines.built("two") == 0
    machines.write("two", machines.contents[1:], forget=True)
    assert machines.stored() == machines.named()
    assert machines.built("one", machines.contents[1:]) == 0
    kept = {path.name for path in (machines.place / "one" / "index").glob("segment-*/*")}
    assert kept == {f"{array}.npy" for array in machines.manifest().segments[0]}


def test_to_forget_where_the_store_fails_is_finished_by_the_next(machines: Machines) -> None:
    for calls in (0, 2, 9, 17, 19, 21, 25, 60):
        machines.blobs.clear()
        machines.write("one")
        old, failed = machines.stored(), ""
        machines.blobs.fail_after(calls)
        try:
            machines.write("one", machines.contents[2:], forget=True)
        except StorageError as error:
            failed = str(error)
        machines.blobs.recover()
        if not failed:
            break
        assert "bytes of them may still be in memory:" in failed
        machines.write("one", machines.contents[2:], forget=True)
        assert machines.stored() == machines.named()
        assert not old & machines.stored()
    assert calls == 60


# --- whole knowledge bases --------------------------------------------------------------------------------------------


class SharedLibrary(Library):
    def __init__(self, place: Path, embedder: HashEmbedder) -> None:
        super().__init__(place, embedder)
        self.blobs = self.base.indexes.blobs = FailingBlobs()
        for number in range(6):
            self.write(f"plain{number}.txt", f"The ferry number {number} leaves at {number} o'clock sharp.")
        self.plan = self.write(PLAN, SECRET)
        self.sync()

    def objects(self) -> dict[str, bytes]:
        return {key: self.blobs.get(key) for key in sorted(self.blobs.all_keys(f"{self.base.id}/segments/"))}


@pytest.fixture
def library(tmp_path: Path, embedder: HashEmbedder) -> SharedLibrary:
    return SharedLibrary(tmp_path, embedder)


def test_a_purge_reaches_the_store(library: SharedLibrary) -> None:
    before, vector = library.objects(), vectors_of(library.base, "The secret")[0]
    assert any(vector in data for data in before.values())
    library.plan.unlink()
    purged = purge(library.base, [PLAN])
    after = {key: library.blobs.get(key) for key in library.blobs.all_keys()}
    assert not set(before) & set(after)
    assert not any(vector in data for data in after.values())
    assert (purged.objects, purged.object_bytes) == (len(after), sum(map(len, after.values())))
    assert f"expire under {library.base.id}/" in str(purged.beyond_reach[-1])
    assert not any("secret" in text for text in library.texts("secret launch code"))


def test_a_purge_needs_the_store_and_says_what_others_put_there(library: SharedLibrary) -> None:
    library.blobs.fail_after(0)
    with pytest.raises(StorageError, match="cannot be reached"):
        purge(library.base, [PLAN])
    library.blobs.recover()
    assert len(library.base.documents()) == 7
    library.blobs.put(f"{library.base.id}/mine.txt", b"notes")
    with pytest.raises(KnowledgeError, match=r"1 objects under this knowledge base's id .*mine\.txt"):
        purge(library.base, [PLAN])


def test_a_purge_during_which_the_store_goes_down_is_finished_by_the_next_writer(library: SharedLibrary) -> None:
    before = set(library.objects())
    library.plan.unlink()
    library.blobs.fail_after(3)
    with pytest.raises(StorageError, match="bytes of them may still be in memory:"):
        purge(library.base, [PLAN])
    with pytest.raises(StorageError):
        library.sync()
    library.blobs.recover()
    library.sync()
    assert not before & library.blobs.all_keys()


def test_another_machine_drops_its_copies_with_its_next_search(library: SharedLibrary, tmp_path: Path) -> None:
    replica = tmp_path / "replica"
    replica.mkdir()
    (replica / FILE_NAME).symlink_to(library.base.folder / FILE_NAME)  # the rows are the same ones
    reader = KnowledgeBase.open(replica)
    reader.indexes.blobs = library.blobs

    def found() -> list[str]:
        return [hit.passage.text for hit in reader.search("secret", library.embedder)[1]]

    def copies() -> set[bytes]:
        return {path.read_bytes() for path in replica.glob("derived/index/segment-*/vectors.npy")}

    assert any("secret" in text for text in found())
    before, meanwhile = copies(), list[str]()

    def search_meanwhile(method: str, key: str) -> None:
        if method == "put" and "/manifests/" in key:  # the rows are gone, and the segments are not
            library.blobs.recover()
            meanwhile.extend(found())

    library.blobs.before = search_meanwhile
    purge(library.base, [PLAN])
    assert meanwhile
    assert not any("secret" in text for text in [*meanwhile, *found()])
    assert len(before) == len(copies()) == 1
    assert before != copies()
    reader.close()


def test_check_compares_the_store_and_repairs_it(library: SharedLibrary) -> None:
    assert check(library.base).index_problems == ()
    key, whole = next(iter(library.objects().items()))
    library.blobs.put(key, b"\x00" * len(whole))
    found = check(library.base)
    assert found.repaired
    assert found.index_problems == (f"memory:: {key} is not what was put there",)
    assert library.blobs.get(key) == whole
    assert check(library.base).index_problems == ()
