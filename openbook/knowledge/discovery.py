"""Which files there are to read: files and folders to a stream of files, in one order on every run."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from openbook.errors import KnowledgeError, did_you_mean
from openbook.knowledge.reading import os_reason, unsupported, unusual_kind
from openbook.records import Outcome, Verdict

_LEFT_OUT = frozenset({"__pycache__", "node_modules"})
_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\"}


@dataclass(frozen=True, slots=True)
class Found:
    """A regular file of a known format. `modified_ns` is its modification time in nanoseconds since 1970."""

    path: Path
    bytes: int
    modified_ns: int


def discover(paths: Sequence[Path]) -> Iterator[Found | Verdict]:
    """The files at and under `paths`: those in the order given, each folder depth first, sorted by name.

    Names that begin with a dot, `__pycache__` and `node_modules` are left out without a word, unless they are named
    in `paths`. A link named in `paths` is followed, a link inside a folder never is. What is found twice comes once.

    Raises:
        KnowledgeError: one of `paths` does not exist. Raised at once, before anything is found.

    """
    for path in paths:
        check_exists(path)
    return _discover(paths)


def display_path(path: Path) -> str:
    """`path` with `/` between its parts and everything unprintable escaped. Two paths never look the same."""
    return "".join(_shown(character) for character in path.as_posix())


def _shown(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character == " " or character.isprintable():
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as Python carries it in names
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def check_exists(path: Path) -> None:
    """Raises KnowledgeError, with the nearest name beside it, when nothing is there."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        if path.is_symlink():
            raise KnowledgeError(f"{display_path(path)} is a broken link.") from error
        raise KnowledgeError(
            f"No such file or folder: {display_path(path)}.{did_you_mean(path.name, _siblings(path))}"
        ) from error
    except OSError as error:
        raise KnowledgeError(f"Cannot open {display_path(path)}: {os_reason(error)}.") from error
    except ValueError as error:  # a NUL in the name
        raise KnowledgeError(f"{display_path(path)} is not a valid path.") from error


def _siblings(path: Path) -> list[str]:
    try:
        with os.scandir(path.parent) as entries:
            return [display_path(Path(entry.name)) for entry in entries]
    except OSError:
        return []


def _discover(paths: Sequence[Path]) -> Iterator[Found | Verdict]:
    seen: set[str] = set()
    for path in paths:
        try:
            real = os.path.realpath(path)
            if path.is_dir():
                yield from _walk(path, real, seen)
            elif real not in seen:
                seen.add(real)
                yield _file(path, path.stat())
        except OSError as error:
            yield _verdict(path, "failed", os_reason(error))


def _walk(root: Path, real_root: str, seen: set[str]) -> Iterator[Found | Verdict]:
    # No link is followed below the root, so the real path of a thing is the root's real path and its own names.
    waiting: list[tuple[Path, str, os.DirEntry[str] | None]] = [(root, real_root, None)]
    while waiting:
        path, real, entry = waiting.pop()
        if real in seen:
            continue
        seen.add(real)
        try:
            if entry is None or entry.is_dir(follow_symlinks=False):
                children = _children(path)
                waiting += [(path / child.name, os.path.join(real, child.name), child) for child in children]  # noqa: PTH118
            elif entry.is_symlink():
                yield _verdict(path, "skipped", _link_reason(path, real_root))
            else:
                yield _file(path, entry.stat(follow_symlinks=False))
        except OSError as error:
            yield _verdict(path, "failed", os_reason(error))


def _children(folder: Path) -> list[os.DirEntry[str]]:
    """In reverse order of their names, to be taken from the end."""
    with os.scandir(folder) as entries:
        kept = [entry for entry in entries if not _is_left_out(entry.name)]
    return sorted(kept, key=lambda entry: entry.name, reverse=True)


def _is_left_out(name: str) -> bool:
    return name.startswith(".") or name in _LEFT_OUT


def _file(path: Path, status: os.stat_result) -> Found | Verdict:
    kind = unusual_kind(status.st_mode)
    if kind:
        return _verdict(path, "skipped", kind)
    reason = unsupported(path)
    if reason:
        return _verdict(path, "skipped", reason)
    return Found(path, status.st_size, status.st_mtime_ns)


def _link_reason(path: Path, real_root: str) -> str:
    try:
        real = os.path.realpath(path, strict=True)
        folder = stat.S_ISDIR(os.stat(real).st_mode)  # noqa: PTH116
    except OSError:
        return "broken link"
    inside = os.path.relpath(real, real_root) if real.startswith(os.path.join(real_root, "")) else ""  # noqa: PTH118
    if real != real_root and not inside:
        return f"link to a {'folder' if folder else 'file'} outside the folder"
    if any(_is_left_out(part) for part in Path(inside).parts):
        return "link to what is left out"
    if not folder and unsupported(Path(real)):
        return f"link, {unsupported(Path(real))}"
    return "link, its target is read itself"


def _verdict(path: Path, outcome: Outcome, reason: str) -> Verdict:
    return Verdict(display_path(path), outcome, reason)
