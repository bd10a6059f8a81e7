"""Questions drafted by a model from a knowledge base. A person must review them before use (`questions.Review`).

A draft is kept if its answer occurs in the passage word for word. Neither retriever nor reader filters the drafts:
questions that they fail must stay in what measures them.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from itertools import chain, islice, zip_longest
from pathlib import Path, PurePath
from typing import Any

from openbook.core.errors import ConfigError, ContextOverflow
from openbook.core.files import make_folder, storage_errors
from openbook.core.parallel import Cancelled, Progress, in_order, never
from openbook.core.records import Decoding, Digest, Passage, Prompt, canonical_json, passage_block, sha256_hex
from openbook.diagnosis.gold_passages import places_of
from openbook.diagnosis.scoring import plain_words
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase, Scope
from openbook.knowledge.ingest.sentences import sentence_spans

TRIED_FOR_EACH = 5  # the most passages that the model reads for each draft wanted
SHORTEST_PASSAGE_CHARS = 60  # a heading alone offers no question
MAX_ANSWER_CHARS, MAX_QUESTION_CHARS = 80, 200
ROLE = "You write questions that test how well somebody knows a text."
# No examples, good or bad: the 1.5B model copies them instead of reading the passage.
REQUEST = (
    "Write one question about a fact in the passage above, and its answer. Begin with a word such as When, Where, Who or How many, "
    "and mention in full the person, place, thing or year that is meant, never the passage: the question goes to a stranger who has "
    "thousands of documents and must find the only one that answers it. The answer is one name, number, date or a few words, "
    "copied from the passage word for word, and no sentence. Write two lines:\nQuestion: ...\nAnswer: ..."
)
DECODING = Decoding(max_tokens=96)
_REPLY = re.compile(
    r"question[\s*]*:[\s*]*(?P<question>.+?)[\s*]*answer[\s*]*:[\s*]*(?P<answer>[^\n]+)", re.IGNORECASE | re.DOTALL
)
_QUOTES = "\"'`“”‘’«»"
_POINTING = re.compile(r"\b(?:the|this|that|given|provided|above)\s+(?:passage|excerpt|paragraph|text|context)\b", re.I)


@dataclass(frozen=True, slots=True)
class Drafts:
    """`questions`: lines for a file of questions. `rejected`: counts by reason. `passages`: how many the model read."""

    questions: tuple[dict[str, Any], ...]
    rejected: Mapping[str, int]
    passages: int


def draft(
    base: KnowledgeBase,
    model: FrozenModel,
    count: int,
    path: Path,
    *,
    at_once: int = 1,
    progress: Progress = lambda done, total: None,
) -> Drafts:
    """Draft at most `count` questions, spread over the documents. `at_once`: parallel requests.

    `path` keeps the model's output, so a resumed run asks nothing twice. The same knowledge base, model and count give
    the same drafts. Raises ConfigError for a trained reader.
    """
    if model.reader is not None:
        raise ConfigError(
            f"{model.identity.name!r} was trained to answer from passages and writes no questions. Choose a model that follows "
            "instructions, such as qwen2.5-coder-1.5b-instruct."
        )
    model = model.for_request()
    kept, rejected = dict[Digest, str](), Counter[str]()
    questions: dict[str, dict[str, Any]] = {}  # by their plain words
    read = 0

    def reply(turn: tuple[str, Passage], gives_up: Cancelled) -> tuple[Digest, str]:
        passage = turn[1]
        block = passage_block(passage.heading_path, passage.text)
        asked = [asdict(model.identity), model.engine.numeric_class, ROLE, block, REQUEST, asdict(DECODING)]
        key = sha256_hex(canonical_json(asked))
        if key in kept:
            return key, kept[key]
        prompt = Prompt(ROLE, (block,), REQUEST, passage.labels)
        try:
            completion = model.complete(prompt, DECODING, gives_up)
        except ContextOverflow:
            return key, ""
        return key, "" if completion.finish_reason == "cancelled" else completion.text

    with storage_errors(f"write {path}"):
        make_folder(path.parent)
        stream = path.open("a+b")
    turns = islice(passages_in_turn(base), TRIED_FOR_EACH * count)
    with stream, closing(in_order(reply, turns, at_once, never)) as replies:
        stream.seek(0)
        for line in stream:
            with suppress(ValueError, TypeError):  # a line that a killed run left incomplete
                kept |= json.loads(line)
        for (name, passage), (key, written) in replies:
            read += 1
            if written and key not in kept:
                with storage_errors(f"write {path}"):  # on a new line, whatever a killed process left
                    stream.write(b"\n" + json.dumps({key: written}).encode() + b"\n")
                    stream.flush()
            found = _REPLY.search(written)
            question = " ".join(found["question"].split()).strip(_QUOTES) if found else ""
            answer = found["answer"].strip().rstrip(".").strip(_QUOTES).rstrip(".") if found else ""
            reason = reason_against(question, answer, passage.text)
            if not reason and plain_words(question) in questions:
                reason = "the same question came before"
            if reason:
                rejected[reason] += 1
            else:
                questions[plain_words(question)] = _line(name, passage, question, answer)
            progress(len(questions), count)
            if len(questions) == count:
                break
    return Drafts(tuple(questions.values()), dict(rejected.most_common()), read)


def passages_in_turn(base: KnowledgeBase) -> Iterator[tuple[str, Passage]]:
    """(document's name, passage), one of each document in turn, at the newest version.

    A text in several documents comes once. The order depends on names below the common folder only.
    """
    version, seen = base.kept_version(), set[Digest]()
    documents = base.documents(Scope(as_of=version))
    try:
        folder = os.path.commonpath([PurePath(each).parent for each in documents]) if documents else ""
    except ValueError:  # on different drives, or not all absolute
        folder = ""
    names = {PurePath(each).relative_to(folder).as_posix() if folder else each: each for each in documents}

    def rank(name: str) -> Digest:
        return sha256_hex(f"0\0{name}".encode("utf-8", "replace"))

    def passages_of(name: str) -> Iterator[tuple[str, Passage]]:
        for passage in sorted(base.passages(names[name], version), key=lambda passage: rank(passage.id)):
            if len(passage.text.strip()) >= SHORTEST_PASSAGE_CHARS and passage.digest not in seen:
                seen.add(passage.digest)
                yield name, passage

    turns = zip_longest(*map(passages_of, sorted(names, key=rank)))
    return filter(None, chain.from_iterable(turns))


def reason_against(question: str, answer: str, text: str) -> str:
    """Why a draft is rejected; empty if it is kept."""
    if not (re.search(r"\w", question) and re.search(r"\w", answer)):
        return "no question with an answer was written"
    if not places_of(text, answer):
        return "the answer does not stand in the passage"
    if len(answer) > MAX_ANSWER_CHARS or len(question) > MAX_QUESTION_CHARS:
        return "it is too long"
    if question.count("?") > 1 or not question.endswith(("?", "？")):
        return "it is not one question"
    if _POINTING.search(question):
        return "the question points at its passage"
    if set(plain_words(answer).split()) <= set(plain_words(question).split()):
        return "the question gives the answer away"
    return ""


def _line(name: str, passage: Passage, question: str, answer: str) -> dict[str, Any]:
    """A line of a file of questions. Gold: the sentence with the answer that shares most words with the question."""
    sentences = sentence_spans(passage.text, 0, len(passage.text))
    golds = []
    for start, end in places_of(passage.text, answer):
        around = [span for span in sentences if span[0] < end and span[1] > start] or [(start, end)]
        golds.append((around[0][0], around[-1][1]))
    asked = set(plain_words(question).split())
    start, end = max(golds, key=lambda span: len(asked & set(plain_words(passage.text[slice(*span)]).split())))
    quote = passage.text[start:end]
    start, end, kind = passage.start + start, passage.start + end, PurePath(name).suffix.lstrip(".").lower()
    return {
        "id": "d" + sha256_hex(f"{question}\0{quote}".encode("utf-8", "replace"))[:10],
        "question": question,
        "kind": "answerable",
        "answers": [" ".join(answer.split())],
        "gold": {"document": name, "page": passage.page, "start": start, "end": end, "quote": quote},
        "tags": [kind] if kind else [],
        "reviewed": False,
    }
