"""The files to read below given paths, in one order on every run, and their changes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from openbook.core.errors import ConfigError, KnowledgeError, StorageError, UnreadableFile, did_you_mean
from openbook.core.records import Outcome, Verdict
from openbook.knowledge.store.names import display_path
from openbook.knowledge.store.schema import FILE_NAME as KB_FILE
from openbook.parsers.files import irregular_file_reason, opened, os_reason, unsupported_reason
from openbook.parsers.metadata import is_sidecar, sidecar_of
from openbook.sources import is_left_out
from openbook.sources.registry import without_revision

IGNORE_FILE = ".openbookignore"  # in any folder; the syntax of .gitignore
LEFT_OUT_BY = "left out by "  # prefix of the reason when a glob excludes a file
LINK_OUTSIDE = "link to a "  # prefix of the reason when what a link leads to is not in the folder
_MAX_IGNORE_BYTES = 1_000_000
_STARS = re.compile(r"\*+")
_NO_STAR = re.compile(r"\\.|\[[^\]]*\]")
# A regular expression may try each character of a name for each * in it, and each part of a path for each part `**`.
_MAX_STARS = 2  # of a line: parts `**`, and * beyond the first of a name
_MAX_STARS_IN_ALL = 100  # of a file: * beyond the first of a name
_URL = re.compile(r"[\s'\"]*([A-Za-z][A-Za-z0-9+.-]+):/")


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A regular file of a known format. Times are in nanoseconds since 1970.

    `stat` changes when the file or its sidecar does. `name`: the address of a mirrored item, which names its document.
    """

    path: Path
    bytes: int
    modified_ns: int
    stat: str
    sidecar: Path | None = None
    name: str = ""

    @property
    def displayed(self) -> str:
        return self.name or display_path(self.path)


@dataclass(frozen=True, slots=True)
class Rules:
    """Globs in the syntax of .gitignore, relative to the folder: files must match `include`, if any, and never `exclude`."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SyncedFolder:
    """A folder kept equal to the disk, with the labels of its documents. `ocr` as in RunOptions.

    `address`: of a source, whose mirror is `folder`; `name` lacks its revision. `options`: that source's own.
    """

    folder: Path
    rules: Rules = Rules()
    labels: frozenset[str] = frozenset()
    ocr: str = ""
    address: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return without_revision(self.address) or display_path(self.folder)

    @property
    def prefix(self) -> str:
        return self.name.rstrip("/") + "/"

    def is_inside(self, other: Path) -> bool:
        return not self.address and self.folder != other and self.folder.is_relative_to(other)

    def to_json(self) -> str:
        """The stored form. `path` is the real path, even if unprintable; a mirror's is not stored."""
        rest = {"labels": sorted(self.labels), "ocr": self.ocr}
        where = {"address": self.address, "options": self.options} if self.address else {"path": str(self.folder)}
        return json.dumps({**asdict(self.rules), **rest, **where}, default=str)

    @classmethod
    def from_json(cls, text: str) -> SyncedFolder:
        value = json.loads(text)
        rules = Rules(tuple(value["include"]), tuple(value["exclude"]))
        rest = (rules, frozenset(value["labels"]), value["ocr"], value.get("address", ""), value.get("options", {}))
        return cls(Path(value.get("path", "")), *rest)


def discover(paths: Sequence[Path], rules: Rules = Rules(), *, ocr: bool = False) -> Iterator[FoundFile | Verdict]:
    """The files at and under `paths`, in the order given, folders depth first, sorted by name, each once.

    Left out silently: names with a leading dot, `__pycache__`, `node_modules`, unless `paths` names them. Links are followed only if `paths`
    names them. Exclusions by `rules` or an ignore file get a verdict, one for a whole folder. With `ocr`, images are readable.

    Raises before the first result: KnowledgeError for a missing path, ConfigError for an invalid glob.
    """
    for path in paths:
        check_exists(path)
    return _discover(paths, _filter(rules), ocr)


def leaves_out(rules: Rules) -> Callable[[str], str]:
    """The reason to leave out a name with `/`, or an empty string. Raises ConfigError for an invalid glob."""
    wanted = _filter(rules)
    return lambda name: wanted.reason(name, folder=False)


def check_exists(path: Path) -> None:
    """Raise KnowledgeError, with the nearest name in its folder, when nothing is there."""
    shown = display_path(path)
    if url := _URL.match(shown):
        may_hold_password = "@" in shown or not url[1].startswith("http")
        shown = f"{url[1]}://{'...' if may_hold_password else shown[url.end() :]}"  # a path holds no "//"
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        if path.is_symlink():
            raise KnowledgeError(f"{shown} is a broken link.") from error
        if str(path) == "-":
            raise KnowledgeError("Standard input (-) is not read here. Save it to a file and give its name.") from error
        if url:
            raise KnowledgeError(
                f"{shown} is an address. To fetch what is there and keep it up to date: openbook sync {shown}"
            ) from error
        raise KnowledgeError(f"No such file or folder: {shown}.{did_you_mean(path.name, _siblings(path))}") from error
    except OSError as error:
        raise KnowledgeError(f"Cannot open {shown}: {os_reason(error)}.") from error
    except ValueError as error:  # a NUL in the name
        raise KnowledgeError(f"{shown} is not a valid path.") from error


def _siblings(path: Path) -> list[str]:
    try:
        with os.scandir(path.parent) as entries:
            return [display_path(Path(entry.name)) for entry in entries]
    except OSError:
        return []


def _filter(rules: Rules) -> _Filter:
    try:
        include, exclude = (_globs(lines) if lines else None for lines in (rules.include, rules.exclude))
    except ValueError as error:
        raise ConfigError(f"A glob is not valid: {error}. Globs have the syntax of .gitignore.") from error
    return _Filter(include, exclude)


def _discover(paths: Sequence[Path], wanted: _Filter, ocr: bool) -> Iterator[FoundFile | Verdict]:
    seen: set[str] = set()
    for path in paths:
        try:
            real = os.path.realpath(path)
            if path.is_dir():
                yield from _walk(path, real, seen, wanted, ocr)
            elif real not in seen:
                seen.add(real)
                yield _file(path, path.stat(), ocr)
        except OSError as error:
            yield _verdict(path, "failed", os_reason(error))


def _walk(root: Path, real_root: str, seen: set[str], wanted: _Filter, ocr: bool) -> Iterator[FoundFile | Verdict]:
    # No link is followed below the root, so a real path is the root's real path and the names below it.
    waiting: list[tuple[Path, str, os.DirEntry[str] | None, _Filter]] = [(root, real_root, None, wanted)]
    while waiting:
        path, real, entry, passed = waiting.pop()
        if real in seen:
            continue
        seen.add(real)
        try:
            folder = entry is None or entry.is_dir(follow_symlinks=False)
            reason = passed.reason(path.relative_to(root).as_posix(), folder) if entry else ""
            if reason:
                yield _verdict(path, "skipped", reason)
            elif folder and os.path.lexists(path / KB_FILE):
                yield _verdict(path, "skipped", "a knowledge base")
            elif folder:
                inner = passed.below(path, path.relative_to(root).as_posix())
                with os.scandir(path) as entries:
                    kept = [each for each in entries if not is_left_out(each.name)]
                for child in sorted(kept, key=lambda each: each.name, reverse=True):  # they are taken from the end
                    waiting.append((path / child.name, os.path.join(real, child.name), child, inner))  # noqa: PTH118
            elif entry and entry.is_symlink():
                yield _verdict(path, "skipped", _link_reason(path, real_root))
            elif entry:
                yield _file(path, entry.stat(follow_symlinks=False), ocr)
        except OSError as error:
            yield _verdict(path, "failed", os_reason(error))
        except UnreadableFile as error:
            yield _verdict(path, "failed", str(error))


@dataclass(frozen=True, slots=True)
class _Filter:
    """Rules, and the ignore files on the way down: (folder relative to the root, its globs)."""

    include: Any
    exclude: Any
    ignored: tuple[tuple[str, Any], ...] = ()

    def reason(self, relative: str, folder: bool) -> str:
        """The reason to leave out `relative` (with `/`), or an empty string."""
        name = relative + "/" if folder else relative
        if self.exclude is not None and self.exclude.match_file(name):
            return f"{LEFT_OUT_BY}an exclude glob"
        for folder_of_file, globs in reversed(self.ignored):
            inside = name if folder_of_file == "." else name.removeprefix(folder_of_file + "/")
            verdict = globs.check_file(inside).include
            if verdict:
                return f"{LEFT_OUT_BY}{IGNORE_FILE}"
            if verdict is not None:  # the ignore file nearest to the file decides, also for a glob with `!`
                break
        if self.include is not None and not folder and not self.include.match_file(name):
            return f"{LEFT_OUT_BY}the include globs"
        return ""

    def below(self, folder: Path, relative: str) -> _Filter:
        if not os.path.lexists(folder / IGNORE_FILE):
            return self
        try:
            globs = _globs_in(folder / IGNORE_FILE)
        except UnreadableFile as error:
            raise UnreadableFile(f"its {IGNORE_FILE} cannot be read: {error}") from error
        return replace(self, ignored=(*self.ignored, (relative, globs)))


def _globs_in(ignore_file: Path) -> Any:
    """The globs of an ignore file, whose author must neither stall a run nor let in excluded files."""
    with opened(ignore_file) as file:
        data = file.read(_MAX_IGNORE_BYTES + 1)
    if len(data) > _MAX_IGNORE_BYTES:
        raise UnreadableFile(f"it has more than {_MAX_IGNORE_BYTES:,} bytes")
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UnreadableFile("it is not UTF-8; save it as UTF-8") from error
    _check_cost(lines)
    try:
        return _globs(lines)
    except ValueError as error:
        raise UnreadableFile(f"{error}. Its lines must follow the syntax of .gitignore") from error


def _check_cost(lines: Sequence[str]) -> None:
    """Raise UnreadableFile if matching could take very long."""
    in_all = 0
    for line in lines:
        parts = [] if line.startswith("#") else _NO_STAR.sub("", line).split("/")
        further = sum(max(len(_STARS.findall(part)) - 1, 0) for part in parts)
        in_all += further
        if further > _MAX_STARS or parts.count("**") > _MAX_STARS:
            raise UnreadableFile(f"the line {line[:80]!r} has too many * to be matched quickly; write it with fewer")
    if in_all > _MAX_STARS_IN_ALL:
        raise UnreadableFile("its lines together have too many * to be matched quickly; write fewer that have several")


def _globs(lines: Sequence[str]) -> Any:
    import pathspec

    try:
        return pathspec.GitIgnoreSpec.from_lines(lines)
    except re.error as error:
        raise ValueError(error.msg) from error


def _file(path: Path, status: os.stat_result, ocr: bool) -> FoundFile | Verdict:
    kind = irregular_file_reason(status.st_mode)
    if kind:
        return _verdict(path, "skipped", kind)
    if is_sidecar(path.name):
        return _verdict(path, "skipped", "says something about another file (a sidecar)")
    reason = unsupported_reason(path, ocr=ocr)
    if reason:
        return _verdict(path, "skipped", reason)
    try:
        sidecar = sidecar_of(path)
    except UnreadableFile as error:
        return _verdict(path, "failed", str(error))
    says = _stat(status) + (f" {_stat(sidecar.lstat())}" if sidecar else "")
    return FoundFile(path, status.st_size, status.st_mtime_ns, says, sidecar)


def _stat(status: os.stat_result) -> str:
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def _link_reason(path: Path, real_root: str) -> str:
    try:
        real = os.path.realpath(path, strict=True)
    except OSError:
        return "broken link"
    if os.path.join(real, "").startswith(os.path.join(real_root, "")):  # noqa: PTH118
        return "link inside the folder"
    return f"{LINK_OUTSIDE}{'folder' if Path(real).is_dir() else 'file'} outside the folder"


def _verdict(path: Path, outcome: Outcome, reason: str) -> Verdict:
    return Verdict(display_path(path), outcome, reason)


# --- changes ----------------------------------------------------------------------------------------------------------


def folder_changes(folders: Sequence[Path]) -> Iterator[int]:
    """Counts of changed files, each after 0.4 seconds without a change or 3.2 seconds of changes.

    Also 0 once watching has begun, then about twice a second. No later change is missed, however slow the caller. Ends by KeyboardInterrupt.
    Raises StorageError when the system has no more watches.
    """
    import watchfiles

    roots, again = _roots(folders), 0
    while True:
        there = [folder for folder, root in zip(folders, roots, strict=True) if root]
        try:
            for batch in watchfiles.watch(
                *there,
                watch_filter=None,  # the run itself selects files; an ignore file is a dot file too
                debounce=3200,  # milliseconds, as below
                step=400,
                rust_timeout=500,
                yield_on_timeout=True,
                raise_interrupt=True,
            ):
                yield len(batch) or again
                again = 0
                # The watch follows the folder that had the name when watching began.
                if any(path == str(folder) for _, path in batch for folder in folders) or _roots(folders) != roots:
                    break
        except FileNotFoundError:  # deleted since it was looked for
            pass
        except OSError as error:
            raise StorageError(
                f"Cannot watch {', '.join(map(str, folders))}: {error.strerror or error}. Sync again after changes."
            ) from error
        roots, again = _roots(folders), 1


def _roots(folders: Sequence[Path]) -> list[tuple[int, int] | None]:
    found: list[tuple[int, int] | None] = []
    for folder in folders:
        try:
            status = folder.stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_dev, status.st_ino))
    return found
