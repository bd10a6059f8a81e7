"""How fast is `sync` through Ray against the same sync without it, and what do many workers add?

    python benchmarks/cluster_sync.py FOLDER [--files 300] [--runs 3]
    python benchmarks/cluster_sync.py FOLDER --simulate 100

Syncs the same files, evenly taken from FOLDER, into new knowledge bases: without Ray, and through a Ray on this machine with a
worker for each core, in alternating runs. Ray itself is started before; starting the workers counts. The states must be equal
by digest. Processor time is that of all processes of a run; its ratio is what a machine that others use can tell.

With `--simulate N` embedding is a sleep of the duration that one core was measured to take, in N logical workers: threads of a few
actors, since N processes do not fit on a small machine. Printed is the time against the ideal one, which is that of all
sleeps divided by N, and how much processor time this process takes for each passage: what bounds the number of workers.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil

from benchmarks.stored import default_embedder
from openbook.cluster import workers as module
from openbook.cluster.connection import ray_module
from openbook.cluster.workers import Workers
from openbook.core.config import available_cores
from openbook.core.records import Embedder, Vectors
from openbook.knowledge import KnowledgeBase, Report, RunOptions, sync
from openbook.knowledge.store.schema import FILE_NAME
from openbook.testing import HashEmbedder
from tests.cluster.state import state_digest

PROCESSES = 4  # of the simulation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--simulate", type=int, default=0, metavar="N")
    options = parser.parse_args()
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  without it Ray's workers give way to all others
    ray = ray_module()
    cores = options.simulate or available_cores()
    ray.init(num_cpus=cores, object_store_memory=200_000_000, include_dashboard=False, log_to_driver=False)
    embedder = default_embedder()
    with tempfile.TemporaryDirectory() as work:
        docs = Path(work) / "docs"
        copied(options.folder, docs, options.files)
        if options.simulate:
            result = simulated(docs, Path(work), embedder, options.simulate)
        else:
            result = compared(docs, Path(work), embedder, options.runs)
    ray.shutdown()
    print(json.dumps(result))


def copied(folder: Path, docs: Path, count: int) -> None:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    docs.mkdir()
    for number, path in enumerate(found[:: max(1, len(found) // count)][:count]):
        shutil.copy(path, docs / f"{number:05}{path.suffix}")


class Run:
    """One sync into a new knowledge base, timed by stage."""

    def __init__(self, kb: Path, docs: Path, embedder: Embedder, options: RunOptions) -> None:
        marks: list[tuple[str, float, float]] = []
        cpu_s, started = cpu_by_process_s(), time.perf_counter()

        def progress(stage: str, done: int, total: int) -> None:
            marks.append((stage, time.perf_counter(), time.process_time()))

        base = KnowledgeBase.ensure(kb, embedder.identity)
        self.report: Report = sync(base, docs, embedder, options=replace(options, progress=progress))
        self.seconds = time.perf_counter() - started
        marks.append(("commit", time.perf_counter(), time.process_time()))
        self.cpu_s = sum(now - cpu_s.get(process, 0.0) for process, now in cpu_by_process_s().items())
        # A stage lasts from its first mark to the first of the next.
        first = {stage: (at, cpu) for stage, at, cpu in reversed(marks)}
        last = {stage: (at, cpu) for stage, at, cpu in marks}
        (read, read_cpu), (embed, embed_cpu) = first["read"], first["embed"]
        (embedded, embedded_cpu), (end, end_cpu) = last["embed"], last["commit"]
        self.stages = {"read": embed - read, "embed": embedded - embed, "commit": end - embedded}
        self.own_cpu_s = {
            "read": embed_cpu - read_cpu,
            "embed": embedded_cpu - embed_cpu,
            "commit": end_cpu - embedded_cpu,
        }
        self.digest = state_digest(base)
        base.close()


def cpu_by_process_s() -> dict[psutil.Process, float]:
    """Processor seconds of this process and of each below it, with those of its children that ended."""
    found = {}
    for process in [here := psutil.Process(), *here.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            found[process] = sum(process.cpu_times()[:4])
    return found


def compared(docs: Path, work: Path, embedder: Embedder, runs: int) -> dict[str, object]:
    seconds: dict[str, list[float]] = {"one machine": [], "ray": []}
    cpu_s: dict[str, list[float]] = {"one machine": [], "ray": []}
    digests = set()
    passages = 0
    for number in range(runs):
        for name in seconds:
            if name == "ray":
                with Workers(embedder) as workers:
                    run = Run(work / f"ray {number}", docs, workers.embedder, RunOptions(parsers=workers.parsers))
            else:
                run = Run(work / f"one {number}", docs, embedder, RunOptions())
            seconds[name].append(run.seconds)
            cpu_s[name].append(run.cpu_s)
            digests.add(run.digest)
            passages = run.report.passages_embedded
            stages = ", ".join(f"{stage} {took:.1f}" for stage, took in run.stages.items())
            print(f"{name:<12} {run.seconds:7.1f} s ({stages}), {run.cpu_s:6.1f} s of processor", flush=True)
    assert len(digests) == 1, digests
    speeds = [one / ray for one, ray in zip(seconds["one machine"], seconds["ray"], strict=True)]
    costs = [one / ray for one, ray in zip(cpu_s["one machine"], cpu_s["ray"], strict=True)]
    print(
        f"speed through Ray: {statistics.median(speeds):.2f} ({min(speeds):.2f} to {max(speeds):.2f}) of one machine's"
    )
    print(f"by processor time: {statistics.median(costs):.2f} ({min(costs):.2f} to {max(costs):.2f})")
    return {"files": len(list(docs.iterdir())), "passages": passages, "seconds": seconds, "cpu_s": cpu_s}


class SleepingEmbedder(HashEmbedder):
    """Takes as long as a core takes, and no processor time."""

    def __init__(self, text_s: float) -> None:
        super().__init__(384)
        self._text_s = text_s

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        time.sleep(self._text_s * len(texts))
        return np.full((len(texts), 384), 384**-0.5, np.float32)


class ManyInFew(Workers):
    """Logical workers as threads of PROCESSES actors."""

    def __init__(self, embedder: Embedder, threads: int) -> None:
        super().__init__(embedder, most=PROCESSES)
        self._threads = threads

    def _add(self) -> None:
        options = {"num_cpus": self._threads, "max_concurrency": self._threads}
        actor = self._ray.remote(**options)(module.Worker).remote(self._shared)
        self._starting[actor.fingerprint.remote()] = actor


def simulated(docs: Path, work: Path, embedder: Embedder, workers: int) -> dict[str, object]:
    alone = Run(work / "alone", docs, SleepingEmbedder(0.0), RunOptions())  # all but the embedding
    text_s = measured_text_s(work / "alone", embedder)
    threads = workers // PROCESSES
    module._AT_AN_ACTOR, module.AHEAD = module._AT_AN_ACTOR * threads, module.AHEAD * threads
    with ManyInFew(SleepingEmbedder(text_s), threads) as few:
        list(few.results("embed", [module.Task((["start"],))]))  # actors that start are not what is asked for
        run = Run(work / "many", docs, few.embedder, RunOptions())
    assert run.digest == alone.digest
    passages = run.report.passages_embedded
    embed_s, ideal_s = run.stages["embed"], passages * text_s / (threads * PROCESSES)
    print(
        f"{passages} passages of {1000 * text_s:.2f} ms of one core, {threads * PROCESSES} workers: ideal {ideal_s:.1f} s"
    )
    for name, each in (("without Ray, no sleep", alone), ("through Ray", run)):
        stages = ", ".join(f"{stage} {took:.1f}" for stage, took in each.stages.items())
        cost = ", ".join(f"{stage} {1000 * took / passages:.3f}" for stage, took in each.own_cpu_s.items())
        print(f"{name}: {stages} s; this process's processor time, ms for each passage: {cost}")
    print(f"embedding took {embed_s / ideal_s:.2f} of the ideal time")
    return {"passages": passages, "text_s": text_s, "workers": threads * PROCESSES, "embed_s": embed_s, "ideal_s": ideal_s,
            "stages": run.stages, "cpu_s": run.own_cpu_s, "alone_cpu_s": alone.own_cpu_s}  # fmt: skip


def measured_text_s(kb: Path, embedder: Embedder, texts: int = 300) -> float:
    """Processor seconds of one core for a passage, by some of a knowledge base."""
    with closing(sqlite3.connect(kb / FILE_NAME)) as connection:
        rows = connection.execute(
            "SELECT substr(c.text, p.start_char + 1, p.end_char - p.start_char) FROM passages p "
            "JOIN contents c ON c.id = p.content_id ORDER BY p.passage_id LIMIT ?",
            (texts,),
        ).fetchall()
    embedder.embed_query("loads the model")
    started = time.process_time()
    embedder.embed_passages([text for (text,) in rows])
    return (time.process_time() - started) / len(rows)


if __name__ == "__main__":
    main()
