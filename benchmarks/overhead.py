"""What does OpenBook cost besides the model: to open a knowledge base, to answer, and to add one document?

    python -m benchmarks.overhead [--documents 1000] [--passages 1] [--runs 30]

Makes a knowledge base of generated documents with a fake model and a fake embedder (`openbook.testing`), so that what is
measured is neither reading nor embedding. A document has `--passages` passages. Prints medians in milliseconds with the
least and the most, and as its last line one JSON document.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from openbook.answers.ask import ask
from openbook.answers.retrieval import Corpus
from openbook.knowledge import KnowledgeBase, add
from openbook.testing import HashEmbedder, echo_model

_WORDS = "copper granite harbour lighthouse ferry ticket winter garden engine river market letter violin bridge".split()


def text(number: int, passages: int) -> str:
    chance = random.Random(number)
    paragraphs = (
        f"Number {number} part {part} is made of {chance.choice(_WORDS)}. It costs {number + 7} euros. "
        + " ".join(chance.choices(_WORDS, k=110)).capitalize()
        for part in range(passages)
    )
    return f"# Part {number}\n\n" + ".\n\n".join(paragraphs) + ".\n"


def milliseconds(work: Callable[[int], object], runs: int) -> list[float]:
    times: list[float] = []
    for run in range(runs):
        started = time.perf_counter()
        work(run)
        times.append((time.perf_counter() - started) * 1000)
    return times


def measure(folder: Path, documents: int, passages: int, runs: int) -> dict[str, list[float]]:
    docs, embedder, model = folder / "docs", HashEmbedder(), echo_model()
    docs.mkdir(parents=True)
    for number in range(documents):
        (docs / f"{number}.md").write_text(text(number, passages))
    more = [folder / f"more-{number}.md" for number in range(2 * runs)]
    for number, path in enumerate(more):
        path.write_text(text(documents + number, passages))
    with closing(KnowledgeBase.ensure(folder / "kb", embedder.identity)) as base:
        add(base, [docs], embedder)
        print(f"{documents:,} documents, {base.status().passages:,} passages")
    results: dict[str, list[float]] = {}
    results["open"] = milliseconds(lambda _: KnowledgeBase.open(folder / "kb").close(), runs)
    with closing(KnowledgeBase.open(folder / "kb")) as base:

        def question(run: int) -> str:
            return f"What is number {run * 7} part 0 made of?"

        corpus = Corpus(base, embedder)
        ask(question(0), model, corpus)
        results["search"] = milliseconds(lambda run: base.search(question(run), embedder, windows=True), runs)
        results["answer"] = milliseconds(lambda run: ask(question(run), model, corpus), runs)
        results["add one document"] = milliseconds(lambda run: add(base, more[run : run + 1], embedder), runs)
        results["its first search"] = []
        for each in more[runs:]:
            add(base, [each], embedder)
            results["its first search"] += milliseconds(lambda _: base.search(question(1), embedder), 1)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--passages", type=int, default=1)
    parser.add_argument("--runs", type=int, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        results = measure(Path(name), options.documents, options.passages, options.runs)
    for what, times in results.items():
        print(f"{what:<20}{statistics.median(times):>9.1f} ms  ({min(times):.1f} to {max(times):.1f})")
    medians = {what: round(statistics.median(times), 1) for what, times in results.items()}
    print(json.dumps({"documents": options.documents, "passages": options.passages, "runs": options.runs, **medians}))


if __name__ == "__main__":
    main()
