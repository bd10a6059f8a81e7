"""How files are opened, which are never read, and the reasons that are given."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from openbook.core.errors import NotReadNow, UnreadableFile

NEEDS_MEMORY = "MB of memory to read"  # suffix of the reason when a file needs more than the limit
NEEDS_OCR = ": needs OCR"  # suffix of the reason when a file has only pictures
OVER_FILE_LIMIT = " MB, over the limit of "  # in the reason when a file is too large
ENCRYPTED = "encrypted with a password"
NO_PERMISSION = "no permission to read it"
LEGACY_OFFICE = "a legacy Office file: save it as .docx, .xlsx or .pptx"
IMAGE = f"an image{NEEDS_OCR}"
NO_TEXT_IN_IMAGE = "an image without text that OCR can read"
_OTHER_IMAGE = "an image in a format that OCR does not read: save it as PNG"
ARCHIVE = "an archive: unpack it"
AUDIO = "audio is not read: transcribe it first"
VIDEO = "video is not read: transcribe it first"
NOT_TEXT = "binary data, not text"
_UNREADABLE_ENDS = {
    IMAGE: "png jpg jpeg jpe gif tif tiff bmp webp",
    _OTHER_IMAGE: "heic heif avif ico psd jp2",
    ARCHIVE: "zip gz tgz bz2 tbz xz txz zst 7z rar tar lz4 lzma cab iso dmg jar war whl deb rpm apk crate",
    AUDIO: "mp3 wav flac ogg oga opus m4a aac wma mid midi",
    VIDEO: "mp4 m4v mov avi mkv webm wmv flv mpg mpeg 3gp",
    NOT_TEXT: "exe dll so dylib a o obj lib class pyc pyo pyd wasm bin com msi ttf otf woff woff2 eot db sqlite sqlite3 mdb "
    "pkl pickle npy npz pt pth onnx gguf safetensors h5 hdf5 parquet arrow feather avro swp",
}
_UNREADABLE = {f".{end}": reason for reason, ends in _UNREADABLE_ENDS.items() for end in ends.split()}


def unsupported_reason(path: Path, *, ocr: bool = False) -> str:
    """Why a file of this name is never read; empty if it may be."""
    reason = _UNREADABLE.get(path.suffix.lower(), "")
    return "" if ocr and reason == IMAGE else reason


def irregular_file_reason(mode: int) -> str:
    """The kind of file; empty for a regular one."""
    kinds = {
        stat.S_IFDIR: "a folder, not a file",
        stat.S_IFLNK: "a link, not a file",
        stat.S_IFIFO: "a named pipe, not a file",
        stat.S_IFSOCK: "a socket, not a file",
        stat.S_IFBLK: "a device, not a file",
        stat.S_IFCHR: "a device, not a file",
    }
    return kinds.get(stat.S_IFMT(mode), "")


def os_reason(error: OSError) -> str:
    known = {
        errno.ENOENT: "does not exist any more",
        errno.EACCES: NO_PERMISSION,
        errno.EPERM: NO_PERMISSION,
        errno.ELOOP: "a link that leads back to itself",
        errno.EIO: "the disk could not read it",
    }
    return known.get(error.errno or 0) or (error.strerror or type(error).__name__).lower()


@contextlib.contextmanager
def opened(path: Path, *, follow: bool = True) -> Iterator[BinaryIO]:
    """Open a regular file for reading. Without `follow` a link is refused. Raises NotReadNow, UnreadableFile."""
    try:
        _check_kind(path.stat(follow_symlinks=follow).st_mode)
        # Non-blocking, in case a named pipe took the file's place meanwhile.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        flags |= 0 if follow else getattr(os, "O_NOFOLLOW", 0)
        with os.fdopen(os.open(path, flags), "rb") as file:
            _check_kind(os.fstat(file.fileno()).st_mode)
            yield file
    except FileNotFoundError as error:
        raise NotReadNow("does not exist") from error
    except OSError as error:
        raise NotReadNow(os_reason(error)) from error
    except ValueError as error:  # a path with a NUL
        raise UnreadableFile("not a valid path") from error


def file_bytes(path: Path, max_bytes: int, *, follow: bool = True) -> bytes:
    """Raises as `opened` does, and UnreadableFile above `max_bytes`."""
    with opened(path, follow=follow) as file:
        check_size(os.fstat(file.fileno()).st_size, max_bytes)
        data = file.read(max_bytes + 1)
    check_size(len(data), max_bytes)
    return data


def _check_kind(mode: int) -> None:
    if kind := irregular_file_reason(mode):
        raise UnreadableFile(kind)


def check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise UnreadableFile(f"{size / 1e6:.1f}{OVER_FILE_LIMIT}{max_bytes / 1e6:g} MB")
