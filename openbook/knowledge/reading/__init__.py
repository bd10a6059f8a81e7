"""Files to text with structure: what citations point into.

A reader is a function `(data, name) -> Content`. The text it returns holds line feeds and tabs, and no other control
character. `READER_VERSION` changes whenever a reader returns something else for the same bytes.
"""

from __future__ import annotations

import errno
import importlib
import os
import re
import stat
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TypeAlias

from openbook.errors import UnreadableFile
from openbook.records import Content, Digest, sha256_hex

Reader: TypeAlias = Callable[[bytes, str], Content]

READER_VERSION = "2"

_PDF = "openbook.knowledge.reading.pdf:read_pdf"
_DOCX = "openbook.knowledge.reading.docx:read_docx"
_HTML = "openbook.knowledge.reading.html:read_html"
_PLAIN = "openbook.knowledge.reading.text:read_plain"
_MARKDOWN = "openbook.knowledge.reading.text:read_markdown"
_RST = "openbook.knowledge.reading.text:read_rst"

# Late, so that a knowledge base of plain text never loads a PDF library.
_READERS = {
    ".txt": _PLAIN,
    ".text": _PLAIN,
    ".log": _PLAIN,
    ".md": _MARKDOWN,
    ".markdown": _MARKDOWN,
    ".rst": _RST,
    ".html": _HTML,
    ".htm": _HTML,
    ".xhtml": _HTML,
    ".pdf": _PDF,
    ".docx": _DOCX,
}
SUFFIXES = frozenset(_READERS)


def read_file(path: Path, *, max_bytes: int) -> tuple[Content, Digest]:
    """The content of the file at `path` and the SHA-256 of the very bytes it was read from.

    Raises:
        UnreadableFile: the file cannot become a document; the text is the reason, without the path.

    """
    reason = unsupported(path)
    if reason:
        raise UnreadableFile(reason)
    data = _read_bytes(path, max_bytes)
    if not data:
        raise UnreadableFile("the file is empty")
    content = _reader_for(data, path.suffix.lower())(data, path.name)
    if not content.text.strip():
        raise UnreadableFile("holds no text")
    return content, sha256_hex(data)


def unsupported(path: Path) -> str:
    """Why no reader takes a file of this name, else an empty string."""
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return ""
    return f"format {ascii(suffix)[1:-1]} is not supported" if suffix else "a name without a suffix tells no format"


def unusual_kind(mode: int) -> str:
    """What a thing with this `st_mode` is, when it is neither a regular file nor a folder; else an empty string."""
    kinds = (
        (stat.S_ISFIFO, "a named pipe, not a file"),
        (stat.S_ISSOCK, "a socket, not a file"),
        (stat.S_ISBLK, "a device, not a file"),
        (stat.S_ISCHR, "a device, not a file"),
    )
    return next((words for test, words in kinds if test(mode)), "")


def os_reason(error: OSError) -> str:
    """An operating system's refusal as a short clause."""
    known = {
        errno.ENOENT: "does not exist any more",
        errno.EACCES: "no permission to read it",
        errno.EPERM: "no permission to read it",
        errno.ELOOP: "a link that leads back to itself",
        errno.EIO: "the disk could not read it",
    }
    return known.get(error.errno or 0) or (error.strerror or type(error).__name__).lower()


def _read_bytes(path: Path, max_bytes: int) -> bytes:
    try:
        _check_kind(path.stat().st_mode)
        # Not blocking, in case a named pipe took the file's place meanwhile.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            _check_kind(status.st_mode)
            _check_size(status.st_size, max_bytes)
            data = file.read(max_bytes + 1)
    except FileNotFoundError as error:
        raise UnreadableFile("does not exist") from error
    except OSError as error:
        raise UnreadableFile(os_reason(error)) from error
    except ValueError as error:  # a path with a NUL
        raise UnreadableFile("not a valid path") from error
    _check_size(len(data), max_bytes)
    return data


def _check_kind(mode: int) -> None:
    kind = "a folder, not a file" if stat.S_ISDIR(mode) else unusual_kind(mode)
    if kind:
        raise UnreadableFile(kind)


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise UnreadableFile(f"{size / 1e6:.1f} MB, over the limit of {max_bytes / 1e6:g} MB")


def _reader_for(data: bytes, suffix: str) -> Reader:
    """By what the bytes say first: a PDF that is named .txt is a PDF."""
    if re.match(rb"(?:\xef\xbb\xbf)?\s{0,16}%PDF-\d", data[:64]):
        return _load(_PDF)
    if suffix != ".docx" and data.startswith(b"PK\x03\x04"):
        if _is_docx(data):
            return _load(_DOCX)
        raise UnreadableFile("a ZIP archive, whatever its name says")
    return _load(_READERS[suffix])


def _is_docx(data: bytes) -> bool:
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            return "word/document.xml" in archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def _load(target: str) -> Reader:
    module, _, function = target.partition(":")
    reader: Reader = getattr(importlib.import_module(module), function)
    return reader
