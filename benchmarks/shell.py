"""How long does `openbook ask` take from the shell, the start of the process included?

    python -m benchmarks.shell [--runs 10]

On the example handbook, in a home of its own that keeps what was read: the first run makes the knowledge base, then one question is
asked again and again, and then one after the other of some that are new but find passages read before. Wall clock, seconds.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.stored import HANDBOOK
from openbook.core.config import load_settings

AGAIN = "At what time does the nightly backup start?"
NEW = (
    "When is the nightly backup usually over?",
    "To which machine does the nightly backup go?",
    "Where does the encrypted copy of the backup travel to?",
    "By which way does the copy of the backup travel?",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        shutil.copytree(load_settings().models_dir, Path(home) / "models", copy_function=os.link)
        print(f"first: {asked(AGAIN, home):.2f} s")
        show("the same question", [asked(AGAIN, home) for _ in range(options.runs)])
        show("new questions", [asked(question, home) for question in NEW])


def asked(question: str, home: str) -> float:
    command = [sys.executable, "-m", "openbook", "ask", question, "--docs", str(HANDBOOK)]
    started = time.perf_counter()
    subprocess.run(command, env={**os.environ, "OPENBOOK_HOME": home}, check=True, capture_output=True)
    return time.perf_counter() - started


def show(name: str, seconds: list[float]) -> None:
    print(f"{name}: median {statistics.median(seconds):.2f} s, from {min(seconds):.2f} to {max(seconds):.2f}")


if __name__ == "__main__":
    main()
