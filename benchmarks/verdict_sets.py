"""The sets of questions whose verdicts `benchmarks.verdicts` counts, each with the documents that it is asked with.

Documents are written as Markdown below a folder, one for each title, so that they are read and split as a user's are.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.stored import EXAMPLES, HANDBOOK
from openbook.diagnosis.questions import Gold, Question, load_questions
from openbook.knowledge.ingest.sentences import sentence_spans

SEED = 11  # of the order in which the questions of a set are asked
SPLIT = "test"  # of SQuAD's articles
SHORTEST_QUOTE_CHARS = 20  # of a quote that is looked for in all documents


@dataclass(frozen=True, slots=True)
class Set:
    """`documents`: folders that are its knowledge base."""

    name: str
    questions: Sequence[Question]
    documents: Sequence[Path]


def sets(names: Iterable[str], data: Path, written: Path) -> list[Set]:
    """Those of these names, from the folders in `data`; documents that are not files yet are written below `written`."""
    return [replace(found, questions=_shuffled(found.questions)) for found in (SETS[n](data, written) for n in names)]


def _shuffled(questions: Sequence[Question]) -> Sequence[Question]:
    return random.Random(SEED).sample(questions, len(questions))


# --- sets with documents ----------------------------------------------------------------------------------------------


def _examples(data: Path, written: Path) -> Set:
    return Set("examples", load_questions(EXAMPLES / "questions.jsonl"), [HANDBOOK])


def _squad(data: Path, written: Path) -> Set:
    """SQuAD 2.0, the articles on which nothing was trained, chosen or fitted."""
    folder = data / "squad"
    titles = set(json.loads((folder / "splits.json").read_text(encoding="utf-8"))[SPLIT])
    content = gzip.decompress((folder / "dev-v2.0.from-explorer.json.gz").read_bytes())
    articles = [article for article in json.loads(content)["data"] if article["title"] in titles]
    texts = {a["title"].replace("_", " "): "\n\n".join(p["context"] for p in a["paragraphs"]) for a in articles}
    names = _write(written / "squad", texts)
    questions = [
        _squad_question(q, p["context"], names[a["title"].replace("_", " ")])
        for a in articles
        for p in a["paragraphs"]
        for q in p["qas"]
    ]
    return Set("squad", questions, [written / "squad"])


def _squad_question(value: Mapping[str, Any], context: str, document: str) -> Question:
    answers = tuple(dict.fromkeys(answer["text"] for answer in value["answers"]))
    if value["is_impossible"] or not answers:
        return Question(value["id"], value["question"].strip(), kind="unanswerable")
    first = value["answers"][0]
    quote = sentence_at(context, first["answer_start"], len(first["text"]))
    return Question(value["id"], value["question"].strip(), answers, gold=Gold(document, quote=quote))


def sentence_at(text: str, start: int, length: int) -> str:
    """The sentence of the text that `[start, start + length)` stands in, or the sentences if it reaches into several.

    A sentence of fewer than `SHORTEST_QUOTE_CHARS` comes with the nearest ones beside it. Empty if there is no sentence.
    """
    spans = sentence_spans(text, 0, len(text))
    around = [i for i, (begin, end) in enumerate(spans) if begin < start + length and end > start]
    if not around:
        return ""
    first, last = around[0], around[-1]
    while spans[last][1] - spans[first][0] < SHORTEST_QUOTE_CHARS and last - first + 1 < len(spans):
        before = spans[first][0] - spans[first - 1][1] if first else len(text)
        after = spans[last + 1][0] - spans[last][1] if last + 1 < len(spans) else len(text)
        first, last = (first - 1, last) if before < after else (first, last + 1)
    return text[spans[first][0] : spans[last][1]]


def _multihop(data: Path, written: Path) -> Set:
    """HotpotQA and MuSiQue. A question has one gold span: the supporting sentence (HotpotQA) or paragraph (MuSiQue)
    in which the answer stands, though more is needed to answer it.
    """
    folder = data / "multihop_samples"
    hotpot = {title: "".join(text) for title, text in _json(folder / "hotpotqa_train_corpus.json").items()}
    musique: dict[str, str] = {}
    for each in _json(folder / "musique_train_corpus.json"):
        musique[each["title"]] = (
            f"{musique[each['title']]}\n\n{each['text']}" if each["title"] in musique else each["text"]
        )
    first, second = _write(written / "multihop" / "hotpotqa", hotpot), _write(written / "multihop" / "musique", musique)
    questions = [_hotpot_question(value, first) for value in _json(folder / "hotpotqa_train.json")]
    questions += [_musique_question(value, second) for value in _json(folder / "musique_train.json")]
    return Set("multihop", questions, [written / "multihop"])


def _hotpot_question(value: Mapping[str, Any], names: Mapping[str, str]) -> Question:
    given = dict(value["context"])
    supporting = [(title, given[title][at]) for title, at in value["supporting_facts"] if at < len(given[title])]
    title, sentence = next(((t, s) for t, s in supporting if value["answer"] in s), supporting[-1])
    gold = Gold(names[title], quote=sentence.strip())
    return Question(value["_id"], value["question"].strip(), (value["answer"],), gold=gold, tags=("hotpotqa",))


def _musique_question(value: Mapping[str, Any], names: Mapping[str, str]) -> Question:
    answers = tuple(dict.fromkeys([value["answer"], *value["answer_aliases"]]))
    supporting = [p for p in value["paragraphs"] if p["is_supporting"]]
    holding = next((p for p in reversed(supporting) if value["answer"] in p["paragraph_text"]), supporting[-1])
    gold = Gold(names[holding["title"]], quote=holding["paragraph_text"].strip())
    return Question(value["id"], value["question"].strip(), answers, gold=gold, tags=("musique",))


# --- sets without documents -------------------------------------------------------------------------------------------


def _popqa(data: Path, written: Path) -> Set:
    lines = (data / "popqa_sample" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    questions = [
        Question(row["id"], row["question"].strip(), tuple(dict.fromkeys(row["golden_answers"]))) for row in rows
    ]
    return Set("popqa", questions, _foreign(data, written))


def _webquestions(data: Path, written: Path) -> Set:
    rows = _json(data / "webquestions" / "test.json")
    questions = [Question(row["qId"], row["qText"].strip(), tuple(dict.fromkeys(row["answers"]))) for row in rows]
    return Set("webquestions", [q for q in questions if q.answers], _foreign(data, written))


def _foreign(data: Path, written: Path) -> Sequence[Path]:
    """Documents for sets that come without: the encyclopedia's texts of the other sets, which hold few of the answers."""
    return [*_squad(data, written).documents, *_multihop(data, written).documents]


SETS: dict[str, Callable[[Path, Path], Set]] = {
    "examples": _examples,
    "squad": _squad,
    "multihop": _multihop,
    "popqa": _popqa,
    "webquestions": _webquestions,
}


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _write(folder: Path, texts: Mapping[str, str]) -> dict[str, str]:
    """A document for each title. The end of its path, by title."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {}
    for number, (title, text) in enumerate(texts.items()):
        path = folder / f"{number:04}.md"
        if not path.exists():
            path.write_text(f"# {title}\n\n{text}\n", encoding="utf-8")
        names[title] = f"{folder.name}/{path.name}"
    return names
