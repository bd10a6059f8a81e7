from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

SCRIPT = """
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from openbook.serving.memory import give_back_freed

def resident_kb():
    return int(Path("/proc/self/status").read_text().partition("RssAnon:")[2].split()[0])

def work(number):
    blocks = [bytes(2000) for _ in range(20_000)]
    return blocks[:: 1000]  # some stay, so that what is freed lies between used blocks

give_back_freed()
before = resident_kb()
with ThreadPoolExecutor(4) as threads:
    kept = list(threads.map(work, range(4)))
after = resident_kb()
give_back_freed()
print(before, after, resident_kb())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads what Linux says of a process")
def test_what_threads_freed_goes_back_to_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=True)
    before, after, given_back = map(int, done.stdout.split())
    assert after - before > 20_000
    assert given_back - before < (after - before) / 4
