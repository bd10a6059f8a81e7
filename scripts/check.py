"""The one command that checks all: format, lint, import contracts, and, side by side, types and tests.

python scripts/check.py             the quick tests of everything
python scripts/check.py --laws      only the tests marked `laws`, which need openbook[laws]: the many cases of each law, browsers, Ray, torch
python scripts/check.py --all       all tests (killed runs, exports, the 1.5B model), and properties with more examples
python scripts/check.py -k store    with these arguments for pytest
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
FIRST = (("ruff", "format", "--check", "."), ("ruff", "check", "."), ("lint-imports",))
TYPES = ("mypy",)
TESTS = ("pytest", "-n", "auto", "--dist", "worksteal")


def main() -> int:
    scripts = Path(sys.executable).parent  # the tools of this environment, even when it is not activated
    environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', '')}"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # else each of the hundreds of processes compiles what it imports

    def start(command: tuple[str, ...], output: int | None = None) -> subprocess.Popen[bytes]:
        print(f"--- {' '.join(command)}", flush=True)
        return subprocess.Popen([str(scripts / command[0]), *command[1:]], cwd=ROOT, env=environment, stdout=output)

    tests = (*TESTS, *sys.argv[1:])
    if "--laws" in sys.argv:
        return verdict(tests, start(tests).wait())
    for command in FIRST:
        if code := start(command).wait():
            return verdict(command, code)
    with tempfile.TemporaryFile() as told:  # mypy uses one core, and its words would stand among those of pytest
        types = start(TYPES, told.fileno())
        tests_code, types_code = start(tests).wait(), types.wait()
        told.seek(0)
        print(told.read().decode(errors="replace"), end="", flush=True)
    return verdict(TYPES, types_code) or verdict(tests, tests_code)


def verdict(command: tuple[str, ...], code: int) -> int:
    print(f"--- {' '.join(command)}: {'failed' if code else 'passed'}", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
