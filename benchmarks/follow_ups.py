"""A question that refers back: what to search for, and what to ask the model?

    python -m benchmarks.follow_ups [--model NAME] [--limit N] [--json FILE]

The conversations of `benchmarks/data/follow_ups.jsonl` on the example handbook: of most the last question is elliptic ("And
to Sandhavn?"), some change the subject and stand alone. Each is asked in several ways:

  last message     the last message alone is searched for and read
  condensed N      searched for with the N turns before it when it refers back (`conversation.condensed`); read alone
  condensed N+     the same, and the model reads the turns as well
  condensed N=     the same in one line
  always N, N+, N= with the N turns before it, whether or not it refers back

Found: a passage that the gold quote touches is among those that the retriever gives for one request. Right: an accepted
answer stands in the answer. With 95 % Wilson intervals, and how many questions a way wins and loses against the last
message alone. The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.examples_accuracy import EXAMPLES, gold_passages, holds, share
from openbook.answer import PASSAGES, ask
from openbook.config import load_settings
from openbook.conversation import condensed
from openbook.inference import FrozenModel, load_embedder, load_model
from openbook.inference.states import States
from openbook.knowledge import KnowledgeBase, add
from openbook.models import ModelStore, ensure
from openbook.records import Embedder

FILE = Path(__file__).parent / "data" / "follow_ups.jsonl"
LAST = "last message"
Condense = Callable[[Sequence[str]], str]  # all turns of the user, the question last, to one text


@dataclass(frozen=True, slots=True)
class Row:
    found: bool
    right: bool
    abstained: bool


def condensing(turns: int) -> Condense:
    return lambda said: condensed(said[:-1][-turns:], said[-1])


def joining(turns: int) -> Condense:
    return lambda said: "\n".join(said[-turns - 1 :])


def in_one_line(condense: Condense) -> Condense:
    return lambda said: " ".join(condense(said).split())


def last(said: Sequence[str]) -> str:
    return said[-1]


# How it is asked: (what is searched for, what the model reads as the question).
WAYS: dict[str, tuple[Condense, Condense]] = {
    LAST: (last, last),
    "condensed 1": (condensing(1), last),
    "condensed 2": (condensing(2), last),
    "condensed 1+": (condensing(1), condensing(1)),
    "condensed 2+": (condensing(2), condensing(2)),
    "always 1": (joining(1), last),
    "always 1+": (joining(1), joining(1)),
    "condensed 1=": (condensing(1), in_one_line(condensing(1))),
    "condensed 2=": (condensing(2), in_one_line(condensing(2))),
    "always 1=": (joining(1), in_one_line(joining(1))),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a stored model (default: that of the settings)")
    parser.add_argument("--limit", type=int, help="only the first conversations")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    settings = load_settings()
    store = ModelStore(settings.models_dir)
    conversations = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()][: options.limit]
    reference, embedder = (
        ensure(store, options.model or settings.model),
        load_embedder(ensure(store, settings.embedder)),
    )
    with tempfile.TemporaryDirectory() as folder, closing(
        load_model(reference, threads=settings.threads, states=States(None, memory_bytes=1 << 30))
    ) as model, closing(KnowledgeBase.ensure(Path(folder) / "kb", embedder.identity)) as base:  # fmt: skip
        add(base, [EXAMPLES / "handbook"], embedder)
        rows = {way: [asked(way, each, model, base, embedder) for each in conversations] for way in WAYS}
    kinds = [each["kind"] for each in conversations]
    for kind in dict.fromkeys(kinds):
        show(
            kind, {way: [row for row, k in zip(found, kinds, strict=True) if k == kind] for way, found in rows.items()}
        )
    value: dict[str, Any] = {
        "question": "what to search for and to read when a question refers back",
        "model": reference.digest,
    }
    value |= {"ways": {way: [[row.found, row.right, row.abstained] for row in found] for way, found in rows.items()}}
    if options.json:
        options.json.write_text(json.dumps(value), encoding="utf-8")
    print(json.dumps(value))


def asked(way: str, conversation: dict[str, Any], model: FrozenModel, base: KnowledgeBase, embedder: Embedder) -> Row:
    search, read = (condense(conversation["turns"]) for condense in WAYS[way])
    answer = ask(read, model, base, embedder, query=search)
    _, hits = base.search(search, embedder, PASSAGES[answer.receipt.strategy])
    gold = {passage.id for passage in gold_passages(base, conversation["gold"])}
    row = Row(
        found=any(hit.passage.id in gold for hit in hits),
        right=holds(answer.answer, conversation["answers"]),
        abstained=answer.abstained,
    )
    print(f"{conversation['id']} {way:<13} found {row.found:d} right {row.right:d}  {answer.answer[:80]!r}", flush=True)
    return row


def show(kind: str, rows: dict[str, list[Row]]) -> None:
    print(f"\n{kind}")
    for way, found in rows.items():
        against = list(zip(found, rows[LAST], strict=True))
        wins, losses = sum(a.right > b.right for a, b in against), sum(a.right < b.right for a, b in against)
        print(f"  {way:<13} found {share(r.found for r in found)}  right {share(r.right for r in found)}  "
              f"abstained {share(r.abstained for r in found)}  wins {wins}, loses {losses}")  # fmt: skip


if __name__ == "__main__":
    main()
