"""A trained reader's prompt format (`records.ReaderFormat`) as GGUF metadata."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from openbook.core.errors import InvalidModelFile
from openbook.core.records import ReaderFormat
from openbook.models.gguf import read_gguf

if TYPE_CHECKING:
    from gguf import GGUFWriter

READER_KEYS = "openbook.reader."  # prefix of all keys
INSTRUCTION = f"{READER_KEYS}instruction"
ABSTENTION = f"{READER_KEYS}abstention"
PASSAGES = f"{READER_KEYS}passages"
DECLINES_ABOVE = f"{READER_KEYS}declines_above"
MAX_READER_CHARS = 1 << 12
MAX_READER_PASSAGES = 8


def reader_of(path: Path) -> ReaderFormat | None:
    """The reader format of a GGUF file; None if it is not a reader. Raises InvalidModelFile."""
    metadata = read_gguf(path).metadata
    return reader_format(lambda key: str(metadata[key].value) if key in metadata else None)


def reader_format(stated: Callable[[str], str | None]) -> ReaderFormat | None:
    """As `reader_of`. `stated` returns the text of a metadata key."""
    instruction, abstention, threshold = map(stated, (INSTRUCTION, ABSTENTION, DECLINES_ABOVE))
    if not (instruction and abstention):
        return None
    passages = stated(PASSAGES) or "1"
    try:
        reader = ReaderFormat(instruction, abstention, int(passages), float(threshold) if threshold else None)
    except ValueError:
        reader = None
    if (
        reader is None
        or max(len(instruction), len(abstention)) > MAX_READER_CHARS
        or not 1 <= reader.passages <= MAX_READER_PASSAGES
        or not 0 < (0.5 if reader.declines_above is None else reader.declines_above) < 1
    ):
        raise InvalidModelFile(
            f"The file says how it is asked as a reader, and {PASSAGES} ({passages[:40]}) must be an integer from 1 to "
            f"{MAX_READER_PASSAGES}, {DECLINES_ABOVE} ({(threshold or 'absent')[:40]}) a number between 0 and 1, and a text "
            f"have at most {MAX_READER_CHARS} characters."
        )
    return reader


def add_reader(writer: GGUFWriter, reader: ReaderFormat | None) -> None:
    if reader is not None:
        writer.add_string(INSTRUCTION, reader.instruction)
        writer.add_string(ABSTENTION, reader.abstention)
        if reader.passages > 1:
            writer.add_uint32(PASSAGES, reader.passages)
        if reader.declines_above is not None:
            writer.add_float32(DECLINES_ABOVE, reader.declines_above)
