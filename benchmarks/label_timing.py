"""Does a guess of a passage answer sooner because somebody with another label has read that passage?

    python -m benchmarks.label_timing [--pairs 16]

The default reader reads documents (paragraphs of its training data), half of them under the label hr, half open. Then a caller
without labels uploads, under the names that those have, a guess of each closed one, a copy of each open one, and a text that
nobody has read, and asks each a question. How long does the reader take, and how many guesses are answered sooner than the text
that nobody has read? The copy shows what a guess would gain if what was computed were shared across labels. The last line is
one JSON document.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from contextlib import closing
from pathlib import Path

from benchmarks.first_token import POOL, pool
from benchmarks.stored import default_embedder, stored
from openbook.answer import Options, ask
from openbook.inference import load_model
from openbook.inference.kv_cache import KVCache
from openbook.knowledge import KnowledgeBase, RunOptions, Scope, add
from openbook.records import Decoding

ONE = Options(passages=1, decoding=Decoding(max_tokens=1), min_similarity=-1.0)
SOONER = 0.7  # of the time of a text that nobody has read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=16)
    options = parser.parse_args()
    reference = stored("reader")
    texts = [text for _, text in pool(reference, max(POOL, 3 * options.pairs))[0]]
    closed, open_, unread = (texts[i::3][: options.pairs] for i in range(3))
    embedder = default_embedder()
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(load_model(reference, states=KVCache(memory_bytes=4 << 30))) as model,
    ):
        base = KnowledgeBase.ensure(Path(folder) / "kb", embedder.identity)

        def read(place: str, number: int, text: str, label: str = "") -> float:
            """Add a document and ask it: seconds until the reader has read it and says one token, or that it declines."""
            path = Path(folder) / place / f"{number}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
            labels = frozenset({label} if label else ())
            add(base, [path], embedder, RunOptions(labels=labels))
            scope = Scope(where=f"path = '{path}'", labels=labels)
            answer = ask("What is this about?", model, base, embedder, ONE, scope=scope)
            assert answer.passages
            assert answer.timings is not None
            return answer.timings.read_s

        for number in range(options.pairs):
            read("closed", number, closed[number], "hr")
            read("open", number, open_[number])
        rows = [
            {
                "guess of a closed one": read("guess", number, closed[number]),
                "text that nobody has read": read("unread", number, unread[number]),
                "copy of an open one": read("copy", number, open_[number]),
            }
            for number in range(options.pairs)
        ]
    print(f"{'':28}{'median':>10}{'min':>10}{'max':>10}   sooner than a text that nobody has read")
    counts = {}
    for name in rows[0]:
        times = [row[name] for row in rows]
        counts[name] = sum(row[name] < SOONER * row["text that nobody has read"] for row in rows)
        milliseconds = (1000 * value for value in (statistics.median(times), min(times), max(times)))
        print(
            f"{name:28}" + "".join(f"{value:7.0f} ms" for value in milliseconds) + f"   {counts[name]} of {len(rows)}"
        )
    value = {"question": "does a guess answer sooner", "pairs": len(rows), "sooner": counts, "seconds": rows}
    print(json.dumps(value))


if __name__ == "__main__":
    main()
