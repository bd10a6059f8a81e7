"""Does a knowledge base survive `kill -9` at any moment?

A sync of a changing folder with the real command line is killed at random moments, as often as asked. After each kill
the knowledge base must open and be consistent (every row checked against its digest), show the old version or the new
one and nothing between, and answer. At the end one run must complete the work, and the next must find nothing to do.
Passages embedded more than once are counted: work between two commits is all that a kill may cost.

    python benchmarks/kill.py FOLDER --kills 200
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from openbook.knowledge import KnowledgeBase
from openbook.knowledge.check import check


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="documents to take from")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--files", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as work:
        result = run(options.folder, Path(work), options.kills, options.files, chance)
    print(json.dumps(result))


def run(source: Path, work: Path, kills: int, files: int, chance: random.Random) -> dict[str, object]:
    pool = sorted(p for p in source.rglob("*") if p.is_file() and 2_000 < p.stat().st_size < 40_000)
    docs, kb = work / "docs", work / "kb"
    docs.mkdir()
    for path in chance.sample(pool, min(files, len(pool))):
        shutil.copy(path, docs / path.name)
    sync(docs, kb)
    durations = [timed_change(docs, kb, pool, chance) for _ in range(3)]  # seconds of the latest runs that ended
    killed = ended = 0
    where: Counter[str] = Counter()
    version, problems, committed = version_of(kb), list[str](), True
    in_a_row = 0  # kills since the last version
    while killed < kills:
        if committed or chance.random() < 0.3:  # not always: work that kills left undone would only grow
            change(docs, pool, chance)
        expected = sorted(p.name for p in docs.iterdir())
        before = documents(kb)
        started = time.perf_counter()
        # After five kills a run may end: it shows how long the work that they left undone takes.
        patience = chance.uniform(0.0, 1.3 * statistics.median(durations[-9:])) if in_a_row < 5 else None
        was_killed = sync(docs, kb, kill_after_s=patience)
        if was_killed:
            killed += 1
        else:
            ended += 1
            durations.append(time.perf_counter() - started)
        base = KnowledgeBase.open(kb)
        now = documents(kb)
        found = check(base)
        problems += [f"after kill {killed}: {line}" for line in found.damaged]
        committed = base.version != version
        in_a_row = 0 if committed else in_a_row + 1
        where["killed after the commit" if committed else "killed before the commit"] += was_killed
        if not committed:
            problems += [f"after kill {killed}: documents changed without a version"] if now != before else []
        else:
            problems += (
                [f"after kill {killed}: version {base.version} after {version}"] if base.version != version + 1 else []
            )
            problems += [f"after kill {killed}: half a version"] if now != expected else []
        where["killed with indexes behind"] += was_killed and bool(found.index_problems)
        version = base.version
        base.close()
        if (killed + ended) % 20 == 0:
            print(
                f"{killed} kills, {ended} runs ended before theirs, version {version}, {len(problems)} problems",
                flush=True,
            )
    sync(docs, kb)
    problems += (
        [] if documents(kb) == sorted(p.name for p in docs.iterdir()) else ["the last run did not complete the work"]
    )
    again = json.loads(sync_output(docs, kb))
    problems += ["the last run left something to do"] if again["passages_embedded"] else []
    for line in problems:
        print(line)
    return {"kills": killed, "runs_that_ended_first": ended, "problems": len(problems), **where}


def timed_change(docs: Path, kb: Path, pool: list[Path], chance: random.Random) -> float:
    change(docs, pool, chance)
    started = time.perf_counter()
    sync(docs, kb)
    return time.perf_counter() - started


def version_of(kb: Path) -> int:
    base = KnowledgeBase.open(kb)
    version = base.version
    base.close()
    return version


def change(docs: Path, pool: list[Path], chance: random.Random) -> None:
    present = sorted(docs.iterdir())
    for path in chance.sample(present, 3):
        path.write_text(path.read_text(errors="replace") + f"\n\nChanged with number {chance.random()}.\n")
    chance.choice(present).unlink(missing_ok=True)
    new = chance.choice(pool)
    shutil.copy(new, docs / new.name)


def command(docs: Path, kb: Path) -> list[str]:
    return [sys.executable, "-m", "openbook", "sync", str(docs), "--kb", str(kb), "--json"]


def sync(docs: Path, kb: Path, kill_after_s: float | None = None) -> bool:
    """Whether it was killed before it ended."""
    process = subprocess.Popen(command(docs, kb), stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        process.wait(kill_after_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)  # the process alone: its workers must end by themselves
        process.wait()
        return True
    if process.returncode:
        raise SystemExit(f"sync failed with {process.returncode}")
    return False


def sync_output(docs: Path, kb: Path) -> str:
    return subprocess.run(command(docs, kb), check=True, capture_output=True, text=True, env=dict(os.environ)).stdout


def documents(kb: Path) -> list[str]:
    base = KnowledgeBase.open(kb)
    names = sorted(Path(path).name for path in base.documents())
    base.close()
    return names


if __name__ == "__main__":
    main()
