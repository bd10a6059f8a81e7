"""Which library turns documents into text best, by format: OpenBook's own readers or others, at what price?

    python benchmarks/readers.py DATA [--python markitdown=VENV/bin/python ...] [--only openbook,markitdown]

DATA holds `docs_docling`, `docs_markitdown`, `docs_haystack` and `debian_docs_multiformat`. Each contender runs in a
process of its own (with OpenBook's Python unless `--python` names another), is given one file after the other, and is
left out with a line when it is not installed there. Start-up and import count once and are shown apart.

Measures, by format:

* similarity: normalised Indel similarity of word sequences, 2 * LCS / (words expected + words read), after the same
  removal of markup for all (what `rapidfuzz.distance.Indel` calls normalized_similarity). A failure counts as 0.
* found: the share of the expected words that the text read holds, in whatever order.

Both are means over files, with a 95 % bootstrap interval. The expected Markdown of `docs_docling` is Docling's own
output, checked by its authors: Docling is no neutral contender there, and its choices (formulas as LaTeX, tables
repeating merged cells, no notes) count against everybody else.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import select
import statistics
import subprocess
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import IO, Any

FILE_TIMEOUT_S = 60.0
START_TIMEOUT_S = 180.0
OFFICE = (".docx", ".pptx", ".xlsx")
ALL = (*OFFICE, ".odt", ".odp", ".ods", ".epub", ".html", ".pdf")


# --- the contenders: run in their own process, by `--serve NAME` ------------------------------------------------------


def _openbook() -> Callable[[Path], str]:
    parse_bytes = import_module("openbook.parsers").parse_bytes
    return lambda path: str(parse_bytes(path.read_bytes(), path.name).text)


def _markitdown() -> Callable[[Path], str]:
    converter = import_module("markitdown").MarkItDown()
    return lambda path: str(converter.convert(str(path)).text_content)


def _kreuzberg() -> Callable[[Path], str]:
    library = import_module("kreuzberg")
    return lambda path: str(library.extract_file_sync(str(path)).content)


def _unstructured() -> Callable[[Path], str]:
    library = import_module("unstructured.partition.auto")
    return lambda path: "\n\n".join(str(element) for element in library.partition(str(path)))


def _docling() -> Callable[[Path], str]:
    converter = import_module("docling.document_converter").DocumentConverter()
    return lambda path: str(converter.convert(path).document.export_to_markdown())


def _pypdf() -> Callable[[Path], str]:
    library = import_module("pypdf")
    return lambda path: "\n\n".join(page.extract_text() for page in library.PdfReader(path).pages)


def _pdfminer() -> Callable[[Path], str]:
    library = import_module("pdfminer.high_level")
    return lambda path: str(library.extract_text(str(path)))


def _pypdfium2() -> Callable[[Path], str]:
    library = import_module("pypdfium2")
    return lambda path: "\n\n".join(page.get_textpage().get_text_range() for page in library.PdfDocument(path))


def _pymupdf() -> Callable[[Path], str]:
    library = import_module("pymupdf")
    return lambda path: "\n\n".join(page.get_text() for page in library.open(path))


@dataclass(frozen=True, slots=True)
class Contender:
    start: Callable[[], Callable[[Path], str]]
    formats: tuple[str, ...]
    packages: tuple[str, ...]  # what a user would install, with what it needs, for these formats
    licence: str


CONTENDERS = {
    "openbook": Contender(_openbook, ALL, ("lxml", "pypdfium2", "olefile", "PyYAML", "numpy"), "Apache-2.0"),
    "markitdown": Contender(
        _markitdown,
        (*OFFICE, ".epub", ".html", ".pdf"),
        ("markitdown", "mammoth", "python-pptx", "pandas", "openpyxl", "lxml", "pdfminer.six", "pdfplumber"),
        "MIT",
    ),
    "kreuzberg": Contender(_kreuzberg, ALL, ("kreuzberg",), "MIT"),
    "unstructured": Contender(
        _unstructured, (*OFFICE, ".html"), ("unstructured", "python-docx", "python-pptx", "openpyxl"), "Apache-2.0"
    ),
    "docling": Contender(_docling, ALL, ("docling",), "MIT"),
    "pypdf": Contender(_pypdf, (".pdf",), ("pypdf",), "BSD-3-Clause"),
    "pdfminer.six": Contender(_pdfminer, (".pdf",), ("pdfminer.six",), "MIT"),
    "pypdfium2": Contender(_pypdfium2, (".pdf",), ("pypdfium2",), "BSD-3-Clause / Apache-2.0"),
    "pymupdf": Contender(_pymupdf, (".pdf",), ("pymupdf",), "AGPL-3.0"),
}


def serve(name: str) -> None:
    """One JSON line for each path on standard input; before the first, what starting took."""
    import os

    answers = os.fdopen(os.dup(1), "w")  # whatever a library prints must not look like an answer
    os.dup2(2, 1)
    contender = CONTENDERS[name]
    began = time.perf_counter()
    try:
        read = contender.start()
    except ImportError as error:
        print(json.dumps({"missing": str(error)}), file=answers, flush=True)
        return
    start_s = time.perf_counter() - began
    print(json.dumps({"start_s": start_s, "install_mb": _install_mb(contender.packages)}), file=answers, flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        answer: dict[str, Any] = {}
        try:
            answer["text"] = read(Path(json.loads(line)))
        except Exception as error:  # noqa: BLE001 (whatever a library raises, it failed on this file)
            answer["error"] = f"{type(error).__name__}: {error}"[:200]
        answer |= {"seconds": time.perf_counter() - began, "peak_mb": _peak_mb()}
        print(json.dumps(answer), file=answers, flush=True)


def _peak_mb() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _install_mb(packages: Sequence[str]) -> float:
    """Megabytes on disk of the packages and all they need, as installed here."""
    from importlib import metadata

    waiting, seen, total = list(packages), set[str](), 0
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        for file in distribution.files or ():
            path = Path(str(file.locate()))
            total += path.stat().st_size if path.is_file() else 0
        needs = [need for need in distribution.requires or () if "extra ==" not in need]
        waiting += [found[0] for need in needs if (found := re.match(r"[\w.-]+", need))]
    return total / 1e6


# --- the files --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Case:
    """A file and the text expected of it; `None` where nobody wrote it down: only failures and time count."""

    path: Path
    group: str
    expected: str | None = None


def find_cases(data: Path) -> list[Case]:
    cases = [*_docling_cases(data / "docs_docling" / "files"), *_markitdown_cases(data / "docs_markitdown" / "files")]
    haystack = sorted((data / "docs_haystack" / "files").rglob("*"))
    cases += [Case(path, path.suffix) for path in haystack if path.suffix in ALL and "non_text" not in path.name]
    manual = data / "debian_docs_multiformat"
    expected = (manual / "policy" / "policy.txt").read_text(encoding="utf-8")
    cases += [Case(manual / "policy" / f"policy.{kind}", f"manual .{kind}", expected) for kind in ("epub", "pdf")]
    return cases


def _docling_cases(files: Path) -> list[Case]:
    cases = []
    for path in sorted(files.glob("*/sources/*")):
        truths = [path.parents[1] / "groundtruth" / f"{stem}.md" for stem in (path.name, path.stem)]
        truth = next((truth for truth in truths if truth.is_file()), None)
        if path.suffix in ALL and truth:
            cases.append(Case(path, path.suffix, truth.read_text(encoding="utf-8")))
    return cases


def _markitdown_cases(files: Path) -> list[Case]:
    cases = []
    for path in sorted(files.glob("*")):
        truth = files / "expected_outputs" / f"{path.stem}.md"
        if path.suffix in ALL and "_scan" not in path.name:
            expected = truth.read_text(encoding="utf-8") if path.suffix == ".pdf" and truth.is_file() else None
            cases.append(Case(path, path.suffix, expected))
    return cases


# --- running ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Result:
    name: str
    start_s: float = 0.0
    install_mb: float = 0.0
    peak_mb: float = 0.0
    answers: dict[Path, dict[str, Any]] = field(default_factory=dict)


class _Process:
    def __init__(self, name: str, python: str) -> None:
        command = [python, str(Path(__file__).resolve()), "--serve", name]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.first = self._answer(START_TIMEOUT_S)

    def ask(self, path: Path) -> dict[str, Any]:
        stdin = self._process.stdin
        assert stdin is not None
        try:
            print(json.dumps(str(path)), file=stdin, flush=True)
        except BrokenPipeError:
            return {"error": "the process ended"}
        return self._answer(FILE_TIMEOUT_S)

    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        stdout: IO[str] | None = self._process.stdout
        assert stdout is not None
        ready, _, _ = select.select([stdout], [], [], timeout_s)
        line = stdout.readline() if ready else ""
        if not line:
            self._process.kill()
            return {"error": "the process ended" if ready else f"took longer than {timeout_s:g} s"}
        answer: dict[str, Any] = json.loads(line)
        return answer


def run(name: str, python: str, cases: Sequence[Case]) -> Result | str:
    """The result of one contender, or why there is none."""
    process = _Process(name, python)
    try:
        if "start_s" not in process.first:
            return str(process.first.get("missing") or process.first.get("error"))
        result = Result(name, process.first["start_s"], process.first["install_mb"])
        for case in cases:
            if case.path.suffix not in CONTENDERS[name].formats:
                continue
            if not process.alive():
                process.close()
                process = _Process(name, python)
            answer = process.ask(case.path)
            result.peak_mb = max(result.peak_mb, answer.get("peak_mb", 0.0))
            result.answers[case.path] = answer
        return result
    finally:
        process.close()


# --- measuring --------------------------------------------------------------------------------------------------------


def words(text: str) -> list[str]:
    """Words without markup: comments, link targets, table rules, escapes, emphasis, LaTeX braces and HTML entities."""
    text = re.sub(r"<!--.*?-->|&(?:lt|gt|amp|nbsp);|</?[a-zA-Z][^<>]{0,500}>", " ", text, flags=re.S)
    text = re.sub(r"!?\[([^\[\]]{0,500})\]\([^()\s]{0,2000}[^()]{0,200}\)", r"\1", text)
    text = re.sub(r"\\([^\w\s])", r"\1", text)
    return re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text).lower())


def similarity(expected: Sequence[str], read: Sequence[str]) -> float:
    """2 * LCS / (lengths), by the bit-parallel algorithm of Hyyrö (2004) on Python's long integers."""
    if not expected or not read:
        return float(not expected and not read)
    places: dict[str, int] = {}
    for number, word in enumerate(expected):
        places[word] = places.get(word, 0) | 1 << number
    mask = (1 << len(expected)) - 1
    row = mask
    for word in read:
        match = row & places.get(word, 0)
        row = ((row + match) | (row - match)) & mask
    common = len(expected) - row.bit_count()
    return 2 * common / (len(expected) + len(read))


def found(expected: Sequence[str], read: Sequence[str]) -> float:
    both = Counter(expected) & Counter(read)
    return both.total() / len(expected) if expected else 1.0


def interval(values: Sequence[float], rounds: int = 2000) -> tuple[float, float]:
    """The middle 95 % of the means of resamples."""
    source = random.Random(0)
    means = sorted(statistics.fmean(source.choices(values, k=len(values))) for _ in range(rounds))
    return means[rounds // 40], means[-rounds // 40 - 1]


def measure(result: Result, cases: Sequence[Case]) -> list[dict[str, Any]]:
    """One entry for each group of files that the contender takes."""
    entries = []
    for group in dict.fromkeys(case.group for case in cases):
        mine = [case for case in cases if case.group == group and case.path in result.answers]
        if not mine:
            continue
        answers = [result.answers[case.path] for case in mine]
        rated = [case for case in mine if case.expected is not None]
        pairs = [(words(case.expected or ""), words(result.answers[case.path].get("text", ""))) for case in rated]
        entry: dict[str, Any] = {"contender": result.name, "group": group, "files": len(mine), "rated": len(rated)}
        if pairs:
            scores = [similarity(*pair) for pair in pairs]
            entry |= {"similarity": statistics.fmean(scores), "interval": interval(scores)}
            entry |= {"found": statistics.fmean(found(*pair) for pair in pairs)}
            entry["by_file"] = {case.path.name: round(score, 4) for case, score in zip(rated, scores, strict=True)}
        entry["ms"] = 1000 * statistics.fmean(answer.get("seconds", FILE_TIMEOUT_S) for answer in answers)
        entry["failures"] = {
            case.path.name: answer["error"] for case, answer in zip(mine, answers, strict=True) if "error" in answer
        }
        entries.append(entry)
    return entries


# --- telling ----------------------------------------------------------------------------------------------------------


def _table(entries: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| format | contender | files (rated) | similarity [95 %] | words found | ms a file | failures |",
        "|---|---|---|---|---|---|---|",
    ]
    for group in dict.fromkeys(entry["group"] for entry in entries):
        mine = [entry for entry in entries if entry["group"] == group]
        for entry in sorted(mine, key=lambda entry: -entry.get("similarity", 0.0)):
            score = "no data"
            if "similarity" in entry:
                low, high = entry["interval"]
                score = f"{entry['similarity']:.3f} [{low:.3f}, {high:.3f}]"
            words_found = f"{entry['found']:.3f}" if "found" in entry else "no data"
            lines.append(
                f"| {group} | {entry['contender']} | {entry['files']} ({entry['rated']}) | {score} | {words_found} "
                f"| {entry['ms']:.1f} | {len(entry['failures'])} |"
            )
    return "\n".join(lines)


def _prices(results: Sequence[Result]) -> str:
    lines = ["| contender | start s | peak MB | installed MB | licence |", "|---|---|---|---|---|"]
    for result in results:
        licence = CONTENDERS[result.name].licence
        lines.append(
            f"| {result.name} | {result.start_s:.2f} | {result.peak_mb:.0f} | {result.install_mb:.0f} | {licence} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--only", default=",".join(CONTENDERS))
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    if options.data is None or not options.data.is_dir():
        parser.error("name the folder of the documents")
    pythons = dict(pair.split("=", 1) for pair in options.python)
    cases = find_cases(options.data)
    results, entries = [], []
    for name in options.only.split(","):
        result = run(name, pythons.get(name, sys.executable), cases)
        if isinstance(result, str):
            print(f"{name}: left out ({result})")
            continue
        results.append(result)
        entries += measure(result, cases)
    print(_table(entries), _prices(results), sep="\n\n")
    print(json.dumps({"benchmark": "readers", "entries": entries}))


if __name__ == "__main__":
    main()
