"""Does a cluster lose or double anything when a part of it fails?

    python benchmarks/cluster_faults.py FOLDER [--each 2] [--only FAULT ...] [--files 30] [--seed 1]

It starts PostgreSQL, and syncs files of FOLDER into new knowledge bases there, through two workers of Ray
where those are to fail. In each run one fault comes at a random moment. When the run ends with a sentence, the fault is mended and it is run again. Then:

- the rows are, by digest, those of one machine that nothing happened to;
- every row and every byte of the segments is what its digest says;
- a machine that has nothing yet finds the same passages with the same scores.

It exits with 1 if one of these is not so. As root on Linux it works in namespaces of its own: the database has a small disk in
memory, which can be filled, and rules of the loopback interface part the network. Otherwise these two faults are left out.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeAlias
from unittest.mock import patch

import psycopg

from openbook.cluster import postgres_connection, workers
from openbook.cluster.connection import ray_module
from openbook.cluster.local import start_postgres, stop_server
from openbook.cluster.shards import RayShards, ShardedSearch
from openbook.cluster.workers import Workers
from openbook.core.config import DatabaseUrl
from openbook.core.errors import OpenBookError
from openbook.core.parallel import StagedProgress
from openbook.core.records import Hit, sha256_hex
from openbook.knowledge import KnowledgeBase, RunOptions, sync
from openbook.knowledge.check import check
from openbook.parsers.sandbox.pool import OpenParsers, ParserPool
from openbook.parsers.sandbox.protocol import Limits
from openbook.testing import HashEmbedder
from tests.cluster.conftest import new_database
from tests.cluster.state import worker_pids

ROOT = Path(__file__).parent.parent
IN_NAMESPACES = "OPENBOOK_BENCH_IN_NAMESPACES"
DISK_MB = 500  # of the database
QUESTIONS = ("How is it installed?", "What does the function return?", "Which version is needed?")
SEARCHERS = 4

# All that is the same whenever and wherever the same run is done: no times, and no numbers of rows.
ROWS = (
    """SELECT d.path, c.key, d.bytes, d.labels, d.given_labels, d.added_in, d.removed_in
       FROM documents d JOIN contents c ON c.id = d.content_id""",
    "SELECT key, code, text, title, media_type, source_chars, metadata FROM contents",
    """SELECT c.key, p.passage_id, p.start_char, p.end_char, p.page, p.headings, p.embedding_key
       FROM passages p JOIN contents c ON c.id = p.content_id""",
    "SELECT embedding_key, vector, digest FROM embeddings",
    "SELECT path, outcome, reason FROM verdicts",
    "SELECT folder, rules FROM sources",
    "SELECT version, summary FROM versions",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--each", type=int, default=2, help="faults of each kind")
    parser.add_argument("--only", nargs="+", choices=FAULTS, default=list(FAULTS), help="these kinds")
    parser.add_argument("--files", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    is_root = sys.platform == "linux" and os.geteuid() == 0
    if is_root and IN_NAMESPACES not in os.environ:
        os.environ[IN_NAMESPACES] = "1"
        unshare = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
        os.execvp("unshare", [*unshare, sys.executable, *sys.argv])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what a shell runs in the background
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-")))
        bench = Bench(options.folder, work, options.files, random.Random(options.seed), stack)
        try:
            for turn in range(options.each):
                print(f"{turn} of {options.each} of each kind, {len(bench.problems)} problems", flush=True)
                for name in options.only if is_root else [each for each in options.only if each not in NEED_ROOT]:
                    while bench.faults[name] <= turn:
                        FAULTS[name](bench, name)
        except KeyboardInterrupt:
            print("interrupted")
        finally:
            for name in options.only:
                print(f"{name}: {bench.faults[name]}")
                for sentence, count in bench.said[name].most_common():
                    print(f"  {count} x {sentence}")
            print(json.dumps({"faults": bench.faults, "problems": bench.problems}), flush=True)
    sys.exit(bool(bench.problems))


# --- one machine that nothing happens to, and a cluster ---------------------------------------------------------------


class Bench:
    """`faults`: how many came, by kind. `said`: the sentences with which runs ended or that they logged."""

    def __init__(self, folder: Path, work: Path, files: int, chance: random.Random, stack: ExitStack) -> None:
        self.chance, self.docs, self.work, self.stack = chance, work / "docs", work, stack
        self.faults: Counter[str] = Counter()
        self.said: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.problems: list[str] = []
        self.docs.mkdir()
        found = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 2_000)
        for path in chance.sample(found, min(files, len(found))):
            shutil.copy(path, self.docs / path.name)
        os.environ |= {"OPENBOOK_HOME": str(work / "home"), "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
        os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  without it Ray's workers give way to all others
        self._start(work, stack)
        with closing(KnowledgeBase.ensure(work / "one machine", HashEmbedder().identity)) as base:
            sync(base, self.docs, HashEmbedder(), options=RunOptions(ocr="none"))  # which takes seconds a page
            self.expected = rows_digest(base), found_in(base)
        self.commit_s = self._time_of_commit()

    def _start(self, work: Path, stack: ExitStack) -> None:
        work.chmod(0o711)  # the database is another user's
        self.postgres = work / "postgres"
        self.postgres.mkdir()
        if IN_NAMESPACES in os.environ:
            shell("ip link set lo up && ip rule add pref 100 lookup local && ip rule del pref 0")
            shell(f"mount -t tmpfs -o size={DISK_MB}m tmpfs {self.postgres}")
            stack.callback(shell, f"umount --lazy {self.postgres}")
        self.database = start_postgres(self.postgres)
        stack.callback(stop_server, self.postgres, signal.SIGINT)
        with psycopg.connect(self.database, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET max_wal_size = '64MB'")
            connection.execute("SELECT pg_reload_conf()")
        self.parsers = stack.enter_context(ParserPool(Limits()))

    @cached_property
    def workers(self) -> Workers:
        ray = ray_module()
        ray.init(
            num_cpus=2,
            object_store_memory=200_000_000,
            include_dashboard=False,
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
            _temp_dir=str(self.work / "ray"),
        )
        self.stack.callback(ray.shutdown)
        return self.stack.enter_context(Workers(HashEmbedder()))

    def _time_of_commit(self) -> float:
        began = 0.0

        def progress(stage: str, done: int, total: int) -> None:
            nonlocal began
            began = time.monotonic()

        with self.new_base() as url, closing(self.opened(url)) as base:
            self.sync(base, progress)
            return time.monotonic() - began

    @contextmanager
    def new_base(self) -> Iterator[DatabaseUrl]:
        """Where a new knowledge base may be made."""
        with new_database(self.database) as url:
            yield DatabaseUrl(url)

    def opened(self, place: DatabaseUrl) -> KnowledgeBase:
        return KnowledgeBase.ensure(place, HashEmbedder().identity)

    def sync(
        self, base: KnowledgeBase, progress: StagedProgress = lambda *_: None, workers: Workers | None = None
    ) -> None:
        parsers: OpenParsers = workers.parsers if workers else lambda limits, ocr: nullcontext(self.parsers)
        options = RunOptions(Limits(timeout_s=5.0), ocr="none", parsers=parsers, progress=progress)
        sync(base, self.docs, workers.embedder if workers else HashEmbedder(), options=options)

    def finish(self, name: str, place: DatabaseUrl) -> None:
        """Run it again, and compare."""
        with closing(self.opened(place)) as base:
            self.sync(base)
            checked = check(base)
            folder = base.folder
        shutil.rmtree(folder)
        problems = [*checked.damaged, *checked.index_problems]
        with closing(self.opened(place)) as elsewhere:
            if (rows_digest(elsewhere), found_in(elsewhere)) != self.expected:
                problems.append("another state than on one machine")
        for each in problems:
            self.problem(f"{name} {self.faults[name]}: {each}")

    def problem(self, sentence: str) -> None:
        print(f"Problem: {sentence}", flush=True)
        self.problems.append(sentence)


@contextmanager
def impatient() -> Iterator[None]:
    """Who waits gives up in seconds instead of a minute, as does the server."""
    settings = {"tcp_keepalives_idle": "2", "tcp_keepalives_interval": "1", "tcp_user_timeout": "5000"}
    with (
        patch.dict(postgres_connection.DEFAULTS, connect_timeout="2"),
        patch.dict(postgres_connection._SETTINGS, settings),
        patch.multiple(workers, START_S=20.0),
    ):
        yield


def shell(command: str) -> None:
    subprocess.run(command, shell=True, check=True)


def rows_digest(base: KnowledgeBase) -> str:
    with base.snapshot() as connection:
        rows = [sorted(map(repr, map(tuple, connection.execute(sql)))) for sql in ROWS]
    return sha256_hex(repr(rows).encode("utf-8", "surrogatepass"))


def found_in(base: KnowledgeBase) -> list[tuple[int, list[Hit]]]:
    return [base.search(question, HashEmbedder()) for question in QUESTIONS]


class Listening(logging.Handler):
    """Counts sentences, without what differs in each run."""

    def __init__(self, said: Counter[str]) -> None:
        super().__init__(logging.WARNING)
        self._said, self._log = said, logging.getLogger("openbook")

    def __enter__(self) -> Listening:
        self._log.addHandler(self)
        return self

    def __exit__(self, *exception: object) -> None:
        self._log.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.hear(record.getMessage())

    def hear(self, sentence: str) -> None:
        sentence = re.sub(r"(postgresql|s3)://\S+?(?=[:.]?( |$))", r"\1://...", sentence)
        self._said[re.sub(r"\d+(\.\d+)*", "N", sentence)] += 1


# --- a fault in a run -------------------------------------------------------------------------------------------------

Run: TypeAlias = Callable[[Bench, str], None]


def in_a_run(
    strike: Callable[[Bench], bool],
    mend: Callable[[Bench], None] = lambda bench: None,
    *,
    during: Literal["reading", "commit"] = "reading",
    on_workers: bool = False,
) -> Run:
    """`strike` says whether it hit anything."""

    def run(bench: Bench, name: str) -> None:
        share = bench.chance.uniform(0.0, 0.75) if during == "reading" else 1.0
        delay_s = bench.chance.uniform(0.0, 0.05 if during == "reading" else bench.commit_s)
        striking: list[Future[bool]] = []

        def strike_later() -> bool:
            time.sleep(delay_s)
            return strike(bench)

        def progress(stage: str, done: int, total: int) -> None:
            if stage == ("read" if during == "reading" else "embed") and done >= total * share and not striking:
                striking.append(pool.submit(strike_later))

        with bench.new_base() as place, Listening(bench.said[name]) as said:
            with impatient(), ThreadPoolExecutor(1) as pool, closing(bench.opened(place)) as base:
                try:
                    bench.sync(base, progress, bench.workers if on_workers else None)
                except OpenBookError as error:
                    said.hear(str(error))
            mend(bench)
            bench.faults[name] += any(each.result() for each in striking)
            bench.finish(name, place)

    return run


def kill_worker(bench: Bench) -> bool:
    """One that parses. Most files take milliseconds, so it is looked for until there is one."""
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        for pid in bench.chance.sample(found := worker_pids("par"), min(1, len(found))):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                return True
    return False


def starve_worker(bench: Bench) -> bool:
    """It gets no more memory than it has."""
    for pid in bench.chance.sample(found := worker_pids(), min(1, len(found))):
        with suppress(ProcessLookupError, FileNotFoundError):
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
            resource.prlimit(pid, resource.RLIMIT_AS, (pages * resource.getpagesize(),) * 2)
            return True
    return False


def end_workers(bench: Bench) -> None:
    """Others start with the next task."""
    bench.workers.close()


def restart_database(bench: Bench) -> bool:
    stop_server(bench.postgres, signal.SIGQUIT)  # as if it had crashed
    start_postgres(bench.postgres)
    return True


def fill_disk(bench: Bench) -> bool:
    left = bench.chance.choice((0, 1 << 16, 1 << 20))
    with suppress(OSError), (bench.postgres / "ballast").open("wb") as ballast:
        while shutil.disk_usage(bench.postgres).free > left:
            ballast.write(bytes(1 << 16))
            ballast.flush()
    return True


def empty_disk(bench: Bench) -> None:
    """And wait until the database is there: it crashes when it cannot write its log."""
    (bench.postgres / "ballast").unlink(missing_ok=True)
    until = time.monotonic() + 60
    while True:
        with suppress(psycopg.OperationalError), psycopg.connect(bench.database, connect_timeout=2):
            return
        assert time.monotonic() < until, "PostgreSQL does not come back"
        time.sleep(0.1)


def part_network(bench: Bench) -> bool:
    """Between this process and the database: nothing passes any more, or no answer."""
    (port,) = re.findall(r"127\.0\.0\.1:(\d+)", bench.database)
    for end in bench.chance.choice((("sport",), ("sport", "dport"))):
        shell(f"ip rule add pref 10 ipproto tcp {end} {port} blackhole")
    return True


def join_network(bench: Bench) -> None:
    while subprocess.run("ip rule del pref 10", shell=True, capture_output=True, check=False).returncode == 0:
        pass


# --- a run that is ended, and searches without a run -------------------------------------------------------------------


def end_run(bench: Bench, name: str) -> None:
    """By `kill -9` and by Ctrl-C in turn, at a random file, or when it is about to commit."""
    bench.workers.close()
    ended_by = (signal.SIGKILL, signal.SIGINT)[bench.faults[name] % 2]
    at = bench.chance.choice([*range(len(list(bench.docs.iterdir()))), "commit"])
    with bench.new_base() as place:
        bench.opened(place).close()
        address = ray_module().get_runtime_context().gcs_address
        command = [sys.executable, "-c", CHILD, address, place.url, str(bench.docs), str(at), str(int(ended_by))]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        bench.faults[name] += 1
        bench.said[name][f"ended by {ended_by.name}"] += 1
        if done.returncode not in (-ended_by, 128 + ended_by):
            bench.problem(f"ended by {ended_by.name} with {done.returncode}: {done.stderr[-300:]}")
        bench.finish(name, place)


CHILD = """
import os, signal, sys
from pathlib import Path
from openbook.cluster.connection import connect, disconnect
from openbook.cluster.workers import Workers
from openbook.core.config import DatabaseUrl
from openbook.knowledge import KnowledgeBase, RunOptions, sync
from openbook.testing import HashEmbedder

address, kb, docs, at, ended_by = sys.argv[1:]
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what a shell runs in the background

def progress(stage, done, total):
    if (stage == "embed" and done == total) if at == "commit" else stage == "read" and done >= min(int(at), total):
        os.kill(os.getpid(), int(ended_by))

connect(address)
try:
    with Workers(HashEmbedder()) as workers:
        base = KnowledgeBase.open(DatabaseUrl(kb))
        sync(base, Path(docs), workers.embedder, options=RunOptions(ocr="none", parsers=workers.parsers, progress=progress))
except KeyboardInterrupt:
    sys.exit(130)
finally:
    disconnect()
"""


def kill_searchers(bench: Bench, name: str) -> None:
    """A process that searches is killed ten times, while clients search without a pause. Everything found must be right."""
    with bench.new_base() as place, closing(bench.opened(place)) as base:
        bench.sync(base)
        assert bench.workers  # Ray runs
        shards = RayShards(place, 2)
        base.shards = ShardedSearch(shards)
        is_over, replies = threading.Event(), Counter[str]()

        def search() -> None:
            while not is_over.is_set():
                try:
                    replies["right" if found_in(base) == bench.expected[1] else "wrong"] += 1
                except Exception as error:  # noqa: BLE001  every one is a problem
                    replies[repr(error)] += 1

        threads = [threading.Thread(target=search) for _ in range(SEARCHERS)]
        for thread in threads:
            thread.start()
        for _ in range(10):
            before = replies["right"]
            while replies["right"] < before + SEARCHERS and set(replies) <= {"right"}:
                time.sleep(0.01)
            time.sleep(bench.chance.uniform(0.0, 0.1))
            for pid in bench.chance.sample(found := worker_pids(actor="SearchShard"), min(1, len(found))):
                os.kill(pid, signal.SIGKILL)
                bench.faults[name] += 1
        is_over.set()
        for thread in threads:
            thread.join()
        shards.close()
        bench.said[name]["searches found what they find on one machine"] += replies.pop("right") * len(QUESTIONS)
        for what, count in replies.items():
            bench.problem(f"{name}: {count} x {what}")


FAULTS: dict[str, Run] = {
    "worker-killed": in_a_run(kill_worker, on_workers=True),
    "no-memory": in_a_run(starve_worker, end_workers, on_workers=True),
    "run-ended": end_run,
    "database-restarted": in_a_run(restart_database, during="commit"),
    "disk-full": in_a_run(fill_disk, empty_disk),
    "partition": in_a_run(part_network, join_network, during="commit"),
    "searcher-killed": kill_searchers,
}
NEED_ROOT = ("disk-full", "partition")


if __name__ == "__main__":
    main()
