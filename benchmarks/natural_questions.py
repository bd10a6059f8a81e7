"""How many questions, asked as people ask them, does a model answer right from documents that people wrote for people?

    python -m benchmarks.natural_questions [--half development|reporting] [--model NAME] [--limit N] [--out FILE.jsonl]
    python -m benchmarks.natural_questions --retrieval [--half development|reporting]
    python -m benchmarks.natural_questions --documents FOLDER [...]

The questions and documents of `examples/natural`. An answer is right when it states every key fact of its question and
none of the values that make it wrong; an unanswerable question is right when the answer is an abstention. A follow-up is
searched for as the server does it (`retrieval.search_query`).

--out      one JSON object an answer; a run continues where it stopped
--documents  ask the questions of `benchmarks/data/questions.jsonl` instead, each about the folder below FOLDER that it names as
             its corpus (benchmarks/data/questions.md)
--retrieval  no model: for how many questions do the windows that are found hold every key fact, in a document that is
           known to hold it, and are all of these documents among them

Passages are read as the settings say: with OPENBOOK_STRATEGY=parallel, OPENBOOK_KV_DISK=4096 and a new file for --out a second
run shows what an answer takes from windows that were read before. With OPENBOOK_KV_DISK=0 nothing was read before.

Prints a line a question, tables by kind with 95 % Wilson intervals and, as its last line, one JSON document. Look at the
half "reporting" only to report, never to choose.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import tarfile
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.stored import default_embedder, opened
from openbook.answers.ask import ask
from openbook.answers.certainty import MEANING
from openbook.answers.retrieval import MIN_HITS, Corpus, Options, nearness, search_query
from openbook.core.config import load_settings
from openbook.core.records import Answer, Digest, Embedder, Hit
from openbook.diagnosis.scoring import share_of
from openbook.inference.kv_cache import KVCache
from openbook.knowledge import KnowledgeBase
from openbook.knowledge.docs_cache import for_documents

OTHERS = Path(__file__).parent / "data" / "questions.jsonl"
NATURAL = Path(__file__).parent.parent / "examples" / "natural"
HALVES = ("development", "reporting")
VERDICTS = ("right", "wrong", "declined", "wrongly declined")  # declined: rightly
FOUND = (1, 2, 4, 10, 20)


@dataclass(frozen=True, slots=True)
class Place:
    document: str
    quote: str


@dataclass(frozen=True, slots=True)
class Question:
    """`facts`: each a list of regular expressions of which one must match the answer; `wrong`: none of these may."""

    id: str
    question: str
    earlier: tuple[str, ...]
    kind: str
    half: str
    facts: tuple[tuple[str, ...], ...]
    wrong: tuple[str, ...]
    places: tuple[Place, ...]
    answer: str
    corpus: str = ""

    @property
    def documents(self) -> set[str]:
        return {place.document for place in self.places}

    @property
    def stated(self) -> list[tuple[str, ...]]:
        """The facts as a document states them, which does not begin with "yes" or "no" as an answer does."""
        return [tuple(pattern for pattern in fact if not pattern.startswith("^")) for fact in self.facts]


def questions(half: str | None = None, file: Path = NATURAL / "questions.jsonl") -> list[Question]:
    lines = file.read_text(encoding="utf-8").splitlines()
    found = [question_of(json.loads(line)) for line in lines]
    return [question for question in found if half in (None, question.half)]


def question_of(value: dict[str, Any]) -> Question:
    places = tuple(Place(**place) for place in value.pop("places"))
    facts = tuple(tuple(fact) for fact in value.pop("facts"))
    return Question(
        **{**value, "earlier": tuple(value["earlier"]), "wrong": tuple(value["wrong"])}, facts=facts, places=places
    )


def unpacked(cache: Path) -> Path:
    """The folder of the documents, unpacked once for the archive as it is now."""
    archive = NATURAL / "documents.tar.xz"
    folder = cache / f"natural-{hashlib.sha256(archive.read_bytes()).hexdigest()[:12]}"
    if not folder.exists():
        part = folder.with_suffix(".part")
        with tarfile.open(archive) as tar:
            tar.extractall(part, filter="data")
        part.rename(folder)
    return folder


def plain(text: str) -> str:
    """`text` in lower case and one line, without marks of Markdown and thousands, with plain hyphens and quotes."""
    text = unicodedata.normalize("NFKC", text)
    text = re.sub("[\u2018\u2019]", "'", re.sub("[\u201c\u201d]", '"', re.sub("[\u2010-\u2015\u2212]", "-", text)))
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", re.sub(r"[`*]", "", text))
    return " ".join(text.split()).lower()


def says(text: str, pattern: str) -> bool:
    """Whether `pattern` stands in `text` from the beginning of a word; if it ends in a digit, to the end of a number.

    What is to stand at the beginning may also stand behind "the answer is".
    """
    pattern = re.sub(r"^\^(?=yes|no)", r"(?:^|\\banswer is \\W*)", pattern)
    left = r"(?<!\w)(?<!\d\.)" if re.match(r"\w", pattern) else ""
    right = r"(?!\d)(?!\.0*[1-9])" if re.search(r"\d$", pattern) else ""
    return re.search(f"{left}(?:{pattern}){right}", plain(text), re.IGNORECASE) is not None


def holds(text: str, facts: Iterable[Iterable[str]]) -> bool:
    return all(any(says(text, pattern) for pattern in fact) for fact in facts)


def judged(question: Question, answer: str, abstained: bool) -> str:
    """One of VERDICTS."""
    if abstained:
        return "wrongly declined" if question.facts else "declined"
    right = bool(question.facts) and holds(answer, question.facts)
    return "right" if right and not any(says(answer, pattern) for pattern in question.wrong) else "wrong"


def row_of(question: Question, answer: Answer, folder: Path, strategy: str) -> dict[str, Any]:
    return {
        "id": question.id,
        "kind": question.kind,
        "verdict": judged(question, answer.answer, answer.declined),
        "question": question.question,
        "answer": answer.answer,
        "sentences": [[each.start, each.end, each.citation, each.support] for each in answer.sentences],
        "quotes": [[each.document, each.quote] for each in answer.citations],
        "windows": [hit.passage.text for hit in answer.passages],
        "read": bool(question.facts) and found_within(question, answer.passages, folder)[0],
        "certainty": answer.certainty,
        "confidence": answer.confidence,
        "seconds": answer.timings and answer.timings.total_s,
        "first_token_s": answer.timings and answer.timings.first_token_s,
        "model": f"{answer.receipt.model.digest} {strategy}",
    }


def found_within(question: Question, hits: Sequence[Hit], folder: Path) -> tuple[bool, bool]:
    """(every key fact stands in the hits of its documents, all of its documents are among the hits)."""
    names = {str(folder / document) for document in question.documents}
    text = "\n\n".join(hit.passage.text for hit in hits if hit.passage.document in names)
    return holds(text, question.stated), names <= {hit.passage.document for hit in hits}


def nearest(base: KnowledgeBase, embedder: Embedder, query: str) -> float:
    """The cosine of the nearest passage."""
    return nearness(base.search(query, embedder, MIN_HITS)[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=HALVES, default="development")
    parser.add_argument("--model", help="a stored model (default: that of the settings)")
    parser.add_argument("--limit", type=int, help="only the first questions")
    parser.add_argument("--out", type=Path, help="write the answers here, and go on from those that stand in it")
    parser.add_argument("--retrieval", action="store_true", help="only what is found; no model")
    parser.add_argument("--documents", type=Path, help="ask about the folders in this one instead")
    options = parser.parse_args()
    settings, embedder = load_settings(), default_embedder()
    if options.documents:
        asked = questions(options.half, OTHERS)
        random.Random(options.half).shuffle(asked)  # so that the first ones are of all kinds
        asked = asked[: options.limit]
        folders = {
            corpus: (options.documents / corpus).resolve() for corpus in dict.fromkeys(each.corpus for each in asked)
        }
    else:
        asked, folders = questions(options.half)[: options.limit], {"": unpacked(settings.derived_dir)}
    with ExitStack() as stack:
        bases = {
            corpus: stack.enter_context(closing(for_documents([folder], settings.derived_dir, embedder)[0]))
            for corpus, folder in folders.items()
        }
        if options.retrieval:
            measure_retrieval(asked, bases, embedder, folders, options.half)
            return
        name = options.model or settings.model
        model = stack.enter_context(closing(opened(name, KVCache.of(settings))))
        options_of = Options.of(settings)

        def answer(question: Question) -> Answer:
            corpus = Corpus(bases[question.corpus], embedder)
            return ask(question.question, model, corpus, replace(options_of, earlier=tuple(question.earlier)))

        rows = measure_answers(asked, bases, answer, model.identity.digest, settings.strategy, folders, options.out)
        summarise(rows, options.half, name)


def measure_retrieval(
    asked: Sequence[Question],
    bases: Mapping[str, KnowledgeBase],
    embedder: Embedder,
    folders: Mapping[str, Path],
    half: str,
) -> None:
    rows: list[tuple[Question, list[tuple[bool, bool]]]] = []
    for question in asked:
        if question.facts:
            base = bases[question.corpus]
            query = search_query(question.earlier, question.question, partial(nearest, base, embedder))
            _, hits = base.search(query, embedder, max(FOUND), windows=True)
            within = [found_within(question, hits[:limit], folders[question.corpus]) for limit in FOUND]
            rows.append((question, within))
            first = next((limit for limit, (facts, _) in zip(FOUND, within, strict=True) if facts), None)
            print(f"{question.id} {question.kind:<13} facts within {first or '-':<3} {question.question}")
    table = {
        f"{what} within {limit}": [within[i][j] for _, within in rows]
        for j, what in enumerate(("all facts", "all documents"))
        for i, limit in enumerate(FOUND)
    }
    print()
    for name, found in table.items():
        print(f"{name:<32} {share_of(found)}")
    four = FOUND.index(4)
    by_kind("all facts within 4", [(q.kind, within[four][0]) for q, within in rows])
    print(json.dumps({"half": half, "found": {name: [sum(found), len(found)] for name, found in table.items()}}))


def measure_answers(
    asked: Sequence[Question],
    bases: Mapping[str, KnowledgeBase],
    answer: Callable[..., Answer],
    model: Digest,
    strategy: str,
    folders: Mapping[str, Path],
    out: Path | None,
) -> list[dict[str, Any]]:
    """A row a question, of `out` where it stands there; what is new is added to it at once."""
    rows = {row["id"]: row for row in rows_in(out, f"{model} {strategy}")}
    for question in asked:
        if question.id not in rows:
            given = answer(question)
            row = rows[question.id] = row_of(question, given, folders[question.corpus], strategy)
            if out:
                with out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
        row = rows[question.id]
        print(f"{row['id']} {row['kind']:<13} {row['verdict']:<16} {question.question} -> {row['answer'][:120]!r}")
    return [rows[question.id] for question in asked]


def rows_in(out: Path | None, model: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] if out and out.exists() else []
    if others := {row["model"] for row in rows} - {model}:
        raise SystemExit(
            f"{out} holds answers of another model or strategy ({', '.join(sorted(others))}). Give another file."
        )
    return rows


def summarise(rows: Sequence[dict[str, Any]], half: str, model: str) -> None:
    answerable = [row for row in rows if row["kind"] != "unanswerable"]
    table = {
        "right": share_of([row["verdict"] in ("right", "declined") for row in rows]),
        "answerable: all facts were read": share_of([row["read"] for row in answerable]),
        "answerable: right": share_of([row["verdict"] == "right" for row in answerable]),
        "answerable: wrong": share_of([row["verdict"] == "wrong" for row in answerable]),
        "answerable: declined": share_of([row["verdict"] == "wrongly declined" for row in answerable]),
    }
    answered = [row for row in rows if row["verdict"] in ("right", "wrong")]
    for word in (word for word in MEANING if any(row["confidence"] == word for row in answered)):
        called = [row for row in answered if row["confidence"] == word]
        table[f"called {word}: wrong"] = share_of([row["verdict"] == "wrong" for row in called])
    right = [row["confidence"] == "supported" for row in answered if row["verdict"] == "right"]
    table["right: called supported"] = share_of(right)
    print(f"\n{model}, {half}")
    for name, value in table.items():
        print(f"{name:<32} {value}")
    by_kind("right", [(row["kind"], row["verdict"] in ("right", "declined")) for row in rows])
    for name in ("first_token_s", "seconds"):
        print(f"{name + ', median':<32} {median([row[name] for row in rows if row[name] is not None])}")
    counts = {name: [value.count, value.of] for name, value in table.items()}
    print(json.dumps({"model": model, "half": half, "shares": counts}))


def by_kind(name: str, outcomes: Sequence[tuple[str, bool]]) -> None:
    print(f"\n{name}, by kind")
    for kind in dict.fromkeys(kind for kind, _ in outcomes):
        found = [outcome for k, outcome in outcomes if k == kind]
        print(f"  {kind:<30} {share_of(found)}")


def median(values: Sequence[float]) -> str:
    return f"{sorted(values)[len(values) // 2]:.2f}" if values else "no data"


if __name__ == "__main__":
    main()
