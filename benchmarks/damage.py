"""Is a damaged knowledge base noticed, or does it answer otherwise?

    python -m benchmarks.damage [--folder examples/handbook] [--flips 200] [--cuts 100] [--seed 1] [--log] [--embedder NAME]

A knowledge base of some real documents and 40 generated ones, with copies, access labels, a tag and four versions. In each
trial one byte or bit of one of its files is changed, or one file is cut off, and a fixed set of questions is asked of that
copy: searches (hits, scores, passages and quotes) of all, under labels, filters and as of older versions; texts, passages
by document and by id, documents, labels, history and differences. Each outcome must be what the undamaged one says or a
sentence. With --log the last versions still stand in SQLite's log, as a killed process leaves it. Prints a table and, as
its last line, one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from openbook.core.errors import OpenBookError
from openbook.core.records import Embedder
from openbook.knowledge import KnowledgeBase, RunOptions, Scope, add, remove
from openbook.knowledge.cite.quotes import cite_sentences
from openbook.knowledge.versions import diff, history, tag
from openbook.testing import HashEmbedder

QUESTIONS = (
    "When does the ferry leave?",
    "How much does a ticket cost?",
    "Who signs travel expenses?",
    "How many days of annual leave are there?",
    "What is number 17 made of?",
    "copper harbour lighthouse",
)
_WORDS = "copper granite harbour lighthouse ferry ticket winter garden engine river market letter violin bridge".split()


def build(folder: Path, source: Path | None, embedder: Embedder, *, log: bool = False) -> Path:
    """The undamaged knowledge base; with `log`, as a process leaves it that is killed after its last commit."""
    chance = random.Random(7)
    docs = folder / "docs"
    docs.mkdir(parents=True)
    if source is not None:
        for path in sorted(p for p in source.rglob("*") if p.is_file())[:40]:
            shutil.copy(path, docs / path.name)
    for number in range(40):
        paragraphs = (
            f"Number {number} is made of {chance.choice(_WORDS)}. It costs {number + 7} euros. "
            + " ".join(chance.choices(_WORDS, k=40)).capitalize()
            for _ in range(1 + number % 7)
        )
        (docs / f"part-{number}.md").write_text(f"# Part {number}\n\n" + "\n\n## More\n\n".join(paragraphs) + ".\n")
    base = KnowledgeBase.ensure(folder / "kb", embedder.identity, base_id="d" * 32)
    add(base, [docs], embedder)
    tag(base, "first")
    reader = KnowledgeBase.open(folder / "kb")  # while it reads an old state, the log is not written back
    if log:
        reader.connection.execute("BEGIN")
        reader.connection.execute("SELECT count(*) FROM versions").fetchone()
    for number in range(3):  # the same text again, under other names
        shutil.copy(docs / f"part-{number}.md", docs / f"copy-{number}.md")
    add(base, [docs], embedder)
    (docs / "part-5.md").write_text("# Part 5\n\nNumber 5 is made of porcelain now.\n")
    add(base, [docs / "part-5.md", docs / "part-6.md"], embedder, RunOptions(labels=frozenset({"staff"})))
    remove(base, [str(docs / "part-9.md")])
    whole = folder / "whole"
    shutil.copytree(folder / "kb", whole, ignore=shutil.ignore_patterns("*-shm", ".lock"))
    reader.close()
    base.close()
    return whole


@dataclass(frozen=True, slots=True)
class Said:
    """What one question got: a value, a sentence, or an error that nobody should see."""

    value: str
    kind: str  # "value", "sentence", "traceback"


def ask_all(folder: Path, docs: Path, embedder: Embedder) -> list[Said]:
    try:
        base = KnowledgeBase.open(folder, embedder.identity)
    except OpenBookError as error:
        return [Said(str(error), "sentence")]
    except Exception as error:  # noqa: BLE001  this is what is looked for
        return [Said(repr(error), "traceback")]
    try:
        return [_said(question) for question in _questions(base, docs, embedder)]
    finally:
        base.close()


def _said(question: Callable[[], object]) -> Said:
    try:
        return Said(repr(question()), "value")
    except OpenBookError as error:
        return Said(str(error), "sentence")
    except Exception as error:  # noqa: BLE001  this is what is looked for
        return Said(repr(error), "traceback")


def _questions(base: KnowledgeBase, docs: Path, embedder: Embedder) -> Iterator[Callable[[], object]]:
    def found(question: str, scope: Scope) -> object:
        version, hits = base.search(question, embedder, 5, scope)
        return version, hits, cite_sentences(hits[0].passage.text, question, [h.passage for h in hits]) if hits else ()

    staff = frozenset({"staff"})
    scopes = [Scope(), Scope(labels=staff), Scope(as_of=1), Scope(as_of=3, labels=staff), Scope(where="type = 'md'")]
    for question in QUESTIONS:
        for scope in scopes:
            yield lambda q=question, s=scope: found(q, s)  # type: ignore[misc]
    for name in ("part-0.md", "copy-1.md", "part-5.md", "part-39.md"):
        path = str(docs / name)
        yield lambda path=path: (
            base.text(path),
            base.text(path, 1),
            (found := base.content(path)) and base.spans(found),
        )  # type: ignore[misc]
        yield lambda path=path: base.passages(path)  # type: ignore[misc]
    # The ids are functions of the texts: they are those of the undamaged one.
    for passage_id, document in _IDS.get(docs, ()):
        yield lambda i=passage_id, d=document: base.passage(i, Scope(labels=staff), d)  # type: ignore[misc]
    yield lambda: (base.documents(), base.documents(Scope()), base.labels(), base.metadata_keys(Scope()))
    yield lambda: history(base)
    yield lambda: diff(base, 1, 4)


_IDS: dict[Path, list[tuple[str, str]]] = {}


def remember_ids(whole: Path, docs: Path) -> None:
    """Of some passages of the undamaged one, among them one that two documents hold."""
    base = KnowledgeBase.open(whole)
    paths = [str(docs / name) for name in ("part-1.md", "copy-1.md", "part-30.md", "part-6.md")]
    _IDS[docs] = [(base.passages(path)[-1].id, path) for path in paths]
    base.close()


# --- damage -----------------------------------------------------------------------------------------------------------


def damaged_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size and p.name != ".lock")


def flip(folder: Path, chance: random.Random) -> tuple[Path, str]:
    """Change one byte, or one bit, at a random place: of all bytes, of one of the files, or where SQLite's pages begin."""
    files = damaged_files(folder)
    where = chance.choice(("any byte", "any file", "page"))
    weights = [path.stat().st_size for path in files] if where == "any byte" else None
    path = chance.choices(files, weights)[0]
    if where == "page":
        path = folder / "kb.sqlite3"
    data = bytearray(path.read_bytes())
    at = chance.randrange(len(data))
    if where == "page":
        at = min(at // 4096 * 4096 + chance.randrange(128), len(data) - 1)
    old = data[at]
    data[at] = old ^ (1 << chance.randrange(8)) if chance.random() < 0.5 else (old + chance.randrange(1, 256)) % 256
    before = path.stat()
    path.write_bytes(data)
    if chance.random() < 0.5:  # as a disk does it, which changes no time stamp
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return path, f"{path.name}: byte {at} from {old} to {data[at]}"


def cut(folder: Path, chance: random.Random) -> tuple[Path, str]:
    """Cut SQLite's file or log, or any file, at a random length; one time in four inside its last page."""
    files = damaged_files(folder)
    path = chance.choice([p for p in files if "sqlite3" in p.name] if chance.random() < 0.5 else files)
    data = path.read_bytes()
    least = max(0, len(data) - 4096) if chance.random() < 0.25 else 0
    length = chance.randrange(least, len(data))
    path.write_bytes(data[:length])
    return path, f"{path.name}: cut from {len(data)} to {length}"


def trials(
    whole: Path, docs: Path, embedder: Embedder, flips: int, cuts: int, chance: random.Random, work: Path
) -> Iterator[tuple[str, str, str, str]]:
    """(kind of damage, kind of file, outcome, what was done) for each trial."""
    shutil.copytree(whole, work / "expected")
    shutil.copytree(whole, work / "ids")  # closing the last connection would write the log back
    remember_ids(work / "ids", docs)
    expected = ask_all(work / "expected", docs, embedder)
    if any(each.kind != "value" for each in expected):
        raise SystemExit(f"The undamaged knowledge base does not answer: {expected}")
    for number in range(flips + cuts):
        copy = work / "copy"
        shutil.copytree(whole, copy)
        path, done = (flip if number < flips else cut)(copy, chance)
        said = ask_all(copy, docs, embedder)
        shutil.rmtree(copy)
        kinds = {each.kind for each in said}
        wrong = [
            (one.value, other.value)
            for one, other in zip(expected, said, strict=False)
            if other.kind == "value" and one.value != other.value
        ]
        outcome = "same"
        if "traceback" in kinds:
            outcome = "traceback"
            done += " " + next(each.value for each in said if each.kind == "traceback")
        elif wrong:
            outcome = "different"
            done += f" {wrong[0][0][:300]!r} -> {wrong[0][1][:300]!r}"
        elif "sentence" in kinds:
            outcome = "sentence"
        yield "flip" if number < flips else "cut", _kind(path), outcome, done


def _kind(path: Path) -> str:
    return path.name if path.parent.name == "copy" else "index"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("examples/handbook"))
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--cuts", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", action="store_true")
    parser.add_argument("--embedder", default="", help="of the store; without one, the hash embedder")
    options = parser.parse_args()
    embedder: Embedder = HashEmbedder()
    if options.embedder:
        from benchmarks.stored import stored
        from openbook.inference import load_embedder

        embedder = load_embedder(stored(options.embedder))
    counts: Counter[tuple[str, str, str]] = Counter()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        whole = build(work, options.folder, embedder, log=options.log)
        chance = random.Random(options.seed)
        for kind, file, outcome, done in trials(
            whole, work / "docs", embedder, options.flips, options.cuts, chance, work
        ):
            counts[kind, file, outcome] += 1
            if outcome in ("different", "traceback"):
                print(f"{outcome}: {done}")
    outcomes = ("same", "sentence", "different", "traceback")
    print(f"{'':<24}" + "".join(f"{outcome:>11}" for outcome in outcomes))
    for kind, file in sorted({key[:2] for key in counts}):
        print(f"{kind + ' ' + file:<24}" + "".join(f"{counts[kind, file, outcome]:>11}" for outcome in outcomes))
    totals = {outcome: sum(n for key, n in counts.items() if key[2] == outcome) for outcome in outcomes}
    print(json.dumps({"seed": options.seed, "log": options.log, "embedder": options.embedder or "hash", **totals}))


if __name__ == "__main__":
    main()
