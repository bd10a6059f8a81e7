"""What the pool and its processes say to each other: frames, limits, outcomes.

A frame is four bytes of length (big-endian), eight bytes that identify the request, and the body. A process begins with
the frame HELLO. A question to TASK_PARSE is a path; by value: the length of the file's name (eight bytes), the name and
the file's bytes. To TASK_DRAW: a page number (eight bytes) and the bytes of a PDF. To TASK_MARK: the length of a list of
quotes (eight bytes), the list as JSON, and the bytes of a PDF.

An answer is a JSON object; or PIXELS, width and height in four bytes each, and RGB pixels; or MARKS and a JSON list. An
empty answer says that OCR makes progress. A file may take over its process: so answers are JSON, never pickle, and each
is checked: types, sizes, offsets, characters.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BufferedReader
from itertools import pairwise
from typing import Annotated, Any, BinaryIO, Literal, TypeAlias

import msgspec

from openbook.core.errors import NoSuchPage, NotReadNow, UnreadableFile
from openbook.core.records import Content, Digest
from openbook.parsers.characters import MAX_TITLE_CHARS, clean, one_line
from openbook.parsers.metadata import normalised

HELLO = b"openbook"
NAME_BYTES = len(HELLO)
TASK_PARSE, TASK_DRAW, TASK_MARK = "parse", "draw", "mark"
PIXELS, MARKS = b"\1", b"\2"  # prefix of an answer that is a picture or marks
NUMBER_BYTES, SIDE_BYTES = 8, 4  # of a page's number or a name's length; of a width or height
NONSENSE = "the parser gave an answer that makes no sense"
# Kinds of refusals. The last is the base class of the others.
KINDS = {"not now": NotReadNow, "no such page": NoSuchPage, "unreadable": UnreadableFile}
_MAX_NUMBER = 2**53

Parsed: TypeAlias = tuple[Content, Digest] | UnreadableFile
"""The outcome of one file: its content with the SHA-256 of the bytes that were parsed, or why it could not be read."""


@dataclass(frozen=True, slots=True)
class Limits:
    timeout_s: float = 60.0  # by the wall clock; it begins again when OCR makes progress
    memory_mb: int = 2048  # of a worker's address space, where the platform can limit it
    max_file_bytes: int = 100_000_000


def read_frame(stream: BufferedReader[Any], max_bytes: int) -> bytes:
    """Identifier and body; empty if the stream ends or the frame is invalid."""
    head = stream.read(4)
    size = int.from_bytes(head, "big")
    if len(head) < 4 or not NAME_BYTES <= size <= max_bytes:
        return b""
    frame = stream.read(size)
    return frame if len(frame) == size else b""


def write_frame(stream: BinaryIO, name: bytes, body: bytes) -> None:
    stream.write((len(name) + len(body)).to_bytes(4, "big") + name + body)
    stream.flush()


class _Answer(msgspec.Struct, forbid_unknown_fields=True):
    content: Content | None = None
    digest: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")] = ""
    reason: Annotated[str, msgspec.Meta(max_length=1_000)] = ""
    kind: Literal["unreadable", "not now", "no such page"] = "unreadable"


def decode_answer(body: bytes) -> Parsed:
    """The outcome in a worker's answer. Raises ValueError if it is invalid."""
    try:
        answer = msgspec.json.decode(body, type=_Answer)
        if answer.content is None and answer.reason:
            return KINDS[answer.kind](one_line(answer.reason) or "not readable")
        if answer.content is not None and answer.digest and _is_orderly(answer.content):
            return answer.content, answer.digest
    except (msgspec.DecodeError, RecursionError, UnreadableFile) as error:  # UnreadableFile: an invalid label
        raise ValueError(NONSENSE) from error
    raise ValueError(NONSENSE)


def _is_orderly(content: Content) -> bool:
    """True if the rules of `records.Content` hold: offsets, characters and lengths."""
    size = len(content.text)
    edges = [0, *(edge for page in content.pages for edge in (page.start, page.end)), size]
    numbers = [0, *(page.number for page in content.pages), _MAX_NUMBER]
    starts = [0, *(mark.start for mark in content.headings)]
    titles = [content.title, *(mark.title for mark in content.headings)]
    return (
        clean(content.text) == content.text
        and len(content.media_type) <= 100
        and 0 <= (content.source_chars or 0) < _MAX_NUMBER
        and all(a <= b for a, b in pairwise(edges))
        and all(a < b for a, b in pairwise(numbers))
        and all(a <= b for a, b in pairwise(starts))
        and (starts[-1] < size or not content.headings)
        and all(1 <= mark.level <= 1_000 for mark in content.headings)
        and all(len(title) <= MAX_TITLE_CHARS for title in titles)
        and normalised(dict(content.metadata)) == content.metadata
    )
