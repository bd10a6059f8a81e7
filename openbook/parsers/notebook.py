"""Jupyter notebooks: Markdown cells with their headings, code cells as fenced code, outputs as text. No images."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from openbook.errors import UnreadableFile
from openbook.parsers.cleaning import clean, one_line, title_from_name
from openbook.parsers.decoding import decode
from openbook.parsers.frontmatter import make_metadata
from openbook.parsers.headings import markdown_headings
from openbook.records import Content, Metadata

MOST_CELLS = 100_000
_ESCAPES = re.compile(r"\x1b\[[0-9;]{0,20}[A-Za-z]")
_NOT_WORTH_READING = re.compile(r"\s*<[\w.]+(?: object)? at 0x[0-9a-f]+>\s*|\s*<Figure size [^<>]*>\s*")
_LANGUAGE = re.compile(r"[\w+#.-]{1,20}")


def read_notebook(data: bytes, name: str) -> Content:
    book = _book(data)
    language = _language(book)
    blocks = [block for cell in _cells(book) for block in _blocks(cell, language) if block.strip()]
    text = clean("\n\n".join(block.strip("\n") for block in blocks) + "\n") if blocks else ""
    headings = markdown_headings(text)
    title = headings[0].title if headings else title_from_name(name)
    return Content(
        text, "application/x-ipynb+json", title, headings=headings, source_chars=sum(map(len, blocks)),
        metadata=_metadata(book, language),
    )  # fmt: skip


def _book(data: bytes) -> dict[str, Any]:
    try:
        book = json.loads(decode(data))
    except (ValueError, RecursionError) as error:
        raise UnreadableFile("not a readable notebook") from error
    if not isinstance(book, dict) or not isinstance(book.get("cells", book.get("worksheets")), list):
        raise UnreadableFile("not a notebook")
    return book


def _cells(book: dict[str, Any]) -> list[dict[str, Any]]:
    cells = book.get("cells")
    if not isinstance(cells, list):  # format 3
        cells = [cell for sheet in book["worksheets"] if isinstance(sheet, dict) for cell in _list(sheet.get("cells"))]
    if len(cells) > MOST_CELLS:
        raise UnreadableFile(f"holds {len(cells)} cells, over the limit of {MOST_CELLS}")
    return [cell for cell in cells if isinstance(cell, dict)]


def _language(book: dict[str, Any]) -> str:
    about = _dict(book.get("metadata"))
    stated = _dict(about.get("language_info")).get("name") or _dict(about.get("kernelspec")).get("language") or ""
    return stated.lower() if isinstance(stated, str) and _LANGUAGE.fullmatch(stated) else ""


def _metadata(book: dict[str, Any], language: str) -> Metadata:
    about = _dict(book.get("metadata"))
    names = [author.get("name") for author in _list(about.get("authors")) if isinstance(author, dict)]
    fields = [(key, about[key]) for key in ("date", "title") if isinstance(about.get(key), str)]
    return make_metadata(
        [("author", [n for n in names if isinstance(n, str)] or None), *fields, ("programming_language", language)]
    )


def _blocks(cell: dict[str, Any], language: str) -> Iterator[str]:
    source = _joined(cell.get("source", cell.get("input")))
    kind = cell.get("cell_type")
    if kind == "heading":  # format 3
        level = cell.get("level")
        yield f"{'#' * (level if isinstance(level, int) and 1 <= level <= 6 else 1)} {one_line(source)}"
    elif kind != "code":
        yield source
    elif source.strip():
        yield _fenced(source, language)
        for output in _list(cell.get("outputs")):
            yield from _output(_dict(output))


def _output(output: dict[str, Any]) -> Iterator[str]:
    data = _dict(output.get("data", output))
    if output.get("output_type") in {"error", "pyerr"}:
        yield _fenced(f"{_joined(output.get('ename'))}: {_joined(output.get('evalue'))}", "")
    elif markdown := _joined(data.get("text/markdown")):
        yield markdown
    else:
        text = _ESCAPES.sub("", _joined(output.get("text")) or _joined(data.get("text/plain")))
        if text.strip() and not _NOT_WORTH_READING.fullmatch(text):
            yield _fenced(text, "")


def _fenced(text: str, language: str) -> str:
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text.strip(chr(10))}\n{fence}"


def _joined(value: Any) -> str:
    """A string, or a list of strings as notebooks split them by line."""
    if isinstance(value, list):
        return "".join(part for part in value if isinstance(part, str))
    return value if isinstance(value, str) else ""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
