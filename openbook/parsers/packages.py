"""Office formats and books are ZIP files of XML. Opened here with bounds on everything, then read part by part.

Nothing is ever unpacked to a disk, so a member named `../../x` is only a name nobody asks for.
Sources: ECMA-376 part 2 (Open Packaging Conventions), ODF 1.3 part 2, EPUB 3.3 (Open Container Format).
"""

from __future__ import annotations

import posixpath
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any
from urllib.parse import unquote

from openbook.errors import UnreadableFile
from openbook.parsers.cleaning import one_line
from openbook.parsers.properties import stated
from openbook.records import Metadata

MOST_UNPACKED_BYTES = 200_000_000
MOST_XML_BYTES = 60_000_000  # of one part: as a tree it needs some ten times as much
MOST_MEMBERS = 10_000
MOST_RATIO = 150  # XML packs some 10 to 40 times; a bomb 1,000 times
_SMALL_BYTES = 10_000_000
_DIRECTORY_BYTES = 400 * MOST_MEMBERS  # an entry takes 46 bytes and its name
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_BROKEN = (
    zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError, NotImplementedError, struct.error,
)  # fmt: skip

_MIME_KINDS = {
    "application/vnd.oasis.opendocument.text": ".odt",
    "application/vnd.oasis.opendocument.presentation": ".odp",
    "application/vnd.oasis.opendocument.spreadsheet": ".ods",
    "application/epub+zip": ".epub",
}
_FOLDER_KINDS = {"word": ".docx", "ppt": ".pptx", "xl": ".xlsx"}
_MAIN_PARTS = {"word/document.xml": ".docx", "ppt/presentation.xml": ".pptx", "xl/workbook.xml": ".xlsx"}
_STRICT_NAMESPACES = tuple(
    (f"http://purl.oclc.org/ooxml/{strict}".encode(), f"http://schemas.openxmlformats.org/{usual}".encode())
    for strict, usual in (
        ("wordprocessingml/main", "wordprocessingml/2006/main"),
        ("officeDocument/math", "officeDocument/2006/math"),
    )
)
_ROOT_RELATIONS = "_rels/.rels"
_CORE = "docProps/core.xml"


@dataclass(frozen=True, slots=True)
class Relation:
    """`kind` is the last part of the relation's type, such as `slide`; `target` is a part's name."""

    kind: str
    target: str


@dataclass(frozen=True, slots=True)
class Package:
    """An opened package. `what` is what it is in words, such as `a Word document`."""

    what: str
    _archive: zipfile.ZipFile = field(repr=False)
    _members: Mapping[str, zipfile.ZipInfo] = field(repr=False)

    def __contains__(self, part: str) -> bool:
        return _key(part) in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def damaged(self) -> UnreadableFile:
        return UnreadableFile(f"a damaged {self.what.partition(' ')[2]}")

    def read(self, part: str) -> bytes:
        """The bytes of a part.

        Raises:
            UnreadableFile: it is absent, corrupt or longer than it says.

        """
        member = self._members.get(_key(part))
        if member is None:
            raise self.damaged()
        try:
            with self._archive.open(member) as stream:
                # Not `ZipFile.read`, which unpacks a member to its end, whatever size it states.
                return stream.read(member.file_size)
        except _BROKEN as error:
            raise self.damaged() from error

    def xml(self, part: str) -> Any:
        """The root element of a part."""
        data = self.read(part)
        if len(data) > MOST_XML_BYTES:
            raise UnreadableFile(f"a part of {len(data) / 1e6:.0f} MB, over the limit of {MOST_XML_BYTES / 1e6:g} MB")
        root = parse_xml(_transitional(data), self.what)
        if root is None:
            raise self.damaged()
        return root

    def optional_xml(self, part: str) -> Any:
        """The root element of a part that a document can do without, else None."""
        try:
            return self.xml(part) if part in self else None
        except UnreadableFile:
            return None

    def relations(self, part: str) -> dict[str, Relation]:
        """What a part (an empty name: the package) refers to inside the package, by relation id."""
        folder, _, name = part.rpartition("/")
        root = self.optional_xml(f"{folder}/_rels/{name}.rels" if part else _ROOT_RELATIONS)
        return {} if root is None else _relations(root, folder)

    def main_part(self, usual: str) -> str:
        """The document's own part; `usual` where the package does not say."""
        named = (relation.target for relation in self.relations("").values() if relation.kind == "officeDocument")
        return next((part for part in named if part in self), usual)


def open_package(data: bytes, what: str) -> Package:
    """Check what can be checked before anything is unpacked. No more is read than the sizes checked here.

    Raises:
        UnreadableFile: no package, encrypted, or one that would unpack to too much.

    """
    if data.startswith(_OLE):
        locked = "EncryptedPackage".encode("utf-16-le") in data
        hint = "a legacy Office file: save it as .docx, .xlsx or .pptx"
        raise UnreadableFile("encrypted with a password" if locked else hint)
    archive, members = _open(data, what)
    unpacked = sum(member.file_size for member in members)
    if len(members) > MOST_MEMBERS:
        raise UnreadableFile(f"holds {len(members)} parts, over the limit of {MOST_MEMBERS}")
    if unpacked > MOST_UNPACKED_BYTES or unpacked > max(_SMALL_BYTES, MOST_RATIO * len(data)):
        raise UnreadableFile(f"unpacks from {len(data) / 1e6:.1f} MB to {unpacked / 1e6:.1f} MB, like a zip bomb")
    if any(member.flag_bits & 1 for member in members):
        raise UnreadableFile("encrypted with a password")
    # The formats allow no other method, and the header of an LZMA stream can ask for gigabytes of dictionary.
    if any(member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED} for member in members):
        raise UnreadableFile("packed in an unusual way")
    return Package(what, archive, {_key(member.filename): member for member in members})


def _open(data: bytes, what: str) -> tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]:
    at = data.rfind(b"PK\x05\x06")
    if at >= 0 and len(data) >= at + 16 and int.from_bytes(data[at + 12 : at + 16], "little") > _DIRECTORY_BYTES:
        raise UnreadableFile(f"holds too many parts, over the limit of {MOST_MEMBERS}")
    try:
        archive = zipfile.ZipFile(BytesIO(data))
        return archive, archive.infolist()
    except _BROKEN as error:
        raise UnreadableFile(f"not {what}") from error


def package_kind(data: bytes) -> str:
    """The usual suffix of the office format or book that a ZIP file's bytes are, else an empty string."""
    try:
        package = open_package(data, "a package")
        # A writer may add parameters to the media type, and a template is a document too.
        mime = package.read("mimetype")[:200].decode("ascii", "replace").strip() if "mimetype" in package else ""
        known = _MIME_KINDS.get(mime.partition(";")[0].removesuffix("-template"), "")
        if known or "META-INF/container.xml" in package:
            return known or ".epub"
        main = package.main_part("")
    except UnreadableFile:
        return ""
    by_folder = _FOLDER_KINDS.get(main.partition("/")[0], "")
    return by_folder or next((kind for part, kind in _MAIN_PARTS.items() if part in package), "")


def parse_xml(data: bytes, what: str) -> Any:
    """The root element, None where it is not well-formed. Entities are neither expanded nor fetched, depth is bounded.

    Raises:
        UnreadableFile: it declares entities, which is where bombs live.

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


def _transitional(data: bytes) -> bytes:
    """The strict format (Word calls it "Strict Open XML Document") differs in its namespaces only."""
    if b"http://purl.oclc.org/ooxml/" in data[:65_536]:
        for strict, usual in _STRICT_NAMESPACES:
            data = data.replace(strict, usual)
    return data


def local(element: Any) -> str:
    """An element's name without its namespace; the namespaces of the strict formats differ, their names do not."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def attribute(element: Any, name: str) -> str:
    """The value of the attribute with this local name, whatever its namespace; else an empty string."""
    for key, value in element.attrib.items():
        if key.rpartition("}")[2] == name:
            return str(value)
    return ""


def children(element: Any, name: str) -> Iterator[Any]:
    return (child for child in element if local(child) == name)


def child(element: Any, *names: str) -> Any:
    """The first descendant along `names`, else None."""
    for name in names:
        element = next(children(element, name), None) if element is not None else None
    return element


def descendants(element: Any, name: str) -> Iterator[Any]:
    return (found for found in element.iter() if local(found) == name)


def text_chars(element: Any) -> int:
    """How many characters of text stand in an element, the white space between elements left out."""
    return sum(len(text) for text in element.itertext() if not text.isspace()) if element is not None else 0


def core_properties(package: Package) -> tuple[str, Metadata]:
    """Title and metadata that the package states (ECMA-376 part 2, 8)."""
    named = (relation.target for relation in package.relations("").values() if relation.kind == "core-properties")
    root = package.optional_xml(next(named, _CORE))
    if root is None:
        return "", ()
    values = {local(element): (element.text or "") for element in root}
    # The templates of these libraries state a day in 2013, and most programs that use them leave it there.
    templated = values.get("description", "").startswith(("generated by python-docx", "generated using python-pptx"))
    dates = () if templated else (values.get("modified", ""), values.get("created", ""))
    authors = re.split(r"\s*;\s*", values.get("creator", ""))
    return one_line(values.get("title", "")), stated(authors=authors, dates=dates, language=values.get("language", ""))


def resolve(folder: str, target: str) -> str:
    """The name of the part that a reference in `folder` means, without fragment; never outside the package."""
    path = unquote(target.partition("#")[0].partition("?")[0]).replace("\\", "/")
    return posixpath.normpath(posixpath.join("/", folder, path)).lstrip("/")


def _relations(root: Any, folder: str) -> dict[str, Relation]:
    found = {}
    for element in root:
        if element.get("TargetMode") != "External":
            kind = element.get("Type", "").rpartition("/")[2]
            found[element.get("Id", "")] = Relation(kind, resolve(folder, element.get("Target", "")))
    return found


def _key(name: str) -> str:
    # Part names ignore case (ECMA-376 part 2, 6.2.2), and some writers use backslashes.
    return name.replace("\\", "/").lstrip("/").lower()
