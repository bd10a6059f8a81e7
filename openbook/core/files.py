"""Atomic writes and deletes, and disk errors as sentences. Functions raise OSError."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from openbook.core.errors import StorageError
from openbook.core.locks import atomic_file

_DENIED = "permission denied; correct the folder's permissions, or choose another place (OPENBOOK_HOME, if this is in OpenBook's home)"
_ADVICE = {
    errno.ENOSPC: "the disk is full; free some space and try again",
    errno.EDQUOT: "your disk quota is used up; free some space and try again",
    errno.EFBIG: "the file is larger than this disk or your limits allow",
    errno.EROFS: "the disk is read-only; choose another place (OPENBOOK_HOME, if this is in OpenBook's home)",
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
}


_UNFINISHED = re.compile(r"\..+\.\d+-[0-9a-f]{8}")
_GOING = ".deleting-"  # prefix of a folder's name while it is deleted


def is_disk_refusal(error: OSError) -> bool:
    return error.errno in _ADVICE


@contextmanager
def storage_errors(doing: str) -> Iterator[None]:
    """Turn an OSError into a StorageError: `Cannot <doing>: <why, and what to do>.`"""
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, error.strerror or str(error))
        raise StorageError(f"Cannot {doing}: {advice}.") from error


def sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Make the folder's entries durable. Windows cannot open a folder, so there it does nothing."""
    if os.name == "posix":
        sync_file(path)


def make_folder(path: Path) -> None:
    """Make the folder and its missing parents, each with mode 0700 whatever the umask.

    Files in such a folder are private, whatever their own mode. An existing folder keeps its mode.
    """
    for missing in reversed([each for each in (path, *path.parents) if not each.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)
    path.mkdir(exist_ok=True)  # raises where it is a file


def replace_file(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write `data` to `path` in one step: readers, and a crash, see the old content or the new, never a part.

    The umask limits `mode`, as for any new file; the mode of an old file at `path` does not matter.
    """
    with replacing(path, mode=mode) as stream:
        stream.write(data)


@contextmanager
def replacing(path: Path, *, mode: int = 0o666) -> Iterator[IO[bytes]]:
    """As `replace_file`, from a stream. Nothing changes if the block raises. Of concurrent writers the last one wins."""
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    with atomic_file(temporary, path, mode) as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())
    sync_folder(path.parent)


def is_unfinished(path: Path) -> bool:
    """True for a name that `replacing` gives to a file until it is whole."""
    return _UNFINISHED.fullmatch(path.name) is not None


def check_replaceable(path: Path) -> None:
    """Check that `replace_file` can write `path`, and make its folder."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, f"it is a folder; give a file, such as {path / 'page.html'}")
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "it is a device or a pipe, which a file would replace; give a file")
    try:
        make_folder(path.parent)
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(errno.ENOTDIR, f"{path.parent} is not a folder; choose another place") from error
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path.parent))


def last_line_feed(stream: IO[bytes], end: int) -> int:
    """The position of the last line feed before `end`, or -1. Reads only the end of the file."""
    while end > 0:
        start = max(0, end - (1 << 16))
        stream.seek(start)
        at = stream.read(end - start).rfind(b"\n")
        if at >= 0:
            return start + at
        end = start
    return -1


def check_deletable(path: Path) -> None:
    """Check that permissions allow to delete the file or folder, and that it is not a link to a folder."""
    if path.is_symlink() and path.is_dir():
        raise OSError(errno.ENOTDIR, "it is a link to a folder; delete that folder and the link yourself")
    folders = [path.parent]
    folders += [Path(folder) for folder, _, _ in os.walk(path)] if path.is_dir() else []
    for folder in folders:
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def delete(path: Path) -> None:
    """Delete a file or folder. Under its name a folder is whole or gone, even if this process is killed."""
    if path.is_dir() and not path.is_symlink():
        going = path.with_name(f"{_GOING}{secrets.token_hex(4)}-{path.name}")
        path.rename(going)
        _delete(going)
    else:
        path.unlink(missing_ok=True)


def delete_left_over(parent: Path) -> None:
    """Finish deleting folders that killed processes had begun to delete."""
    for going in sorted(parent.glob(f"{_GOING}*")):
        _delete(going)


def _delete(folder: Path) -> None:
    while folder.exists():
        with suppress(FileNotFoundError):  # another process deletes it too
            shutil.rmtree(folder)
