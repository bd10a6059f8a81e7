"""Questions with accepted answers, as JSON Lines, plain or gzip: format in docs/formats/diagnosis.md.

{"id": "q1", "question": "When does the ferry leave?", "answers": ["09:40", "9.40"], "tags": ["time"],
 "phrasings": ["At what time does the ferry sail?"], "gold": {"document": "ferry.md", "start": 10, "end": 42}}
{"id": "q2", "question": "Who built the ferry?", "kind": "unanswerable"}
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from openbook.answers.prompts import checked_question
from openbook.core.codec import convert, parse_json
from openbook.core.errors import ConfigError, QuestionError, StorageError
from openbook.core.files import replace_file, storage_errors
from openbook.core.records import Digest, canonical_json

Kind: TypeAlias = Literal["answerable", "unanswerable", "world"]
KINDS: dict[str, Kind] = {**{kind: kind for kind in get_args(Kind)}, "closed-book": "world"}  # names in files
MAX_FILE_BYTES = 1 << 29  # after decompression
MAX_QUESTION_BYTES = 1 << 20
MAX_ID_CHARS = 200
MAX_WORDINGS = 20


@dataclass(frozen=True, slots=True)
class Gold:
    """`[start, end)` of the document's text; `quote`: its words, if given.

    `document` is the end of a path in the knowledge base; if empty, `quote` is searched for in all documents.
    """

    document: str = ""
    start: int = 0
    end: int = 0
    quote: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """`answers`: each is accepted; none: the documents hold none. `phrasings`: the same question in other words.

    `kind` "world": general knowledge, not expected in the documents. `reviewed`: false for a draft.
    """

    id: str
    question: str
    answers: tuple[str, ...] = ()
    kind: Kind = "answerable"
    phrasings: tuple[str, ...] = ()
    gold: Gold | None = None
    tags: tuple[str, ...] = ()
    reviewed: bool = True

    @property
    def wordings(self) -> tuple[str, ...]:
        return (self.question, *self.phrasings)


def questions_digest(questions: Iterable[Question]) -> Digest:
    """SHA-256 of the questions in order."""
    digest = sha256()
    for question in questions:
        digest.update(canonical_json(asdict(question)) + b"\n")
    return digest.hexdigest()


_Texts: TypeAlias = tuple[str, ...] | str | None  # a list of texts, one text, or nothing


@dataclass(frozen=True, slots=True)
class _GoldInFile(Gold):
    page: int | None = None


@dataclass(frozen=True, slots=True)
class _QuestionInFile:
    question: str
    id: str | int | None = None
    answers: _Texts = None
    kind: str | None = None
    unanswerable: bool = False
    gold: _GoldInFile | None = None
    tags: _Texts = None
    phrasings: _Texts = None
    reviewed: bool = True
    note: Any = None


def question_of(value: object, where: str, fallback_id: str = "") -> Question:
    """Raises ConfigError."""
    found = convert(value, _QuestionInFile, where, ConfigError)
    kind = ("unanswerable" if found.unanswerable else "answerable") if found.kind is None else found.kind
    if kind not in KINDS:
        raise ConfigError(f"{where}.kind must be one of {', '.join(KINDS)}, not {kind!r}.")
    if found.unanswerable and kind != "unanswerable":
        raise ConfigError(f"{where} is marked unanswerable, but its kind is {kind!r}.")
    return checked(
        Question(
            id=fallback_id if found.id is None else str(found.id),
            question=found.question,
            answers=texts(found.answers),
            kind=KINDS[kind],
            phrasings=texts(found.phrasings),
            gold=found.gold and Gold(found.gold.document, found.gold.start, found.gold.end, found.gold.quote),
            tags=texts(found.tags),
            reviewed=found.reviewed,
        ),
        where,
    )


def texts(value: _Texts) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(dict.fromkeys(value or ()))


def checked(question: Question, where: str) -> Question:
    """The question as it will be asked. Raises ConfigError."""
    problem = _problem(question)
    if problem:
        raise ConfigError(f"{where} is not a valid question: {problem}.")
    try:
        wording, *others = map(checked_question, question.wordings)
    except QuestionError as error:
        raise ConfigError(f"{where} is not a valid question: {error}") from error
    phrasings = tuple(each for each in dict.fromkeys(others) if each != wording)
    return replace(question, question=wording, phrasings=phrasings)


def _problem(question: Question) -> str:
    gold, said = question.gold, (question.id, *question.answers, *question.tags, *question.phrasings)
    try:
        size = len(json.dumps(asdict(question), ensure_ascii=False).encode())
    except UnicodeEncodeError:
        return "a text in it holds half a character (a lone surrogate)"
    if size >= MAX_QUESTION_BYTES:
        return f"it has {size:,} bytes, and a question may have {MAX_QUESTION_BYTES:,}; shorten it"
    if not question.id.strip() or len(question.id) > MAX_ID_CHARS:
        return f"'id' must be a text of 1 to {MAX_ID_CHARS} characters"
    if not all(each.strip() for each in said):
        return "an answer, tag or phrasing is empty"
    if len(question.phrasings) >= MAX_WORDINGS:
        return f"it has {len(question.phrasings)} phrasings; the limit is {MAX_WORDINGS - 1}"
    if question.kind == "unanswerable" and question.answers:
        return "it is marked unanswerable and has answers; drop one of the two"
    if question.kind != "unanswerable" and not question.answers:
        return 'it has no answers and is not marked unanswerable; give "answers", or "kind": "unanswerable"'
    if gold is not None and not 0 <= gold.start <= gold.end:
        return "'start' and 'end' of 'gold' must be numbers of characters, the end after the start"
    if gold is not None and not (gold.quote.strip() or (gold.document and gold.start < gold.end)):
        return "'gold' needs a document with start and end, or a quote"
    return ""


def file_content(path: Path) -> bytes:
    """The bytes of a file, decompressed, without a byte order mark. Raises ConfigError."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ConfigError(f"{path.name} cannot be decompressed: {error}.") from error
    except OSError as error:
        raise StorageError(f"Cannot read the questions in {path}: {error.strerror or error}.") from error
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"{path.name} has more than {MAX_FILE_BYTES:,} bytes. Divide it into several files.")
    return content.removeprefix(b"\xef\xbb\xbf")


def load_questions(path: Path) -> list[Question]:
    """Raises ConfigError that names the line."""
    found = [question for question, _ in question_lines(file_content(path), path.name)]
    if not found:
        raise ConfigError(f"{path.name} holds no questions.")
    return found


def question_lines(content: bytes, name: str) -> Iterator[tuple[Question, dict[str, Any]]]:
    """Each question with its JSON object. Raises ConfigError that names the line."""
    ids = set[str]()
    for number, where, value in json_lines(content, name):
        question = question_of(value, where, f"line-{number}")
        if question.id in ids:
            raise ConfigError(f"{where}: the id {question.id!r} is used twice. Give each question its own.")
        ids.add(question.id)
        yield question, value


def json_lines(content: bytes, name: str) -> Iterator[tuple[int, str, Any]]:
    """(number from 1, place for messages, value) of each line that is not blank. Raises ConfigError."""
    for number, line in enumerate(BytesIO(content), 1):
        if line.strip():
            where = f"{name} line {number}"
            yield number, where, parse_json(line, where, ConfigError)


def content_of(path: Path, questions: Iterable[Mapping[str, Any]]) -> bytes:
    content = "".join(f"{json.dumps(each, ensure_ascii=False)}\n" for each in questions).encode("utf-8", "replace")
    return gzip.compress(content, mtime=0) if path.suffix == ".gz" else content


def write_questions(path: Path, questions: Iterable[Mapping[str, Any]]) -> None:
    with storage_errors(f"write {path}"):
        replace_file(path, content_of(path, questions))


# --- review of drafts -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Review:
    """Each decision is written at once."""

    path: Path
    questions: list[dict[str, Any]]
    _saved: bytes  # the file's content as last read or written

    @classmethod
    def open(cls, path: Path) -> Review:
        """Raises ConfigError that names an invalid line."""
        path = path.resolve()  # keep a link
        with storage_errors(f"read {path}"):
            saved = path.read_bytes()  # first, so that what others save meanwhile is not overwritten
        return cls(path, [value for _, value in question_lines(file_content(path), path.name)], saved)

    def drafts(self) -> list[dict[str, Any]]:
        return [each for each in self.questions if each.get("reviewed") is False]

    def decide(self, draft: dict[str, Any], *, accepted: bool) -> None:
        draft["reviewed"] = True
        self.questions = [each for each in self.questions if accepted or each is not draft]
        self._save()

    def edit(self, draft: dict[str, Any], question: str, answers: list[str]) -> None:
        """Change a draft, which stays one. Without answers it becomes unanswerable. Raises ConfigError."""
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
                    "written. Run the review again: it continues with the file as it is now."
                )
            replace_file(self.path, content)
        self._saved = content
