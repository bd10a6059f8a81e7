"""The one door through which a model enters the store. Only `openbook.models.importer` may use it.

A model is put together in a folder that is never listed, made durable, closed to writing and then renamed to its digest
in one step. Whatever stops the process, the store holds the whole model or none of it.
"""

from __future__ import annotations

from pathlib import Path

from openbook.files import storage_errors, sync_file, sync_folder
from openbook.models.manifest import MANIFEST_NAME, Manifest
from openbook.models.store import staging_folder

READ_ONLY = 0o444


def install(store_dir: Path, manifest: Manifest, files_dir: Path) -> Path:
    """Moves a model into the store and returns its folder, `<store_dir>/<digest>`. Nothing there is ever overwritten.

    `files_dir` is on the store's disk and holds the files that the manifest was made from. Where the model was there already,
    it stays as it is: the caller has to verify it. Raises StorageError.
    """
    target = store_dir / manifest.digest
    if not target.is_dir():
        with staging_folder(store_dir) as staging, storage_errors(f"store the model {manifest.name!r} in {store_dir}"):
            staged = staging / manifest.digest
            staged.mkdir()
            for name in manifest.files:
                (files_dir / name).rename(staged / name)
            (staged / MANIFEST_NAME).write_bytes(manifest.to_json())
            for path in staged.iterdir():
                sync_file(path)
                path.chmod(READ_ONLY)
            sync_folder(staged)
            try:
                staged.rename(target)
            except OSError:
                if not target.is_dir():  # another process was faster
                    raise
            else:
                sync_folder(store_dir)
    return target
