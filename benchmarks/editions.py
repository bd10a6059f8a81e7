"""Of two documents that contradict each other, does the one in force come first, and are the right ones marked?

    python -m benchmarks.editions [--peps FOLDER]

The pairs of `examples/editions.jsonl`, all in one knowledge base: for each question, which of its two documents is found
first, as retrieved and as ordered; how many marks are right and how many documents that should be marked are; and whether
the note on the older document holds what it said. Documents that only look like editions must not be marked.

With `--peps` (a folder of pep-NNNN.rst) all of them are marked from their first lines: does a mark name the PEP that the
header `Superseded-By` names? Those that replaced each other are searched with ten questions. With 95 % Wilson intervals.
The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import Any

from benchmarks.examples_accuracy import share
from benchmarks.stored import EXAMPLES, base_of, default_embedder
from openbook.knowledge import KnowledgeBase
from openbook.knowledge.editions import Edition, Editions, editions, find_marks
from openbook.knowledge.imprint import BEGINNING_CHARS, DocumentHead, imprint
from openbook.knowledge.scope import UNLABELLED
from openbook.knowledge.sentences import sentence_spans
from openbook.parsers import parse_file
from openbook.records import Citation, Embedder, Hit

FOUND = 20
READ = 4
QUESTIONS = {  # about PEPs: the numbers of those in force that answer
    "Which platform tag do portable Linux wheels use, depending on the version of glibc?": (600,),
    "How is the metadata of a Python package laid out, and how is its version increased?": (566,),
    "How do I write the version number of a package so that versions can be compared?": (440,),
    "How can a function call take a Python string and substitute variables into it with a dollar sign?": (292,),
    "What interface does a web server use to call a Python web application?": (3333,),
    "When are annotations evaluated?": (649, 749),
    "How do I declare the dependencies of a single-file script?": (723,),
    "Are file descriptors inherited by child processes?": (446,),
    "How does match and case work on a sequence?": (634,),
    "What happens with a return inside a finally block?": (765,),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peps", type=Path)
    options = parser.parse_args()
    embedder = default_embedder()
    pairs = [json.loads(line) for line in (EXAMPLES / "editions.jsonl").read_text(encoding="utf-8").splitlines()]
    value: dict[str, Any] = {"question": "does the edition in force come first, and are the right documents marked?"}
    with tempfile.TemporaryDirectory() as folder:
        value["pairs"] = of_pairs(pairs, Path(folder), embedder)
        if options.peps:
            value["peps"] = of_peps(options.peps, Path(folder) / "peps", embedder)
    print(json.dumps(value))


def of_pairs(pairs: Sequence[Mapping[str, Any]], folder: Path, embedder: Embedder) -> dict[str, Any]:
    files = folder / "documents"
    for document in (document for pair in pairs for document in pair["documents"]):
        (files / document["path"]).parent.mkdir(parents=True, exist_ok=True)
        (files / document["path"]).write_text(document["text"], encoding="utf-8")
    rows = defaultdict[str, list[bool]](list)
    with closing(base_of(folder / "pairs", [files], embedder)) as base:
        heads = base.heads(base.documents(), UNLABELLED)
        marks = {PurePosixPath(path).relative_to(files).as_posix(): mark for path, mark in _marked(heads).items()}
        for pair in pairs:
            hits, found = searched(pair["question"], base, embedder)
            mine = {str(files / document["path"]) for document in pair["documents"]}
            right = str(files / pair["right"])
            before, after = (
                next((hit.passage.document for hit in each if hit.passage.document in mine), "") == right
                for each in (hits, found.hits)
            )
            newer_answers = pair["editions"] and pair["right"] not in pair["marked"]
            rows["before"].append(before)
            rows["after" if newer_answers else "looks"].append(after)
            if newer_answers:
                for way, read in (("read before", hits), ("read", found.current)):
                    texts = [(hit.passage.document, hit.passage.text) for hit in read[:READ]]
                    rows[f"right {way}"].append(
                        any(path == right and holds(text, pair["answer"]) for path, text in texts)
                    )
                    rows[f"other {way}"].append(
                        any(path in mine - {right} and holds(text, pair["other"]) for path, text in texts)
                    )
            note = found.older_note(list(citing(pair["answer"], right, found)))
            if newer_answers:
                rows["note"].append(note is not None and holds(note, pair["other"]))
            if note:
                rows["noted"].append(bool(pair["editions"]) and holds(note, pair["other"]))
            wrong = {d["path"] for d in pair["documents"]} & set(marks) ^ set(pair["marked"])
            print(
                f"{pair['id']:<18} first: {before:d} as found, {after:d} as ordered  {note or '-'}{f'  MARKS {wrong}' * bool(wrong)}"
            )
    expected = {path for pair in pairs for path in pair["marked"]}
    in_force = {
        pair["marked"][0]: pair["right"] for pair in pairs if pair["marked"] and pair["right"] not in pair["marked"]
    }
    table = {
        "right one first, as found": share(rows["before"]),
        "right one first, as ordered: editions": share(rows["after"]),
        "right one first, as ordered: what only looks so, or asks for the older": share(rows["looks"]),
        f"right value in the first {READ}, as found": share(rows["right read before"]),
        f"right value in the first {READ}, as read": share(rows["right read"]),
        f"older value in the first {READ}, as found": share(rows["other read before"]),
        f"older value in the first {READ}, as read": share(rows["other read"]),
        "marks that are right": share(path in expected for path in marks),
        "documents to be marked that are": share(path in marks for path in sorted(expected)),
        "marks that name what took the place": share(
            list(marks[old].newer) == [str(files / new)] for old, new in in_force.items() if old in marks
        ),
        "notes that hold what the older one said": share(rows["note"]),
        "notes given that do": share(rows["noted"]),
    }
    for name, each in table.items():
        print(f"{name:<72} {each}")
    return {name: str(each) for name, each in table.items()}


def of_peps(source: Path, folder: Path, embedder: Embedder) -> dict[str, Any]:
    heads: dict[str, DocumentHead] = {}
    for file in sorted(source.glob("pep-*.rst")):
        content, _ = parse_file(file, max_bytes=10_000_000)
        metadata = tuple(sorted({**dict(content.metadata), "type": "rst"}.items()))
        heads[str(file)] = DocumentHead(str(file), content.title, metadata, content.text[:BEGINNING_CHARS])
    marks = _marked(heads)
    said = {path: _numbers(dict(head.metadata).get("superseded_by", "")) for path, head in heads.items()}
    statuses = {path: str(dict(head.metadata).get("status", "")) for path, head in heads.items()}
    superseded = [path for path, numbers in said.items() if numbers]
    replaced = {number for head in heads.values() for number in _numbers(dict(head.metadata).get("replaces", ""))}
    ended = {str(source / f"pep-{number:04}.rst") for number in replaced} | {
        path for path in heads if said[path] or statuses[path] not in ("Final", "Active", "Accepted", "April Fool!")
    }
    # A chain ends with the newest: 241 was superseded by 314, that by 345, that by 566.
    last = {path: _last(path, said, source) for path in superseded}
    involved = sorted(
        {*superseded, *(p for path in superseded for p in last[path]), *(p for m in marks.values() for p in m.newer)}
    )
    table = {
        "PEPs that name a successor and are marked": share(path in marks for path in superseded),
        "of those, the mark names it": share(
            set(marks[path].newer) == last[path] for path in superseded if path in marks
        ),
        "marks of PEPs that were superseded, withdrawn, rejected, deferred or are drafts, by their headers": share(
            path in ended for path in marks
        ),
    }
    rows = defaultdict[str, list[bool]](list)
    with closing(base_of(folder, [Path(path) for path in involved], embedder)) as base:
        for question, numbers in QUESTIONS.items():
            hits, found = searched(question, base, embedder)
            right = {str(source / f"pep-{number:04}.rst") for number in numbers}
            for way, ranked in (("as found", hits), ("as ordered", found.hits)):
                rows[way].append(ranked[0].passage.document in right)
            tops = [PurePosixPath(each[0].passage.document).stem for each in (hits, found.hits)]
            print(f"{question[:60]:<60} {tops[0]} {tops[1]} {sorted(numbers)}{found.mark(found.hits[0].passage) or ''}")
    table |= {f"first passage is of the PEP in force, {way}": share(each) for way, each in rows.items()}
    for name, each in table.items():
        print(f"{name:<98} {each}")
    return {name: str(each) for name, each in table.items()}


def searched(question: str, base: KnowledgeBase, embedder: Embedder) -> tuple[list[Hit], Editions]:
    _, hits = base.search(question, embedder, FOUND)
    heads = base.heads({path for hit in hits for path in (hit.passage.document, *hit.passage.also_in)}, UNLABELLED)
    return hits, editions(question, hits, heads)


def citing(answer: str, document: str, found: Editions) -> Iterable[Citation]:
    """The sentence of `document` that holds the answer, as if it had been cited."""
    for passage in (hit.passage for hit in found.hits if hit.passage.document == document):
        for start, end in sentence_spans(passage.text, 0, len(passage.text)):
            if holds(passage.text[start:end], answer):
                yield Citation(
                    document, None, passage.start + start, passage.start + end, passage.text[start:end], passage.id
                )


def holds(text: str, value: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(value.casefold())}(?!\w)", " ".join(text.split()).casefold()) is not None


def _marked(heads: Mapping[str, DocumentHead]) -> dict[str, Edition]:
    return find_marks({path: imprint(head) for path, head in heads.items()})


def _numbers(value: object) -> set[int]:
    return {int(number) for number in re.findall(r"\d+", str(value))}


def _last(path: str, said: Mapping[str, set[int]], source: Path) -> set[str]:
    following = {str(source / f"pep-{number:04}.rst") for number in said[path]}
    return set().union(*(_last(each, said, source) for each in following)) if following else {path}


if __name__ == "__main__":
    main()
