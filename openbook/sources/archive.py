"""Files in a ZIP archive: an export of Confluence or Notion, or any zipped folder. No member is ever written under its name."""

from __future__ import annotations

import io
import re
import shutil
import stat
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath

import msgspec

from openbook.core.errors import SourceError, first_line
from openbook.core.records import Verdict
from openbook.sources import PIECE_BYTES, Item, KnownItem, is_left_out, pieces, source_errors

_MAX_MEMBERS = 100_000
_MAX_DIRECTORY_BYTES = 32 << 20  # an entry takes 46 bytes and its name
_MAX_INNER_BYTES = 5_000_000_000
_SMALL_BYTES, _MAX_RATIO = 10_000_000, 150  # text packs 3 to 40 times; a bomb 1,000 times
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}  # a header of LZMA can ask for gigabytes of memory
_NOTION_NAME = re.compile(r"(.+) [0-9a-f]{32}(?:_all)?")


class ArchiveSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The members of the archive at `zip:///path`, and of the archives in it, as exports of Notion have them."""

    url: str

    def items(self, known: Mapping[str, KnownItem]) -> Iterator[Item | Verdict]:
        path = Path(self.url.partition("://")[2])
        if not path.is_absolute():
            raise SourceError(f"{self.url} must be zip:// and an absolute path, such as zip:///home/me/export.zip.")
        with source_errors(f"{self.url} cannot be read", "Export it again."), path.open("rb", buffering=0) as file:
            yield from _members(file, self.url, nested=False)


def _members(file: io.FileIO, base: str, *, nested: bool) -> Iterator[Item | Verdict]:
    archive = zipfile.ZipFile(_BoundedFile(file))
    files = [member for member in archive.infolist() if not member.is_dir()]
    packed, unpacked = file.seek(0, io.SEEK_END), sum(member.file_size for member in files)
    if len(files) > _MAX_MEMBERS:
        raise zipfile.BadZipFile(f"it holds {len(files):,} files, over the limit of {_MAX_MEMBERS:,}")
    if unpacked > max(_SMALL_BYTES, _MAX_RATIO * packed):
        raise zipfile.BadZipFile(f"it unpacks from {packed / 1e6:.1f} MB to {unpacked / 1e6:.1f} MB, like a zip bomb")
    times = Counter(member.filename for member in files)
    for path, member in {member.filename: member for member in files}.items():
        name = f"{base}/{path}"
        if re.match(r"[/\\]|[A-Za-z]:", path) or ".." in re.split(r"[/\\]", path):
            yield Verdict(name, "skipped", "its name leads out of the archive")
        elif is_left_out(path):
            continue
        elif times[path] > 1:
            yield Verdict(name, "failed", f"the archive holds {times[path]} files of this name")
        elif member.flag_bits & 1:
            yield Verdict(name, "failed", "encrypted with a password")
        elif member.compress_type not in _METHODS:
            yield Verdict(name, "failed", "packed in an unusual way")
        elif stat.S_ISLNK(member.external_attr >> 16):
            yield Verdict(name, "skipped", "a link")
        elif path.lower().endswith(".zip") and not nested and member.file_size <= _MAX_INNER_BYTES:
            yield from _inner(archive, member, name)
        else:
            yield _item(archive, member, name)


def _inner(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> Iterator[Item | Verdict]:
    try:
        with tempfile.TemporaryFile(buffering=0) as copy:
            with archive.open(member) as stream:
                shutil.copyfileobj(stream, copy, PIECE_BYTES)
            yield from _members(copy, name, nested=True)
    except Exception as error:  # noqa: BLE001  damage costs this archive only
        yield Verdict(f"{name}/", "failed", first_line(error))


def _item(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> Item:
    metadata, path = dict[str, str | list[str]](), PurePosixPath(member.filename)
    if titled := _NOTION_NAME.fullmatch(path.stem):
        metadata["title"] = titled[1]
    with suppress(ValueError, OverflowError, OSError):  # no time of any calendar; the zone is not stated
        metadata["modified"] = datetime(*member.date_time).astimezone(UTC).isoformat()
    read = partial(pieces, partial(archive.open, member))
    return Item(name, f"{member.CRC:08x}:{member.file_size}", read, path.suffix, metadata)


class _BoundedFile(io.BufferedReader):
    """Refuses a huge list of members, which zipfile reads at once."""

    def read(self, size: int | None = -1) -> bytes:
        if size and size > _MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f"its list of files is over the limit of {_MAX_DIRECTORY_BYTES:,} bytes")
        return super().read(size)
