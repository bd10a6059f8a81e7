"""A question that may refer back: what to search for?

    python -m benchmarks.follow_ups [--half development|reporting] [--documents FOLDER]

Three ways: the last question `alone`, `together` with the questions before it, and as the program `chooses`
(`retrieval.search_query`). Asked of three sets: `handbook`, conversations about the example handbook
(`benchmarks/data/follow_ups.jsonl`), some of which change the subject; `follow-up`, those of one half of `examples/natural` and, with
`--documents` as for `benchmarks.natural_questions`, of `benchmarks/data/questions.jsonl`; `new subject`, each other question of these behind one that
was drawn from the same documents. Found: the four windows that are read hold every key fact, or a part of the gold quote. No model is
asked. With 95 % Wilson intervals; the last line is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.natural_questions import HALVES, OTHERS, found_within, nearest, questions, unpacked
from benchmarks.stored import HANDBOOK, base_of, default_embedder
from openbook.answers.retrieval import MAX_EARLIER, PASSAGES, search_query
from openbook.core.config import load_settings
from openbook.core.records import Embedder, Hit
from openbook.diagnosis.scoring import share_of
from openbook.knowledge import KnowledgeBase
from openbook.knowledge.docs_cache import for_documents

FILE = Path(__file__).parent / "data" / "follow_ups.jsonl"
WAYS: dict[str, Callable[[Sequence[str], str, Callable[[str], float]], str]] = {
    "alone": lambda earlier, question, nearness: question,
    "together": lambda earlier, question, nearness: "\n".join((*earlier[-MAX_EARLIER:], question)),
    "chooses": search_query,
}
Holds = Callable[[Sequence[Hit]], bool]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=HALVES, default="development")
    parser.add_argument("--documents", type=Path)
    options = parser.parse_args()
    embedder = default_embedder()
    found: dict[str, dict[str, list[bool]]] = {}
    with ExitStack() as stack:
        for name, base, earlier, question, holds in asked(stack, embedder, options.half, options.documents):
            for way, query_of in WAYS.items():
                query = query_of(earlier, question, partial(nearest, base, embedder))
                hits = base.search(query, embedder, PASSAGES, windows=True)[1]
                found.setdefault(name, {}).setdefault(way, []).append(holds(hits))
    for name, ways in found.items():
        for way, each in ways.items():
            print(f"{name:<12} {way:<9} found {share_of(each)}")
    print(json.dumps({name: {way: sum(each) for way, each in ways.items()} for name, ways in found.items()}))


def asked(
    stack: ExitStack, embedder: Embedder, half: str, documents: Path | None
) -> Iterator[tuple[str, KnowledgeBase, Sequence[str], str, Holds]]:
    """(set, knowledge base, earlier questions, question, whether hits hold what answers it)."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    base = stack.enter_context(closing(base_of(folder / "kb", [HANDBOOK], embedder)))
    for line in FILE.read_text(encoding="utf-8").splitlines():
        conversation = json.loads(line)
        *earlier, question = conversation["turns"]
        yield "handbook", base, earlier, question, partial(holds_quote, conversation["gold"])
    cache, draw = load_settings().derived_dir, random.Random(half)

    def place(corpus: str) -> Path:
        return (documents / corpus).resolve() if documents and corpus else unpacked(cache)

    for among in (questions(half), questions(half, OTHERS) if documents else []):
        bases = {
            corpus: stack.enter_context(closing(for_documents([place(corpus)], cache, embedder)[0]))
            for corpus in sorted({each.corpus for each in among})
        }
        answerable = [each for each in among if each.facts]
        for each in answerable:
            others = [o.question for o in answerable if o.corpus == each.corpus and o.places != each.places]
            name, earlier = ("follow-up", each.earlier) if each.earlier else ("new subject", (draw.choice(others),))
            holds = partial(holds_facts, each, place(each.corpus))
            yield name, bases[each.corpus], earlier, each.question, holds


def holds_facts(question: Any, folder: Path, hits: Sequence[Hit]) -> bool:
    return found_within(question, hits, folder)[0]


def holds_quote(gold: dict[str, str], hits: Sequence[Hit]) -> bool:
    return any(hit.passage.document.endswith(gold["document"]) and gold["quote"] in hit.passage.text for hit in hits)


if __name__ == "__main__":
    main()
