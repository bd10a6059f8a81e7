"""How fast is a search in 10,000, 100,000 and 1,000,000 passages, what does it miss, and what does the index cost?

    python benchmarks/search_latency.py KB [--sizes 10000 100000 1000000] [--plot FILE.png] [--work FOLDER]

KB is a knowledge base made from real documents with the default embedder. Its passages are copied with every fifth word
replaced by another of theirs, its vectors mixed in pairs with noise, until there are enough; they are written straight
into SQLite. Queries are eight words from a passage and a vector at a cosine of about 0.7 to that passage's. Each size
is built in one process and searched in another; as root, the page cache is dropped before. Prints a Markdown table
and, as its last line, one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.processes import result_of
from openbook.core.records import sha256_hex
from openbook.knowledge.index import vectors
from openbook.knowledge.index.search import IndexView, Shard, best_candidates, best_passages
from openbook.knowledge.index.segment_builder import IndexSource
from openbook.knowledge.index.segment_set import SegmentSet
from openbook.knowledge.index.vectors import widened
from openbook.knowledge.index.words import query_terms
from openbook.knowledge.ingest.embeddings import embedding_key, embedding_text
from openbook.knowledge.store import schema
from openbook.knowledge.store.integrity import row_digest
from openbook.knowledge.store.names import passage_id

PER_CONTENT = 50
QUERIES = 200
RECALL_QUERIES = 50
_WORD = re.compile(r"\w+")


def real_passages(kb: Path) -> tuple[list[str], NDArray[np.float16]]:
    connection = sqlite3.connect(f"{(kb / schema.FILE_NAME).absolute().as_uri()}?mode=ro", uri=True)
    rows = connection.execute(
        "SELECT substr(c.text, p.start_char + 1, p.end_char - p.start_char), e.vector FROM passages p "
        "JOIN contents c ON c.id = p.content_id JOIN embeddings e ON e.embedding_key = p.embedding_key ORDER BY p.id"
    ).fetchall()
    dimensions = len(rows[0][1]) // 2
    return [t for t, _ in rows], np.frombuffer(b"".join(v for _, v in rows), dtype="<f2").reshape(-1, dimensions)


def varied(texts: list[str], vectors: NDArray[np.float16], count: int) -> Iterator[tuple[str, bytes]]:
    """The first are as they are; then copies."""
    chance, noise = random.Random(0), np.random.default_rng(0)
    words = [w for text in texts[::7] for w in text.split()]
    for start in range(0, count, len(texts)):
        size = min(len(texts), count - start)
        rows = widened(vectors[:size])
        if start:
            rows = rows * 0.8 + widened(vectors)[noise.integers(0, len(texts), size)] * 0.4
            rows += noise.normal(0.0, 0.01, rows.shape).astype(np.float32)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        for text, row in zip(texts[:size], rows.astype("<f2"), strict=True):
            if start:
                text = " ".join(chance.choice(words) if i % 5 == 2 else w for i, w in enumerate(text.split(" ")))
            yield text, row.tobytes()


def write_base(kb: Path, folder: Path, count: int) -> None:
    connection = sqlite3.connect(folder / schema.FILE_NAME, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    schema.make_tables(connection)
    texts, vectors = real_passages(kb)
    connection.execute("BEGIN")
    passages = varied(texts, vectors, count)
    for number, first in enumerate(range(1, count + 1, PER_CONTENT), start=1):
        add_content(connection, number, first, *zip(*islice(passages, PER_CONTENT), strict=True))
    connection.execute("COMMIT")
    connection.close()


def add_content(connection: Any, number: int, first: int, texts: Sequence[str], vectors: Sequence[bytes]) -> None:
    """A content of these passages, as ingest writes one. `number` becomes its id, `first` that of its first passage."""
    text = "".join(texts)
    row = (number, f"{number:064x}", "", text, "", "text/plain", len(text), "[]")
    connection.execute(
        "INSERT INTO contents (id, key, code, text, title, media_type, source_chars, metadata, digest) VALUES (?,?,?,?,?,?,?,?,?)",
        (*row, row_digest(*row)),
    )
    digest, at, rows, stored = sha256_hex(text.encode()), 0, [], []
    for id_, (passage, vector) in enumerate(zip(texts, vectors, strict=True), first):
        end = at + len(passage)
        key = embedding_key(embedding_text("", (), text, at, end))
        about = (id_, number, passage_id(digest, at, end), at, end, None, "[]", key)
        rows.append((*about, row_digest(*about, "", passage)))
        stored.append((key, vector, row_digest(key, vector)))
        at = end
    connection.executemany(
        "INSERT INTO passages (id, content_id, passage_id, start_char, end_char, page, headings, embedding_key, digest) "
        "VALUES (?,?,?,?,?,?,?,?,?)",
        rows,
    )
    connection.executemany("INSERT OR IGNORE INTO embeddings VALUES (?,?,?)", stored)


def opened(folder: Path) -> tuple[IndexSource, NDArray[np.int64]]:
    connection = sqlite3.connect(folder / schema.FILE_NAME)
    dimensions = len(connection.execute("SELECT vector FROM embeddings LIMIT 1").fetchone()[0]) // 2
    contents = np.array([c for (c,) in connection.execute("SELECT id FROM contents ORDER BY id")], dtype=np.int64)
    return IndexSource(connection, "0" * 32, "benchmark", dimensions), contents


def queries(folder: Path) -> list[tuple[str, NDArray[np.float32]]]:
    source, _ = opened(folder)
    chance, noise = random.Random(1), np.random.default_rng(1)
    highest = source.connection.execute("SELECT max(id) FROM passages").fetchone()[0]
    found: list[tuple[str, NDArray[np.float32]]] = []
    while len(found) < QUERIES:
        text, vector = source.connection.execute(
            "SELECT substr(c.text, p.start_char + 1, p.end_char - p.start_char), e.vector FROM passages p "
            "JOIN contents c ON c.id = p.content_id JOIN embeddings e USING (embedding_key) WHERE p.id = ?",
            (chance.randint(1, highest),),
        ).fetchone()
        if len(words := _WORD.findall(text)) < 12:
            continue
        at = chance.randrange(len(words) - 8)
        row = widened(np.frombuffer(vector, dtype="<f2")) + noise.normal(
            0.0, source.dimensions**-0.5, source.dimensions
        )
        found.append((" ".join(words[at : at + 8]), (row / np.linalg.norm(row)).astype(np.float32)))
    return found


def build(folder: Path) -> dict[str, Any]:
    import resource

    source, contents = opened(folder)
    shutil.rmtree(folder / "index", ignore_errors=True)
    found: dict[str, Any] = {}
    for name, kept, unit in (("build", contents[:-1], 1), ("one_more", contents, 1e3)):
        started, cpu = time.perf_counter(), time.process_time()
        SegmentSet.refresh(folder, source, kept)
        suffix = "s" if unit == 1 else "ms"
        found[f"{name}_{suffix}"] = (time.perf_counter() - started) * unit
        found[f"{name}_cpu_{suffix}"] = (time.process_time() - cpu) * unit
    size = sum(p.stat().st_size for p in (folder / "index").rglob("*.npy"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return found | {"index_mb": size / 1e6, "peak_mb": peak}


def timed(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return (time.perf_counter() - started) * 1e3


def nearest(view: IndexView, vector: NDArray[np.float32]) -> list[int]:
    found, _ = best_candidates(view, "", vector, 100)
    passages: list[int] = found.passages[found.nearest(100)].tolist()
    return passages


def by_words(shard: Shard, text: str) -> object:
    terms = query_terms(text)
    return shard.bm25.search(shard.bm25.statistics(terms).weights(terms), 100)


def measure(folder: Path) -> dict[str, Any]:
    asked = json.loads((folder / "queries.json").read_text())
    source, contents = opened(folder)
    pairs = [(text, np.array(vector, dtype=np.float32)) for text, vector in asked]
    started = time.perf_counter()
    indexes = SegmentSet.open(folder, source, contents)
    open_ms = (time.perf_counter() - started) * 1e3
    started = time.perf_counter()
    view = indexes.shard(contents)
    view_ms = (time.perf_counter() - started) * 1e3
    first = timed(lambda: best_passages(view, *pairs[0], 10))
    found: dict[str, Any] = {"open_ms": open_ms, "view_ms": view_ms, "first_ms": first}
    view_again = [timed(lambda: indexes.shard(contents)) for _ in range(5)]
    half, shard = indexes.shard(contents[::2]), indexes.shard(contents)
    parts: dict[str, Callable[[str, NDArray[np.float32]], object]] = {
        "search": lambda text, vector: best_passages(view, text, vector, 10),
        "bm25": lambda text, _: by_words(shard, text),
        "dense": lambda _, vector: nearest(view, vector),
        "half": lambda text, vector: best_passages(half, text, vector, 10),
    }
    for name, call in parts.items():
        for text, vector in pairs[:20]:
            call(text, vector)
        times = [timed(lambda: call(text, vector)) for text, vector in pairs]  # noqa: B023  called at once
        found |= {f"{name}_p50": statistics.median(times), f"{name}_p95": statistics.quantiles(times, n=20)[-1]}
    recalls: dict[int, list[float]] = {10: [], 100: []}
    chosen = [vector for _, vector in pairs[:RECALL_QUERIES]]
    by_signs = [nearest(view, vector) for vector in chosen]
    vectors.EXACT_UP_TO = view.rows  # from here on every row is compared
    for got, true in zip(by_signs, (nearest(view, vector) for vector in chosen), strict=True):
        for k, values in recalls.items():
            values.append(len({*got} & {*true[:k]}) / k)
    return (
        found
        | {"view_again_ms": statistics.median(view_again), "segments": len(indexes._segments)}
        | {f"recall_{k}": statistics.mean(values) for k, values in recalls.items()}
    )


def run(step: str, folder: Path) -> Any:
    if step == "measure" and os.geteuid() == 0:
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3")
    return result_of("benchmarks.search_latency", folder.absolute(), "--step", step)


def one_size(kb: Path, folder: Path, count: int) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "queries.json").exists():
        (folder / schema.FILE_NAME).unlink(missing_ok=True)
        write_base(kb, folder, count)
        (folder / "queries.json").write_text(json.dumps([(t, v.tolist()) for t, v in queries(folder)]))
    result: dict[str, Any] = {"passages": count} | run("build", folder) | run("measure", folder)
    return result | {"bytes_per_passage": result["index_mb"] * 1e6 / count}


ROWS = (
    "search_p50 search_p95 bm25_p50 bm25_p95 dense_p50 dense_p95 half_p50 first_ms open_ms view_ms view_again_ms "
    "recall_10 recall_100 build_s build_cpu_s one_more_ms one_more_cpu_ms bytes_per_passage peak_mb".split()
)


def table(results: list[dict[str, Any]]) -> str:
    lines = [f"| | {' | '.join(format(r['passages'], ',') for r in results)} |", "|---" * (len(results) + 1) + "|"]
    for name in ROWS:
        digits = 3 if "recall" in name else 1
        lines.append(f"| {name} | {' | '.join(f'{r[name]:,.{digits}f}' for r in results)} |")
    return "\n".join(lines)


def plot(results: list[dict[str, Any]], path: Path) -> None:
    import_module("matplotlib").use("Agg")
    pyplot = import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    sizes = [r["passages"] for r in results]
    for name, label in (("search", "whole search"), ("dense", "vectors"), ("bm25", "words")):
        (line,) = axes.plot(sizes, [r[f"{name}_p50"] for r in results], marker="o", label=f"{label}, median")
        axes.plot(
            sizes,
            [r[f"{name}_p95"] for r in results],
            marker=".",
            linestyle=":",
            color=line.get_color(),
            label=f"{label}, 95th percentile",
        )
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="passages",
        ylabel="milliseconds",
        title="Search, embedding of the query not counted",
    )
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kb", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--work", type=Path, help="keep the made knowledge bases here")
    parser.add_argument("--step", choices=("build", "measure"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps({"build": build, "measure": measure}[arguments.step](arguments.kb)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        results = [one_size(arguments.kb, work / str(size), size) for size in arguments.sizes]
    print(table(results))
    print(json.dumps(results))
    if arguments.plot:
        plot(results, arguments.plot)


if __name__ == "__main__":
    main()
