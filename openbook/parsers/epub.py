"""Books to text: the chapters in reading order, each read as a web page. EPUB 2 and 3.

Tables of contents are left out: they repeat the headings. A chapter that begins without a heading gets its title from
the table of contents, where it stands there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openbook.errors import UnreadableFile
from openbook.parsers.cleaning import one_line, title_from_name
from openbook.parsers.html import Page, decode_page, parse_page
from openbook.parsers.packages import (
    Package,
    child,
    children,
    descendants,
    local,
    open_package,
    resolve,
)
from openbook.parsers.properties import stated
from openbook.records import Content, HeadingMark, Metadata

MEDIA_TYPE = "application/epub+zip"
MOST_CHAPTERS = 10_000

_CONTAINER = "META-INF/container.xml"
_PAGES = frozenset({"application/xhtml+xml", "text/html", "text/x-oeb1-document"})
_GAP = "\n\n"


def read_epub(data: bytes, name: str) -> Content:
    package = open_package(data, "an EPUB book")
    if _CONTAINER not in package:
        raise UnreadableFile("not an EPUB book")
    part = next(
        (resolve("", file.get("full-path", "")) for file in descendants(package.xml(_CONTAINER), "rootfile")), ""
    )
    root = package.xml(part)
    folder = part.rpartition("/")[0]
    items = {item.get("id", ""): item for item in descendants(root, "item")}
    chapters = _spine(root, items, folder)
    _refuse_locked(package, chapters)
    titles = _contents(package, root, items, folder)
    writer = _Writer()
    for chapter in chapters:
        if chapter in package:
            writer.chapter(parse_page(decode_page(package.read(chapter))), titles.get(chapter.lower(), ""))
    said, metadata = _metadata(root)
    title = said or (writer.headings[0].title if writer.headings else "") or title_from_name(name)
    return Content("".join(writer.parts), MEDIA_TYPE, title, (), tuple(writer.headings), writer.chars, metadata)


class _Writer:
    def __init__(self) -> None:
        self.parts: list[str] = []
        self.headings: list[HeadingMark] = []
        self.chars = 0
        self._length = 0

    def chapter(self, page: Page, title: str) -> None:
        self.chars += page.chars
        if not page.text.strip():
            return
        if (
            title
            and not page.headings
            and one_line(page.text[: len(title) + 20])[: len(title)].lower() != title.lower()
        ):
            self.headings.append(HeadingMark(self._put(title), 1, title))
        start = self._put(page.text)
        self.headings += (HeadingMark(start + mark.start, mark.level, mark.title) for mark in page.headings)

    def _put(self, text: str) -> int:
        gap = _GAP if self._length else ""
        self.parts += (gap, text)
        start = self._length + len(gap)
        self._length = start + len(text)
        return start


def _spine(root: Any, items: Mapping[str, Any], folder: str) -> list[str]:
    """The parts to read, in order; each once, without the table of contents."""
    spine = child(root, "spine")
    references = [
        items.get(item.get("idref", "")) for item in (children(spine, "itemref") if spine is not None else ())
    ]
    parts = [
        resolve(folder, item.get("href", ""))
        for item in references
        if item is not None and item.get("media-type", "") in _PAGES and "nav" not in item.get("properties", "").split()
    ]
    if len(parts) > MOST_CHAPTERS:
        raise UnreadableFile(f"holds more than {MOST_CHAPTERS} chapters")
    return list(dict.fromkeys(parts))


def _refuse_locked(package: Package, chapters: list[str]) -> None:
    """Fonts are often scrambled, which hinders nobody; a scrambled chapter cannot be read."""
    root = package.optional_xml("META-INF/encryption.xml")
    locked = (
        {resolve("", item.get("URI", "")).lower() for item in descendants(root, "CipherReference")}
        if root is not None
        else set()
    )
    if any(chapter.lower() in locked for chapter in chapters):
        raise UnreadableFile("locked by its publisher (DRM)")


def _contents(package: Package, root: Any, items: Mapping[str, Any], folder: str) -> dict[str, str]:
    """Part to its title in the table of contents: the first entry that leads to it. EPUB 3 first, then EPUB 2."""
    found: dict[str, str] = {}
    for item in items.values():
        part = resolve(folder, item.get("href", ""))
        base = part.rpartition("/")[0]
        if "nav" in item.get("properties", "").split():
            nav = package.optional_xml(part)
            for link in descendants(nav, "a") if nav is not None else ():
                found.setdefault(resolve(base, link.get("href", "")).lower(), one_line("".join(link.itertext())))
    for item in items.values():
        if item.get("media-type", "") == "application/x-dtbncx+xml":
            part = resolve(folder, item.get("href", ""))
            ncx = package.optional_xml(part)
            for point in descendants(ncx, "navPoint") if ncx is not None else ():
                label, content = child(point, "navLabel", "text"), child(point, "content")
                if label is not None and content is not None:
                    target = resolve(part.rpartition("/")[0], content.get("src", "")).lower()
                    found.setdefault(target, one_line(label.text or ""))
    return found


def _metadata(root: Any) -> tuple[str, Metadata]:
    """What `dc:` elements state. The date is of the book's text where it says so, else of its publication."""
    elements = list(descendants(root, "metadata"))
    stating = [(local(element), element) for element in (elements[0].iter() if elements else ())]
    texts = [(name, (element.text or "").strip()) for name, element in stating]
    modified = [
        element.text or ""
        for name, element in stating
        if name == "meta" and element.get("property") == "dcterms:modified"
    ]
    metadata = stated(
        authors=(text for name, text in texts if name == "creator"),
        dates=(*modified, *(text for name, text in texts if name == "date")),
        language=next((text for name, text in texts if name == "language"), ""),
    )
    return one_line(next((text for name, text in texts if name == "title"), "")), metadata
