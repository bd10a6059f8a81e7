"""A model enters the store whole or not at all, whatever happens on the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from openbook.core.errors import ModelNotVerified, StorageError
from openbook.models import ModelReference, ModelStore, import_gguf
from openbook.models.store import clear_leftovers, staging_folder
from tests.conftest import full_disk, printed
from tests.models.gguf_files import Recipe, Tensor

# Imports a model again and again, in a child process whose n-th file-system call never returns: it dies there, as by kill -9.
DIE_AT_EVERY_STEP = """
import os, signal, sys
from pathlib import Path
import gguf  # here, because each child would import it
from openbook.models import ModelStore, import_gguf
store = ModelStore(Path(sys.argv[1]))
left = 0
def deadly(call):
    def wrapped(*args, **kwargs):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)
    return wrapped
for step in range(1, 100):
    if (child := os.fork()) == 0:
        left = step
        for name in ("fsync", "rename", "replace", "chmod", "mkdir", "open"):
            setattr(os, name, deadly(getattr(os, name)))
        import_gguf(store, Path(sys.argv[2]), name="tiny")
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    models = [store.resolve(path.name) for path in store.root.glob("?" * 64)]
    assert all(store.findings(each) == () for each in models)
    named = store.named_models().values()
    assert not any(isinstance(found, str) for found in named)
    assert models or not named
    if status == 0:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
print(step)
"""


def test_killed_at_every_step_leaves_the_whole_model_or_none(store: ModelStore, tiny_file: Path) -> None:
    (steps,) = printed(DIE_AT_EVERY_STEP, store.root, tiny_file)
    assert int(steps) > 10
    assert store.resolve("tiny").manifest.name == "tiny"
    import_gguf(store, tiny_file, name="again")
    assert list(store.root.glob(".incoming-*")) == [], "the next writer clears what the dead left"


def test_the_living_keep_their_folders(store: ModelStore) -> None:
    with staging_folder(store.root) as mine:
        dead = store.root / ".incoming-999999999-x"
        dead.mkdir()
        with staging_folder(store.root):
            assert mine.is_dir()
            assert not dead.exists()
        # A living process of another container: its number means nothing here, its lock does.
        other = mine.rename(store.root / ".incoming-999999999-y")
        clear_leftovers(store.root)
        assert other.is_dir()
    clear_leftovers(store.root)
    assert list(store.root.iterdir()) == []


def test_a_stored_model_is_reused_and_never_overwritten(
    store: ModelStore, tiny: ModelReference, tiny_file: Path
) -> None:
    inode = (tiny.path / "model.gguf").stat().st_ino
    assert {path.stat().st_mode & 0o777 for path in tiny.path.iterdir()} == {0o444}
    again = import_gguf(store, tiny_file, name="second")
    assert (again.path, again.digest) == (tiny.path, tiny.digest)
    assert (tiny.path / "model.gguf").stat().st_ino == inode
    (tiny.path / "model.gguf").chmod(0o644)
    (tiny.path / "model.gguf").write_bytes(b"broken")
    with pytest.raises(ModelNotVerified, match=f"truncated: 6 of 928.*models remove {tiny.digest[:12]}"):
        import_gguf(store, tiny_file, name="third")
    assert (tiny.path / "model.gguf").read_bytes() == b"broken"


def test_a_full_disk_leaves_no_model(store: ModelStore, tmp_path: Path) -> None:
    path = Recipe(tensors=(Tensor("big.weight", bytes(4 << 20), shape=(1 << 20,)),)).write(tmp_path / "big.gguf")
    with full_disk(), pytest.raises(StorageError, match=r"Cannot copy big\.gguf into .*larger than this disk"):
        import_gguf(store, path, name="big")
    assert list(store.root.iterdir()) == []


def test_a_store_below_a_file_is_refused(tmp_path: Path, tiny_file: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="Cannot write to the model store"):
        import_gguf(ModelStore(tmp_path / "file" / "models"), tiny_file, name="x")
