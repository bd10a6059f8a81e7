"""EPUB 2 and 3 to text: the chapters in reading order, each parsed as a web page.

The table of contents is left out, but gives titles to chapters without headings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openbook.core.errors import UnreadableFile
from openbook.core.records import Content, Metadata
from openbook.parsers.blocks import Blocks
from openbook.parsers.characters import one_line
from openbook.parsers.formats.elements import child, children, descendants
from openbook.parsers.formats.html import decode_page, parse_page
from openbook.parsers.formats.packages import Package, common_metadata, resolve

_CONTAINER = "META-INF/container.xml"
_TABLE = "application/x-dtbncx+xml"
_PAGES = frozenset({"application/xhtml+xml", "text/html", "text/x-oeb1-document"})


def parse_epub(data: bytes, name: str) -> Content:
    package = Package(data, "an EPUB book")
    if _CONTAINER not in package:
        raise UnreadableFile("not an EPUB book")
    roots = (resolve("", file.get("full-path", "")) for file in descendants(package.xml(_CONTAINER), "rootfile"))
    part = next(roots, "")
    root = package.xml(part)
    folder = part.rpartition("/")[0]
    items = {item.get("id", ""): item for item in descendants(root, "item")}
    chapters = _chapters(root, items, folder)
    # Scrambled fonts are common and do no harm; a scrambled chapter cannot be read.
    references = descendants(package.optional_xml("META-INF/encryption.xml"), "CipherReference")
    locked = {resolve("", item.get("URI", "")).lower() for item in references}
    if any(chapter.lower() in locked for chapter in chapters):
        raise UnreadableFile("locked by its publisher (DRM)")
    titles = _titles(package, items, folder)
    out = Blocks()
    for chapter in chapters:
        if chapter not in package:
            continue
        page = parse_page(decode_page(package.read(chapter)))
        out.chars += page.source_chars or 0
        title = titles.get(chapter.lower(), "")
        if page.text.strip() and title and not page.headings and not page.text.lower().startswith(title.lower()):
            out.heading(title, 1)
        out.include(page.text, page.headings)
    title, metadata = _metadata(root)
    return out.content("application/epub+zip", title, name, metadata)


def _chapters(root: Any, items: Mapping[str, Any], folder: str) -> list[str]:
    spine = [items.get(item.get("idref", "")) for item in children(child(root, "spine"), "itemref")]
    parts = [
        resolve(folder, item.get("href", ""))
        for item in spine
        if item is not None and item.get("media-type", "") in _PAGES and not _is_nav(item)
    ]
    return list(dict.fromkeys(parts))


def _titles(package: Package, items: Mapping[str, Any], folder: str) -> dict[str, str]:
    """By part, from the table of contents of EPUB 3, then EPUB 2. A part's first entry counts."""
    found: dict[str, str] = {}
    navs = [item for item in items.values() if _is_nav(item)]
    for item in [*navs, *(item for item in items.values() if item.get("media-type", "") == _TABLE)]:
        part = resolve(folder, item.get("href", ""))
        root, base = package.optional_xml(part), part.rpartition("/")[0]
        entries = [(entry, entry) for entry in descendants(root, "a")]
        entries += [(child(entry, "navLabel"), child(entry, "content")) for entry in descendants(root, "navPoint")]
        for label, link in entries:
            if label is not None and link is not None:
                target = resolve(base, link.get("href") or link.get("src") or "").lower()
                found.setdefault(target, one_line("".join(label.itertext())))
    return found


def _is_nav(item: Any) -> bool:
    return "nav" in item.get("properties", "").split()


def _metadata(root: Any) -> tuple[str, Metadata]:
    """From the `dc:` elements. The date is that of the last change, else of publication."""
    head = child(root, "metadata")
    modified = [meta for meta in children(head, "meta") if meta.get("property") == "dcterms:modified"]

    title, language, date = (next(descendants(head, name), None) for name in ("title", "language", "date"))
    authors = [_text(creator) for creator in descendants(head, "creator")]
    return one_line(_text(title)), common_metadata(authors, _text(modified[0] if modified else date), _text(language))


def _text(element: Any) -> str:
    return (element.text or "").strip() if element is not None else ""
