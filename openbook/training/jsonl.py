"""Data files: JSON Lines, plain or gzip-compressed, checked against the digest in the recipe before use."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from openbook.errors import ConfigError, StorageError
from openbook.training.recipe import Data

MAX_LINE_BYTES = 1 << 30
MAX_DATA_BYTES = 4 << 30

Record = TypeVar("Record", bound=BaseModel)


class Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def checked_content(data: Data, folder: Path) -> tuple[str, bytes]:
    """(name, the bytes of the file, decompressed). Raises StorageError; ConfigError when the digest is another."""
    path = folder / data.file
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StorageError(f"Cannot read the training data {path}: {error.strerror or error}.") from error
    found = hashlib.sha256(content).hexdigest()
    if found != data.sha256:
        raise ConfigError(
            f"{data.file} is not the data that the recipe names: its SHA-256 is {found}, the recipe says {data.sha256}. "
            "Restore the file, or state the new digest in the recipe."
        )
    if path.suffix == ".gz":
        try:
            with gzip.open(io.BytesIO(content)) as stream:
                content = stream.read(MAX_DATA_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise ConfigError(f"{data.file} is no valid gzip file: {error}.") from error
    if len(content) > MAX_DATA_BYTES:
        raise ConfigError(f"{data.file} has more than {MAX_DATA_BYTES:,} bytes. Split it into several files.")
    return path.name, content


def read_lines(data: Data, folder: Path, record: type[Record]) -> Iterator[tuple[str, Record]]:
    """(where it stands, the line) for each line that is not empty. Raises ConfigError with the line's number."""
    name, content = checked_content(data, folder)
    empty = True
    for number, raw in enumerate(io.BytesIO(content), 1):
        place = f"{name} line {number}"
        if len(raw) > MAX_LINE_BYTES:
            raise ConfigError(f"{place} has {len(raw):,} bytes; at most {MAX_LINE_BYTES:,} are allowed.")
        if not raw.strip():
            continue
        try:
            value: Any = json.loads(raw)
            line = record.model_validate(value)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{place} is no valid example: {_reason(error)}.") from error
        empty = False
        yield place, line
    if empty:
        raise ConfigError(f"{name} holds no examples.")


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'the line'}: {first['msg'].lower()}"
    return str(error).rstrip(".")
