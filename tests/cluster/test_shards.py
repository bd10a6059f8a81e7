"""The same question gets the same passages with the same scores, bit for bit, from one index and from any number of shards."""

from __future__ import annotations

import os
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.cluster import shards as shards_module
from openbook.cluster.connection import ray_module
from openbook.cluster.shards import TRIES, RayShards, SearchShard, ShardedSearch, ShardMethod
from openbook.core.config import DatabaseUrl, Place
from openbook.core.errors import ClusterError, KnowledgeBaseInvalid, KnowledgeBaseMissing
from openbook.knowledge import KnowledgeBase, RunOptions, Scope, add
from openbook.knowledge.erasure import purge
from openbook.knowledge.index import search, segment_files, vectors
from openbook.knowledge.index.search import IndexView, Shard, StaleView
from openbook.knowledge.index.segment_set import SegmentSet
from openbook.knowledge.updates import remove
from openbook.testing import HashEmbedder
from tests.cli.conftest import Out
from tests.conftest import ROOT, base_with
from tests.knowledge.small_bases import EMBEDDER, Base, Text, bm25, dense, ids
from tests.properties.test_index_laws import QUERY, TEXTS

COUNTS = [1, 2, 3, 7]


def sent(value: Any) -> Any:
    """As it comes out of another process."""
    return pickle.loads(pickle.dumps(value))


class GivenShards:
    """Shards that have what they are to open, with all that passes between them pickled."""

    def __init__(self, opened: Sequence[Shard]) -> None:
        self.opened, self.count = opened, len(opened)
        self.shards = [SearchShard(Path("absent"), number, self.count) for number in range(self.count)]

    def call(self, numbers: Sequence[int], method: ShardMethod, *arguments: Any) -> list[Any]:
        if method == "open":
            for number in numbers:
                self.shards[number]._opened = {arguments[0]: self.opened[number]}
            return [self.opened[number].rows for number in numbers]
        return [sent(self.shards[number].reply(*sent(arguments))) for number in numbers]


def view_of(opened: Sequence[Shard]) -> IndexView:
    return ShardedSearch(GivenShards(opened)).view("", 1, ids())


def answers(view: IndexView, query: str, limit: int) -> tuple[object, ...]:
    """All that a search says."""
    ranked = search.best_passages(view, query, EMBEDDER.embed_query(query), limit)
    return view.rows, ranked, dense(view, query, limit), bm25(view, query, limit)


# --- the law, by chance -----------------------------------------------------------------------------------------------


@pytest.mark.laws
@pytest.mark.parametrize("by_signs", [False, True])
@given(texts=TEXTS, others=TEXTS, query=QUERY, data=st.data())
def test_any_number_of_shards_says_what_one_index_says(
    by_signs: bool, texts: list[Text], others: list[Text], query: str, data: st.DataObject
) -> None:
    base = Base()
    arriving = [(text, True) for text in (*texts, texts[0])] + [(text, False) for text in others]
    data.draw(st.randoms(use_true_random=False)).shuffle(arriving)
    contents = [base.add(text) for text, _ in arriving]
    in_scope = ids(*(content for content, (_, wanted) in zip(contents, arriving, strict=True) if wanted))
    limit, candidates = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 8))
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        if by_signs:
            for cut, rows in {"EXACT_UP_TO": 3, "NEAR": 6, "NEARER": 3}.items():
                patch.setattr(vectors, cut, rows)
            limit = candidates = 1  # the passes leave 8 and 4 times as many
        patch.setattr(search, "CANDIDATES", candidates)
        layouts = [SegmentSet.open(Path("absent"), base.source(), ids(*contents))]
        for upto in sorted(data.draw(st.sets(st.integers(1, len(contents)), max_size=3))):
            layouts.append(SegmentSet.refresh(Path(name), base.source(), ids(*contents[:upto])))
        layouts.append(SegmentSet.open(Path(name), base.source(), ids(*contents)))
        expected = answers(layouts[0].shard(in_scope), query, limit)
        whole = [each for each in layouts if np.isin(in_scope, each.contents()).all()]
        for count in COUNTS:
            chosen = [data.draw(st.sampled_from(whole)) for _ in range(count)]  # no two need have the same segments
            view = view_of([each.shard(in_scope, number, count) for number, each in enumerate(chosen)])
            assert answers(view, query, limit) == expected


def test_shares_are_nearly_equal_and_share_no_row() -> None:
    base = Base()
    contents = [base.add(Text("", tuple(((), f"{n}.{i} word ") for i in range(1 + n % 5)))) for n in range(200)]
    indexes = SegmentSet.open(Path("absent"), base.source(), ids(*contents))
    for count in COUNTS:
        sizes = [indexes.shard(ids(*contents), number, count).rows for number in range(count)]
        assert sum(sizes) == 600
        assert max(sizes) - min(sizes) <= 10
    assert [indexes.shard(ids(), number, 2).rows for number in range(2)] == [0, 0]
    assert bm25(view_of([indexes.shard(ids(), number, 2) for number in range(2)]), "word", 3) == []


# --- a knowledge base of real text ------------------------------------------------------------------------------------

EMBED = HashEmbedder()
SCOPES: dict[str, Callable[[], Scope]] = {
    "newest": lambda: Scope(labels=frozenset({"staff"})),
    "without the label": Scope,
    "an old version": lambda: Scope(as_of=1, labels=frozenset({"staff"})),
    "an old version without the label": lambda: Scope(as_of=2),
    "filtered": lambda: Scope(where="path contains 'copy'", labels=frozenset({"staff"})),
}
QUESTIONS = [
    "How is a knowledge base synced with a folder?",
    "What does a receipt hold?",
    "purge deletes a document",
    "the access labels of a document",
    "zyzzyva",
    "is",
]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KnowledgeBase]:
    folder = tmp_path_factory.mktemp("real")
    texts = folder / "texts"
    shutil.copytree(ROOT / "docs", texts, ignore=lambda at, names: [n for n in names if n not in KEPT])
    shutil.copy(texts / "asking.md", texts / "a copy.md")
    base = KnowledgeBase.ensure(folder / "kb", EMBED.identity)
    fill(base, texts)
    yield base
    base.close()


def fill(base: KnowledgeBase, texts: Path) -> None:
    """Four versions of some of the documentation; a document that two paths hold, one that is labelled, one that left."""
    add(base, [texts / "asking.md", texts / "models.md"], EMBED)
    add(base, [texts / "a copy.md", texts / "knowledge-base.md"], EMBED)
    add(base, [texts / "operations.md"], EMBED, RunOptions(labels=frozenset({"staff"})))
    remove(base, [str(texts / "models.md")])


KEPT = {"asking.md", "models.md", "knowledge-base.md", "operations.md"}


class LocalShards:
    """Shards in this process, asked one after the other."""

    def __init__(self, place: Place, count: int) -> None:
        self.place, self.count = place, count
        self.shards = [SearchShard(place, number, count) for number in range(count)]
        self.asked: list[str] = []  # the method of each call of a shard

    def call(self, numbers: Sequence[int], method: ShardMethod, *arguments: Any) -> list[Any]:
        self.asked += [method] * len(numbers)
        return [getattr(self.shards[number], method)(*arguments) for number in numbers]

    def close(self) -> None:
        for shard in self.shards:
            shard.close()


def said(
    base: KnowledgeBase, shards: LocalShards | RayShards | None, questions: Sequence[str] = QUESTIONS
) -> list[object]:
    base.shards = ShardedSearch(shards) if shards else None
    base.indexes.distrust()  # forgets the views
    try:
        return [
            base.search(question, EMBED, 5, scope(), windows=windows)
            for scope in SCOPES.values()
            for question in questions
            for windows in (False, True)
        ]
    finally:
        base.shards = None


@pytest.mark.laws
def test_the_same_from_postgresql_and_from_its_shards(real: KnowledgeBase, new_postgres_url: str) -> None:
    expected = said(real, None)
    with closing(KnowledgeBase.ensure(DatabaseUrl(new_postgres_url), EMBED.identity)) as base:
        fill(base, real.folder.parent / "texts")
        assert said(base, None) == expected
        with closing(LocalShards(base.store.place, 3)) as shards:
            assert said(base, shards) == expected


class Restarting(LocalShards):
    """Every few calls one of the shards has forgotten everything."""

    calls = 0

    def call(self, numbers: Sequence[int], method: ShardMethod, *arguments: Any) -> list[Any]:
        self.calls += 1
        if self.calls % 3 == 0:
            number = self.calls // 3 % self.count
            self.shards[number].close()
            self.shards[number] = SearchShard(self.place, number, self.count)
        return super().call(numbers, method, *arguments)


@pytest.mark.parametrize("questions", [1, pytest.param(len(QUESTIONS), marks=pytest.mark.laws)])
def test_a_shard_that_starts_again_between_two_rounds_says_the_same(
    questions: int, real: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cut, rows in {"EXACT_UP_TO": 50, "NEAR": 100, "NEARER": 50}.items():
        monkeypatch.setattr(vectors, cut, rows)
    expected = said(real, None, QUESTIONS[:questions])
    assert len({str(each) for each in expected}) > questions * len(SCOPES)
    with closing(Restarting(real.folder, 3)) as shards:
        assert said(real, shards, QUESTIONS[:questions]) == expected
        assert shards.calls > 20 * questions


def test_damage_under_an_old_date_is_noticed_in_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = base_with(tmp_path, {"a.txt": "The ferry leaves at nine.\n\nThe bridge is open."})
    expected = base.search("When does the ferry leave?", EMBED)
    monkeypatch.setattr(segment_files, "_READ_UP_TO", 0)
    (damaged,) = (base.indexes.folder / "index").rglob("ordinals.npy")
    time, data = damaged.stat(), damaged.read_bytes()
    damaged.write_bytes(data[:128] + b"\xff" * (len(data) - 128))
    os.utime(damaged, ns=(time.st_atime_ns, time.st_mtime_ns))
    shards = LocalShards(base.folder, 2)
    base.shards = ShardedSearch(shards)
    base.indexes.distrust()
    assert base.search("When does the ferry leave?", EMBED) == expected
    assert shards.asked.count("open") == 3  # the one that holds the text, a second time
    shards.close()
    base.close()


def test_what_a_purge_deleted_meanwhile_is_said_and_searched_anew(tmp_path: Path) -> None:
    base = base_with(tmp_path, {f"{name}.txt": f"The {name} is open until nine." for name in ("ferry", "bridge")})
    shards = LocalShards(base.folder, 2)
    with base.snapshot() as connection:
        in_scope = np.sort(np.array([c for (c,) in connection.execute("SELECT content_id FROM documents")]))
    purge(base, [str(tmp_path / "ferry.txt")])
    with pytest.raises(StaleView, match="Ask again"):
        ShardedSearch(shards).view(base.id, 1, in_scope)
    base.shards = ShardedSearch(shards)
    version, hits = base.search("What is open?", EMBED)
    assert (version, [Path(hit.passage.document).name for hit in hits]) == (2, ["bridge.txt"])
    shards.close()
    base.close()


def test_a_shard_that_keeps_losing_its_segments_is_an_error() -> None:
    class Losing:
        count = 2
        opened = 0

        def call(self, numbers: Sequence[int], method: ShardMethod, *arguments: Any) -> list[Any]:
            self.opened += method == "open"
            return [3 if method == "open" else None for _ in numbers]

    losing = Losing()
    view = ShardedSearch(losing).view("", 1, ids(1, 2))
    with pytest.raises(ClusterError, match=f"lost its segments {TRIES} times"):
        bm25(view, "ferry", 3)
    assert losing.opened == 1 + TRIES


def test_a_shard_of_another_base_or_of_none_says_so(real: KnowledgeBase, tmp_path: Path) -> None:
    with pytest.raises(KnowledgeBaseInvalid, match="another knowledge base"):
        SearchShard(real.folder, 0, 1).open("v", "0" * 32, 1, ids())
    with pytest.raises(KnowledgeBaseMissing, match="No knowledge base"):
        SearchShard(tmp_path / "absent", 0, 1).open("v", "", 1, ids())


# --- as Ray actors ----------------------------------------------------------------------------------------------------


@pytest.mark.laws
@pytest.mark.usefixtures("ray_session", "fakes")
def test_actors_say_the_same_though_they_are_killed(
    real: KnowledgeBase, out: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards_module, "TIMEOUT_S", 900.0)  # a busy machine starts processes slowly
    actors = RayShards(real.folder)
    assert actors.count == 2  # the CPUs of that session
    asked = ("search", QUESTIONS[0], "--kb", real.folder, "--json")
    assert out.ok(*asked, "--cluster", "auto") == out.ok(*asked)  # before Ray prints that an actor died
    expected = said(real, None, QUESTIONS[:1])
    for number, is_ended in enumerate([False, True]):
        ray_module().kill(actors.actors[number], no_restart=is_ended)
        assert said(real, actors, QUESTIONS[:1]) == expected
    again = RayShards(real.folder, 2)
    assert [each._actor_id for each in again.actors] == [each._actor_id for each in actors.actors]
    with pytest.raises(KnowledgeBaseInvalid, match="another knowledge base"):
        ShardedSearch(actors).view("0" * 32, 1, ids())
    actors.close()
