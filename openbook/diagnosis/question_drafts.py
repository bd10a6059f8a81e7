"""Questions drafted by a model from a knowledge base, and their review: none is used before a person has read it.

The documents take turns, a passage each. The model reads the passage and writes one question with its answer; the draft is
kept if the answer stands in the passage word for word, and the question can be asked without it and tells what it is about.
Neither the retriever nor the reader is asked: a question that they fail must not be left out of what measures them.

In the review, each decision is on the disk before the next one is asked for.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path, PurePath
from typing import Any

from openbook.diagnosis.gold_passages import documents_named, places_of
from openbook.diagnosis.questions import content_of, file_content, json_lines, question_of, repeated_id
from openbook.diagnosis.scoring import plain_words
from openbook.errors import ConfigError, ContextOverflow, StorageError
from openbook.files import make_folder, replace_file, storage_errors
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase, Scope
from openbook.knowledge.sentences import sentence_spans
from openbook.knowledge.words import is_function_word
from openbook.parallel import Cancelled, Progress, in_order, never
from openbook.prompts import passage_block
from openbook.records import Decoding, Digest, Passage, Prompt, canonical_json, sha256_hex

TRIED_FOR_EACH = 5  # passages that the model reads at most, for each draft wanted
SHORTEST_PASSAGE_CHARS = 60  # a heading alone says nothing to ask for
MAX_ANSWER_CHARS, MAX_ANSWER_WORDS = 80, 10
MAX_DRAFT_CHARS = 200

ROLE = "You write questions that test how well somebody knows a text."
# Without examples, good or bad: the 1.5B copies them instead of reading the passage.
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
_POINTING = re.compile(
    r"\b(?:this|these|those)\b"
    r"|\b(?:the|that|which)\s+(?:(?:given|provided|above|following)\s+)?(?:passage|excerpt|paragraph|snippet|text)\b"
    r"|\b(?:given|provided|above)\s+(?:context|document|information|section|code|example)\b"
    r"|\b(?:mentioned|described|given|shown|listed|stated|discussed)\s+(?:above|below|here)\b"
    r"|^\W*\w+\s+\w+\s+(?:it|its|he|his|she|her|they|their|them)\b",  # "When did he ...?"
    re.IGNORECASE,
)
_NAMING = re.compile(r"\b(?:name|named|names|called|title|titled|entitled)\b", re.IGNORECASE)
_GENERIC = frozenset(
    "name named names called title titled entitled main first last new old big small good best author person people man woman "
    "boy girl child character company group team organization organisation place city town country area school university "
    "museum building house street book story novel article paper chapter document text film movie show series song album band "
    "game player product program project system tool method work event day year time thing one type kind part given used "
    "mentioned described known made written".split()
)


@dataclass(frozen=True, slots=True)
class Drafts:
    """`questions`: lines for a file of questions. `rejected`: how many, by reason. `passages`: how many the model read."""

    questions: tuple[dict[str, Any], ...]
    rejected: Mapping[str, int]
    passages: int


class ReplyLog:
    """What the model wrote, by a digest of all that decides it: a run that was stopped asks for nothing twice."""

    def __init__(self, path: Path) -> None:
        """Raises StorageError."""
        self.path, self._writing = path, threading.Lock()
        self.replies: dict[Digest, str] = {}
        with storage_errors(f"read {path}"):
            content = path.read_bytes() if path.exists() else b""
        for line in content.splitlines():
            try:
                self.replies |= json.loads(line)
            except (ValueError, TypeError):  # the line at which the run was killed
                continue

    def add(self, key: Digest, reply: str) -> None:
        """Raises StorageError."""
        self.replies[key] = reply
        with self._writing, storage_errors(f"write {self.path}"):
            make_folder(self.path.parent)
            with self.path.open("ab") as stream:
                line = json.dumps({key: reply}, ensure_ascii=False).encode("utf-8", "replace")
                stream.write(b"\n" + line + b"\n")  # a line of its own, whatever stands before it


def draft(
    base: KnowledgeBase,
    model: FrozenModel,
    count: int,
    log: ReplyLog,
    *,
    at_once: int = 1,
    progress: Progress = lambda done, total: None,
) -> Drafts:
    """At most `count` drafts, spread over the documents. `at_once`: how many the model writes at the same time.

    The same knowledge base, model and count give the same drafts, whatever `log` holds and `at_once` is.
    Raises ConfigError for a model that only answers; KnowledgeError, EngineError, StorageError.
    """
    if model.reader is not None:
        raise ConfigError(
            f"{model.identity.name!r} was trained to answer from passages and writes no questions. Choose a model that follows "
            "instructions: --model qwen2.5-coder-1.5b-instruct."
        )
    model = model.for_request()
    questions: dict[str, dict[str, Any]] = {}  # by their plain words
    rejected: Counter[str] = Counter()
    read = 0

    def reply(turn: tuple[str, Passage], gives_up: Cancelled) -> str:
        """What the model writes, greedily; nothing where the passage does not fit into its context, or it gives up."""
        passage = turn[1]
        block = passage_block(passage.heading_path, passage.text)
        asked = [asdict(model.identity), model.engine.numeric_class, ROLE, block, REQUEST, asdict(DECODING)]
        key = sha256_hex(canonical_json(asked))
        if key not in log.replies:
            prompt = Prompt(ROLE, (block,), REQUEST, passage.labels)
            try:
                completion = model.complete(prompt, DECODING, gives_up)
            except ContextOverflow:
                return ""
            if completion.finish_reason == "cancelled":
                return ""
            log.add(key, completion.text)
        return log.replies[key]

    turns = islice(passages_in_turn(base), TRIED_FOR_EACH * count)
    with closing(in_order(reply, turns, at_once, never)) as replies:
        for (name, passage), written in replies:
            read += 1
            question, answer = asked_and_answered(written)
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
    """A passage of each document, then the next of each, with the document's name, of the version that is the newest now.

    Text that stands in several documents comes once. The order depends on names below the common folder, not on where it lies.
    """
    version, seen = base.kept_version(), set[Digest]()
    names = _names(base.documents(Scope(as_of=version)))

    def rank(name: str) -> Digest:
        return sha256_hex(f"0\0{name}".encode("utf-8", "replace"))

    def passages_of(document: str) -> Iterator[tuple[str, Passage]]:
        for passage in sorted(base.passages(document, version), key=lambda passage: rank(passage.id)):
            if len(passage.text.strip()) >= SHORTEST_PASSAGE_CHARS and passage.digest not in seen:
                seen.add(passage.digest)
                yield names[document], passage

    turns = [passages_of(document) for document in sorted(names, key=lambda each: rank(names[each]))]
    while turns:
        for turn in list(turns):
            found = next(turn, None)
            if found is None:
                turns.remove(turn)
            else:
                yield found


def asked_and_answered(reply: str) -> tuple[str, str]:
    """(question, answer) as the model wrote them; both empty where it kept to no form."""
    found = _REPLY.search(reply)
    if found is None:
        return "", ""
    answer = found["answer"].strip().rstrip(".").strip(_QUOTES).rstrip(".")
    return " ".join(found["question"].split()).strip(_QUOTES), answer


def reason_against(question: str, answer: str, text: str) -> str:
    """Why a draft from a passage with this text is not kept; empty when nothing speaks against it."""
    if not (re.search(r"\w", question) and re.search(r"\w", answer)):
        return "no question with an answer was written"
    if not places_of(text, answer):
        return "the answer does not stand in the passage"
    if len(answer) > MAX_ANSWER_CHARS or len(answer.split()) > MAX_ANSWER_WORDS:
        return "the answer is too long"
    if len(question) > MAX_DRAFT_CHARS or question.count("?") > 1 or not question.endswith(("?", "？")):
        return "it is not one short question"
    if _POINTING.search(question):
        return "the question points at its passage"
    if not singles_out(question):
        return "the question does not tell which one it is about"
    if _telling_words(answer) <= _telling_words(question):
        return "the question gives the answer away"
    return ""


def singles_out(question: str) -> bool:
    """Whether a question for a name says whose; "What is the name of the book?" and "What is the man's name?" do not."""
    if not _NAMING.search(question):
        return True
    _, *words = re.findall(r"\w[\w'’-]*", question)
    if any(word[0].isupper() or re.search(r"\d", word) for word in words):
        return True
    nouns = {word.lower().removesuffix("'s").removesuffix("’s") for word in words}
    nouns = {word for word in nouns if not (is_function_word(word) or _NAMING.fullmatch(word))}
    return len(nouns) > 1 and any(word not in _GENERIC and word.removesuffix("s") not in _GENERIC for word in nouns)


def _telling_words(text: str) -> set[str]:
    words = set(plain_words(text).split())
    return {word for word in words if not is_function_word(word)} or words


def _line(name: str, passage: Passage, question: str, answer: str) -> dict[str, Any]:
    """The draft as a line of a file of questions: its gold is the sentence with the answer that shares most words with the question."""
    sentences = sentence_spans(passage.text, 0, len(passage.text))
    golds = []
    for start, end in places_of(passage.text, answer):
        around = [span for span in sentences if span[0] < end and span[1] > start] or [(start, end)]
        golds.append((around[0][0], around[-1][1]))
    start, end = max(golds, key=lambda span: len(_telling_words(question) & _telling_words(passage.text[slice(*span)])))
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


def _names(documents: Sequence[str]) -> dict[str, str]:
    """The path of each document below the folder that holds them all."""
    try:
        folder = os.path.commonpath([PurePath(each).parent for each in documents]) if documents else ""
    except ValueError:  # on different drives, or not all absolute
        folder = ""
    return {each: PurePath(each).relative_to(folder).as_posix() if folder else each for each in documents}


# --- review -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Review:
    """The questions of a file as they stand there, those that a person wrote included."""

    path: Path
    questions: list[dict[str, Any]]
    _saved: bytes  # the file's content as this review knows it

    @classmethod
    def open(cls, path: Path) -> Review:
        """Raises ConfigError that names the line that is not a valid question, StorageError."""
        path = path.resolve()  # a link stays one
        with storage_errors(f"read {path}"):
            saved = path.read_bytes()  # first, so that what is saved while the questions are read is not overwritten
        questions: dict[str, dict[str, Any]] = {}
        for number, where, value in json_lines(file_content(path), path.name):
            identity = question_of(value, where, f"line-{number}").id
            if identity in questions:
                raise repeated_id(where, identity)
            questions[identity] = value
        return cls(path, list(questions.values()), saved)

    def drafts(self) -> list[dict[str, Any]]:
        """Those that are still to be decided."""
        return [each for each in self.questions if each.get("reviewed") is False]

    def accept(self, draft: dict[str, Any]) -> None:
        """Raises StorageError."""
        draft["reviewed"] = True
        self._save()

    def reject(self, draft: dict[str, Any]) -> None:
        """Take it out of the file. Raises StorageError."""
        self.questions = [each for each in self.questions if each is not draft]
        self._save()

    def edit(self, draft: dict[str, Any], question: str, answers: list[str]) -> None:
        """Change it and keep it a draft; without answers it becomes unanswerable. Raises ConfigError, StorageError."""
        changed = draft | {"question": question, "answers": answers}
        changed.pop("unanswerable", None)
        if not answers or changed.get("kind") == "unanswerable":
            changed["kind"] = "answerable" if answers else "unanswerable"
        question_of(changed, "The draft", "draft")
        draft.clear()
        draft.update(changed)
        self._save()

    def _save(self) -> None:
        content = content_of(self.path, self.questions)
        with storage_errors(f"write {self.path}"):
            if not self.path.exists() or self.path.read_bytes() != self._saved:
                raise StorageError(
                    f"{self.path} was changed by something else while it was reviewed, so your last decision was not "
                    "written. Run the review again: it goes on with the file as it is now."
                )
            replace_file(self.path, content)
        self._saved = content


def around(base: KnowledgeBase, draft: dict[str, Any]) -> tuple[str, str] | None:
    """What stands before and behind the quote in its passage. None: the quote does not stand where the draft says."""
    gold = draft["gold"]
    start, end, quote = gold.get("start", 0), gold.get("end", 0), gold.get("quote")
    for document in documents_named(base.documents(), gold.get("document") or ""):
        for passage in base.passages(document):
            inside = slice(start - passage.start, end - passage.start)
            if passage.start <= start and passage.text[inside] == quote:
                return passage.text[: inside.start].lstrip(), passage.text[inside.stop :].rstrip()
    return None
