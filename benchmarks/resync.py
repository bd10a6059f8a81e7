"""What does `openbook sync` cost when nothing changed, and when one file did?

    python benchmarks/resync.py FOLDER [--runs 7]

Copies FOLDER, syncs it once, then measures whole runs of the command, process start included: with nothing changed, and
with one line added to one file, after which the line must be found by a fresh `openbook search`. Prints medians with the
least and the most, and as its last line one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        result = run(options.folder, Path(work), options.runs)
    for name, values in result.items():
        if isinstance(values, list):
            print(f"{name:<14} {statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})")
    print(json.dumps(result))


def run(source: Path, work: Path, runs: int) -> dict[str, object]:
    docs, kb, chance = work / "docs", work / "kb", random.Random(1)
    shutil.copytree(source, docs)
    files = sorted(p for p in docs.rglob("*") if p.is_file())
    first_s = openbook("sync", str(docs), "--kb", str(kb))[0]
    time.sleep(3)  # what was changed in the last two seconds is read again, in case it changed twice
    unchanged, changed, found = list[float](), list[float](), list[float]()
    for number in range(runs):
        unchanged.append(openbook("sync", "--kb", str(kb))[0])
        with chance.choice(files).open("a", encoding="utf-8") as file:
            file.write(f"\n\nThe quokkavane{number} is painted green on Tuesdays.\n")
        changed.append(openbook("sync", "--kb", str(kb))[0])
        seconds, output = openbook("search", f"quokkavane{number}", "-n", "1", "--kb", str(kb))
        assert f"quokkavane{number} is painted" in output, output
        found.append(seconds)
    return {
        "files": len(files),
        "first_s": first_s,
        "unchanged_s": unchanged,
        "one_changed_s": changed,
        "search_s": found,
    }


def openbook(*arguments: str) -> tuple[float, str]:
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "openbook", *arguments], capture_output=True, text=True, check=True, env=os.environ
    )
    return time.perf_counter() - started, done.stdout


if __name__ == "__main__":
    main()
