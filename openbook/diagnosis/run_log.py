"""What a model answered, question by question, in a file that grows: format in docs/formats/diagnosis.md.

The first line is the header: it says what was asked of what (model, knowledge base, questions, settings). Each further line is
one question, in the order of the questions. A run that was stopped goes on after the last whole line. A question on which the
model failed is asked again, and keeps its place.

<folder>/<name>.jsonl          the file
         <name>.again.jsonl    while lines of it are replaced: its lines from the first on, some of them new
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, TypeAlias, TypeVar

from openbook.codec import decode
from openbook.diagnosis.questions import Question
from openbook.errors import ConfigError, StorageError
from openbook.files import make_folder, storage_errors, sync_folder
from openbook.locks import alone
from openbook.records import Decoding, Digest, EmbedderIdentity, ModelIdentity, canonical_json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FORMAT = 1
PREFIX = "observations-"  # of the files' names
AGAIN = ".again.jsonl"  # how the name of a file ends that will take the place of another
Mode: TypeAlias = Literal["closed_book", "open_book", "oracle"]
_Record = TypeVar("_Record")
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Header:
    """What was asked of what. Lines of two runs that differ in any field must not meet in one file."""

    model: ModelIdentity
    numeric_class: str
    knowledge_base: str
    knowledge_base_version: int
    embedder: EmbedderIdentity
    questions: Digest
    strategy: str
    passages: int
    min_similarity: float
    context_tokens: int
    decoding: Decoding
    where: str = ""
    labels: tuple[str, ...] = ()
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ValueError(f"the format is {self.format}; this version reads {FORMAT}")


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model said to one request. `failure`: why it said nothing."""

    text: str = ""
    abstained: bool = False
    seconds: float = 0.0
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    failure: str = ""


@dataclass(frozen=True, slots=True)
class ShownPassage:
    """A passage. `gold`: spans of `text` that hold the answer; empty if it does not hold it."""

    id: str
    document: str
    page: int | None
    start: int
    text: str
    gold: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Wording:
    """One wording, three answers. `found`: ids of the passages given to the reader, best first.

    `rank`: of the first passage found that holds an answer, from 1; 0: none among the first `DEPTH`. `cited`: (passage id,
    start, end) in the passage's text.
    """

    text: str
    closed: Reply
    opened: Reply
    oracle: Reply | None = None
    found: tuple[str, ...] = ()
    rank: int = 0
    cited: tuple[tuple[str, int, int], ...] = ()

    def reply(self, mode: Mode) -> Reply | None:
        return {"closed_book": self.closed, "open_book": self.opened, "oracle": self.oracle}[mode]


@dataclass(frozen=True, slots=True)
class Observation:
    """`holding`: ids of the passages that hold an answer and were given to the reader as `oracle`.

    `located`: how they were found: the gold `span`, its `quote`, the accepted `answers`, or none ("").
    """

    question: Question
    asked: tuple[Wording, ...]
    passages: tuple[ShownPassage, ...] = ()
    holding: tuple[str, ...] = ()
    located: str = ""

    @property
    def failure(self) -> str:
        """Why the model failed on a request, or an empty text."""
        replies = (reply for each in self.asked for reply in (each.closed, each.opened, each.oracle))
        return next((reply.failure for reply in replies if reply is not None and reply.failure), "")


# --- reading ----------------------------------------------------------------------------------------------------------


def read_observations(path: Path) -> tuple[Header, Iterator[Observation]]:
    """(header, the observations one by one). Half a line at the end is left out. Raises ConfigError, StorageError."""
    return read_run_log(path, Observation)


def read_run_log(path: Path, kind: type[_Record]) -> tuple[Header, Iterator[_Record]]:
    """As `read_observations`, of other records."""
    with storage_errors(f"read {path}"), path.open("rb") as stream:
        header = _header(stream.readline(), path)
    return header, _records(path, kind)


def _records(path: Path, kind: type[_Record]) -> Iterator[_Record]:
    with storage_errors(f"read {path}"), path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if number > 1 and line.endswith(b"\n"):
                yield decode(line, kind, f"{path} line {number}", ConfigError)


def _header(line: bytes, path: Path) -> Header:
    try:
        return decode(line, Header, "The first line", ConfigError)
    except ConfigError as error:
        raise ConfigError(
            f"{path} does not begin as a file of observations: {error} Delete it, or choose another folder with --out."
        ) from error


# --- writing ----------------------------------------------------------------------------------------------------------


class RunLog:
    """A file of observations, or of other records, that is being written in the order of the questions.

    `done`: how many records it holds.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.path = path
        self._stream: IO[bytes] = path.open("a+b")
        try:
            first, lines = _whole_lines(self._stream)
            if lines:
                _must_be_same(_header(first, path), header, path)
            else:
                self._stream.write(canonical_json(asdict(header)) + b"\n")
                self._stream.flush()
        except BaseException:
            self._stream.close()
            raise
        self.done = self._before = max(0, lines - 1)
        self._places: deque[int] = deque()  # from 0, of what is to be appended
        self._old: IO[bytes] | None = None  # the file as it was, once a line of it is replaced
        self._lines = 0  # of `_stream`, then

    def missing(
        self, items: Iterable[_Item], kind: type[_Record], stands: Callable[[_Item, _Record], bool]
    ) -> Iterator[tuple[int, _Item]]:
        """(place from 0, item) of those without a record yet, or with one for which `stands` is false.

        What is appended takes their places. Raises ConfigError, StorageError.
        """
        there = islice(_records(self.path, kind), self._before)
        for place, item in enumerate(items):
            record = next(there, None)
            if record is None or not stands(item, record):
                self._places.append(place)
                yield place, item

    def append(self, record: DataclassInstance) -> int:
        """Put it in the place of the next of `missing`, or at the end. Its number in the file, from 1.

        A killed process loses nothing that was appended.
        """
        place = self._places.popleft() if self._places else self.done
        with storage_errors(f"write {self.path}"):
            if place < self._before and self._old is None:
                self._stream.close()
                self._old = self.path.open("rb")
                self._stream = _replacement(self.path).open("wb")
            if self._old is not None:  # one line more than records: the header
                self._stream.writelines(islice(self._old, place + 1 - self._lines))
                self._old.readline()
                self._lines = place + 2
            self._stream.write(canonical_json(asdict(record)) + b"\n")
            self._stream.flush()
        self.done = max(self.done, place + 1)
        return place + 1

    def close(self) -> None:
        """Raises StorageError."""
        with storage_errors(f"write {self.path}"):
            os.fsync(self._stream.fileno())
            self._stream.close()
            if self._old is not None:
                self._old.close()
                _finish_replacement(self.path)


@contextmanager
def open_run_log(path: Path, header: Header) -> Iterator[RunLog]:
    """Begin the file at `path`, or go on with it. What a killed process left of a line is cut off.

    Raises ConfigError if the file is of something else, StorageError.
    """
    with storage_errors(f"write {path}"):
        make_folder(path.parent)
    with alone(path.with_name(f".{path.name}.lock"), timeout_s=0.0) as free:
        if not free:
            raise StorageError(f"Another process writes {path}. Wait for it, or choose another folder with --out.")
        with storage_errors(f"write {path}"):
            _finish_replacement(path)
            log = RunLog(path, header)
        try:
            yield log
        finally:
            log.close()


def _replacement(path: Path) -> Path:
    return path.with_name(path.stem + AGAIN)


def _finish_replacement(path: Path) -> None:
    """Replace the file by its replacement, if there is one, and by its own lines from there on. Raises OSError.

    A process killed at any byte can do this again: the replacement is a beginning of what will be.
    """
    new = _replacement(path)
    if not new.exists():
        return
    if not path.exists():  # deleted, to begin anew
        new.unlink()
        return
    with new.open("r+b") as stream:
        _, lines = _whole_lines(stream)
        with path.open("rb") as old:
            stream.writelines(islice(old, lines, None))
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(path)
    sync_folder(path.parent)


def _whole_lines(stream: IO[bytes]) -> tuple[bytes, int]:
    """(the first line, how many), leaving the stream after the last whole line, with nothing behind it."""
    stream.seek(0)
    first, end, lines = b"", 0, 0
    for line in stream:
        if not line.endswith(b"\n"):
            break
        first = first or line
        end, lines = end + len(line), lines + 1
    stream.truncate(end)
    stream.seek(end)
    return first, lines


def _must_be_same(there: Header, wanted: Header, path: Path) -> None:
    for each in fields(Header):
        old, new = getattr(there, each.name), getattr(wanted, each.name)
        if old != new:
            hint = f" To go on with the old one: --as-of {old}." if each.name == "knowledge_base_version" else ""
            raise ConfigError(
                f"The observations in {path} are of another {each.name.replace('_', ' ')}: {_in_words(old)}, now "
                f"{_in_words(new)}.{hint} Choose another folder with --out, or delete that file."
            )


def _in_words(value: object) -> str:
    if isinstance(value, ModelIdentity | EmbedderIdentity):
        return f"{value.name} ({value.digest[:12] or 'no digest'})"
    return repr(value)[:80]
