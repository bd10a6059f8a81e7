"""The only way for a model into the store, used only by `openbook.models.importer`.

A model is assembled in an unlisted folder, synced, made read-only and renamed to its digest in one step. Whatever stops the
process, the store holds the whole model or nothing.
"""

from __future__ import annotations

from pathlib import Path

from openbook.core.files import storage_errors, sync_file, sync_folder
from openbook.models.manifest import MANIFEST_NAME, Manifest
from openbook.models.store import staging_folder

READ_ONLY = 0o444


def install(store_dir: Path, manifest: Manifest, files_dir: Path) -> Path:
    """Move a model into the store and return its folder. Nothing is ever overwritten.

    `files_dir` is on the store's disk. A model that is already there stays; the caller verifies it.
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
