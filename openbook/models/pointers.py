"""Names that point to models: one small file a name, with every digest that it ever meant.

<root>/names/<name>.json   {"format": 1, "history": [<oldest digest>, ..., <the one it means>], "name": <name>}
<root>/names/.lock         held by whoever changes a name or deletes a model; readers never touch it
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from openbook.codec import unique_keys
from openbook.errors import InvalidModelFile, ModelNotVerified, StorageError
from openbook.files import make_folder, replace_file, storage_errors, sync_folder
from openbook.models.fields import Fields
from openbook.models.names import is_digest, name_problem
from openbook.records import Digest, canonical_json

FORMAT = 1
MAX_FILE_BYTES = 1 << 20
MAX_HISTORY = 1000
LOCK_TIMEOUT_S = 60.0


def all_names(root: Path) -> tuple[str, ...]:
    with storage_errors(f"list the models in {root}"):
        found = sorted(path.name.removesuffix(".json") for path in (root / "names").glob("*.json"))
    return tuple(name for name in found if not name_problem(name))


def read_history(root: Path, name: str) -> tuple[Digest, ...]:
    """Oldest first, the one it means last; empty if there is no such name. Raises ModelNotVerified if damaged."""
    path = name_path(root, name)
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror or error}.") from error
    try:
        return _parsed(data, name)
    except (ValueError, RecursionError, InvalidModelFile) as error:
        raise ModelNotVerified(f"{path} is damaged: {error} Delete it and pull or import the model again.") from error


def _parsed(data: bytes, name: str) -> tuple[Digest, ...]:
    fields = Fields(json.loads(data, object_pairs_hook=unique_keys), "it")
    version = fields.integer("format")
    if version != FORMAT:
        raise InvalidModelFile(f"it has format {version}, and this version of OpenBook reads {FORMAT}.")
    history = fields.texts("history")
    if fields.text("name") != name:
        raise InvalidModelFile("it is the file of another name.")
    fields.end()
    if not history or not all(is_digest(digest) for digest in history):
        raise InvalidModelFile("its history holds something other than digests, or nothing.")
    return history


@contextmanager
def changing(root: Path) -> Iterator[None]:
    """Inside the block no other process changes a name, so that what was read is still true when it is written.

    Raises StorageError.
    """
    import filelock

    path = root / "names" / ".lock"
    lock: filelock.BaseFileLock = filelock.FileLock(path)
    with storage_errors(f"change the models in {root}"):
        make_folder(path.parent)
        try:
            lock.acquire(timeout=LOCK_TIMEOUT_S)
        except filelock.Timeout as error:
            raise StorageError(f"Another process is changing the models in {root}. Wait, then try again.") from error
    try:
        yield
    finally:
        lock.release()


def append_history(root: Path, name: str, digest: Digest) -> None:
    """Makes `name` mean `digest`, in one step. Only inside `changing`: two at once would lose one of the digests."""
    history = read_history(root, name)
    if history[-1:] == (digest,):
        return
    value = {"format": FORMAT, "history": [*history, digest][-MAX_HISTORY:], "name": name}
    with storage_errors(f"name a model {name!r} in {root}"):
        replace_file(name_path(root, name), canonical_json(value))


def forget_in_histories(root: Path, digest: Digest) -> None:
    """Names that meant `digest` once lose it from their history. Only inside `changing`, and if none means it now."""
    for name in all_names(root):
        history = read_history(root, name)
        if digest in history:
            value = {"format": FORMAT, "history": [each for each in history if each != digest], "name": name}
            with storage_errors(f"change the name {name!r} in {root}"):
                replace_file(name_path(root, name), canonical_json(value))


def delete_name(root: Path, name: str) -> None:
    with storage_errors(f"remove the name {name!r} from {root}"):
        name_path(root, name).unlink(missing_ok=True)
        sync_folder(root / "names")


def name_path(root: Path, name: str) -> Path:
    return root / "names" / f"{name}.json"
