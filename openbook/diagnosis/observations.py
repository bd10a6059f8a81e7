"""What a model was seen to do, question by question, in a file that grows: format in docs/formats/diagnosis.md.

The first line says what the observations are of (model, knowledge base, questions, settings); each further line is one
question, in the order of the questions. A run that was stopped goes on after the last whole line.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from openbook.diagnosis.questions import Gold, Question
from openbook.errors import ConfigError, StorageError
from openbook.records import Decoding, Digest, EmbedderIdentity, ModelIdentity, canonical_json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FORMAT = 1
_Record = TypeVar("_Record")
PREFIX = "observations-"  # of the files' names


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


@dataclass(slots=True)
class Recording:
    """A file of observations, or of other records, that is being written. `done`: how many it holds."""

    path: Path
    done: int
    _stream: Any = field(repr=False)

    def append(self, record: DataclassInstance) -> None:
        """On the way to the disk when this returns; a killed process loses nothing that was appended."""
        try:
            self._stream.write(canonical_json(dataclasses.asdict(record)) + b"\n")
            self._stream.flush()
        except OSError as error:
            raise StorageError(f"Cannot write {self.path}: {error.strerror or error}.") from error
        self.done += 1


@contextmanager
def recording(path: Path, header: Header) -> Iterator[Recording]:
    """Begin the file of observations at `path`, or go on with it. What a killed process left of a line is cut off.

    Raises ConfigError when the observations there are of something else, StorageError.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path), path.open("a+b") as stream:
            record = Recording(path, _resume(stream, path, header), stream)
            before = record.done
            try:
                yield record
            finally:
                if record.done > before:
                    os.fsync(stream.fileno())
    except OSError as error:
        raise StorageError(f"Cannot write {path}: {error.strerror or error}.") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    import filelock

    try:
        with filelock.FileLock(path.with_name(f".{path.name}.lock"), timeout=0):
            yield
    except filelock.Timeout as error:
        raise StorageError(
            f"Another process writes {path}. Wait for it, or choose another folder with --out."
        ) from error


def _resume(stream: Any, path: Path, header: Header) -> int:
    """Leave the stream after its last whole line. How many observations stand before it."""
    stream.seek(0)
    first, end, lines = b"", 0, 0
    for line in stream:
        if not line.endswith(b"\n"):
            break
        first = first or line
        end, lines = end + len(line), lines + 1
    stream.truncate(end)
    stream.seek(end)
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
