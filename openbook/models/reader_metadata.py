"""How a trained reader is asked (`records.ReaderFormat`), as GGUF metadata: the keys, reading them and writing them.

`openbook.models.bounds` checks their values.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from openbook.models.gguf import read_gguf
from openbook.records import ReaderFormat

if TYPE_CHECKING:
    from gguf import GGUFWriter

READER_KEYS = "openbook.reader."  # what each of them begins with
INSTRUCTION = f"{READER_KEYS}instruction"
ABSTENTION = f"{READER_KEYS}abstention"
PASSAGES = f"{READER_KEYS}passages"
DECLINES_ABOVE = f"{READER_KEYS}declines_above"


def reader_of(path: Path) -> ReaderFormat | None:
    """How the model or adapter in the GGUF file is asked as a reader; None if it is not a reader."""
    metadata = read_gguf(path).metadata
    return reader_format(lambda key: str(metadata[key].value) if key in metadata else None)


def reader_format(stated: Callable[[str], str | None]) -> ReaderFormat | None:
    """As `reader_of`. `stated`: what the metadata states under a key, as text."""
    instruction, abstention, threshold = map(stated, (INSTRUCTION, ABSTENTION, DECLINES_ABOVE))
    if not (instruction and abstention):
        return None
    return ReaderFormat(instruction, abstention, int(stated(PASSAGES) or 1), float(threshold) if threshold else None)


def add_reader(writer: GGUFWriter, reader: ReaderFormat | None) -> None:
    if reader is not None:
        writer.add_string(INSTRUCTION, reader.instruction)
        writer.add_string(ABSTENTION, reader.abstention)
        if reader.passages > 1:
            writer.add_uint32(PASSAGES, reader.passages)
        if reader.declines_above is not None:
            writer.add_float32(DECLINES_ABOVE, reader.declines_above)
