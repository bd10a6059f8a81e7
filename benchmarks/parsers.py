"""Which library turns documents into text best, by format: OpenBook's parsers or others?

    python -m benchmarks.parsers DATA [--only openbook,calamine] [--half choose|report]

DATA holds `docs_docling`, `docs_markitdown`, `docs_haystack` and `debian_docs_multiformat`. The files are split in two by a
hash of their names: what to use is chosen on `choose`, and figures for others come from `report`. A contender that is not
installed is left out with a line. Each parses in this process, one file after the other.

* similarity: normalised Indel similarity of word sequences, 2 * LCS / (words expected + words read), after the same
  removal of markup for all (what `rapidfuzz.distance.Indel` calls normalized_similarity). A failure counts as 0.
* found: the share of the expected words that the text read holds, in whatever order.

Both are means over files, with a 95 % bootstrap interval. The expected Markdown of `docs_docling` is Docling's own output,
checked by its authors: its choices (formulas as LaTeX, tables repeating merged cells, no notes) count against everybody.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import statistics
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

from benchmarks.contender_data import interval

FORMATS = (".docx", ".pptx", ".xlsx", ".odt", ".odp", ".ods", ".epub", ".html", ".pdf")
Parse = Callable[[Path], str]


# --- the contenders ---------------------------------------------------------------------------------------------------


def _openbook() -> Parse:
    parse_bytes = import_module("openbook.parsers").parse_bytes
    return lambda path: str(parse_bytes(path.read_bytes(), path.name).text)


def _mammoth() -> Parse:
    library, parse_page = import_module("mammoth"), import_module("openbook.parsers.formats.html").parse_page
    return lambda path: str(parse_page(library.convert_to_html(BytesIO(path.read_bytes())).value).text)


def _markdownify() -> Parse:
    convert, soup = import_module("markdownify").MarkdownConverter, import_module("bs4").BeautifulSoup

    def parse(path: Path) -> str:
        page = soup(path.read_bytes(), "lxml")
        for tag in page(["script", "style", "nav", "noscript", "template", "title", "button", "select", "svg"]):
            tag.decompose()
        return str(convert(heading_style="ATX").convert_soup(page))

    return parse


def _selectolax() -> Parse:
    library = import_module("selectolax.lexbor")

    def parse(path: Path) -> str:
        page = library.LexborHTMLParser(path.read_bytes())
        page.strip_tags(["script", "style", "nav", "noscript", "template", "title"])
        return str(page.body.text(separator="\n", strip=True))

    return parse


def _markitdown() -> Parse:
    converter = import_module("markitdown").MarkItDown()
    return lambda path: str(converter.convert(str(path)).text_content)


def _kreuzberg() -> Parse:
    library = import_module("kreuzberg")
    return lambda path: str(library.extract_file_sync(str(path)).content)


CONTENDERS: dict[str, tuple[Callable[[], Parse], tuple[str, ...]]] = {
    "openbook": (_openbook, FORMATS),
    "mammoth": (_mammoth, (".docx",)),
    "markdownify": (_markdownify, (".html",)),
    "selectolax": (_selectolax, (".html",)),
    "markitdown": (_markitdown, (".docx", ".pptx", ".xlsx", ".epub", ".html", ".pdf")),
    "kreuzberg": (_kreuzberg, FORMATS),
}


# --- the files --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Case:
    path: Path
    expected: str

    @property
    def half(self) -> str:
        return "report" if hashlib.sha256(self.path.name.encode()).digest()[0] % 2 else "choose"


def find_cases(data: Path) -> Iterator[Case]:
    for path in sorted((data / "docs_docling" / "files").glob("*/sources/*")):
        truths = [path.parents[1] / "groundtruth" / f"{stem}.md" for stem in (path.name, path.stem)]
        truth = next((truth for truth in truths if truth.is_file()), None)
        if path.suffix in FORMATS and truth:
            yield Case(path, truth.read_text(encoding="utf-8"))
    for path in sorted((data / "docs_markitdown" / "files").glob("*.pdf")):
        truth = path.parent / "expected_outputs" / f"{path.stem}.md"
        if "_scan" not in path.name and truth.is_file():
            yield Case(path, truth.read_text(encoding="utf-8"))
    manual = data / "debian_docs_multiformat" / "policy"
    for kind in ("epub", "pdf"):
        yield Case(manual / f"policy.{kind}", (manual / "policy.txt").read_text(encoding="utf-8"))


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


def measure(name: str, parse: Parse, suffix: str, cases: Sequence[Case]) -> dict[str, Any]:
    scores, shares, times, failures = [], [], [], {}
    for case in cases:
        began = time.perf_counter()
        try:
            text = parse(case.path)
        except Exception as error:  # noqa: BLE001  whatever a library raises, it failed on this file
            text, failures[case.path.name] = "", f"{type(error).__name__}: {error}"[:200]
        times.append(1000 * (time.perf_counter() - began))
        expected, read = words(case.expected), words(text)
        scores.append(similarity(expected, read))
        shares.append(found(expected, read))
    by_file = {case.path.name: round(score, 4) for case, score in zip(cases, scores, strict=True)}
    return {
        "contender": name, "format": suffix, "files": len(cases), "similarity": statistics.fmean(scores),
        "interval": interval(scores)[1:], "found": statistics.fmean(shares), "median_ms": statistics.median(times),
        "failures": failures, "by_file": by_file,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", default=",".join(CONTENDERS))
    parser.add_argument("--half", choices=("choose", "report"), default="report")
    options = parser.parse_args()
    cases = [case for case in find_cases(options.data) if case.half == options.half]
    entries = []
    print(
        "| format | contender | files | similarity [95 %] | words found | median ms | failures |\n|---|---|--:|---|--:|--:|--:|"
    )
    for name in options.only.split(","):
        start, formats = CONTENDERS[name]
        try:
            parse = start()
        except ImportError as error:
            print(f"{name}: left out ({error})")
            continue
        for suffix in formats:
            if mine := [case for case in cases if case.path.suffix == suffix]:
                entry = measure(name, parse, suffix, mine)
                entries.append(entry)
                low, high = entry["interval"]
                print(
                    f"| {suffix} | {name} | {len(mine)} | {entry['similarity']:.3f} [{low:.3f}, {high:.3f}] "
                    f"| {entry['found']:.3f} | {entry['median_ms']:.0f} | {len(entry['failures'])} |",
                    flush=True,
                )
    print(json.dumps({"benchmark": "parsers", "half": options.half, "entries": entries}))


if __name__ == "__main__":
    main()
