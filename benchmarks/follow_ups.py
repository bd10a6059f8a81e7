"""A question that refers back: what to ask of the model, and what to search for?

    python -m benchmarks.follow_ups [--model NAME] [--limit N] [--reading FOLDER [--half development|report]]

Each is asked in three ways:

  last message  as it is
  rules         searched for with the two turns before it when it refers back (`conversation.condensed`), read alone
  rewritten     rewritten by the model to stand alone, where that is believed; else by the rules (`conversation.understood`)

On the conversations of `benchmarks/data/follow_ups.jsonl` about the example handbook; of most the last question is elliptic
("And to Sandhavn?"), some change the subject and stand alone. Found: a passage that the gold quote touches is among those
that the retriever gives for one request. Right: an accepted answer stands in the answer. With 95 % Wilson intervals, and how
many questions a way wins and loses against the last message alone.

With `--reading`, on parts of MTRAG in that folder, only turns that the rules take to refer back, of one half of each part
(the prompt was tuned on the other). `mtrag_un_part.jsonl.gz` has passages, all of which make one collection: found says
whether one that the turn was answered from is among the four best. `mtrag_rewrites_part.jsonl.gz` has a reference rewrite:
of the content words that it adds, how many has the query (recall); of the query's, how many has the reference (precision);
the cosine of both; of the four passages of the collection that the reference finds, how many the query finds (overlap).

The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.examples_accuracy import gold_passages, holds, share
from benchmarks.stored import HANDBOOK, default_embedder, opened
from openbook.answer import PASSAGES, ask
from openbook.config import load_settings
from openbook.conversation import FollowUp, condensed, content_words, refers_back, resolve_follow_up
from openbook.inference import FrozenModel
from openbook.inference.kv_cache import KVCache
from openbook.knowledge import KnowledgeBase, add
from openbook.records import Embedder

FILE = Path(__file__).parent / "data" / "follow_ups.jsonl"
LAST = "last message"
BEST = 4
Way: TypeAlias = Callable[[FrozenModel, Sequence[str], str], FollowUp]

WAYS: dict[str, Way] = {
    LAST: lambda model, earlier, question: FollowUp(question, question),
    "rules": lambda model, earlier, question: FollowUp(question, condensed(earlier, question)),
    "rewritten": resolve_follow_up,
}


@dataclass(frozen=True, slots=True)
class Row:
    found: bool
    right: bool
    abstained: bool


@dataclass(frozen=True, slots=True)
class Likeness:
    """`recall` is None where the reference adds no word."""

    recall: float | None
    precision: float
    cosine: float
    overlap: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a stored model (default: that of the settings)")
    parser.add_argument("--limit", type=int, help="only so many conversations of each file")
    parser.add_argument("--reading", type=Path, help="folder with the parts of MTRAG")
    parser.add_argument("--half", choices=("development", "report"), default="report")
    options = parser.parse_args()
    name, embedder = options.model or load_settings().model, default_embedder()
    states = KVCache(None, memory_bytes=1 << 30)
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(opened(name, states)) as model,
        closing(KnowledgeBase.ensure(Path(folder) / "kb", embedder.identity)) as base,
    ):
        if options.reading:
            value = on_mtrag(model, base, embedder, options)
        else:
            value = on_handbook(model, base, embedder, options.limit)
    value = {"question": "what to ask and to search for when a question refers back", "model": name, **value}
    print(json.dumps(value))


# --- the handbook -----------------------------------------------------------------------------------------------------


def on_handbook(model: FrozenModel, base: KnowledgeBase, embedder: Embedder, limit: int | None) -> dict[str, Any]:
    conversations = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()][:limit]
    add(base, [HANDBOOK], embedder)
    rows = {way: [asked(way, each, model, base, embedder) for each in conversations] for way in WAYS}
    kinds = [each["kind"] for each in conversations]
    for kind in dict.fromkeys(kinds):
        show(
            kind, {way: [row for row, k in zip(found, kinds, strict=True) if k == kind] for way, found in rows.items()}
        )
    return {"ways": {way: [[row.found, row.right, row.abstained] for row in found] for way, found in rows.items()}}


def asked(way: str, conversation: dict[str, Any], model: FrozenModel, base: KnowledgeBase, embedder: Embedder) -> Row:
    *earlier, question = conversation["turns"]
    meant = WAYS[way](model, earlier, question)
    answer = ask(meant.question, model, base, embedder, query=meant.query)
    _, hits = base.search(meant.query, embedder, PASSAGES)
    gold = {passage.id for passage in gold_passages(base, conversation["gold"])}
    row = Row(
        found=any(hit.passage.id in gold for hit in hits),
        right=holds(answer.answer, conversation["answers"]),
        abstained=answer.abstained,
    )
    print(
        f"{conversation['id']} {way:<12} found {row.found:d} right {row.right:d}  {meant.question!r} {answer.answer[:80]!r}",
        flush=True,
    )
    return row


def show(kind: str, rows: dict[str, list[Row]]) -> None:
    print(f"\n{kind}")
    for way, found in rows.items():
        against = list(zip(found, rows[LAST], strict=True))
        wins, losses = sum(a.right > b.right for a, b in against), sum(a.right < b.right for a, b in against)
        print(f"  {way:<12} found {share(r.found for r in found)}  right {share(r.right for r in found)}  "
              f"abstained {share(r.abstained for r in found)}  wins {wins}, loses {losses}")  # fmt: skip


# --- MTRAG ------------------------------------------------------------------------------------------------------------


def on_mtrag(
    model: FrozenModel, base: KnowledgeBase, embedder: Embedder, options: argparse.Namespace
) -> dict[str, Any]:
    answered = read(options.reading / "mtrag_un_part.jsonl.gz")
    for each in answered:
        each["turns"] = [turn["text"] for turn in each["conversation"] if turn["speaker"] == "user"]
    collect(base, embedder, {p["id"]: p for each in answered for p in each["passages"]})
    answered = half([each for each in answered if each["passages"]], options)
    rewritten = half(read(options.reading / "mtrag_rewrites_part.jsonl.gz"), options)
    value: dict[str, Any] = {"half": options.half, "ways": {}}
    for way in WAYS:
        meant, seconds = zip(*(timed(way, model, each["turns"]) for each in answered + rewritten), strict=True)
        golds = [{p["id"] for p in each["passages"]} for each in answered]
        found = [not gold.isdisjoint(best(base, embedder, m.query)) for m, gold in zip(meant, golds, strict=False)]
        alike = [
            likeness(base, embedder, m.query, each) for m, each in zip(meant[len(answered) :], rewritten, strict=True)
        ]
        means = {
            name: statistics.mean(known)
            for name in ("recall", "precision", "cosine", "overlap")
            if (known := [v for row in alike if (v := getattr(row, name)) is not None])
        }
        believed = share(m.rewritten for m in meant)
        print(f"{way:<12} found {share(found)}  " + "  ".join(f"{name} {mean:.2f}" for name, mean in means.items())
              + f"  believed {believed}  median {statistics.median(seconds):.1f} s", flush=True)  # fmt: skip
        value["ways"][way] = {
            "found": found,
            "alike": [asdict(row) for row in alike],
            "believed": [m.rewritten for m in meant],
            "seconds": seconds,
            "queries": [m.query for m in meant],
        }
    return value


def read(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def half(rows: list[dict[str, Any]], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every second of the rows whose last turn refers back."""
    referring = [row for row in rows if refers_back(row["turns"][:-1], row["turns"][-1])]
    return referring[options.half == "report" :: 2][: options.limit]


def collect(base: KnowledgeBase, embedder: Embedder, passages: dict[str, dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, passage in passages.items():
            (Path(folder) / f"{name}.txt").write_text(passage["text"], encoding="utf-8")
        add(base, [Path(folder)], embedder)


def best(base: KnowledgeBase, embedder: Embedder, query: str) -> list[str]:
    return [Path(hit.passage.document).stem for hit in base.search(query, embedder, BEST)[1]]


def timed(way: str, model: FrozenModel, turns: Sequence[str]) -> tuple[FollowUp, float]:
    began = time.perf_counter()
    meant = WAYS[way](model, turns[:-1], turns[-1])
    return meant, time.perf_counter() - began


def likeness(base: KnowledgeBase, embedder: Embedder, query: str, row: dict[str, Any]) -> Likeness:
    ours, theirs = content_words(query), content_words(row["rewrite"])
    added = theirs - content_words(row["turns"][-1])
    wanted = set(best(base, embedder, row["rewrite"]))
    return Likeness(
        recall=len(added & ours) / len(added) if added else None,
        precision=len(ours & theirs) / len(ours) if ours else 0.0,
        cosine=float(embedder.embed_query(query) @ embedder.embed_query(row["rewrite"])),
        overlap=len(wanted.intersection(best(base, embedder, query))) / len(wanted) if wanted else 0.0,
    )


if __name__ == "__main__":
    main()
