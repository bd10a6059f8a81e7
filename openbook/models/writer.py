"""The one door through which a model enters the store. Only `openbook.models.importer` may use it.

A model is put together in a folder that is never listed, made durable, closed to writing and then renamed to its digest
in one step. Whatever stops the process, the store holds the whole model or none of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from openbook.files import storage_errors, sync_file, sync_folder
from openbook.models.manifest import MANIFEST_NAME, Manifest
from openbook.models.staging import staging_folder
from openbook.models.verify import full_findings

READ_ONLY = 0o444


def install(store_dir: Path, manifest: Manifest, files: Mapping[str, Path], *, move: bool = False) -> Path:
    """Puts a model into the store and returns its folder, `<store_dir>/<digest>`. Nothing there is ever overwritten.

    `files` has a path for each file that the manifest lists; they are copied, or moved if `move` is set (they must then
    lie on the store's disk). The content must be what the manifest says: it was made from these files. Raises
    StorageError, and ModelNotVerified if the same model is there already and is damaged.
    """
    if files.keys() != manifest.files.keys():
        raise ValueError(f"files {sorted(files)} are not those of the manifest, {sorted(manifest.files)}")
    target = store_dir / manifest.digest
    if target.is_dir():
        return _reuse(target, manifest)
    with staging_folder(store_dir) as incoming, storage_errors(f"store the model {manifest.name!r} in {store_dir}"):
        staged = incoming / manifest.digest
        staged.mkdir()
        for name, path in files.items():
            _place(path, staged / name, move=move)
        (staged / MANIFEST_NAME).write_bytes(manifest.to_json())
        _seal(staged / MANIFEST_NAME)
        sync_folder(staged)
        with suppress(FileExistsError):
            _publish(staged, target)
        if staged.is_dir():  # another process was faster
            return _reuse(target, manifest)
        sync_folder(store_dir)
    return target


def _place(path: Path, target: Path, *, move: bool) -> None:
    if move:
        path.rename(target)
    else:
        shutil.copyfile(path, target)
    _seal(target)


def _seal(path: Path) -> None:
    sync_file(path)
    path.chmod(READ_ONLY)


def _publish(staged: Path, target: Path) -> None:
    try:
        staged.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        raise FileExistsError(target) from None


def _reuse(target: Path, manifest: Manifest) -> Path:
    from openbook.models.store import refuse

    if found := full_findings(target, manifest.digest):
        refuse(manifest.digest[:12], found)
    return target
