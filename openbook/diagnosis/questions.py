"""Questions with accepted answers, one a line, read one at a time: format in docs/formats/diagnosis.md.

    {"id": "q1", "question": "When does the ferry leave?", "answers": ["09:40", "9.40"], "tags": ["time"],
     "phrasings": ["At what time does the ferry sail?"], "gold": {"document": "ferry.md", "start": 10, "end": 42}}
    {"id": "q2", "question": "Who built the ferry?", "kind": "unanswerable"}

JSON Lines, plain or compressed with gzip. Files of other makers are read by `importers`.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias, cast

from openbook.answer import checked_question
from openbook.codec import convert, parse_json
from openbook.errors import ConfigError, QuestionError, StorageError
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
DIGEST_BYTES = 8


@dataclass(frozen=True, slots=True)
class Gold:
    """Where the answer stands: `[start, end)` of the document's text, whose words are `quote` if it is given.

    `document` is the end of a path in the knowledge base, or empty: then `quote` is looked for in all documents.
    """

    document: str = ""
    start: int = 0
    end: int = 0
    quote: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """`answers`: each is accepted; none: the documents do not hold any. `phrasings`: the same question in other words.

    `kind` "world": general knowledge, whose answer is not expected in the documents. `reviewed` is false for a draft that
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

    `drafts`: how many of them no person has reviewed. `digests`: `DIGEST_BYTES` of a digest of each, in their order.
    """

    digest: Digest
    questions: int
    drafts: int
    digests: bytes = field(repr=False)


def load_questions(path: Path, file_format: str = "") -> Iterator[Question]:
    """The questions of a file, one after the other; only their ids are kept. `file_format`: see `importers.FORMATS`.

    Raises ConfigError that names the line, StorageError.
    """
    from openbook.diagnosis.importers import questions_in

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
    digest, count, drafts, digests = sha256(), 0, 0, bytearray()
    for question in questions:
        line = _canonical(question)
        digest.update(line)
        digests += sha256(line).digest()[:DIGEST_BYTES]
        count += 1
        drafts += not question.reviewed
    return Survey(digest.hexdigest(), count, drafts, bytes(digests))


def unchanged(questions: Iterable[Question], found: Survey) -> Iterator[Question]:
    """The questions, if they are those of the survey.

    Raises ConfigError before the first that is not, and what reading them raises.
    """
    count = 0
    for question in questions:
        digest = found.digests[count * DIGEST_BYTES : (count + 1) * DIGEST_BYTES]
        count += 1
        if sha256(_canonical(question)).digest()[:DIGEST_BYTES] != digest:
            raise _changed(f"question {count} ({ascii(question.id)[:60]}) is another one")
        yield question
    if count < found.questions:
        raise _changed(f"there were {found.questions:,} of them, and now there are {count:,}")


def _changed(how: str) -> ConfigError:
    return ConfigError(
        f"The questions changed while they were asked: {how}. What was answered is kept. Run the command again for the "
        "questions as they are now, or put the old ones back first to go on with those."
    )


def _canonical(question: Question) -> bytes:
    return canonical_json(asdict(question)) + b"\n"


# --- one question -----------------------------------------------------------------------------------------------------

_Texts: TypeAlias = tuple[str, ...] | str | None  # a list of texts, or one text, or nothing


@dataclass(frozen=True, slots=True)
class _GoldInFile(Gold):
    page: int | None = None


@dataclass(frozen=True, slots=True)
class _QuestionInFile:
    """A question as it may stand in a file."""

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
    """The question in a JSON object. Raises ConfigError."""
    found = convert(value, _QuestionInFile, where, ConfigError)
    return checked(
        Question(
            id=fallback_id if found.id is None else str(found.id),
            question=found.question,
            answers=texts(found.answers),
            kind=_kind(found, where),
            phrasings=texts(found.phrasings),
            gold=found.gold and Gold(found.gold.document, found.gold.start, found.gold.end, found.gold.quote),
            tags=texts(found.tags),
            reviewed=found.reviewed,
        ),
        where,
    )


def texts(value: _Texts) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(dict.fromkeys(value or ()))


def _kind(found: _QuestionInFile, where: str) -> Kind:
    given = found.kind
    if given is None:
        given = "unanswerable" if found.unanswerable else "answerable"
    if given not in KINDS:
        raise ConfigError(f"{where}.kind must be one of {', '.join(KINDS)}, not {given!r}.")
    if found.unanswerable and given != "unanswerable":
        raise ConfigError(f"{where} is marked unanswerable, but its kind is {given!r}.")
    return KINDS[given]


def checked(question: Question, where: str) -> Question:
    """The question with its wordings as they are asked, if it is one that can be. Raises ConfigError."""
    problem = _problem(question)
    if problem:
        raise ConfigError(f"{where} is no valid question: {problem}.")
    try:
        wording, *others = map(checked_question, question.wordings)
    except QuestionError as error:
        raise ConfigError(f"{where} is no valid question: {error}") from error
    phrasings = tuple(each for each in dict.fromkeys(others) if each != wording)
    return replace(question, question=wording, phrasings=phrasings)


def _problem(question: Question) -> str:
    gold, said = question.gold, (question.id, *question.answers, *question.tags, *question.phrasings)
    try:
        size = len(json.dumps(asdict(question), ensure_ascii=False).encode())
    except UnicodeEncodeError:
        return "a text in it holds half a character (a lone surrogate)"
    if size >= MAX_LINE_BYTES:
        return f"it has {size:,} bytes, and a line may have {MAX_LINE_BYTES:,}; shorten it"
    if not question.id.strip() or len(question.id) > MAX_ID_CHARS:
        return f"'id' must be a text of 1 to {MAX_ID_CHARS} characters"
    if not all(each.strip() for each in said):
        return "an answer, tag or phrasing is empty"
    if len(question.phrasings) >= MAX_WORDINGS:
        return f"it has {len(question.phrasings)} phrasings; at most {MAX_WORDINGS - 1} are asked"
    if question.kind == "unanswerable" and question.answers:
        return "it is marked unanswerable and has answers; drop one of the two"
    if question.kind != "unanswerable" and not question.answers:
        return 'it has no answers and is not marked unanswerable; give "answers", or "kind": "unanswerable"'
    if gold is not None and not 0 <= gold.start <= gold.end:
        return "'start' and 'end' of 'gold' must be numbers of characters, the end after the start"
    if gold is not None and not (gold.quote.strip() or (gold.document and gold.start < gold.end)):
        return "'gold' needs a document with start and end, or a quote"
    return ""


# --- lines ------------------------------------------------------------------------------------------------------------


def json_lines(path: Path) -> Iterator[tuple[int, str, Any]]:
    """(number from 1, where it is, JSON value) of each line that is not empty. Raises ConfigError, StorageError."""
    with open_questions(path) as stream:
        number = 0
        while line := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            where = f"{path.name} line {number}"
            if len(line) > MAX_LINE_BYTES:
                raise ConfigError(f"{where} has more than {MAX_LINE_BYTES:,} bytes.")
            line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if line.strip():
                yield number, where, parse_json(line, where, ConfigError)


@contextmanager
def open_questions(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, decompressed. Raises ConfigError for a damaged file, or one that can be read only once; StorageError."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ConfigError(
            f"{path} is no regular file, but a pipe or a device, and questions are read more than once. "
            "Write them to a file first."
        )
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
            yield cast(IO[bytes], stream)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ConfigError(f"{path.name} cannot be decompressed: {error}.") from error
    except OSError as error:
        raise StorageError(f"Cannot read the questions in {path}: {error.strerror or error}.") from error


def content_of(path: Path, questions: Iterable[Mapping[str, Any]]) -> bytes:
    """What a file of that name holds with these questions: compressed if it ends in .gz."""
    content = "".join(f"{json.dumps(each, ensure_ascii=False)}\n" for each in questions).encode("utf-8", "replace")
    return gzip.compress(content, mtime=0) if path.suffix == ".gz" else content


def write_questions(path: Path, questions: Iterable[Mapping[str, Any]]) -> None:
    """Put them there in one step, one a line. Raises StorageError."""
    with storage_errors(f"write {path}"):
        replace_file(path, content_of(path, questions))
