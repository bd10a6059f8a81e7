"""How much do two programs on the same cores slow each other down, for each length of OpenMP's spinning?

    python benchmarks/two_programs.py

Starts itself alone and then twice at once for each value of GOMP_SPINCOUNT (300000 is the runtime's own) and prints the
median time to the first token and of each next one. Takes some minutes, since long
spinning is that slow. The last line is one JSON document.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time

SPIN_COUNTS = ("300000", "100000", "10000", "1000", "0")
REQUESTS = 2


def answer() -> None:
    """In the child process: read a prompt of about 250 tokens and write up to 24, a few times."""
    from benchmarks.stored import opened
    from openbook.core.config import load_settings
    from openbook.core.records import Decoding, Prompt

    model = opened(load_settings().model)
    prompt = Prompt("Answer.", ("The ferry to Sandhavn leaves at nine on weekdays. " * 20,), "When?")
    first, following = [], []
    for _ in range(REQUESTS):
        started = time.perf_counter()
        stream = model.stream(prompt, Decoding(max_tokens=24))
        next(stream)
        begun = time.perf_counter()
        count = sum(1 for _ in stream)
        first.append(begun - started)
        following.append((time.perf_counter() - begun) / max(count, 1))
    print(json.dumps([statistics.median(first), statistics.median(following)]))


def run(count: int, spin_count: str) -> list[list[float]]:
    environment = {**os.environ, "GOMP_SPINCOUNT": spin_count}
    command = [sys.executable, __file__, "child"]
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    return [json.loads(process.communicate()[0]) for process in running]


def main() -> None:
    if sys.argv[1:] == ["child"]:
        answer()
        return
    results: dict[str, dict[str, list[list[float]]]] = {}
    for spin in SPIN_COUNTS:
        results[spin] = {}
        for how, count in (("alone", 1), ("two at once", 2)):
            times = results[spin][how] = run(count, spin)
            shown = "; ".join(f"first {first:.2f} s, each next {each * 1e3:.0f} ms" for first, each in times)
            print(f"GOMP_SPINCOUNT={spin:<7} {how:<12} {shown}", flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
