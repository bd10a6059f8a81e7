"""A model's answers, one question per line: format in docs/formats/diagnosis.md.

The first line is the header. A stopped run resumes after the last whole line. A question on which the model failed is
asked again; its new line, at the end, replaces the old one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any, Generic, Literal, Protocol, TypeAlias, TypeVar

from openbook.answers.certainty import Signals
from openbook.core.codec import decode
from openbook.core.errors import ConfigError, StorageError
from openbook.core.files import make_folder, storage_errors
from openbook.core.locks import exclusive_lock
from openbook.core.records import Decoding, Digest, EmbedderIdentity, ModelIdentity, canonical_json
from openbook.diagnosis.questions import Question

FORMAT = 1
Mode: TypeAlias = Literal["closed_book", "open_book", "oracle"]


class Record(Protocol):
    """A dataclass with its question, or the question's id."""

    @property
    def question(self) -> Question | str: ...


_Record = TypeVar("_Record", bound=Record)


@dataclass(frozen=True, slots=True)
class Header:
    """The setup of a run. Lines of runs that differ in any field must not be in one file."""

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
    """`failure`: why there is no reply."""

    text: str = ""
    abstained: bool = False
    seconds: float = 0.0
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    failure: str = ""


@dataclass(frozen=True, slots=True)
class ShownPassage:
    """`gold`: spans of `text` that hold the answer, if any."""

    id: str
    document: str
    page: int | None
    start: int
    text: str
    gold: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Wording:
    """One wording and its three answers. `found`: ids of the passages given to the reader, best first.

    `rank`: of the first hit that holds an answer, given or not, from 1; 0: none among the first `runner.DEPTH`.
    `cited`: (passage id, start, end) in the passage's text. `signals`: of the certainty of `opened`, if it has one.
    """

    text: str
    closed: Reply
    opened: Reply
    oracle: Reply | None = None
    found: tuple[str, ...] = ()
    rank: int = 0
    cited: tuple[tuple[str, int, int], ...] = ()
    signals: Signals | None = None

    @property
    def replies(self) -> tuple[Reply, ...]:
        return tuple(filter(None, (self.closed, self.opened, self.oracle)))

    def reply(self, mode: Mode) -> Reply | None:
        return {"closed_book": self.closed, "open_book": self.opened, "oracle": self.oracle}[mode]


@dataclass(frozen=True, slots=True)
class Observation:
    """`holding`: ids of the passages with an answer, which the reader got as `oracle`.

    `located`: how they were found: by the gold `span`, its `quote`, the accepted `answers`, or not ("").
    """

    question: Question
    asked: tuple[Wording, ...]
    passages: tuple[ShownPassage, ...] = ()
    holding: tuple[str, ...] = ()
    located: str = ""

    @property
    def failure(self) -> str:
        """Why the model failed on a request; empty if it did not."""
        return next((reply.failure for each in self.asked for reply in each.replies if reply.failure), "")


def differences(one: Header, other: Header) -> Iterator[tuple[str, str, str]]:
    """(field, value in `one`, value in `other`), in words, for each difference."""
    for each in fields(Header):
        first, second = getattr(one, each.name), getattr(other, each.name)
        if first != second:
            yield each.name, _in_words(first), _in_words(second)


def _in_words(value: object) -> str:
    match value:
        case ModelIdentity():
            return f"{value.name} ({value.digest[:12] or 'no digest'})"
        case EmbedderIdentity():
            return f"{value.name} ({value.digest[:12]}, {value.dimensions} dimensions)"
        case tuple():
            return ", ".join(map(repr, value)) or "none"
        case _:
            return str(value)[:80] or "none"


def read_observations(path: Path) -> tuple[Header, Iterator[Observation]]:
    """Return (header, observations, lazily). An incomplete last line is ignored. Raises ConfigError."""
    with storage_errors(f"read {path}"), path.open("rb") as stream:
        header = _header(stream.readline(), path)
    return header, _observations(path)


def _observations(path: Path) -> Iterator[Observation]:
    with storage_errors(f"read {path}"), path.open("rb") as stream:
        for place in _places(stream, path, Observation)[0].values():
            stream.seek(place)
            yield decode(stream.readline(), Observation, str(path), ConfigError)


def _header(line: bytes, path: Path) -> Header:
    try:
        return decode(line, Header, "The first line", ConfigError)
    except ConfigError as error:
        raise ConfigError(
            f"{path} cannot be read as a file of openbook diagnose: {error} Choose another folder, or delete that file."
        ) from error


def _places(stream: IO[bytes], path: Path, kind: type[Record]) -> tuple[dict[str, int], int]:
    """Offsets of each question's last line, in the order of first lines; and the end of the last whole line."""
    stream.seek(0)
    end = len(stream.readline())
    places: dict[str, int] = {}
    for number, line in enumerate(stream, 2):
        if not line.endswith(b"\n"):
            break
        places[_id_of(decode(line, kind, f"{path} line {number}", ConfigError))] = end
        end += len(line)
    return places, end


def _id_of(record: Record) -> str:
    return record.question if isinstance(record.question, str) else record.question.id


class RunLog(Generic[_Record]):
    def __init__(self, path: Path, stream: IO[bytes], header: Header, kind: type[_Record]) -> None:
        self.path, self._stream, self._kind = path, stream, kind
        self._places: dict[str, int] = {}
        stream.seek(0)
        first = stream.readline()
        if not first.endswith(b"\n"):
            stream.truncate(0)
            stream.write(canonical_json(asdict(header)) + b"\n")
            stream.flush()
            return
        for name, old, new in differences(_header(first, path), header):
            hint = (
                f" To continue with the old one, ask as of version {old}." if name == "knowledge_base_version" else ""
            )
            raise ConfigError(
                f"The run in {path} differs in its {name.replace('_', ' ')}: {old}, now {new}.{hint} "
                "Choose another folder, or delete that file."
            )
        self._places, end = _places(stream, path, kind)
        stream.truncate(end)  # an incomplete line of a killed process

    def find(self, question: str) -> _Record | None:
        if question not in self._places:
            return None
        with storage_errors(f"read {self.path}"):
            self._stream.seek(self._places[question])
            return decode(self._stream.readline(), self._kind, str(self.path), ConfigError)

    def append(self, record: _Record) -> None:
        """Append a question's record, which replaces an earlier one."""
        value: Any = record
        with storage_errors(f"write {self.path}"):
            place = self._stream.seek(0, os.SEEK_END)
            self._stream.write(canonical_json(asdict(value)) + b"\n")
            self._stream.flush()
        self._places[_id_of(record)] = place


@contextmanager
def open_run_log(path: Path, header: Header, kind: type[_Record]) -> Iterator[RunLog[_Record]]:
    """Create or resume the file at `path`. Raises ConfigError if it belongs to another run."""
    with storage_errors(f"write {path}"):
        make_folder(path.parent)
    with exclusive_lock(path.with_name(f".{path.name}.lock"), timeout_s=0.0) as free:
        if not free:
            raise StorageError(f"Another process writes {path}. Wait for it, or choose another folder.")
        with storage_errors(f"write {path}"):
            stream = path.open("a+b")
        try:
            with storage_errors(f"write {path}"):
                log = RunLog(path, stream, header, kind)
            yield log
        finally:
            with storage_errors(f"write {path}"), stream:
                os.fsync(stream.fileno())
