"""How large is the house, and how long is the way of a question through it?

Counts lines of source and tests; the floors of each package (the longest chain of imports between its modules, those inside functions
too; a circle counts as one floor); the parameters of `openbook.answers.ask.ask`; and the modules and functions of the package that one cold
question passes through, from `openbook.open` to the answer.

    python -m benchmarks.house            with fakes, which take no time
    python -m benchmarks.house --real     with the default model
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import sys
import tempfile
import threading
from collections import defaultdict
from pathlib import Path
from types import FrameType
from typing import Any

import grimp

import openbook
from openbook.answers.ask import ask
from openbook.testing import HashEmbedder, echo_model

ROOT = Path(__file__).resolve().parent.parent
QUESTION = "Who signs travel expenses?"


def lines_below(folder: Path) -> int:
    return sum(len(path.read_bytes().splitlines()) for path in folder.rglob("*.py"))


def floors() -> dict[str, int]:
    """By package of `openbook`: how many modules stand on each other at the most."""
    graph = grimp.build_graph("openbook")
    found = {}
    for package in sorted(graph.find_children("openbook")):
        inside = sorted({package, *graph.find_descendants(package)})
        below = {module: graph.find_modules_directly_imported_by(module) & {*inside} for module in inside}
        if len(inside) > 1:
            found[package.removeprefix("openbook.")] = longest_chain(below)
    return found


def longest_chain(below: dict[str, set[str]]) -> int:
    circles = {
        module: {other for other in reached(module, below) if module in reached(other, below)} | {module}
        for module in below
    }
    height: dict[frozenset[str], int] = {}

    def height_of(circle: frozenset[str]) -> int:
        if circle not in height:
            others = {frozenset(circles[other]) for module in circle for other in below[module]} - {circle}
            height[circle] = 1 + max(map(height_of, others), default=0)
        return height[circle]

    return max(height_of(frozenset(circle)) for circle in circles.values())


def reached(module: str, below: dict[str, set[str]]) -> set[str]:
    found, waiting = set[str](), [module]
    while waiting:
        waiting += (new := below[waiting.pop()] - found)
        found |= new
    return found


def way_of_ask(*, real: bool) -> dict[str, int]:
    """Modules and functions of the package that run, fakes not counted."""
    passed: dict[str, set[str]] = defaultdict(set)
    package = str(Path(openbook.__file__).parent) + os.sep

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(package) and code.co_name[0] != "<":
            module = code.co_filename.removeprefix(package)
            if not module.startswith("testing"):
                passed[module].add(code.co_qualname)

    with tempfile.TemporaryDirectory() as folder:
        docs = Path(folder) / "docs"
        docs.mkdir()
        (docs / "travel.md").write_text("Travel expenses are signed by the head of unit.")
        fakes: dict[str, Any] = {} if real else {"model": echo_model(), "embedder": HashEmbedder()}
        with openbook.open(Path(folder) / "kb", **fakes) as kb:
            kb.sync(docs)
        with openbook.open(Path(folder) / "kb", **fakes) as kb:
            threading.setprofile(note)  # of threads that start now, such as the one that opens the model
            sys.setprofile(note)
            kb.ask(QUESTION)
            sys.setprofile(None)
            threading.setprofile(None)
    return {"modules": len(passed), "functions": sum(map(len, passed.values()))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", action="store_true")
    options = parser.parse_args()
    found = {
        "source_lines": lines_below(ROOT / "openbook"),
        "test_lines": lines_below(ROOT / "tests"),
        "floors": floors(),
        "parameters_of_ask": len(inspect.signature(ask).parameters),
        "way_of_ask": way_of_ask(real=options.real),
    }
    for name, value in found.items():
        print(f"{name:<20} {value}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
