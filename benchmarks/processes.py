"""Processes of a benchmark: a step that has one of its own, and what one takes of the machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def result_of(module: str, *words: object, python: Path | str = sys.executable) -> Any:
    """The JSON document that `python -m MODULE WORDS` prints last. Ends this process if that one fails."""
    command = [str(python), "-m", module, *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def memory_kb(process: int | str, which: str = "VmRSS") -> int:
    """Resident; `which`: `RssAnon` leaves out pages of files, `VmHWM` is the most so far. `process` may be `self`."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    return int(status.partition(f"{which}:")[2].split()[0])


def cpu_s(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
