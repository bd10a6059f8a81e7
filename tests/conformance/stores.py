"""The laws of every store of a knowledge base."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath

import pytest

from openbook.core.config import Place
from openbook.core.errors import KnowledgeBaseBusy, KnowledgeBaseDamaged, KnowledgeError, TextIsElsewhere
from openbook.core.records import BEYOND_REACH
from openbook.knowledge import KnowledgeBase, RunOptions, Scope, add, documents, purge, sync, versions
from openbook.knowledge.check import check
from openbook.knowledge.erasure import purge_is_unfinished
from openbook.knowledge.store import schema
from openbook.knowledge.updates import reembed
from openbook.testing import HashEmbedder

# The documents that each filter finds, by their sidecars.
_FILTERS: dict[str, set[str]] = {
    "type = 'txt'": {"a", "b", "c"},
    "size >= 8": {"b"},
    "size = 8.5": {"b"},
    "size < 9007199254740993": {"a", "b"},
    "size in (7, 'seven')": {"a", "c"},
    "draft = true": {"a"},
    "draft != true": {"b"},
    "not draft = true": {"b", "c"},
    "team contains 'ÜBERFAHRT'": {"a"},
    "team contains '[9]'": {"b"},
    "team matches 'Fähre*'": {"b"},
    "team matches 'fähre*'": set(),
    "team = 'Fähre [9] (neu)'": {"b"},
    "team matches '?ähre [9] (neu)'": {"b"},
    "team > 'F'": {"b"},
    "due >= 2026-03 and due < 2027": {"b"},
    "exists due": {"a", "b"},
    "matches_nothing = 1": set(),
}
_METADATA: dict[str, dict[str, object]] = {
    "a": {"size": 7, "draft": True, "team": ["Überfahrt", "Hafen"], "due": "2025-12-31"},
    "b": {"size": 8.5, "draft": False, "team": "Fähre [9] (neu)", "due": "2026-03-01"},
    "c": {"size": "seven"},
}


class StoreSuite:
    """Tests for any store of a knowledge base. Subclass it and define `make_place`."""

    def make_place(self) -> Place:
        """Return a new, empty place each time."""
        raise TypeError("A StoreSuite must define make_place.")

    def test_versions_are_tagged_compared_restored_and_pruned(self) -> None:
        with _files(self.make_place()) as here:
            here.sync(a="Ferries leave at nine.")
            here.sync(a="Ferries leave at nine.", b="Harbours close at night.")
            here.sync(a="Ferries leave at ten.", c="Lighthouses shine.")
            base = here.base
            assert [(v.version, v.summary, v.documents) for v in versions.history(base)] == [
                (3, "1 added, 1 updated, 1 removed", 2),
                (2, "1 added", 2),
                (1, "1 added", 1),
                (0, "created", 0),
            ]
            then = {number: base.search("ferries", here.embedder, scope=Scope(number)) for number in range(4)}
            assert then[2][1][0].passage.text == "Ferries leave at nine."
            assert then[0] == (0, [])
            for _ in range(2):
                assert versions.tag(base, "spring", 2) == versions.resolve_version(base, "spring") == 2
            found = versions.diff(base, 2, 3)
            assert [len(each) for each in (found.added, found.changed, found.removed)] == [1, 1, 1]
            for _ in range(2):
                assert versions.restore(base, 1) == 4
            assert here.names() == {"a"}
            assert base.text(base.documents()[0]) == "Ferries leave at nine."
            assert {number: base.search("ferries", here.embedder, scope=Scope(number)) for number in range(4)} == then
            assert versions.prune(base, keep=1).kept == (2, 4)
            assert base.search("ferries", here.embedder, scope=Scope(2)) == then[2]
            with pytest.raises(KnowledgeError):
                base.kept_version(3)
            assert here.reopened().search("ferries", here.embedder, scope=Scope(2)) == then[2]
            here.check()

    def test_a_search_finds_what_it_finds_in_a_folder_bit_for_bit(self, tmp_path: Path) -> None:
        words = "ferry harbour night light nine leave shine boat Überfahrt 船 tide pier".split()
        texts = {
            f"{n:02}": " ".join(words[(31 * n + i * i) % len(words)] for i in range(1 + 67 * n % 400)) + "."
            for n in range(24)
        }
        texts |= {f"copy{n}": texts[n] for n in ("03", "11")} | {"same": "# Ferry\n\nnine", "heading": "# Boat\n\nnine"}
        with _files(self.make_place()) as here, _files(tmp_path / "plain") as plain:
            some = dict(list(texts.items())[::-2])
            here.sync(**some)  # rows come in another order
            here.sync(**texts)
            plain.root = here.root
            plain.sync(**texts)
            for query in (*words, "ferry at nine", "", "light light tide?", "nothing of that"):
                results = [
                    [
                        *(base.search(query, here.embedder, limit)[1] for limit in (3, 50)),
                        base.search(query, here.embedder, windows=True)[1],
                    ]
                    for base in (here.base, plain.base)
                ]
                assert results[0] == results[1]
            hit = here.base.search("ferry", here.embedder)[1][0].passage
            assert here.base.passage(hit.id, Scope()) == plain.base.passage(hit.id, Scope()) is not None
            assert here.base.documents() == plain.base.documents()

    def test_filters_and_labels_decide_what_is_seen(self) -> None:
        with _files(self.make_place()) as here:
            for name, metadata in _METADATA.items():
                (here.root / f"{name}.txt.meta.json").write_text(json.dumps(metadata))
            here.sync(a="The ferry.", b="The boat.", c="The pier.")
            base = here.base
            for where, wanted in _FILTERS.items():
                assert here.names(Scope(where=where)) == wanted, where
            assert base.metadata_keys(Scope()) >= {"size", "draft", "team", "due", "type"}
            here.sync(RunOptions(labels=frozenset({"crew"})), a="The ferry.", b="The boat.", c="The pier.")
            assert here.names(Scope()) == set()
            assert here.names(Scope(1)) == set()  # a later label closes the past
            assert here.names(Scope(1, labels=frozenset({"crew", "board"}))) == {"a", "b", "c"}
            assert base.search("ferry", here.embedder)[1] == []
            assert not base.shows_all_to(frozenset({"board"}))
            assert base.shows_all_to(frozenset({"crew"}))
            # Embedding is skipped only for users who may see a document with that text.
            for name, held, embedded in (("of-crew", {"crew"}, 0), ("guess", set[str](), 1), ("again", set[str](), 0)):
                path = here.root.parent / f"{name}.txt"
                path.write_text("The ferry.")
                options = RunOptions(labels=frozenset(held), held_labels=frozenset(held))
                assert add(base, [path], here.embedder, options).passages_embedded == embedded, name
            here.check()

    def test_documents_have_details_and_a_history(self) -> None:
        with _files(self.make_place()) as here:
            here.sync(a="The ferry.", b="The boat.")
            here.sync(a="The ferry leaves.", b="The boat.", c="The pier.")
            here.sync(RunOptions(labels=frozenset({"crew"})), a="The ferry leaves.", b="The boat.")
            base, crew = here.base, frozenset({"crew"})
            assert list(base.document_info(None, Scope(2))) == [f"{here.root}/c.txt"]
            then = base.document_info(None, Scope(2, labels=crew))
            assert [(each.title, each.version, each.characters, each.passages) for each in then.values()] == [
                ("a", 2, 17, 1), ("b", 1, 9, 1), ("c", 2, 9, 1),
            ]  # fmt: skip
            assert {each.labels for each in base.document_info(None, Scope(labels=crew)).values()} == {("crew",)}
            path = f"{here.root}/a.txt"
            found = documents.document_history(base, path, crew)
            assert [(each.version, each.change, each.characters) for each in found] == [
                (3, "metadata", 17), (2, "changed", 17), (1, "added", 10),
            ]  # fmt: skip
            assert documents.document_history(base, path, frozenset()) == []
            assert documents.examples(base, Scope(labels=crew), 1) == [(path, "")]
            assert len(documents.examples(base, Scope(2, labels=crew), 20)) == 3
            here.sync(RunOptions(labels=crew), a="The ferry leaves.", bad="%PDF-1.7 nothing")
            assert [PurePath(each.path).stem for each in documents.refused_files(base, crew)] == ["bad"]
            assert documents.refused_files(base, frozenset()) == []
            here.check()

    def test_contents_of_ended_runs_are_deleted_and_those_of_living_runs_stay(self) -> None:
        with _files(self.make_place()) as here:
            here.sync(a="The ferry.")
            base, store = here.base, here.base.store
            row = "VALUES (?, ?, '', ?, '', 'text/plain', NULL, '[]', 0)"
            columns = "id, key, code, text, title, media_type, source_chars, metadata, digest"
            with closing(store.connect_to_write()) as living:
                (first, second) = living.next_ids("contents", 1)[0], living.next_ids("contents", 2)[-1]
                with store.run_lock(living, first):
                    assert store.oldest_run(living) == store.oldest_run(base.connection) == first
                    for content in (first, second):
                        living.execute(
                            f"INSERT INTO contents ({columns}) {row}", (content, f"key {content}", "A canary.")
                        )
                    assert base.status().unreferenced == 2
                    versions.tag(base, "spring")
                    assert base.unreferenced() == [second]
                assert store.oldest_run(living) is None
            versions.tag(base, "summer")
            assert base.unreferenced() == []

    def test_a_snapshot_is_one_state_and_a_second_writer_waits(self) -> None:
        with _files(self.make_place()) as here:
            here.sync(a="The ferry.")
            other = here.reopened()
            with other.snapshot():
                before = other.documents()
                here.sync(a="The ferry.", b="The boat.")
                assert other.documents() == before
            assert len(other.documents()) == 2
            asked: list[int] = []
            with here.base.writing(1.0):
                with pytest.raises(KnowledgeBaseBusy):
                    other.writing(0.0).__enter__()
                with closing(other.store.connect_to_write()) as connection:
                    for facts_only in (False, True):
                        waiting = other.store.write_lock(
                            connection, 0.3, lambda: asked.append(1), facts_only=facts_only
                        )
                        with pytest.raises(KnowledgeBaseBusy):
                            waiting.__enter__()
            assert asked
            with closing(other.store.connect_to_write()) as connection:
                try:
                    with schema.transaction(connection):
                        connection.execute("DELETE FROM tags")
                        schema.remember(connection, retention="{")
                        raise ValueError
                except ValueError:
                    assert "retention" not in schema.meta(connection)
                connection.forbid_writes(True)
                with pytest.raises(Exception, match=r"read-?only"):
                    schema.remember(connection, retention="{")

    def test_concurrent_runs_lose_nothing_and_double_nothing(self) -> None:
        with _files(self.make_place()) as here:
            here.sync(first="The first.")
            shared = [f"All have the text {n} about the ferry." for n in range(3)]

            def work(number: int) -> None:
                folder = here.root.parent / f"of-{number}"
                folder.mkdir()
                for n, text in enumerate([*shared, f"Only {number} has this."]):
                    (folder / f"{n}.txt").write_text(text)
                with closing(here.reopened()) as base:
                    add(base, [folder], here.embedder)

            with ThreadPoolExecutor(8) as pool:
                list(pool.map(work, range(8)))
            base = here.base
            assert len(base.documents()) == 1 + 8 * 4
            assert base.status().texts == 1 + 3 + 8
            assert base.version == 9
            (contents,) = base.connection.execute("SELECT count(*) FROM contents").fetchone()
            (vectors,) = base.connection.execute("SELECT count(*) FROM embeddings").fetchone()
            assert contents == vectors == 1 + 3 + 8
            here.check()

    def test_a_purged_text_is_in_no_version_and_its_id_is_not_used_again(self) -> None:
        canary = "The canary code is 7341-zeppelin, and nobody may ever know it."
        with _files(self.make_place()) as here:
            here.sync(a=canary, copy=canary, b="The boat.")
            here.sync(a="The ferry.", copy=canary, b="The boat.")
            base, other = here.base, here.reopened()
            assert other.search("canary", here.embedder, scope=Scope(1))[1]
            with pytest.raises(TextIsElsewhere):
                purge(base, ["a.txt"])

            def killed(*_: object) -> None:
                raise ArithmeticError

            with pytest.raises(ArithmeticError):
                purge(base, ["a.txt"], copies=True, elsewhere=killed)
            assert not purge_is_unfinished(base)
            (newest,) = base.connection.execute("SELECT max(id) FROM contents").fetchone()
            done = purge(base, ["a.txt"], copies=True)
            assert (done.version, len(done.documents)) == (3, 2)
            assert set(base.store.beyond_reach) < {each.reason for each in done.beyond_reach} <= set(BEYOND_REACH)
            assert not purge_is_unfinished(base)
            for each in (base, other):
                for version in (None, 1, 2):
                    texts = {hit.passage.text for hit in each.search("canary", here.embedder, scope=Scope(version))[1]}
                    assert texts <= {"The boat."}
            assert canary.encode() not in b"".join(p.read_bytes() for p in base.folder.rglob("*") if p.is_file())
            with pytest.raises(KnowledgeError):
                purge(base, ["a.txt"])
            here.sync(n="New.")
            (first,) = base.connection.execute("SELECT max(id) FROM contents").fetchone()
            assert first > newest
            here.check()

    def test_another_embedder_takes_over_in_one_version(self) -> None:
        with _files(self.make_place()) as here:
            here.sync(a="The ferry.", b="The boat.")
            version, embedded = reembed(here.base, smaller := HashEmbedder(32))
            assert (version, embedded) == (2, 2)
            here.embedder = smaller
            assert len(here.reopened().search("ferry", smaller)[1]) == 2
            here.check()

    def test_a_changed_row_is_never_read(self) -> None:
        for sql, parameters in (
            ("UPDATE contents SET text = ?", ("The fairy.",)),
            ("UPDATE passages SET headings = ?", ('["Other"]',)),
            ("UPDATE embeddings SET vector = ?", (bytes(2 * HashEmbedder().identity.dimensions),)),
        ):
            with _files(self.make_place()) as here:
                here.sync(a="The ferry.")
                with closing(here.base.store.connect_to_write()) as connection:
                    connection.execute(sql, parameters)
                shutil.rmtree(here.base.indexes.folder)
                with pytest.raises(KnowledgeBaseDamaged):
                    here.reopened().search("ferry", here.embedder)
                assert check(here.base).damaged

    def test_any_text_of_a_caller_is_a_value(self) -> None:
        with _files(self.make_place()) as here:
            here.sync(a="A 100 % 'quoted' text? :name %s \U0001f6a2", b="", c="\ufeffx\x00y\x07\n")
            for text in ("a\x00b", "\ud800", "%s", "'; --", ":name ?", "x" * 10_000):
                assert here.base.passage(text, Scope()) is None
                assert text == "\ud800" or here.base.text(text) is None  # which no path of a document holds
                here.base.search(text, here.embedder)
            assert [hit.passage.document for hit in here.base.search("quoted", here.embedder, 1)[1]] == [
                f"{here.root}/a.txt"
            ]
            here.check()


@dataclass(slots=True)
class _Files:
    """A folder that is synced into a knowledge base."""

    base: KnowledgeBase
    root: Path
    embedder: HashEmbedder

    def sync(self, options: RunOptions | None = None, /, **texts: str) -> None:
        for path in self.root.glob("*.txt"):
            if path.stem not in texts:
                path.unlink()
        for name, text in texts.items():
            (self.root / f"{name}.txt").write_text(text, encoding="utf-8")
        sync(self.base, self.root, self.embedder, options=options or RunOptions())

    def names(self, scope: Scope | None = None) -> set[str]:
        base, paths = self.base, self.base.documents(scope)
        if scope is not None:
            assert base.count(scope) == len(paths)
            assert all(base.holds(path, scope) == (path in paths) for path in (*paths, *base.documents()))
            assert base.documents(scope, after=min(paths, default=""), limit=1) == paths[1:2]
        return {PurePath(path).stem for path in paths}

    def reopened(self) -> KnowledgeBase:
        return KnowledgeBase.open(self.base.store.place, self.embedder.identity)

    def check(self) -> None:
        with closing(self.reopened()) as base:
            found = check(base)
        assert (found.damaged, found.index_problems) == ((), ())


@contextmanager
def _files(place: Place) -> Iterator[_Files]:
    embedder = HashEmbedder()
    with tempfile.TemporaryDirectory() as folder, closing(KnowledgeBase.ensure(place, embedder.identity)) as base:
        root = Path(folder).resolve() / "docs"
        root.mkdir()
        yield _Files(base, root, embedder)
