"""A knowledge base of 100,000 passages on a budget: what does an answer cost, and is the budget kept?

    python -m benchmarks.large_base --texts DIR [--passages 100000] [--questions 300] [--disk-mb 1024]

DIR: a folder of text files, for instance the source of the Python and Django documentation. They are added with a number
in each copy until there are enough passages, by the hash embedder of `openbook.testing` (what is measured is reading).
Questions are first words of passages drawn by chance, three quarters of them from one passage in fifty: as in use, some
are asked about again and again. Prints the seconds of an answer, how large the kept states grew, and peak memory.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import tempfile
from contextlib import closing
from pathlib import Path

from benchmarks.stored import opened
from openbook.answers.ask import ask
from openbook.answers.retrieval import Corpus, Options
from openbook.inference.kv_cache import KVCache
from openbook.knowledge import KnowledgeBase, add
from openbook.testing import HashEmbedder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--disk-mb", type=int, default=1024)
    options = parser.parse_args()
    embedder = HashEmbedder(dimensions=384)
    with tempfile.TemporaryDirectory() as folder:
        base, texts = large_base(Path(folder), options.texts, options.passages, embedder)
        asked = questions(texts, options.questions)
        states = KVCache(Path(folder) / "states", memory_bytes=256 << 20, disk_bytes=options.disk_mb << 20)
        largest, times = 0, []
        with closing(opened("reader", states)) as model:
            for question in asked:
                answer = ask(question, model, Corpus(base, embedder), Options(min_similarity=-1.0))
                assert answer.timings is not None
                times.append(answer.timings.total_s)
                largest = max(largest, states.kept().bytes)
        kept, passages = states.kept(), base.status().passages
        base.close()
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    half = len(times) // 2
    first, second = statistics.median(times[:half]), statistics.median(times[half:])
    print(
        f"{passages:,} passages, {len(times)} answers: median {first:.2f} s in the first half, {second:.2f} s in the second; "
        f"states at most {largest / 1e6:,.0f} MB of {options.disk_mb:,} MiB ({kept.states:,} at the end); "
        f"peak memory {peak_mb:,.0f} MB"
    )
    print(json.dumps({"passages": passages, "times_s": times, "largest_bytes": largest, "peak_mb": peak_mb}))


def large_base(
    folder: Path, source: Path, count: int, embedder: HashEmbedder
) -> tuple[KnowledgeBase, list[tuple[str, ...]]]:
    """The knowledge base, and the words of some of its texts."""
    base = KnowledgeBase.ensure(folder / "kb", embedder.identity)
    files = sorted(path for path in source.rglob("*") if path.is_file())
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in files]
    copies = folder / "copies"
    number = 0
    while base.status().passages < count:
        round_folder = copies / str(number)
        round_folder.mkdir(parents=True)
        for name, text in enumerate(texts):
            paragraphs = (f"{part} ({number}.{name})" for part in text.split("\n\n") if part.strip())
            (round_folder / f"{name}.txt").write_text("\n\n".join(paragraphs), encoding="utf-8")
        add(base, [round_folder], embedder)
        number += 1
    return base, [tuple(part.split()) for text in texts for part in text.split("\n\n") if len(part.split()) > 12]


def questions(texts: list[tuple[str, ...]], count: int) -> list[str]:
    chance = random.Random(9)
    often = chance.sample(texts, max(1, len(texts) // 50))
    drawn = [chance.choice(often if chance.random() < 0.75 else texts) for _ in range(count)]
    return [f"What is said of {' '.join(words[:8])}?" for words in drawn]


if __name__ == "__main__":
    main()
