"""`facts.jsonl`: the words that models in a folder have learned, by which `purge` finds it (docs/formats/diagnosis.md).

It only gains lines: what a run taught is still in its models when the next one teaches something else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from openbook.errors import ConfigError
from openbook.models.durable import replace_file, storage_errors

FORMAT = 1
FACTS = "facts.jsonl"


def add_taught(folder: Path, taught: Iterable[tuple[str, str]]) -> None:
    """Note (name, text) of what is to be taught, each text once, before anything learns it.

    Raises ConfigError for a file that is damaged, whose lines would be lost; StorageError.
    """
    path = folder / FACTS
    lines = _lines_of(path)
    known = {passage["text"] for line in lines for passage in line["passages"]}
    for name, said in taught:
        text = said.encode("utf-8", "replace").decode()
        if text not in known:
            known.add(text)
            lines.append({"id": name, "passages": [{"text": text}]})
    content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in [_header(lines), *lines])
    with storage_errors(f"write to {folder}"):
        replace_file(path, content.encode("utf-8", "replace"))


def _header(lines: list[dict[str, Any]]) -> dict[str, Any]:
    return {"format": FORMAT, "facts": len(lines)}


def _lines_of(path: Path) -> list[dict[str, Any]]:
    """Without the header; none where there is no file. Raises ConfigError, StorageError."""
    with storage_errors(f"read {path}"):
        if not path.exists():
            return []
        content = path.read_bytes()
    try:
        header, *lines = [json.loads(line) for line in content.split(b"\n") if line]
        if header["format"] != FORMAT:
            raise ValueError(f"format {header['format']!r}; this version reads {FORMAT}")
        for line in lines:
            if not all(isinstance(passage["text"], str) for passage in line["passages"]):
                raise TypeError(f"a passage of {line['id']!r} has no text")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"{path} is damaged: {error!r}. It says what the models beside it have learned, so it is not written anew. "
            f"Choose another folder with --out, or delete {path.parent}."
        ) from error
    return lines
