"""Aliases: names that point to models. Each name has one small file with every digest it ever meant.

<root>/names/<name>.json   {"format": 1, "history": [<oldest digest>, ..., <current digest>], "name": <name>}
<root>/names/.lock         held while a name changes or a model is deleted; readers do not need it
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from openbook.core.codec import decode
from openbook.core.errors import ConfigError, InvalidModelFile, ModelNotVerified, StorageError
from openbook.core.files import make_folder, replace_file, storage_errors, sync_folder
from openbook.core.locks import exclusive_lock
from openbook.core.records import Digest, canonical_json
from openbook.models.digest import Sha256

MAX_NAME_CHARS = 100
MAX_FILE_BYTES = 1 << 20
MAX_HISTORY = 1000
LOCK_TIMEOUT_S = 60.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_WINDOWS_DEVICES = {"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(10)}


@dataclass(frozen=True, slots=True)
class _AliasFile:
    format: Literal[1]
    history: tuple[Sha256, ...]
    name: str


def name_problem(name: str) -> str:
    """Return why `name` cannot name a model or a file, or "". It must be one plain file name on every system."""
    if not _NAME.fullmatch(name):
        return f"use 1 to {MAX_NAME_CHARS} letters, digits, '.', '_' and '-', beginning with a letter or digit"
    if name.endswith("."):
        return "it must not end with a dot"
    if name.split(".", 1)[0].lower() in _WINDOWS_DEVICES:
        return "Windows keeps that name for a device"
    if is_digest(name):
        return "it reads like a digest"
    return ""


def checked_name(name: str) -> str:
    """Return `name`. Raises ConfigError."""
    if problem := name_problem(name):
        raise ConfigError(f"{name[:120]!r} cannot be a model's name: {problem}.")
    return name


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def all_names(root: Path) -> tuple[str, ...]:
    with storage_errors(f"list the models in {root}"):
        found = sorted(path.name.removesuffix(".json") for path in (root / "names").glob("*.json"))
    return tuple(name for name in found if not name_problem(name))


def name_path(root: Path, name: str) -> Path:
    return root / "names" / f"{name}.json"


def read_history(root: Path, name: str) -> tuple[Digest, ...]:
    """The digests that `name` has meant, oldest first; may be empty. Raises ModelNotVerified if damaged."""
    path = name_path(root, name)
    with storage_errors(f"read {path}"):
        try:
            with path.open("rb") as stream:
                data = stream.read(MAX_FILE_BYTES)
        except FileNotFoundError:
            return ()
    try:
        found = decode(data, _AliasFile, "its content", InvalidModelFile)
        if found.name != name or not found.history:
            raise InvalidModelFile("its history is empty, or it is the file of another name.")
    except InvalidModelFile as error:
        raise ModelNotVerified(f"{path} is damaged: {error} Delete it and pull or import the model again.") from error
    return found.history


@contextmanager
def changing(root: Path) -> Iterator[None]:
    """Keep other processes from changing names."""
    with ExitStack() as stack:
        with storage_errors(f"change the models in {root}"):
            make_folder(root / "names")
            is_free = stack.enter_context(exclusive_lock(root / "names" / ".lock", LOCK_TIMEOUT_S))
        if not is_free:
            raise StorageError(f"Another process is changing the models in {root}. Wait, then try again.")
        yield


def append_history(root: Path, name: str, digest: Digest) -> None:
    """Make `name` mean `digest`, in one step. Only inside `changing`: two at once would lose a digest."""
    history = read_history(root, name)
    if history[-1:] != (digest,):
        _write_history(root, name, [*history, digest][-MAX_HISTORY:])


def forget_in_histories(root: Path, digest: Digest) -> None:
    """Remove `digest` from every name's history. Only inside `changing`, and only if no name means it now."""
    for name in all_names(root):
        history = read_history(root, name)
        if digest in history:
            left = (each for each in history if each != digest)
            _write_history(root, name, [each for each, _ in itertools.groupby(left)])


def delete_name(root: Path, name: str) -> None:
    with storage_errors(f"remove the name {name!r} from {root}"):
        name_path(root, name).unlink(missing_ok=True)
        sync_folder(root / "names")


def _write_history(root: Path, name: str, history: Iterable[Digest]) -> None:
    with storage_errors(f"change the name {name!r} in {root}"):
        replace_file(name_path(root, name), canonical_json({"format": 1, "history": list(history), "name": name}))
