"""The one command that checks all: format, lint, types, import contracts, tests. Stops at the first that fails.

python scripts/check.py             the quick tests of everything, in three workers for two cores
python scripts/check.py --laws      only the tests marked `laws`: the many cases of each law, after the checks above
python scripts/check.py --all       all tests (torchrun, killed runs, exports, browsers, the 1.5B), and properties with more examples
python scripts/check.py -k store    with these arguments for pytest
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

STEPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("format", ("ruff", "format", "--check", ".")),
    ("lint", ("ruff", "check", ".")),
    ("types", ("mypy",)),
    ("import contracts", ("lint-imports",)),
    ("tests", ("pytest", "-n", "auto", "--dist", "worksteal")),
)


def main() -> int:
    scripts = Path(sys.executable).parent  # the tools of this environment, even when it is not activated
    environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', '')}"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # else each of the hundreds of processes compiles what it imports
    for name, command in STEPS:
        if name != "tests" and "--laws" in sys.argv:
            continue
        extra = sys.argv[1:] if name == "tests" else []
        print(f"--- {name}: {' '.join([*command, *extra])}", flush=True)
        done = subprocess.run([str(scripts / command[0]), *command[1:], *extra], cwd=ROOT, env=environment, check=False)
        if done.returncode != 0:
            print(f"--- {name} failed", flush=True)
            return done.returncode
    print("--- all checks passed", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
