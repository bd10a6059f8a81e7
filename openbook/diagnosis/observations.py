"""What a model was seen to do, question by question, in a file that grows: format in docs/formats/diagnosis.md.

The first line says what the observations are of (model, knowledge base, questions, settings); each further line is one
question, in the order of the questions. A run that was stopped goes on after the last whole line; what is to be asked
again, because the model failed on it, keeps its place.

<folder>/<name>.jsonl          the file
         <name>.again.jsonl    while lines of it are replaced: its lines from the first on, some of them new
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from openbook.diagnosis.questions import Gold, Question
from openbook.errors import ConfigError, StorageError
from openbook.files import make_folder, storage_errors, sync_folder
from openbook.records import Decoding, Digest, EmbedderIdentity, ModelIdentity, canonical_json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FORMAT = 1
_Record = TypeVar("_Record")
_Item = TypeVar("_Item")
PREFIX = "observations-"  # of the files' names
AGAIN = ".again.jsonl"  # how the name of a file ends that will take the place of another


@dataclass(frozen=True, slots=True)
class Header:
    """What observations are of. Two that differ in any field must not meet in one file."""

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


@dataclass(frozen=True, slots=True)
class Said:
    """One answer. `failure`: why there is none."""

    text: str = ""
    abstained: bool = False
    seconds: float = 0.0
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """A passage. `gold`: spans of `text` that hold the answer; none where it does not hold one."""

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
    closed: Said
    opened: Said
    oracle: Said | None = None
    found: tuple[str, ...] = ()
    rank: int = 0
    cited: tuple[tuple[str, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Observation:
    """`holding`: ids of the passages that hold an answer and were given to the reader as `oracle`.

    `located`: how they were found: the gold `span`, its `quote`, the accepted `answers`, or none ("").
    """

    question: Question
    asked: tuple[Wording, ...]
    passages: tuple[Seen, ...] = ()
    holding: tuple[str, ...] = ()
    located: str = ""

    @property
    def failure(self) -> str:
        """Why the model failed on a request, or an empty text."""
        for wording in self.asked:
            for said in (wording.closed, wording.opened, wording.oracle):
                if said is not None and said.failure:
                    return said.failure
        return ""


# --- as JSON ----------------------------------------------------------------------------------------------------------


def header_of(value: Mapping[str, Any]) -> Header:
    """Raises ValueError, KeyError, TypeError."""
    if value["format"] != FORMAT:
        raise ValueError(f"format {value['format']!r}; this version reads {FORMAT}")
    fields = dict(value)
    fields["model"] = ModelIdentity(**fields["model"])
    fields["embedder"] = EmbedderIdentity(**fields["embedder"])
    decoding = fields["decoding"]
    fields["decoding"] = Decoding(**{**decoding, "stop": tuple(decoding["stop"])})
    fields["labels"] = tuple(fields["labels"])
    return Header(**fields)


def observation_of(value: Mapping[str, Any]) -> Observation:
    """Law: `observation_of(json.loads(canonical_json(asdict(x)))) == x`. Raises ValueError, KeyError, TypeError."""
    question: dict[str, Any] = dict(value["question"])
    gold = question.pop("gold")
    question.update({key: tuple(question[key]) for key in ("answers", "phrasings", "tags")})
    return Observation(
        question=Question(**question, gold=Gold(**gold) if gold else None),
        asked=tuple(_wording(each) for each in value["asked"]),
        passages=tuple(Seen(**{**each, "gold": tuple(map(tuple, each["gold"]))}) for each in value["passages"]),
        holding=tuple(value["holding"]),
        located=value["located"],
    )


def _wording(value: Mapping[str, Any]) -> Wording:
    return Wording(
        text=value["text"],
        closed=Said(**value["closed"]),
        opened=Said(**value["opened"]),
        oracle=Said(**value["oracle"]) if value["oracle"] else None,
        found=tuple(value["found"]),
        rank=value["rank"],
        cited=tuple((passage, start, end) for passage, start, end in value["cited"]),
    )


# --- the file ---------------------------------------------------------------------------------------------------------


class Recording:
    """A file of observations, or of other records, that is being written, in the order of what they are of.

    `done`: how many it holds.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.path = path
        self._stream: IO[bytes] = path.open("a+b")
        try:
            self.done = _resume(self._stream, path, header)
        except BaseException:
            self._stream.close()
            raise
        self._before = self.done
        self._places: deque[int] = deque()  # from 0, of what is to be appended, where that is known
        self._old: IO[bytes] | None = None  # the file as it was, once a line of it is replaced
        self._lines = 0  # of `_stream`, then
        self._reading: Iterator[Any] = iter(())

    def missing(
        self, items: Iterable[_Item], record_of: Callable[[Any], _Record], stands: Callable[[_Item, _Record], bool]
    ) -> Iterator[tuple[int, _Item]]:
        """(place from 0, item) of those that have no record yet, or one that `stands` is false of.

        What is appended takes their places. `record_of` as in `read_records`. Raises ConfigError, StorageError.
        """
        self._reading = islice(_records(self.path, record_of), self._before)
        for place, item in enumerate(items):
            there = next(self._reading, None)
            if there is None or not stands(item, there):
                self._places.append(place)
                yield place, item

    def append(self, record: DataclassInstance, place: int | None = None) -> int:
        """The number of the record in the file, from 1. On the way to the disk when this returns.

        `place` (from 0): whose place it takes, after that of the last one; without it the next of `missing`, or the end.
        A killed process loses nothing that was appended.
        """
        if place is None:
            place = self._places.popleft() if self._places else self.done
        with storage_errors(f"write {self.path}"):
            if place < self._before and self._old is None:
                self._begin_again()
            if self._old is not None:  # one line more than records: the header
                self._stream.writelines(islice(self._old, place + 1 - self._lines))
                self._old.readline()
                self._lines = place + 2
            self._stream.write(canonical_json(dataclasses.asdict(record)) + b"\n")
            self._stream.flush()
        self.done = max(self.done, place + 1)
        return place + 1

    def _begin_again(self) -> None:
        self._stream.close()
        self._old = self.path.open("rb")
        self._stream = _beside(self.path).open("wb")

    def close(self) -> None:
        """Raises StorageError."""
        self._reading = iter(())
        with storage_errors(f"write {self.path}"):
            try:
                if self.done > self._before and self._old is None:
                    os.fsync(self._stream.fileno())
            finally:
                if self._old is not None:
                    self._old.close()
                self._stream.close()
            if self._old is not None:
                _take_place(self.path)


@contextmanager
def recording(path: Path, header: Header) -> Iterator[Recording]:
    """Begin the file of observations at `path`, or go on with it. What a killed process left of a line is cut off.

    Raises ConfigError when the observations there are of something else, StorageError.
    """
    with _locked(path):
        with storage_errors(f"write {path}"):
            _take_place(path)
            record = Recording(path, header)
        try:
            yield record
        finally:
            record.close()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    import filelock

    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"))
    with storage_errors(f"write {path}"):
        make_folder(path.parent)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout as error:
            raise StorageError(
                f"Another process writes {path}. Wait for it, or choose another folder with --out."
            ) from error
    try:
        yield
    finally:
        lock.release()


def _beside(path: Path) -> Path:
    return path.with_name(path.stem + AGAIN)


def _take_place(path: Path) -> None:
    """Replace the file by what stands beside it, if anything does, and by its own lines from there on. Raises OSError.

    Killed at any byte, this can be done again: what stands beside it is a beginning of what will be.
    """
    new = _beside(path)
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


def _resume(stream: IO[bytes], path: Path, header: Header) -> int:
    """Leave the stream after its last whole line. How many observations stand before it."""
    first, lines = _whole_lines(stream)
    if not lines:
        stream.write(canonical_json(dataclasses.asdict(header)) + b"\n")
        stream.flush()
        return 0
    _must_be_same(_parsed_header(first, path), header, path)
    return lines - 1


def _must_be_same(there: Header, wanted: Header, path: Path) -> None:
    for each in dataclasses.fields(Header):
        old, new = getattr(there, each.name), getattr(wanted, each.name)
        if old == new:
            continue
        hint = f" To go on with the old one: --as-of {old}." if each.name == "knowledge_base_version" else ""
        raise ConfigError(
            f"The observations in {path} are of another {each.name.replace('_', ' ')}: {_shown(old)}, now {_shown(new)}.{hint} "
            "Choose another folder with --out, or delete that file."
        )


def _shown(value: object) -> str:
    if isinstance(value, ModelIdentity | EmbedderIdentity):
        return f"{value.name} ({value.digest[:12] or 'no digest'})"
    return repr(value)[:80]


def read_observations(path: Path) -> tuple[Header, Iterator[Observation]]:
    """(header, the observations one by one). Half a line at the end is left out. Raises ConfigError, StorageError."""
    return read_records(path, observation_of)


def read_records(path: Path, record_of: Callable[[Any], _Record]) -> tuple[Header, Iterator[_Record]]:
    """As `read_observations`, of other records: `record_of` makes one of a line's JSON, or raises ValueError or KeyError."""
    try:
        with path.open("rb") as stream:
            header = _parsed_header(stream.readline(), path)
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror or error}.") from error
    return header, _records(path, record_of)


def _records(path: Path, record_of: Callable[[Any], _Record]) -> Iterator[_Record]:
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if number == 1 or not line.endswith(b"\n"):
                    continue
                try:
                    yield record_of(json.loads(line))
                except (ValueError, KeyError, TypeError, RecursionError) as error:
                    raise ConfigError(f"{path} line {number} is no observation: {error!r}. Delete the file.") from error
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror or error}.") from error


def _parsed_header(line: bytes, path: Path) -> Header:
    try:
        return header_of(json.loads(line))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"{path} does not begin as a file of observations: {error!r}. Delete it, or choose another folder with --out."
        ) from error
