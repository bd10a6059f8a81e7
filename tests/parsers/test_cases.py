"""Each file in `cases` is read as `expected.json` of its folder says.

`python -m tests.parsers.test_cases` writes what the parsers give now: look at each difference, and change `PARSER_VERSION`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from openbook.core.errors import UnreadableFile
from openbook.parsers import parse_bytes
from openbook.parsers.characters import clean
from tests.parsers.samples import CASES

EXPECTED = "expected.json"
MAX_CHARS = 2_000
FILES = sorted(path for path in CASES.glob("*/*") if path.name != EXPECTED)


def outcome(path: Path) -> dict[str, Any]:
    """What can be seen of the content, without what is empty; or the reason why there is none."""
    try:
        content = parse_bytes(path.read_bytes(), path.name)
    except UnreadableFile as error:
        return {"refused": str(error)}
    assert clean(content.text) == content.text
    found: dict[str, Any] = {
        "text": content.text,
        "title": content.title,
        "headings": [[mark.start, mark.level, mark.title] for mark in content.headings],
        "pages": [[page.start, page.end] for page in content.pages],
        "metadata": dict(content.metadata),
        "media_type": content.media_type,
        "source_chars": content.source_chars,
    }
    if len(content.text) > MAX_CHARS:
        digest = hashlib.sha256(content.text.encode()).hexdigest()
        found |= {"text": content.text[:200], "chars": len(content.text), "sha256": digest}
    return {key: value for key, value in found.items() if value not in ([], {})}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_is_read(path: Path) -> None:
    expected = json.loads((path.parent / EXPECTED).read_text("utf-8"))[path.name]
    assert json.loads(json.dumps(outcome(path))) == expected


def test_nothing_else_is_expected() -> None:
    expected = [
        path.parent / name for path in CASES.glob(f"*/{EXPECTED}") for name in json.loads(path.read_text("utf-8"))
    ]
    assert sorted(expected) == FILES


def write() -> None:
    for folder in sorted({path.parent for path in FILES}):
        found = {path.name: outcome(path) for path in FILES if path.parent == folder}
        files = (
            f" {json.dumps(name)}: {{\n"
            + ",\n".join(f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in each.items())
            for name, each in found.items()
        )
        (folder / EXPECTED).write_text("{\n" + "},\n".join(files) + "}\n}\n", "utf-8")


if __name__ == "__main__":
    write()
