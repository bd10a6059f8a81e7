"""Builds the reader's data from public sets of questions about text: recipes/data/reading-{train,dev}.jsonl.gz.

    python recipes/reader_data.py FOLDER

FOLDER holds `squad/` (development sets of SQuAD 1.1 and 2.0 and `splits.json`, the articles of each part) and `reading/`
(the other sets, one JSON object a line); recipes/data/README.md lists them with their licences. The same input gives the
same bytes. Of each set a part is kept for choosing (`reading-dev`); articles of SQuAD's test part, and text that stands in
`examples/`, are in neither.

Short answers to who, when and how many; a sentence to why and how, which is that of the passage; several sentences or "yes"
and "no" with a reason where the set has such answers.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import random
import re
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

RECIPES = Path(__file__).parent
EXAMPLES = RECIPES.parent / "examples"
MAX_CHARS = 1_200  # of a passage: what is longer is cut at the end of a sentence or row, or left out
LONG_CHARS = 420  # of an answer
SHINGLE = 12  # so many words in a row tell that two texts are the same
SAME_SHARE = 0.2  # of the shingles of a passage: as much as boilerplate makes
DEV_SHARE = 0.08
DEV_QUESTIONS = 60  # of each set

Question: TypeAlias = dict[str, Any]
Line: TypeAlias = dict[str, Any]  # {"title", "passage", "questions"}, or {"passages", "questions"}

_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9\"'(])")
_EXPLAINS = re.compile(
    r"(why|how (?!many|much|long|old|far|often|big|large|tall|high|fast|deep|old|late|close)|in what way)", re.I
)


def main() -> None:
    folder = Path(sys.argv[1])
    kept_apart = shingles(texts_kept_apart(folder))
    train: list[Line] = []
    dev: list[Line] = []
    for name, (read, passages, questions) in SETS.items():
        lines = [{**line, "kind": name} for line in read(folder)]
        lines = [line for line in lines if share_in(kept_apart, texts_of(line)) < SAME_SHARE]
        dev += thinned([line for line in lines if part_of(line) < DEV_SHARE], DEV_QUESTIONS, 2, name)
        rest = [line for line in lines if part_of(line) >= DEV_SHARE]
        train += thinned(rest, passages * questions, questions, name)
    train += two_at_once(train)
    for part, lines in (("train", train), ("dev", dev)):
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        target = RECIPES / "data" / f"reading-{part}.jsonl.gz"
        target.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
        print(f"{target.name}: {target.stat().st_size:,} bytes")
        for name in dict.fromkeys(line["kind"] for line in lines):
            own = [line for line in lines if line["kind"] == name]
            unanswerable = sum(not q["answers"] for line in own for q in line["questions"])
            print(f"  {name}: {len(own)} passages, {asked_in(own)} questions, {unanswerable} without an answer")


def squad(folder: Path) -> Iterator[Line]:
    """Questions of both versions on one paragraph stand in one line."""
    found: dict[tuple[str, str], dict[str, Question]] = {}
    for title, paragraph in squad_paragraphs(folder, "train"):
        asked = found.setdefault((title.replace("_", " "), paragraph["context"].strip()), {})
        for each in paragraph["qas"]:
            text = " ".join(each["question"].split())
            answers = [answer["text"].strip() for answer in each["answers"]]
            if text and (answers or each.get("is_impossible")):
                asked.setdefault(text, {"question": text, "answers": answers})
    for (title, passage), questions in sorted(found.items()):
        yield spans(title, passage, list(questions.values()))


def squad_paragraphs(folder: Path, part: str) -> Iterator[tuple[str, Any]]:
    """(title of the article, paragraph) for all paragraphs of a part, of both versions."""
    titles = set(json.loads((folder / "squad/splits.json").read_text(encoding="utf-8"))[part])
    for file in sorted((folder / "squad").glob("dev-*.json.gz")):
        for article in json.loads(gzip.decompress(file.read_bytes()))["data"]:
            if article["title"] in titles:
                yield from ((article["title"], paragraph) for paragraph in article["paragraphs"])


def spans_of(name: str) -> Callable[[Path], Iterator[Line]]:
    return lambda folder: (spans(row["title"], row["passage"], row["questions"]) for row in rows(folder, name))


def untitled_spans_of(name: str) -> Callable[[Path], Iterator[Line]]:
    """Of a set whose titles say nothing."""
    return lambda folder: (spans("", row["passage"], row["questions"]) for row in rows(folder, name))


def spans(title: str, passage: str, questions: Iterable[Question]) -> Line:
    """With the whole sentence where a question asks for an explanation and the span is short."""
    asked = []
    for each in questions:
        answers = each["answers"]
        if answers and _EXPLAINS.match(each["question"]) and max(len(a.split()) for a in answers) < 10:
            answers = [s for s in _SENTENCE.split(passage) if answers[0] in s and len(s) <= LONG_CHARS][:1] or answers
        asked.append({"question": " ".join(each["question"].split()), "answers": answers})
    return {"title": title, "passage": passage, "questions": asked}


def natural(folder: Path) -> Iterator[Line]:
    """QED: short where a name or number is asked for, else the sentence."""
    for row in rows(folder, "qed_dev"):
        asked = []
        for each in row["questions"]:
            short = re.match(r"(who|when|where|how (many|much|long|old))\b", each["question"], re.I)
            answer = min(each["answers"], key=len) if short else each.get("sentence") or each["answers"][0]
            asked.append({"question": each["question"], "answers": [untokenised(answer)]})
        yield {"title": row["title"], "passage": untokenised(row["passage"]), "questions": asked}


def yes_or_no(folder: Path) -> Iterator[Line]:
    """PubMedQA: the decision, and the conclusion as its reason. "Maybe" is answered by the conclusion alone."""
    for row in rows(folder, "pubmedqa"):
        for each in row["questions"]:
            decision = {"yes": "Yes. ", "no": "No. "}.get(each["answers"][0], "")
            answer = decision + shortened(each["long"], LONG_CHARS)
            questions = [{"question": each["question"], "answers": [answer]}]
            yield {"title": "", "passage": row["passage"], "questions": questions}


def finance(folder: Path) -> Iterator[Line]:
    """TAT-QA without its sums: what stands in the table or the text, lists and counts."""
    for row in rows(folder, "tatqa_dev"):
        questions = [q for q in row["questions"] if q["type"] != "arithmetic"]
        asked = [{"question": q["question"], "answers": q["answers"]} for q in questions]
        if asked and len(row["table"]) + len(row["passage"]) <= MAX_CHARS:
            yield {"title": "", "passage": f"{row['passage']}\n\n{row['table']}", "questions": asked}
        elif asked and len(row["passage"]) <= MAX_CHARS:
            yield {"passages": [{"text": row["table"]}, {"text": row["passage"]}], "questions": asked}


def long_answers(folder: Path) -> Iterator[Line]:
    for row in rows(folder, "clapnq_part"):
        asked = [
            {"question": q["question"], "answers": [*map(untokenised, q["answers"][:1])]} for q in row["questions"]
        ]
        yield {"title": row["title"], "passage": untokenised(row["passage"]), "questions": asked}


def medicine(folder: Path) -> Iterator[Line]:
    """MedQuAD: a section of a page answers; what is learned is its first sentences. Other diseases are near misses."""
    for row in rows(folder, "medquad"):
        for each in row["questions"]:
            section = shortened(" ".join(each["answer"].split()).removeprefix("Key Points - "), MAX_CHARS)
            answer = shortened(section, 260)
            if len(answer) >= 40 and not answer.endswith(":"):
                question = re.sub(r"\(are\) |\?(?= \?)", "", each["question"]).replace(" ?", "?").strip()
                questions = [{"question": question, "answers": [answer]}]
                yield {"title": row["title"], "passage": section, "questions": questions}


def conversations(folder: Path) -> Iterator[Line]:
    """MT-RAG: turns that stand alone, with the passages of their references."""
    for row in rows(folder, "mtrag_un_part"):
        question = " ".join(row["conversation"][-1]["text"].split())
        texts = [
            {"title": " ".join(p["title"].split()), "text": shortened(p["text"], MAX_CHARS)} for p in row["passages"]
        ]
        stands_alone = len(question.split()) > 3 and not re.search(
            r"\b(it|they|them|this|that|these|those|he|she)\b", question
        )
        if stands_alone and 1 <= len(texts) <= 4 and len(row["answer"]) <= 600:
            answer = " ".join(row["answer"].split())
            yield {"passages": texts, "questions": [{"question": question, "answers": [answer]}]}


# How to read a set; of how many of its passages to learn, and how many questions on each.
SETS: dict[str, tuple[Callable[[Path], Iterator[Line]], int, int]] = {
    "squad": (squad, 900, 5),
    "wiki": (spans_of("squadshifts_new_wiki"), 500, 4),
    "reviews": (untitled_spans_of("squadshifts_reddit"), 500, 4),
    "policies": (spans_of("policyqa_dev"), 500, 4),
    "natural": (natural, 1000, 1),
    "yes-no": (yes_or_no, 500, 1),
    "finance": (finance, 260, 4),
    "tables": (untitled_spans_of("wikitablequestions_train"), 450, 4),
    "long": (long_answers, 300, 1),
    "medicine": (medicine, 600, 1),
    "conversations": (conversations, 200, 1),
}


def two_at_once(lines: list[Line]) -> Iterator[Line]:
    """Questions that need two passages: two short ones in one."""
    chance = random.Random("two at once")
    short = [
        (line["title"], line["passage"], each["question"], each["answers"][0])
        for line in lines
        if "passage" in line and line["title"]
        for each in line["questions"]
        if each["answers"]
        and len(each["answers"][0]) <= 40
        and re.match(r"(who|when|where|what|which|how many)\b", each["question"], re.I)
    ]
    chance.shuffle(short)
    by_title = itertools.groupby(sorted(short[:2400], key=lambda each: each[0]), key=lambda each: each[0])
    for _, group in by_title:
        for one, other in zip(group, group, strict=False):
            if one[1] != other[1]:
                question = f"{one[2].rstrip(' ?')}, and {other[2][0].lower()}{other[2][1:]}"
                yield {
                    "kind": "two-at-once",
                    "passages": [{"title": each[0], "text": each[1]} for each in (one, other)],
                    "questions": [{"question": question, "answers": [f"{one[3]}; {other[3]}"]}],
                }


def texts_kept_apart(folder: Path) -> Iterator[str]:
    yield from (paragraph["context"] for _, paragraph in squad_paragraphs(folder, "test"))
    for path in sorted(EXAMPLES.rglob("*")):
        if path.suffix in (".md", ".txt", ".rst", ".html"):
            yield path.read_text(encoding="utf-8", errors="replace")
        elif path.name.endswith(".tar.xz"):
            with tarfile.open(path) as archive:
                for member in archive:
                    if stream := archive.extractfile(member) if member.isfile() else None:
                        yield stream.read().decode(errors="replace")


def rows(folder: Path, name: str) -> Iterator[Any]:
    with gzip.open(folder / "reading" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as stream:
        yield from map(json.loads, stream)


def texts_of(line: Line) -> list[str]:
    return [line["passage"]] if "passage" in line else [each["text"] for each in line["passages"]]


def shingles(texts: Iterable[str]) -> set[int]:
    found: set[int] = set()
    for text in texts:
        words = re.findall(r"\w+", text.lower())
        for i in range(len(words) - SHINGLE + 1):
            found.add(
                int.from_bytes(hashlib.blake2b(" ".join(words[i : i + SHINGLE]).encode(), digest_size=8).digest())
            )
    return found


def share_in(known: set[int], texts: Iterable[str]) -> float:
    found = shingles(texts)
    return len(found & known) / max(1, len(found))


def part_of(line: Line) -> float:
    """From 0 to 1, the same for all lines with one title and, where that says little, one text."""
    title = line.get("title", "")
    key = title if " " in title else texts_of(line)[0]
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4]) / 2**32


def thinned(lines: list[Line], most: int, questions: int, name: str) -> list[Line]:
    """Lines by chance that are short enough, with up to `questions` each, until there are `most` questions."""
    chance = random.Random(name)
    fitting = [line for line in lines if max(map(len, texts_of(line))) <= MAX_CHARS + 200]
    chance.shuffle(fitting)
    found: list[Line] = []
    for line in fitting:
        asked = [q for q in line["questions"] if all(a and len(a) <= 700 for a in q["answers"])]
        if asked and asked_in(found) < most:
            found.append({**line, "questions": chance.sample(asked, min(questions, len(asked)))})
    return found


def asked_in(lines: Iterable[Line]) -> int:
    return sum(len(line["questions"]) for line in lines)


def shortened(text: str, most: int) -> str:
    """Whole sentences or lines from the front, at most so many characters."""
    text = text.strip()
    if len(text) <= most:
        return text
    cut = max((m.start() for m in re.finditer(r"(?<=[.!?])\s|\n", text[: most + 1])), default=0)
    return text[:cut].strip()


def untokenised(text: str) -> str:
    """Without the spaces that a tokeniser put around marks."""
    text = re.sub(r" ([,.;:?!%)\]]|'s\b|n't\b)", r"\1", text.replace("`` ", '"').replace(" ''", '"'))
    return re.sub(r"([(\[$]) ", r"\1", text).replace(" - ", "-").replace(" -- ", " – ")


if __name__ == "__main__":
    main()
