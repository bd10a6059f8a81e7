"""Does `sync` through Ray lose or double anything when workers, or it itself, die?

    python benchmarks/cluster_faults.py FOLDER [--files 60] [--kills 20] [--swells 5] [--ends 5] [--seed 1]

Files are taken from FOLDER at random and synced into new knowledge bases, through a Ray with two workers on this machine:

- a worker is killed at a random moment, a few times a run, until there were as many kills as asked;
- a worker gets no more memory: its address space is limited to what it has;
- the whole run is ended at a random moment, by `kill -9` and by Ctrl-C in turn, and done again.

After each run the state must be that of one machine by digest, and every row must be what its digest says.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from openbook.cluster.connection import ray_module
from openbook.cluster.workers import Workers
from openbook.knowledge import KnowledgeBase, RunOptions, sync
from openbook.knowledge.check import check
from openbook.testing import HashEmbedder
from tests.cluster.state import state_digest, worker_pids

ROOT = Path(__file__).parent.parent
MOST_A_RUN = 4  # faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=60)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--swells", type=int, default=5)
    parser.add_argument("--ends", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  without it Ray's workers give way to all others
    ray = ray_module()
    ray.init(num_cpus=2, object_store_memory=200_000_000, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as work:
        bench = Bench(options.folder, Path(work), options.files, chance)
        for name, number, fault in (("kill", options.kills, kill), ("no memory", options.swells, take_memory)):
            bench.hit_workers(name, number, fault)
        bench.end_runs(options.ends, ray.get_runtime_context().gcs_address)
    ray.shutdown()
    print(json.dumps({"faults": bench.faults, "runs": bench.runs, "problems": bench.problems}))


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def take_memory(pid: int) -> None:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    resource.prlimit(pid, resource.RLIMIT_AS, (pages * resource.getpagesize(),) * 2)


class Bench:
    def __init__(self, folder: Path, work: Path, files: int, chance: random.Random) -> None:
        self.work, self.docs, self.chance = work, work / "docs", chance
        self.faults: Counter[str] = Counter()
        self.runs: Counter[str] = Counter()
        self.problems: list[str] = []
        self.docs.mkdir()
        found = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 2_000)
        for path in chance.sample(found, min(files, len(found))):
            shutil.copy(path, self.docs / path.name)
        base = KnowledgeBase.ensure(work / "one machine", HashEmbedder().identity)
        sync(base, self.docs, HashEmbedder())
        self.expected = state_digest(base)
        base.close()

    def hit_workers(self, name: str, number: int, fault: Callable[[int], None]) -> None:
        """Syncs until `number` workers were hit by the fault, each at a random moment after a random result."""
        count = len(list(self.docs.iterdir()))
        while self.faults[name] < number:
            due = sorted(self.chance.sample(range(count * 3 // 4), min(MOST_A_RUN, number - self.faults[name])))
            timers: list[threading.Timer] = []

            def progress(stage: str, done: int, total: int) -> None:
                while stage == "read" and due and done >= due[0]:  # noqa: B023  called within this turn
                    due.pop(0)  # noqa: B023
                    timers.append(threading.Timer(self.chance.uniform(0, 0.05), self._hit, (name, fault)))  # noqa: B023
                    timers[-1].start()  # noqa: B023

            with Workers(HashEmbedder()) as workers:
                kb = self._new(name)
                base = KnowledgeBase.ensure(kb, workers.embedder.identity)
                sync(base, self.docs, workers.embedder, options=RunOptions(parsers=workers.parsers, progress=progress))
                for timer in timers:
                    timer.join()
                print(f"{name}: {self.faults[name]} of {number}, {workers.deaths} workers died", flush=True)
            self._compare(name, base)

    def _hit(self, name: str, fault: Callable[[int], None]) -> None:
        busy, all_of_them = worker_pids("par"), worker_pids()
        for pid in self.chance.sample(busy or all_of_them, min(1, len(all_of_them))):
            with suppress(ProcessLookupError, FileNotFoundError):
                fault(pid)
                self.faults[name] += 1
                self.faults[f"{name} while it parsed"] += bool(busy)

    def end_runs(self, number: int, address: str) -> None:
        """Ends whole runs after a random number of results, then does them again."""
        count = len(list(self.docs.iterdir()))
        for turn in range(number):
            ended_by = (signal.SIGKILL, signal.SIGINT)[turn % 2]
            kb = self._new("end")
            at = self.chance.randrange(count)
            command = [sys.executable, "-c", CHILD, address, str(kb), str(self.docs), str(at), str(int(ended_by))]
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
            if done.returncode not in (-ended_by, 128 + ended_by):
                self.problems.append(f"ended by {ended_by.name} with {done.returncode}: {done.stderr[-300:]}")
            base = KnowledgeBase.open(kb)
            if base.version:
                self.problems.append(f"{kb.name}: a version of a run that was ended")
            with Workers(HashEmbedder()) as workers:
                sync(base, self.docs, workers.embedder, options=RunOptions(parsers=workers.parsers))
            self.faults[ended_by.name] += 1
            print(f"{ended_by.name} after {at} files", flush=True)
            self._compare("end", base)

    def _new(self, name: str) -> Path:
        self.runs[name] += 1
        return self.work / f"{name} {self.runs[name]}"

    def _compare(self, name: str, base: KnowledgeBase) -> None:
        if state_digest(base) != self.expected:
            self.problems.append(f"{name} {self.runs[name]}: another state than on one machine")
        self.problems += [f"{name} {self.runs[name]}: {line}" for line in check(base).damaged]
        base.close()


CHILD = """
import os, sys
from pathlib import Path
from openbook.cluster.connection import connect, disconnect
from openbook.cluster.workers import Workers
from openbook.knowledge import KnowledgeBase, RunOptions, sync
from openbook.testing import HashEmbedder

def progress(stage, done, total):
    if (stage, done) == ("read", int(sys.argv[4])):
        os.kill(os.getpid(), int(sys.argv[5]))

connect(sys.argv[1])
try:
    with Workers(HashEmbedder()) as workers:
        base = KnowledgeBase.ensure(Path(sys.argv[2]), workers.embedder.identity)
        sync(base, Path(sys.argv[3]), workers.embedder, options=RunOptions(parsers=workers.parsers, progress=progress))
except KeyboardInterrupt:
    sys.exit(130)
finally:
    disconnect()
"""


if __name__ == "__main__":
    main()
