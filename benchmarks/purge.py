"""Does the purge of one document among many change any other answer, and what does it take?

    python benchmarks/purge.py FOLDER [--documents 10000] [--queries 300]

Documents are pieces of 450 to 900 characters of the texts in FOLDER. Ten are purged, one after the other, and before and
after each the same queries are asked: eight words in a row from some document. Nothing of a purged document may be found,
and the others must be found as before. BM25 counts documents, so scores change as if the purged ones had never been
there: at the end, passages and scores must equal those of a new knowledge base made without them, to the last bit. The
last line is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.stored import default_embedder
from openbook.core.records import Embedder, Hit
from openbook.knowledge import KnowledgeBase, purge, sync

PURGES = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=300)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        print(json.dumps(run(options.folder, Path(work), options.documents, options.queries)))


def run(source: Path, work: Path, documents: int, queries: int) -> dict[str, object]:
    chance = random.Random(1)
    docs = work / "docs"
    docs.mkdir()
    pieces = list(_pieces(source))
    chosen = chance.sample(pieces, min(documents, len(pieces)))
    for number, piece in enumerate(chosen):
        (docs / f"{number:05}.txt").write_text(piece, encoding="utf-8")
    embedder = default_embedder()
    base = KnowledgeBase.ensure(work / "kb", embedder.identity)
    sync(base, docs, embedder)
    asked = [_query(chance.choice(chosen), chance) for _ in range(queries)]
    gone: set[str] = set()
    seconds, scanned = [], 0
    changed = 0
    for victim in chance.sample(sorted(docs.iterdir()), PURGES):
        before = _answers(base, embedder, asked)
        started = time.perf_counter()
        scanned = purge(base, [str(victim)]).bytes
        seconds.append(time.perf_counter() - started)
        victim.unlink()
        gone.add(str(victim))
        after = _answers(base, embedder, asked)
        changed += sum(
            _known(old, gone) != _known(new, gone)[: len(_known(old, gone))]
            for old, new in zip(before, after, strict=True)
        )
        assert not any(hit.passage.document in gone for hits in after for hit in hits)
    fresh = KnowledgeBase.ensure(work / "fresh", embedder.identity)
    sync(fresh, docs, embedder)
    ours, theirs = (_answers(each, embedder, asked) for each in (base, fresh))
    differ = sum(_scores(a) != _scores(b) for a, b in zip(ours, theirs, strict=True))
    return {
        "documents": len(chosen),
        "passages": fresh.status().passages,
        "purges": PURGES,
        "purge_s": round(statistics.median(seconds), 2),
        "scanned_mb": round(scanned / 1e6, 1),
        "answers_compared": PURGES * queries,
        "answers_with_other_passages": changed,
        "answers_unlike_a_fresh_knowledge_base": differ,
    }


def _pieces(source: Path) -> Iterator[str]:
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        text = path.read_text(encoding="utf-8", errors="ignore")
        at = 0
        while len(text) - at > 900:
            end = text.find("\n", at + 450, at + 900)
            end = end if end > 0 else at + 900
            yield text[at:end]
            at = end


def _query(piece: str, chance: random.Random) -> str:
    words = piece.split()
    at = chance.randrange(max(len(words) - 8, 1))
    return " ".join(words[at : at + 8])


def _answers(base: KnowledgeBase, embedder: Embedder, asked: Sequence[str]) -> list[list[Hit]]:
    return [base.search(question, embedder, 10)[1] for question in asked]


def _known(hits: Sequence[Hit], gone: set[str]) -> list[str]:
    return [hit.passage.id for hit in hits if hit.passage.document not in gone]


def _scores(hits: Sequence[Hit]) -> list[tuple[str, float]]:
    return [(hit.passage.id, hit.score) for hit in hits]


if __name__ == "__main__":
    main()
