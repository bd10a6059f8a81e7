"""ZIP packages of XML: office formats and books. Sizes and depths are bounded.

Nothing is unpacked to disk, so a member named `../../x` is never looked up. Sources: ECMA-376 part 2 (Open Packaging
Conventions), ODF 1.3 part 2, EPUB 3.3 (Open Container Format).
"""

from __future__ import annotations

import posixpath
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import Any
from urllib.parse import unquote

from openbook.core.errors import UnreadableFile
from openbook.core.records import Metadata
from openbook.parsers.characters import one_line
from openbook.parsers.files import ENCRYPTED
from openbook.parsers.formats.elements import child, children, descendants, local
from openbook.parsers.formats.frontmatter import make_metadata

MAX_UNPACKED_BYTES = 200_000_000
MAX_XML_BYTES = 60_000_000  # of one part; its tree needs about ten times as much
LARGE_PART = "a part of "  # prefix of the reason when a part is over that limit
MAX_MEMBERS = 10_000
MAX_RATIO = 150  # XML packs 10 to 40 times; a bomb 1,000 times
ZIP_MARK = b"PK\x03\x04"
_SMALL_BYTES = 10_000_000
_DIRECTORY_BYTES = 400 * MAX_MEMBERS  # an entry takes 46 bytes and its name
_BROKEN = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError, struct.error)
_MAIN_PARTS = {"word": ".docx", "ppt": ".pptx", "xl": ".xlsx"}  # by folder
# Placeholders of libraries and programs for an unnamed author.
_NO_AUTHOR = frozenset({"python-docx", "openpyxl", "unknown", "anonymous", "user", "author", "administrator", "admin"})


class Package:
    """`what`: the kind for messages, such as `a Word document`.

    Sizes are checked before anything is unpacked, and no more is read. Raises UnreadableFile for other files, encrypted
    packages, and those that would unpack to too much.
    """

    def __init__(self, data: bytes, what: str) -> None:
        at = data.rfind(b"PK\x05\x06")
        if at >= 0 and len(data) >= at + 16 and int.from_bytes(data[at + 12 : at + 16], "little") > _DIRECTORY_BYTES:
            raise UnreadableFile(f"holds too many parts, over the limit of {MAX_MEMBERS}")
        self.what = what
        try:
            self._archive = zipfile.ZipFile(BytesIO(data))
        except _BROKEN as error:
            raise UnreadableFile(f"not {what}") from error
        members = self._archive.infolist()
        unpacked = sum(member.file_size for member in members)
        if len(members) > MAX_MEMBERS:
            raise UnreadableFile(f"holds {len(members)} parts, over the limit of {MAX_MEMBERS}")
        if unpacked > MAX_UNPACKED_BYTES or unpacked > max(_SMALL_BYTES, MAX_RATIO * len(data)):
            raise UnreadableFile(f"unpacks from {len(data) / 1e6:.1f} MB to {unpacked / 1e6:.1f} MB, like a zip bomb")
        # The formats allow no other method, and an LZMA header can ask for gigabytes of dictionary.
        if any(member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED} for member in members):
            raise UnreadableFile("packed in an unusual way")
        self._members = {_key(member.filename): member for member in members}
        is_locked = any(member.flag_bits & 1 for member in members) or "encrypted-package" in self
        if is_locked or any(True for _ in descendants(self.optional_xml("META-INF/manifest.xml"), "encryption-data")):
            raise UnreadableFile(ENCRYPTED)

    def __contains__(self, part: str) -> bool:
        return _key(part) in self._members

    def damaged(self) -> UnreadableFile:
        return UnreadableFile(f"a damaged {self.what.partition(' ')[2]}")

    def read(self, part: str) -> bytes:
        """Raises UnreadableFile if the part is absent, corrupt or longer than it says."""
        member = self._members.get(_key(part))
        if member is None:
            raise self.damaged()
        try:
            with self._archive.open(member) as stream:
                # Not `ZipFile.read`, which unpacks to the end, whatever size is stated.
                return stream.read(member.file_size)
        except _BROKEN as error:
            raise self.damaged() from error

    def xml(self, part: str) -> Any:
        data = self.read(part)
        if len(data) > MAX_XML_BYTES:
            raise UnreadableFile(f"{LARGE_PART}{len(data) / 1e6:.0f} MB, over the limit of {MAX_XML_BYTES / 1e6:g} MB")
        root = parse_xml(data, self.what)
        if root is None:
            raise self.damaged()
        return root

    def optional_xml(self, part: str) -> Any:
        """None if the part is missing or unreadable."""
        try:
            return self.xml(part) if part in self else None
        except UnreadableFile:
            return None

    def relations(self, part: str) -> dict[str, tuple[str, str]]:
        """The parts that `part` (empty: the package) refers to: {relation id: (kind, part)}.

        The kind is the last part of the relation's type, such as `slide`.
        """
        folder, _, name = part.rpartition("/")
        found: dict[str, tuple[str, str]] = {}
        for element in children(self.optional_xml(resolve(folder, f"_rels/{name}.rels"))):
            if element.get("TargetMode") != "External":
                kind = element.get("Type", "").rpartition("/")[2]
                found[element.get("Id", "")] = kind, resolve(folder, element.get("Target", ""))
        return found

    def related(self, part: str, *kinds: str) -> Iterator[Any]:
        """The root elements of the parts of these kinds that `part` refers to."""
        for kind, target in self.relations(part).values():
            if kind in kinds and (root := self.optional_xml(target)) is not None:
                yield root

    def main_part(self, usual: str) -> str:
        """The document's main part; `usual` if the package does not say."""
        named = (target for kind, target in self.relations("").values() if kind == "officeDocument")
        return next((part for part in named if part in self), usual)

    def kind(self) -> str:
        """The format's usual suffix; empty if unknown. Raises UnreadableFile."""
        if "META-INF/container.xml" in self:
            return ".epub"
        if "content.xml" in self:  # OpenDocument; one parser reads its other kinds
            return ".ods" if "mimetype" in self and b"spreadsheet" in self.read("mimetype") else ".odt"
        usual = next((p for p in ("word/document.xml", "ppt/presentation.xml", "xl/workbook.xml") if p in self), "")
        return _MAIN_PARTS.get(self.main_part(usual).partition("/")[0], "")


def package_kind(data: bytes) -> str:
    """The usual suffix of the office format or book in `data`; empty if it is neither."""
    try:
        return Package(data, "a package").kind()
    except UnreadableFile:
        return ""


def parse_xml(data: bytes, what: str) -> Any:
    """The root element; None if not well-formed. Entities are neither expanded nor fetched; depth is bounded.

    Raises UnreadableFile if entities are declared: they can expand without bound.
    """
    from lxml import etree

    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_comments=True, remove_pis=True
    )
    try:
        root = etree.fromstring(data, parser)
    except (etree.LxmlError, ValueError):
        return None
    declared: Any = root.getroottree().docinfo.internalDTD
    if declared is not None and any(True for _ in declared.iterentities()):
        raise UnreadableFile(f"declares XML entities, which no {what.partition(' ')[2]} does")
    return root


def core_properties(package: Package) -> tuple[str, Metadata]:
    """Title and metadata (ECMA-376 part 2, section 8; ODF 1.3 part 3, section 4)."""
    roots = [*package.related("", "core-properties"), package.optional_xml("docProps/core.xml")]
    roots.append(child(package.optional_xml("meta.xml"), "meta"))
    stating = next((root for root in roots if root is not None), ())
    values = {local(element): (element.text or "").strip() for element in stating}
    authors = re.split(r"\s*;\s*", values.get("creator") or values.get("initial-creator", ""))
    # These libraries' templates state a day in 2013, and most programs leave it there.
    templated = values.get("description", "").startswith(("generated by python-docx", "generated using python-pptx"))
    dates = () if templated else ("modified", "date", "created", "creation-date")
    date = next((values[key] for key in dates if values.get(key)), "")
    common = common_metadata(authors, date, values.get("language", ""))
    return one_line(values.get("title", "")), make_metadata([*common, ("status", values.get("contentStatus", ""))])


def common_metadata(authors: list[str], date: str, language: str) -> Metadata:
    """Several authors become a tuple."""
    names = [name for name in dict.fromkeys(map(one_line, authors)) if name and name.lower() not in _NO_AUTHOR]
    author = names[0] if len(names) == 1 else tuple(names)
    return make_metadata([("author", author or None), ("date", date), ("language", language)])


def resolve(folder: str, target: str) -> str:
    """The part that a reference in `folder` means, without fragment; never outside the package."""
    path = unquote(target.partition("#")[0].partition("?")[0]).replace("\\", "/")
    return posixpath.normpath(posixpath.join("/", folder, path)).lstrip("/")


def _key(name: str) -> str:
    # Part names ignore case (ECMA-376 part 2, 6.2.2), and some writers use backslashes.
    return name.replace("\\", "/").lstrip("/").lower()
