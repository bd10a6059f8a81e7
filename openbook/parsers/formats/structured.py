"""JSON, Jupyter notebooks and XML to text. Malformed files are read as plain text, so that nothing is lost."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from openbook.core.codec import unique_keys
from openbook.core.errors import UnreadableFile
from openbook.core.records import Content
from openbook.parsers.blocks import Blocks, text_content
from openbook.parsers.characters import clean, one_line
from openbook.parsers.formats.elements import local
from openbook.parsers.formats.frontmatter import make_metadata
from openbook.parsers.formats.html import decode_page, parse_html, parse_page
from openbook.parsers.formats.spreadsheets import row_line
from openbook.parsers.formats.text import markdown_headings, parse_plain, read_text

MAX_PATH_CHARS = 160
_MAX_ROW_CHARS = 400
_OWN_FIELDS = frozenset({"author", "authors", "date", "created", "modified", "published", "language", "lang"})
_ESCAPES = re.compile(r"\x1b\[[0-9;]{0,20}[A-Za-z]")
_OBJECT_AT = re.compile(r"\s*<[\w.]+(?: object)? at 0x[0-9a-f]+>\s*|\s*<Figure size [^<>]*>\s*")
_TITLES = frozenset("title article-title book-title chapter-title head heading invention-title".split())
_PARAGRAPHS = frozenset("p para simpara li listitem td th entry item term text content body".split())
_PROSE = frozenset({"p", "para", "simpara"})
_MAX_FIELD_CHARS = 200
_MAX_FIELDS = 60


# --- JSON -------------------------------------------------------------------------------------------------------------


def parse_json(data: bytes, name: str) -> Content:
    """Lines of `path: value`; an object of plain values is one line, like a table row."""
    text = read_text(data)
    try:
        value = _loaded(text)
    except (ValueError, RecursionError):
        return parse_plain(data, name)
    stated = {key: said for key, said in value.items() if isinstance(said, str)} if isinstance(value, dict) else {}
    title = one_line(stated.get("title") or stated.get("name", ""))
    metadata = make_metadata((key, said) for key, said in stated.items() if key in _OWN_FIELDS)
    written = clean("\n".join(_lines(value)) + "\n")
    return text_content(written, "application/json", name, (), metadata, title=title, chars=len(text))


def parse_json_lines(data: bytes, name: str) -> Content:
    text = read_text(data)
    lines: list[str] = []
    for line in filter(str.strip, text.split("\n")):
        try:
            lines += _lines(_loaded(line))
        except (ValueError, RecursionError):
            lines.append(line)
    return text_content(clean("\n".join(lines) + "\n"), "application/jsonl", name, chars=len(text))


def _loaded(text: str) -> Any:
    """Numbers stay as written. Raises ValueError also for a repeated key."""
    return json.loads(text, object_pairs_hook=unique_keys, parse_int=str, parse_float=str, parse_constant=str)


def _lines(value: Any) -> Iterator[str]:
    """Depth first, without recursion. An empty `value` has no lines."""
    waiting: list[Iterator[tuple[str, Any]]] = [iter([("", value)] if value not in ({}, []) else [])]
    while waiting:
        item = next(waiting[-1], None)
        if item is None:
            waiting.pop()
            continue
        at, value = item
        at = at if len(at) <= MAX_PATH_CHARS else "…" + at[-MAX_PATH_CHARS:]
        row = _row(value)
        if row is not None:
            # The index of a record in the outermost list says nothing.
            yield f"{at}: {row}" if at and not re.fullmatch(r"\[\d+\]", at) else row
        elif isinstance(value, dict):
            waiting.append(iter([(f"{at}.{key}" if at else key, inner) for key, inner in value.items()]))
        elif isinstance(value, list):
            waiting.append(iter([(f"{at}[{index}]", inner) for index, inner in enumerate(value)]))
        else:
            yield f"{at}:\n{value}" if at else value  # a long text


def _row(value: Any) -> str | None:
    """One line if `value` is short and holds only plain values, else None."""
    if isinstance(value, dict | list) and value:
        inner = list(value.values()) if isinstance(value, dict) else value
        if len(inner) > _MAX_ROW_CHARS or any(isinstance(item, dict | list) and item for item in inner):
            return None
        words = [_word(item) for item in inner]
        row = ", ".join(words)
        if isinstance(value, dict):
            row = "; ".join(f"{key}: {word}" for key, word in zip(value, words, strict=True))
    else:
        row = _word(value)
    return row if len(row) <= _MAX_ROW_CHARS and "\n" not in row else None


def _word(value: Any) -> str:
    if isinstance(value, dict | list):
        return "none"  # it is empty
    return value if isinstance(value, str) else {True: "true", False: "false", None: "null"}[value]


# --- notebooks --------------------------------------------------------------------------------------------------------


def parse_notebook(data: bytes, name: str) -> Content:
    """Markdown cells with headings, code cells as fenced code, outputs as text. No images."""
    try:
        book = json.loads(read_text(data), object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise UnreadableFile("not a readable notebook") from error
    cells = _dict(book).get("cells")
    if not isinstance(cells, list):
        raise UnreadableFile("not a notebook, or one of a format before 4")
    language = str(_dict(_dict(_dict(book).get("metadata")).get("language_info")).get("name")).lower()
    language = language if re.fullmatch(r"[\w+#.-]{1,20}", language) and language != "none" else ""
    blocks = [block.strip("\n") for cell in cells for block in _cell_blocks(_dict(cell), language) if block.strip()]
    text = clean("\n\n".join(blocks) + "\n") if blocks else ""
    metadata = make_metadata([("programming_language", language)])
    return text_content(text, "application/x-ipynb+json", name, markdown_headings(text), metadata)


def _cell_blocks(cell: dict[str, Any], language: str) -> Iterator[str]:
    source = _joined(cell.get("source"))
    if cell.get("cell_type") != "code":
        yield source
    else:
        if source.strip():
            yield _fenced(source, language)
        outputs = cell.get("outputs")
        for output in map(_dict, outputs if isinstance(outputs, list) else []):
            data = _dict(output.get("data"))
            text = _ESCAPES.sub("", _joined(output.get("text")) or _joined(data.get("text/plain")))
            if output.get("output_type") == "error":
                yield _fenced(f"{_joined(output.get('ename'))}: {_joined(output.get('evalue'))}", "")
            elif markdown := _joined(data.get("text/markdown")):
                yield markdown
            elif text.strip() and not _OBJECT_AT.fullmatch(text):
                yield _fenced(text, "")


def _fenced(text: str, language: str) -> str:
    fence = "`" * (max((len(run) for run in re.findall(r"`{3,}", text)), default=2) + 1)
    return f"{fence}{language}\n{text.strip(chr(10))}\n{fence}"


def _joined(value: Any) -> str:
    parts = value if isinstance(value, list) else [value]
    return "".join(part for part in parts if isinstance(part, str))


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


# --- XML --------------------------------------------------------------------------------------------------------------


def parse_xml_file(data: bytes, name: str) -> Content:
    """XML of any kind: titles as headings, records and table rows on one line, other text by block.

    External entities are never fetched; the parser stops internal entities that expand without bound.
    """
    from lxml import etree

    text = decode_page(data).lstrip("\ufeff \n\t")
    # The parsed text is UTF-8, whatever the declaration says.
    parser = etree.XMLParser(
        encoding="utf-8", no_network=True, load_dtd=False, huge_tree=False, remove_comments=True, remove_pis=True
    )
    try:
        root = etree.fromstring(text.encode(), parser)
    except etree.XMLSyntaxError as error:
        if "amplification" in str(error) or "entity reference loop" in str(error).lower():
            raise UnreadableFile("declares XML entities that grow without end") from error
        return parse_plain(data, name)
    if local(root) == "html":
        return parse_html(data, name)
    out = Blocks()
    _write_xml(root, 1, any(local(element) in _PROSE for element in root.iter()), out)
    out.chars = len(text)
    language = root.get("{http://www.w3.org/XML/1998/namespace}lang")
    return out.content("application/xml", "", name, make_metadata([("language", language)]))


def _write_xml(element: Any, level: int, prose: bool, out: Blocks) -> None:
    """In `prose`, attributes are dropped, since they place and number things; elsewhere they are data."""
    name = local(element)
    is_mixed = bool((element.text or "").strip()) or any((child.tail or "").strip() for child in element)
    if not name:  # an entity that is not resolved
        out.paragraph(element.text or "")
    elif name in _TITLES:
        out.heading(_text_of(element), level)
    elif len(element) == 0:
        out.paragraph(_leaf(element, prose))
    elif is_mixed:  # as in a paragraph with a link
        out.paragraph(_text_of(element))
    elif name in {"tr", "row"}:
        out.rows([map(_text_of, element)])
    elif record := _record(element, prose):
        out.paragraph(record)
    else:
        titled = any(local(child) in _TITLES for child in element)
        for child in element:
            _write_xml(child, level + (titled and local(child) not in _TITLES), prose, out)


def _text_of(element: Any) -> str:
    return " ".join("".join(element.itertext()).split())


def _is_markup(text: str) -> bool:
    """Feeds hold HTML as an element's text."""
    return text.lstrip()[:1] == "<" and "</" in text


def _leaf(element: Any, prose: bool) -> str:
    """The text of a leaf element, with its name if that is informative."""
    text = element.text or ""
    said = parse_page(text).text if _is_markup(text) else " ".join(text.split())
    if local(element) in _PARAGRAPHS or len(said) > _MAX_FIELD_CHARS:
        return said
    return row_line([(local(element), said), *_attributes(element, prose)])


def _record(element: Any, prose: bool) -> str:
    """`id: bk101; author: Ada; price: 44.95` for an element of short fields, else empty."""
    fields = [(local(child), _text_of(child)) for child in element]
    is_flat = not any(
        len(child) or (child.attrib and not prose) or local(child) in _PARAGRAPHS or _is_markup(child.text or "")
        for child in element
    )
    is_short = 2 <= len(fields) <= _MAX_FIELDS and all(len(said) <= _MAX_FIELD_CHARS for _, said in fields)
    if not (is_flat and is_short) or (prose and any(key in _TITLES for key, _ in fields)):
        return ""
    return row_line([*_attributes(element, prose), *fields])


def _attributes(element: Any, prose: bool) -> list[tuple[str, str]]:
    return [] if prose else [(key.rpartition("}")[2], value) for key, value in element.attrib.items()]
