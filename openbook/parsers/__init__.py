"""Files to text with structure: what citations point into.

A parser is a function `(data, name) -> Content`, named `module:function`. Parsers of mail also take the depth inside
other files, parsers with OCR its engine. The text has no control characters except line feeds and tabs.
`PARSER_VERSION` changes whenever a parser returns something else for the same bytes.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePath

from openbook.core.errors import UnreadableFile
from openbook.core.records import Content, Digest, sha256_hex
from openbook.parsers import files

PARSER_VERSION = "13"
MAX_ATTACHMENT_DEPTH = 3
MAX_TEXT_CHARS = 100_000_000  # also bounds what a small file can ask a parser to repeat

_OCR_IMAGE = "openbook.parsers.ocr:ocr_image"
_OCR_PDF = "openbook.parsers.ocr:ocr_pdf"

# By name, so that a knowledge base of plain text never loads a PDF library.
_BY_PARSER = {
    "text:parse_plain": "txt text log adoc asciidoc vtt srt",
    "text:parse_markdown": "md markdown mdown mkd mdx qmd rmd",
    "text:parse_rst": "rst rest",
    "text:parse_source": "py pyi pyw js mjs cjs ts mts cts tsx jsx java c h cpp hpp cc hh cxx hxx cs go rs rb php swift kt kts scala "
    "sh bash zsh fish ps1 psm1 sql r jl lua pl pm m mm css scss sass less yaml yml toml ini cfg conf properties env tex "
    "sty cls bib dockerfile mk cmake gradle groovy proto graphql tf hcl nix ex exs erl hs ml mli clj dart vue svelte zig",
    "html:parse_html": "html htm xhtml",
    "spreadsheets:parse_delimited": "csv tsv tab",
    "spreadsheets:parse_workbook": "xlsx xlsm xlsb xls ods",
    "structured:parse_json": "json geojson webmanifest",
    "structured:parse_json_lines": "jsonl ndjson",
    "structured:parse_notebook": "ipynb",
    "structured:parse_xml_file": "xml nxml rss atom",
    "mail:parse_mail": "eml",
    "mail:parse_mailbox": "mbox",
    "mail:parse_outlook": "msg",
    "pdf:parse_pdf": "pdf",
    "text:parse_rtf": "rtf",
    "docx:parse_docx": "docx docm",
    "pptx:parse_pptx": "pptx pptm",
    "odf:parse_odf": "odt odp",
    "epub:parse_epub": "epub",
}
PARSERS = {
    f".{end}": f"openbook.parsers.formats.{parser}" for parser, ends in _BY_PARSER.items() for end in ends.split()
}
SUFFIXES = frozenset(PARSERS)
_SOURCE_NAMES = frozenset("makefile gnumakefile dockerfile containerfile rakefile gemfile".split())
_PACKAGES = frozenset(f".{end}" for end in "docx docm pptx pptm xlsx xlsm xlsb ods odt odp epub".split())

# First bytes that decide whatever the name says. No text begins with any of these.
_MAGIC: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
    (re.compile(pattern, re.DOTALL), reason)
    for pattern, reason in (
        (rb"\x89PNG\r\n|\xff\xd8\xff|GIF8[79]a|II\*\0|MM\0\*|RIFF....WEBP|BM....\0\0\0\0", files.IMAGE),
        (rb"PK\x03\x04|\x1f\x8b\x08|BZh[1-9]1AY&SY|\xfd7zXZ\0|7z\xbc\xaf\x27|Rar!\x1a\x07|\x28\xb5\x2f\xfd|.{257}ustar", files.ARCHIVE),
        (rb"ID3[\x02-\x04]|OggS\0|fLaC\0|RIFF....WAVE|....ftypM4A|\xff\xfb[\x30-\xee]", files.AUDIO),
        (rb"RIFF....AVI |....ftyp|\x1a\x45\xdf\xa3", files.VIDEO),
    )
)  # fmt: skip
_OLE2 = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_PDF_MARK = re.compile(rb"(?:\xef\xbb\xbf)?\s{0,16}%PDF-\d")
_HTML_MARK = re.compile(rb"(?:\xef\xbb\xbf)?\s{0,16}<(?:!doctype html|html)[\s>]", re.IGNORECASE)


def parse_file(
    path: Path, *, max_bytes: int, ocr: str = "", progress: Callable[[], None] = lambda: None
) -> tuple[Content, Digest]:
    """Return the content and the SHA-256 of the bytes it was parsed from.

    `ocr`: the engine, from `ocr_engine`; empty: pages that are only images are not read. `progress` is called every few
    seconds of OCR. Raises UnreadableFile, whose text is the reason without the path.
    """
    if reason := files.unsupported_reason(path, ocr=bool(ocr)):
        raise UnreadableFile(reason)
    data = files.file_bytes(path, max_bytes)
    return parse_bytes(data, path.name, ocr=ocr, progress=progress), sha256_hex(data)


def parse_bytes(
    data: bytes, name: str, depth: int = 0, *, ocr: str = "", progress: Callable[[], None] = lambda: None
) -> Content:
    """Parse a file, which may be `depth` files deep inside another one. Raises UnreadableFile."""
    if depth > MAX_ATTACHMENT_DEPTH:
        raise UnreadableFile(f"more than {MAX_ATTACHMENT_DEPTH} attachments inside one another")
    if not data:
        raise UnreadableFile("the file is empty")
    target = _target(data, PurePath(name.lower()), ocr=bool(ocr))
    if ocr and target == PARSERS[".pdf"]:
        target = _OCR_PDF
    # Parsers of files that hold others need the depth.
    mail, scans = (PARSERS[".eml"], PARSERS[".mbox"], PARSERS[".msg"]), (_OCR_IMAGE, _OCR_PDF)
    more = (depth,) if target in mail else (ocr, progress) if target in scans else ()
    content: Content = pkgutil.resolve_name(target)(data, name, *more)
    if not content.text.strip():
        raise UnreadableFile("holds no text")
    if len(content.text) > MAX_TEXT_CHARS:
        millions = (f"{chars / 1e6:g} million" for chars in (len(content.text), MAX_TEXT_CHARS))
        raise UnreadableFile("{} characters of text, over the limit of {}".format(*millions))
    return replace(content, headings=tuple(sorted(content.headings, key=lambda mark: mark.start)))


def _target(data: bytes, name: PurePath, *, ocr: bool) -> str:
    """The parser. The bytes decide first, then the name: a PDF that is named .txt is a PDF."""
    if _PDF_MARK.match(data):
        return PARSERS[".pdf"]
    if data.startswith(b"{\\rtf"):
        return PARSERS[".rtf"]
    if data.startswith(_OLE2):
        return _compound(data)
    if data.startswith(b"PK\x03\x04"):
        from openbook.parsers.formats.packages import package_kind

        kind = package_kind(data)
        # Not recognized, but named like a package: its parser can say what is wrong.
        if target := PARSERS.get(kind or (name.suffix if name.suffix in _PACKAGES else ""), ""):
            return target
    reason = next((reason for pattern, reason in _MAGIC if pattern.match(data)), "")
    if reason == files.IMAGE and ocr:
        return _OCR_IMAGE
    if reason:
        raise UnreadableFile(reason)
    if name.suffix in PARSERS:
        return PARSERS[name.suffix]
    if _HTML_MARK.match(data):
        return PARSERS[".html"]
    is_source = data.startswith(b"#!") or name.name.partition(".")[0] in _SOURCE_NAMES
    return PARSERS[".py" if is_source else ".txt"]


def _compound(data: bytes) -> str:
    """For OLE2: Outlook messages and Excel before 2007."""
    if "__properties_version1.0".encode("utf-16-le") in data:
        return PARSERS[".msg"]
    if "EncryptedPackage".encode("utf-16-le") in data:
        raise UnreadableFile(files.ENCRYPTED)
    if "Workbook".encode("utf-16-le") in data:
        return PARSERS[".xls"]
    raise UnreadableFile(files.LEGACY_OFFICE)
