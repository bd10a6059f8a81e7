"""XML of any kind: title-like elements as headings, records and table rows as one line, text by block.

External entities are never fetched; the parser stops internal ones that grow without end. What is not well-formed is
read as plain text, so that nothing is lost.
"""

from __future__ import annotations

import re
from typing import Any

from openbook.errors import UnreadableFile
from openbook.parsers.cleaning import clean, one_line, title_from_name
from openbook.parsers.delimited import row_line
from openbook.parsers.frontmatter import make_metadata
from openbook.parsers.text import read_text
from openbook.records import Content, HeadingMark

_TITLES = frozenset("title article-title book-title chapter-title head heading invention-title".split())
_PARAGRAPHS = frozenset("p para simpara li listitem td th entry item term text content body".split())
_HEADS = frozenset("front head header info bookinfo articleinfo channel meta metadata prolog".split())
_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
_DECLARED = re.compile(rb"""<\?xml\b[^<>]{0,200}?encoding\s{0,4}=\s{0,4}["']([\w.:-]{2,40})""")
_ENCODING = re.compile(r"^(\s{0,16}<\?xml\b[^<>]{0,256}?)\sencoding\s*=\s*(?:\"[^\"<>]*\"|'[^'<>]*')")
_LONGEST_RECORD_CHARS = 600
_LONGEST_FIELD_CHARS = 200
_MOST_FIELDS = 60


def read_xml(data: bytes, name: str) -> Content:
    text = _text(data)
    root = _parse(text)
    if root is None:
        plain, damage = read_text(data)
        return Content(plain, "text/plain", title_from_name(name), source_chars=len(plain), metadata=damage)
    if _local(root) == "html":
        from openbook.parsers.html import read_html

        return read_html(data, name)
    writer = _Writer(prose=any(_local(element) in {"p", "para", "simpara"} for element in root.iter()))
    writer.element(root, 1)
    written, headings = writer.finish()
    title = headings[0].title if headings else title_from_name(name)
    metadata = make_metadata(
        [
            ("language", root.get(_LANG)),
            ("author", _first(root, "author", "creator")),
            ("date", _first(root, "date", "updated", "pubDate")),
        ]
    )
    return Content(written, "application/xml", title, headings=headings, source_chars=len(text), metadata=metadata)


def _text(data: bytes) -> str:
    from openbook.parsers.decoding import decode

    declared = _DECLARED.search(data[:1024])
    return clean(decode(data, declared[1].decode("ascii") if declared else "")).lstrip("\ufeff \n\t")


def _parse(text: str) -> Any:
    from lxml import etree

    # What is parsed is UTF-8, whatever the declaration says.
    parser = etree.XMLParser(no_network=True, load_dtd=False, huge_tree=False, remove_comments=True, remove_pis=True)
    try:
        return etree.fromstring(_ENCODING.sub(r"\1", text).encode(), parser)
    except etree.XMLSyntaxError as error:
        if "amplification" in str(error) or "entity reference loop" in str(error).lower():
            raise UnreadableFile("declares XML entities that grow without end") from error
        return None


def _local(element: Any) -> str:
    """The name without its namespace; empty for an unresolved entity."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def _first(root: Any, *names: str) -> str | None:
    """The text of the first element of one of these names that says something about the whole, when it is short."""
    heads = [child for child in root if _local(child) in _HEADS]
    for element in (*root, *(child for head in heads for child in head)):
        if _local(element) in names and 0 < len(said := _said(element)) <= _LONGEST_FIELD_CHARS:
            return said
    return None


def _said(element: Any) -> str:
    return " ".join("".join(element.itertext()).split())


def _is_markup(text: str) -> bool:
    return text.lstrip()[:1] == "<" and "</" in text


def _without_markup(text: str) -> str:
    """Feeds hold whole pages of HTML as the text of one element."""
    if not _is_markup(text):
        return " ".join(text.split())
    from openbook.parsers.html import read_html

    return read_html(("\ufeff" + text).encode(), "").text.strip()


class _Writer:
    """In `prose`, attributes are left out: they place and number things. Elsewhere they hold data."""

    def __init__(self, *, prose: bool) -> None:
        self._prose = prose
        self._parts: list[str] = []
        self._length = 0
        self._headings: list[HeadingMark] = []

    def element(self, element: Any, level: int) -> None:
        """At most as deep as the parser goes, 256."""
        name = _local(element)
        if not name:
            self._block(element.text or "")
        elif name == "xref" and self._prose:
            pass  # a footnote's mark, with no text around it
        elif name in _TITLES:
            self._heading(_said(element), level)
        elif name in {"tr", "row"} and not _is_mixed(element):
            self._block(" | ".join(filter(None, map(_said, element))) or _said(element), gap="\n")
        elif (record := _record(element, attributes=not self._prose)) is not None:
            self._block(record, gap="\n" if name not in _PARAGRAPHS else "\n\n")
        elif _is_mixed(element):
            self._block(_said(element))
        else:
            titles = sum(_local(child) in _TITLES for child in element)
            for child in element:
                self.element(child, level + (titles > (_local(child) in _TITLES)))  # below a title, but not its own

    def _heading(self, title: str, level: int) -> None:
        if title:
            self._block(title)
            start = self._length - len(title)
            self._headings.append(HeadingMark(start, level, one_line(title)))
            self._gap_before_next = "\n\n"

    _gap_before_next = ""

    def _block(self, text: str, gap: str = "\n\n") -> None:
        text = clean(text).strip()
        if not text:
            return
        gap = (self._gap_before_next or gap) if self._length else ""
        self._gap_before_next = ""
        self._parts += (gap, text)
        self._length += len(gap) + len(text)

    def finish(self) -> tuple[str, tuple[HeadingMark, ...]]:
        return "".join([*self._parts, "\n" if self._parts else ""]), tuple(self._headings)


def _is_mixed(element: Any) -> bool:
    """Whether text stands beside elements, as in a paragraph with a link."""
    return bool((element.text or "").strip()) or any((child.tail or "").strip() for child in element)


def _record(element: Any, *, attributes: bool) -> str | None:
    """`id: bk101; author: Ada; price: 44.95` for an element of short fields; None when it is no such thing."""
    if len(element) > _MOST_FIELDS:
        return None
    name = _local(element)
    stated = [(key.rpartition("}")[2], value) for key, value in element.attrib.items()] if attributes else []
    if len(element) == 0:
        said = _without_markup(element.text or "")
        if name in _PARAGRAPHS or len(said) > _LONGEST_FIELD_CHARS or _is_markup(element.text or ""):
            return said
        line = row_line([key for key, _ in stated], [value for _, value in stated])
        return f"{name}: {said}{f' ({line})' if line else ''}" if said else f"{name}: {line}" if line else ""
    fields = [(_local(child), _said(child)) for child in element]
    if any(len(child) or not key or key in _PARAGRAPHS for child, (key, _) in zip(element, fields, strict=True)):
        return None
    if _is_mixed(element) or any(len(said) > _LONGEST_FIELD_CHARS for _, said in fields) or len(fields) < 2:
        return None
    if attributes and any(len(child.attrib) for child in element):
        return None  # the fields say more than their text
    if any((not attributes and key in _TITLES) or _is_markup(said) for key, said in fields):
        return None
    pairs = stated + fields
    line = row_line([key for key, _ in pairs], [said for _, said in pairs])
    return line if len(line) <= _LONGEST_RECORD_CHARS else None
