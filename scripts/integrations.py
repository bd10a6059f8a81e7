"""Test each integration with the real library, in an environment of its own, and print versions and results.

python scripts/integrations.py                all
python scripts/integrations.py langchain dspy these
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "langchain": "langchain-core",
    "llamaindex": "llama-index-core",
    "haystack": "haystack-ai",
    "dspy": "dspy",
    "llm_plugin": "llm",
    "jupyter": "ipython",
}
VERSION = "import sys, importlib.metadata as m; print(m.version(sys.argv[1]))"


def tested(name: str, folder: Path) -> bool:
    """Whether the tests pass, which also run the program of docs/integrations.md."""
    start, python = time.monotonic(), folder / "bin" / "python"
    venv.create(folder, with_pip=True)
    install = ("-m", "pip", "install", "--quiet", str(ROOT), PACKAGES[name], "hypothesis", "pytest", "pytest-xdist")
    subprocess.run([str(python), *install], check=True)
    version = subprocess.run([str(python), "-c", VERSION, PACKAGES[name]], capture_output=True, text=True, check=True)
    tests = ("-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", f"tests/integrations/test_{name}.py")
    done = subprocess.run([str(python), *tests], cwd=ROOT, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    if done.returncode != 0:
        print(done.stdout, done.stderr)
    print(f"{PACKAGES[name]} {version.stdout.strip()}: {lines[-1]} ({time.monotonic() - start:.0f} s)", flush=True)
    return done.returncode == 0


def main() -> int:
    names = sys.argv[1:] or list(PACKAGES)
    if unknown := set(names) - set(PACKAGES):
        print(f"No integration {', '.join(sorted(unknown))}; there are {', '.join(PACKAGES)}.")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        return sum(not tested(name, Path(folder, name)) for name in names)


if __name__ == "__main__":
    sys.exit(main())
