"""How long does a folder take to become searchable, with how much memory, and how fast are searches then?

    python benchmarks/knowledge_base.py FOLDER [--searches N]

Adds FOLDER to a new knowledge base in a process of its own (its peak memory is what is reported), then times searches
with queries taken from the documents. Prints a table and, as its last line, one JSON document.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import resource
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.processes import result_of
from benchmarks.stored import default_embedder
from openbook.knowledge import KnowledgeBase, add


def add_folder(folder: Path, kb: Path) -> None:
    """In the child process: add, then print what it took."""
    embedder = default_embedder()
    base = KnowledgeBase.ensure(kb, embedder.identity)
    started = time.perf_counter()
    report = add(base, [folder], embedder)
    seconds = time.perf_counter() - started
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(json.dumps({"add_s": seconds, "peak_mb": peak_mb, "embedded": report.passages_embedded}))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--searches", type=int, default=200)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.into:
        add_folder(arguments.folder, arguments.into)
        return
    with tempfile.TemporaryDirectory() as folder:
        kb = Path(folder) / "kb"
        result = result_of("benchmarks.knowledge_base", arguments.folder.absolute(), "--into", kb)
        embedder = default_embedder()
        base = KnowledgeBase.open(kb, embedder.identity)
        status = base.status()
        chance = random.Random(1)
        texts = [base.text(document) or "" for document in chance.sample(base.documents(), min(100, status.documents))]
        queries = [" ".join(re.findall(r"\w+", text)[20:30]) or "what is it" for text in texts]
        base.search(queries[0], embedder)
        times = []
        for i in range(arguments.searches):
            started = time.perf_counter()
            base.search(queries[i % len(queries)], embedder)
            times.append((time.perf_counter() - started) * 1e3)
        result |= {"documents": status.documents, "passages": status.passages, "kb_mb": status.bytes_on_disk / 1e6}
        result |= {"search_p50_ms": statistics.median(times), "search_p95_ms": statistics.quantiles(times, n=20)[-1]}
        base.close()
    for name, value in result.items():
        print(f"{name:<15} {value:>12,.1f}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
