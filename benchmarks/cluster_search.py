"""Does a search in shards say what one index says, how long does it take, and does it keep working when shards are killed?

    python -m benchmarks.cluster_search [--passages 100000] [--shards 1 2] [--queries 100] [--kills 20] [--work FOLDER] [--postgresql]

The base holds passages of random words, common and rare, with vectors in clusters; it is written straight into SQLite, nine
tenths as version 1 and all as version 2. Queries are eight words of a passage and a vector at a cosine of about 0.7 to its
own. Each query is asked of the embedded index and of each number of shards (Ray actors on this machine) in turn, as of version
2, as of version 1, and over every other document; every answer is compared bit for bit. What is timed is the search in the indexes,
without the embedding of the query and without reading the texts. CPU time is the mean of a query, of the threads that search, here and
in the actors; the greatest of the actors' is what a machine for each of them would wait for.

With `--postgresql` the base is also moved into a PostgreSQL on this machine, where the first search builds the index from the rows (timed), and whole
searches, which read the passages' texts, are compared between both places: of the newest version and of version 1.

With `--kills`, one shard after the other is killed while two threads ask. Prints a table and, as its last line, one JSON document.
Takes about two minutes for 100,000 passages, and 2.3 GB on disk for 1,000,000; `--work` keeps the base for the next run.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.search_latency import add_content
from openbook.cluster.connection import connect, disconnect, ray_module
from openbook.cluster.local import start_postgres, stop_server
from openbook.cluster.move import move
from openbook.cluster.shards import RayShards, ShardedSearch
from openbook.core.config import DatabaseUrl
from openbook.core.records import EmbedderIdentity
from openbook.knowledge import KnowledgeBase, Scope
from openbook.knowledge.index.search import IndexView, RankedPassage, best_passages
from openbook.knowledge.store.identities import Change
from openbook.knowledge.store.version_rows import version_transaction, write_version
from openbook.testing import HashEmbedder

DIMENSIONS, PER_DOCUMENT, WORDS = 384, 50, 45
EMBEDDER = EmbedderIdentity("random", "0" * 64, DIMENSIONS)

Query = tuple[str, NDArray[np.float32]]


def build(base: KnowledgeBase, passages: int) -> None:
    chance, noise = np.random.default_rng(0), np.random.default_rng(1)
    vocabulary = np.array(
        [f"{word:x}".translate(str.maketrans("0123456789", "ghijklmnop")) for word in range(5_000, 65_000)]
    )
    centres = noise.normal(size=(500, DIMENSIONS)).astype(np.float32)
    documents = -(-passages // PER_DOCUMENT)
    with base.writing(30.0) as connection:
        changes: list[Change] = []
        for number in range(1, documents + 1):
            drawn = vocabulary[(len(vocabulary) * chance.random((PER_DOCUMENT, WORDS)) ** 4).astype(int)]
            texts = [" ".join(words) + ".\n\n" for words in drawn.tolist()]
            vectors = centres[noise.integers(0, 500, PER_DOCUMENT)] + 1.2 * noise.normal(
                size=(PER_DOCUMENT, DIMENSIONS)
            )
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            if not connection.in_transaction:
                connection.execute("BEGIN")
            stored = [vector.tobytes() for vector in vectors.astype("<f2")]
            add_content(connection, number, (number - 1) * PER_DOCUMENT + 1, texts, stored)
            path = f"/random/{number:07}.txt"
            changes.append(Change(path, number, sum(map(len, texts)), "", "{}", "[]", "[]", None, "added"))
            if number in (documents * 9 // 10, documents):
                connection.execute("COMMIT")
                with version_transaction(connection, [change.path for change in changes]):
                    write_version(connection, changes, ())
                changes.clear()
        base.indexes.refresh(connection)


def queries(base: KnowledgeBase, count: int) -> list[Query]:
    chance, noise = random.Random(2), np.random.default_rng(3)
    found: list[Query] = []
    with base.snapshot() as connection:
        (highest,) = connection.execute("SELECT max(id) FROM passages").fetchone()
        for _ in range(count):
            text, stored = connection.execute(
                "SELECT substr(c.text, p.start_char + 1, p.end_char - p.start_char), e.vector FROM passages p "
                "JOIN contents c ON c.id = p.content_id JOIN embeddings e USING (embedding_key) WHERE p.id = ?",
                (chance.randint(1, highest),),
            ).fetchone()
            vector = np.frombuffer(stored, dtype="<f2") + noise.normal(0.0, DIMENSIONS**-0.5, DIMENSIONS)
            found.append((" ".join(text.split()[4:12]), (vector / np.linalg.norm(vector)).astype(np.float32)))
    return found


def contents(base: KnowledgeBase, version: int, step: int) -> NDArray[np.int64]:
    with base.snapshot() as connection:
        rows = connection.execute(
            "SELECT content_id FROM documents WHERE added_in <= ? ORDER BY content_id", (version,)
        ).fetchall()
    return np.array([content for (content,) in rows][::step], dtype=np.int64)


def processor_s(shards: RayShards) -> list[float]:
    """CPU time of the thread that searches in each actor, until now."""
    found: list[float] = ray_module().get(
        [actor.__ray_call__.remote(lambda shard: time.thread_time()) for actor in shards.actors]
    )
    return found


def compared(
    views: dict[str, IndexView], groups: dict[str, RayShards], asked: list[Query]
) -> dict[str, dict[str, float]]:
    """Milliseconds by contender. Raises AssertionError when two of them do not say the same."""
    seconds: dict[str, list[float]] = {name: [] for name in views}
    processor: dict[str, list[float]] = {name: [] for name in views}
    names = list(views)
    for name in names:
        for query, vector in asked[:5]:
            best_passages(views[name], query, vector, 10)
    before = {name: processor_s(shards) for name, shards in groups.items()}
    for number, (query, vector) in enumerate(asked):
        answers: dict[str, list[RankedPassage]] = {}
        for name in names[number % len(names) :] + names[: number % len(names)]:
            started, used = time.perf_counter(), time.thread_time()
            answers[name] = best_passages(views[name], query, vector, 10)
            seconds[name].append(time.perf_counter() - started)
            processor[name].append(time.thread_time() - used)
        assert all(answer == answers[names[0]] for answer in answers.values()), (number, answers)
    actors = {
        name: [1000 * (now - then) / len(asked) for now, then in zip(processor_s(shards), before[name], strict=True)]
        for name, shards in groups.items()
    }
    return {
        name: {
            "p50_ms": 1000 * statistics.median(seconds[name]),
            "p95_ms": 1000 * statistics.quantiles(seconds[name], n=20)[-1],
            "cpu_ms": 1000 * statistics.mean(processor[name]),
            "actors_cpu_ms": sum(actors.get(name, [0.0])),
            "greatest_ms": max(actors.get(name, [0.0])),
        }
        for name in names
    }


def killed(shards: RayShards, view: IndexView, whole: IndexView, asked: list[Query], kills: int) -> dict[str, Any]:
    """Kill one shard after the other while two threads ask. Raises AssertionError when an answer differs, or none comes."""
    expected = [best_passages(whole, query, vector, 10) for query, vector in asked]
    stop, times, wrong, errors = threading.Event(), list[float](), list[int](), list[str]()

    def ask(first: int) -> None:
        number = first
        while not stop.is_set():
            number = (number + 1) % len(asked)
            started = time.perf_counter()
            try:
                if best_passages(view, *asked[number], 10) != expected[number]:
                    wrong.append(number)
            except Exception as error:  # noqa: BLE001  whatever it is, it is counted
                errors.append(repr(error))
            times.append(time.perf_counter() - started)

    threads = [threading.Thread(target=ask, args=(first,)) for first in (0, len(asked) // 2)]
    for thread in threads:
        thread.start()
    for number in range(kills):
        before, limit = len(times), time.monotonic() + 120.0
        ray_module().kill(shards.actors[number % shards.count], no_restart=False)
        while len(times) < before + 8 and time.monotonic() < limit:  # until it has come back and answered
            time.sleep(0.02)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong, f"{len(wrong)} answers differ"
    assert not errors, errors[:3]
    return {"kills": kills, "answers": len(times), "wrong": len(wrong), "errors": len(errors), "longest_s": max(times)}


class KnownVectors(HashEmbedder):
    """The vectors of the queries, at no cost."""

    def __init__(self, asked: list[Query]) -> None:
        super().__init__(DIMENSIONS)
        self.identity, self._vectors = EMBEDDER, dict(asked)

    def embed_query(self, text: str) -> NDArray[np.float32]:
        return self._vectors[text]


def in_postgresql(folder: Path, asked: list[Query]) -> dict[str, Any]:
    """Whole searches of the base in `folder`, and of its copy in PostgreSQL. Raises AssertionError when they differ."""
    embedder = KnownVectors(asked)
    with tempfile.TemporaryDirectory(prefix="openbook-postgres-") as database:
        try:
            url = start_postgres(Path(database))
            result: dict[str, Any] = {"move_s": timed(lambda: move(folder, DatabaseUrl(url)))}
            print(f"moved in {result['move_s']:.0f} s", flush=True)
            with closing(KnowledgeBase.open(folder)) as here, closing(KnowledgeBase.open(DatabaseUrl(url))) as there:
                shutil.rmtree(there.indexes.folder)  # as on a new machine: `move` has built it on this one
                there.indexes.close()
                cpu_s = time.process_time()
                result["index_s"] = timed(lambda: there.search(asked[0][0], embedder))
                result["index_cpu_s"] = time.process_time() - cpu_s  # without the database's
                print(
                    f"the first search, which builds the index: {result['index_s']:.1f} s, {result['index_cpu_s']:.1f} s of "
                    "processor time here",
                    flush=True,
                )
                assert (there.indexes.folder / "index" / "state.json").is_file()
                for scope in (Scope(), Scope(as_of=1)):
                    result[f"as of {scope.as_of or 2}"] = times = searched(
                        {"embedded": here, "postgresql": there}, scope, embedder, asked
                    )
                    print(f"as of {scope.as_of or 2}: p50 and p95, ms: {times}", flush=True)
        finally:
            stop_server(database, signal.SIGINT)
    return result


def searched(
    bases: dict[str, KnowledgeBase], scope: Scope, embedder: KnownVectors, asked: list[Query]
) -> dict[str, list[float]]:
    """(p50, p95) in milliseconds by place."""
    seconds: dict[str, list[float]] = {name: [] for name in bases}
    for base in bases.values():
        for query, _ in asked[:5]:
            base.search(query, embedder, 10, scope)
    for query, _ in asked:
        answers = []
        for name, base in bases.items():
            started = time.perf_counter()
            answers.append(base.search(query, embedder, 10, scope))
            seconds[name].append(time.perf_counter() - started)
        assert all(answer == answers[0] for answer in answers), query
    return {
        name: [round(1000 * statistics.median(each), 1), round(1000 * statistics.quantiles(each, n=20)[-1], 1)]
        for name, each in seconds.items()
    }


def timed(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--postgresql", action="store_true")
    options = parser.parse_args()
    result: dict[str, Any] = {"passages": options.passages}
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.work or Path(temporary)) / f"kb-{options.passages}"
        is_new = not folder.exists()
        with closing(KnowledgeBase.ensure(folder, EMBEDDER)) as base:
            if is_new:
                result["build_s"] = timed(lambda: build(base, options.passages))
            asked = queries(base, options.queries)
            connect("local")
            groups = {f"{count} shards": RayShards(folder, count) for count in options.shards}
            for scope, (version, step) in {"newest": (2, 1), "version 1": (1, 1), "half": (2, 2)}.items():
                in_scope = contents(base, version, step)
                views: dict[str, IndexView] = {"embedded": base.shard(in_scope, 0, 1)}
                for name, shards in groups.items():
                    views[name] = ShardedSearch(shards).view(base.id, 2, in_scope)
                result[scope] = compared(views, groups, asked)
                for name, row in result[scope].items():
                    print(f"{scope:10} {name:10} " + "  ".join(f"{key} {value:7.2f}" for key, value in row.items()))
            if options.kills:
                in_scope = contents(base, 2, 1)
                shards = groups[f"{max(options.shards)} shards"]
                whole = base.shard(in_scope, 0, 1)
                result["killed"] = killed(
                    shards, ShardedSearch(shards).view(base.id, 2, in_scope), whole, asked, options.kills
                )
                print(f"killed: {result['killed']}")
            for shards in groups.values():
                shards.close()
            disconnect()
        if options.postgresql:
            result["whole searches"] = in_postgresql(folder, asked)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
