"""Questions with accepted answers, one a line, read one at a time: format in docs/formats/diagnosis.md.

    {"id": "q1", "question": "When does the ferry leave?", "answers": ["09:40", "9.40"], "tags": ["time"],
     "phrasings": ["At what time does the ferry sail?"], "gold": {"document": "ferry.md", "start": 10, "end": 42}}
    {"id": "q2", "question": "Who built the ferry?", "kind": "unanswerable"}

JSON Lines, plain or compressed with gzip. Other files with questions are read by `importing`.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

from openbook.answer import checked_question
from openbook.errors import ConfigError, QuestionError, StorageError, did_you_mean
from openbook.files import replace_file, storage_errors
from openbook.records import Digest, canonical_json

Kind: TypeAlias = Literal["answerable", "unanswerable", "world"]
KINDS: dict[str, Kind] = {
    "answerable": "answerable",
    "unanswerable": "unanswerable",
    "world": "world",
    "closed-book": "world",  # another word for it in files
}
MAX_LINE_BYTES = 1 << 20
MAX_ID_CHARS = 200
MAX_WORDINGS = 20
MARK_BYTES = 8
_KEYS = ("id", "question", "answers", "kind", "unanswerable", "gold", "tags", "phrasings", "reviewed", "note")
_GOLD_KEYS = ("document", "start", "end", "quote", "page")


@dataclass(frozen=True, slots=True)
class Gold:
    """Where the answer stands: `[start, end)` of the document's text, whose words are `quote` where it is given.

    `document` is the end of a path in the knowledge base, or empty: then `quote` is looked for in all documents.
    """

    document: str
    start: int = 0
    end: int = 0
    quote: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """`answers`: each is accepted; none: the documents do not hold any. `phrasings`: the same question in other words.

    `kind` "world": general knowledge, whose answer is not expected in the documents. `reviewed` is false of a proposal that
    no person has looked at.
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


@dataclass(frozen=True, slots=True)
class Survey:
    """What a file of questions holds. `digest` is over the questions in their order, whatever the file's format.

    `drafts`: how many of them no person has reviewed. `marks`: `MARK_BYTES` of a digest of each, in their order.
    """

    digest: Digest
    questions: int
    drafts: int
    marks: bytes = field(repr=False)


def load_questions(path: Path, file_format: str = "") -> Iterator[Question]:
    """The questions of a file, one after the other; only their ids are kept. `file_format`: see `importing.FORMATS`.

    Raises ConfigError that names the line, StorageError.
    """
    from openbook.diagnosis.importing import questions_in

    seen: set[str] = set()
    for where, question in questions_in(path, file_format):
        if question.id in seen:
            raise ConfigError(
                f"{where}: the id {question.id!r} stands there a second time. Give each question its own."
            )
        seen.add(question.id)
        yield question
    if not seen:
        raise ConfigError(f"{path.name} holds no questions.")


def survey(questions: Iterable[Question]) -> Survey:
    """Read them all, keeping none. Raises what reading them raises."""
    digest, count, drafts, marks = sha256(), 0, 0, bytearray()
    for question in questions:
        line = _line(question)
        digest.update(line)
        marks += _mark(line)
        count += 1
        drafts += not question.reviewed
    return Survey(digest.hexdigest(), count, drafts, bytes(marks))


def unchanged(questions: Iterable[Question], found: Survey) -> Iterator[Question]:
    """The questions, if they are those of the survey.

    Raises ConfigError before the first that is not, and what reading them raises.
    """
    count = 0
    for question in questions:
        if _mark(_line(question)) != found.marks[count * MARK_BYTES : (count + 1) * MARK_BYTES]:
            raise _changed(f"question {count + 1} ({shown(question.id)}) is another one")
        count += 1
        yield question
    if count < found.questions:
        raise _changed(f"there were {found.questions:,} of them, and now there are {count:,}")


def _changed(how: str) -> ConfigError:
    return ConfigError(
        f"The questions changed while they were asked: {how}. What was answered is kept. Run the command again for the "
        "questions as they are now, or put the old ones back first to go on with those."
    )


def _line(question: Question) -> bytes:
    return canonical_json(asdict(question)) + b"\n"


def _mark(line: bytes) -> bytes:
    return sha256(line).digest()[:MARK_BYTES]


# --- one question -----------------------------------------------------------------------------------------------------


def question_of(value: object, fallback_id: str = "") -> Question:
    """The question in a JSON object. Raises ValueError with what is wrong."""
    if not isinstance(value, Mapping):
        raise ValueError("it is no JSON object")
    for key in value:
        if key not in _KEYS:
            raise ValueError(f"unknown key {str(key)[:80]!r}.{did_you_mean(str(key), _KEYS)}")
    answers = texts(value.get("answers"), "answers")
    kind = _kind(value, answers)
    wording, reviewed = asked(value.get("question")), value.get("reviewed", True)
    if not isinstance(reviewed, bool):
        raise ValueError(f"'reviewed' must be true or false, not {shown(reviewed)}")
    phrasings = tuple(p for p in dict.fromkeys(map(asked, texts(value.get("phrasings"), "phrasings"))) if p != wording)
    if len(phrasings) >= MAX_WORDINGS:
        raise ValueError(f"{len(phrasings)} phrasings; at most {MAX_WORDINGS - 1} are asked")
    return Question(
        id=_id(value.get("id"), fallback_id),
        question=wording,
        answers=answers,
        kind=kind,
        phrasings=phrasings,
        gold=_gold(value.get("gold")),
        tags=tuple(dict.fromkeys(texts(value.get("tags"), "tags"))),
        reviewed=reviewed,
    )


def _kind(value: Mapping[str, Any], answers: tuple[str, ...]) -> Kind:
    marked = value.get("unanswerable", False)
    if not isinstance(marked, bool):
        raise ValueError(f"'unanswerable' must be true or false, not {shown(marked)}")
    given = value.get("kind")
    if given is None:
        given = "unanswerable" if marked else "answerable"
    if not isinstance(given, str) or given not in KINDS:
        raise ValueError(f"'kind' must be one of {', '.join(KINDS)}, not {shown(given)}")
    kind = KINDS[given]
    if marked and kind != "unanswerable":
        raise ValueError(f"it is marked unanswerable, but its kind is {given!r}")
    if kind == "unanswerable" and answers:
        raise ValueError("it is marked unanswerable and has answers; drop one of the two")
    if kind != "unanswerable" and not answers:
        raise ValueError('it has no answers and is not marked unanswerable. Give "answers", or "kind": "unanswerable"')
    return kind


def _id(value: object, fallback: str) -> str:
    if value is None and fallback:
        return fallback
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_ID_CHARS:
        raise ValueError(f"'id' must be a text of 1 to {MAX_ID_CHARS} characters, not {shown(value)}")
    return text_of(value)


def _gold(value: object) -> Gold | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise ValueError(f"'gold' must be an object, not {shown(value)}")
    for key in value:
        if key not in _GOLD_KEYS:
            raise ValueError(f"'gold' has the unknown key {str(key)[:80]!r}.{did_you_mean(str(key), _GOLD_KEYS)}")
    document, quote = value.get("document", ""), value.get("quote", "")
    start, end = value.get("start", 0), value.get("end", 0)
    if not (isinstance(document, str) and isinstance(quote, str)):
        raise ValueError("'document' and 'quote' of 'gold' must be texts")
    if not (type(start) is int and type(end) is int and 0 <= start <= end):
        raise ValueError(f"'start' and 'end' of 'gold' must be numbers of characters, not {shown([start, end])}")
    if not (quote.strip() or (document and start < end)):
        raise ValueError("'gold' needs a document with start and end, or a quote")
    return Gold(text_of(document, empty=True), start, end, text_of(quote, empty=True))


def asked(value: object) -> str:
    """A question that may be asked. Raises ValueError."""
    try:
        return checked_question(text_of(value))
    except QuestionError as error:
        raise ValueError(str(error)) from error


def texts(value: object, key: str) -> tuple[str, ...]:
    """A list of texts, or one text, or nothing. Raises ValueError."""
    if value is None:
        return ()
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple):
        raise ValueError(f"{key!r} must be a list of texts, not {shown(value)}")
    try:
        return tuple(dict.fromkeys(map(text_of, value)))
    except ValueError as error:
        raise ValueError(f"{key!r}: {error}") from error


def text_of(value: object, *, empty: bool = False) -> str:
    """`value` if it is a text that says something. Raises ValueError."""
    if not isinstance(value, str) or not (value.strip() or empty):
        raise ValueError(f"{shown(value)} is no text" if value is not None else "there is no text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{shown(value)} holds half a character (a lone surrogate)") from error
    return value


def shown(value: object) -> str:
    return ascii(value)[:60]


# --- lines ------------------------------------------------------------------------------------------------------------


def lines_in(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, text) of each line that is not empty. Raises ConfigError, StorageError."""
    with opened(path) as stream:
        number = 0
        while line := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise ConfigError(f"{path.name} line {number} has more than {MAX_LINE_BYTES:,} bytes.")
            text = decoded(line, f"{path.name} line {number}", first=number == 1)
            if text.strip():
                yield number, text


def decoded(content: bytes, where: str, *, first: bool = False) -> str:
    """Raises ConfigError for what is not UTF-8."""
    try:
        return content.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where} is not UTF-8: {error}. Save the file as UTF-8.") from error


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, decompressed.

    Raises ConfigError for what is damaged or can be read only once, StorageError.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise ConfigError(
                f"{path} is no regular file, but a pipe or a device, and questions are read more than once. "
                "Write them to a file first."
            )
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
            content: Any = stream
            yield content
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ConfigError(f"{path.name} cannot be decompressed: {error}.") from error
    except OSError as error:
        raise StorageError(f"Cannot read the questions in {path}: {error.strerror or error}.") from error


def parsed(text: str, where: str) -> Any:
    """Raises ConfigError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where} is no valid JSON: {error}.") from error


def line_of(question: Mapping[str, Any]) -> bytes:
    return f"{json.dumps(question, ensure_ascii=False)}\n".encode("utf-8", "replace")


def content_of(path: Path, questions: Iterable[Mapping[str, Any]]) -> bytes:
    """What a file of that name holds with these questions: compressed where it ends in .gz."""
    content = b"".join(map(line_of, questions))
    return gzip.compress(content, mtime=0) if path.suffix == ".gz" else content


def write_questions(path: Path, questions: Iterable[Mapping[str, Any]]) -> None:
    """Put them there in one step, one a line. Raises StorageError."""
    with storage_errors(f"write {path}"):
        replace_file(path, content_of(path, questions))
