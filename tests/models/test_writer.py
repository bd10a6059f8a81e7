from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from openbook.errors import InvalidModelFile, ModelNotVerified, StorageError
from openbook.files import storage_errors
from openbook.models import ModelReference, ModelStore, import_gguf
from openbook.models.staging import clear_leftovers, staging_folder
from openbook.models.writer import install
from tests.models.gguf_files import Recipe, Tensor

ROOT = Path(__file__).parent.parent.parent

# Imports a model with one file-system call, the `sys.argv[3]`th, never returning: the process dies there, as by kill -9.
DIE_AT_STEP = """
import os, pathlib, signal, sys
from pathlib import Path
from openbook.models import ModelStore, import_gguf
left = int(sys.argv[3])
def deadly(call):
    def wrapped(*args, **kwargs):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)
    return wrapped
for name in ("fsync", "rename", "replace", "chmod", "mkdir", "open"):
    setattr(os, name, deadly(getattr(os, name)))
import_gguf(ModelStore(Path(sys.argv[1])), Path(sys.argv[2]), name="tiny")
"""

IMPORT = (
    "import sys; from pathlib import Path; from openbook.models import *; "
    "import_gguf(ModelStore(Path(sys.argv[1])), Path(sys.argv[2]), name='big')"
)


def visible(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if not path.name.startswith(".")) if root.exists() else []


def check_whole_or_absent(store: ModelStore) -> None:
    for name in visible(store.root):
        if len(name) == 64:
            reference = store.resolve(name)
            assert store.findings(reference) == ()
    assert store.damaged() == {}


def python(script: str, *args: object) -> subprocess.Popen[bytes]:
    environ = dict(os.environ) | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", script, *map(str, args)], env=environ)


def test_killed_at_every_step_leaves_the_whole_model_or_none(store: ModelStore, tiny_file: Path) -> None:
    killed = 0
    for step in range(1, 100):
        code = python(DIE_AT_STEP, store.root, tiny_file, step).wait()
        check_whole_or_absent(store)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        killed += 1
        if not any(len(name) == 64 for name in visible(store.root)):
            assert store.list() == ()
    assert killed >= 10
    assert store.resolve("tiny").manifest.name == "tiny"
    import_gguf(store, tiny_file, name="again")
    assert list(store.root.glob(".incoming-*")) == [], "the next writer clears what the dead left"


def test_killed_at_a_random_moment(store: ModelStore, tmp_path: Path) -> None:
    path = tmp_path / "big.gguf"
    path.write_bytes(Recipe(tensors=(Tensor("big.weight", bytes(32 << 20), shape=(8 << 20,)),)).build())
    chance = random.Random(7)
    for _ in range(4):
        process = python(IMPORT, store.root, path)
        deadline = time.monotonic() + 20
        while not list(store.root.glob(".incoming-*")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.15))
        process.kill()
        process.wait()
        check_whole_or_absent(store)
    assert import_gguf(store, path, name="big").digest == store.names()["big"]


def test_the_living_keep_their_folders(store: ModelStore) -> None:
    with staging_folder(store.root) as mine:
        clear_leftovers(store.root)
        assert mine.is_dir()
        dead = store.root / ".incoming-999999999-x"
        dead.mkdir()
        with staging_folder(store.root):
            assert not dead.exists()
    assert list(store.root.iterdir()) == []


def test_a_lock_counts_more_than_a_process_number(store: ModelStore) -> None:
    """A living process of another container: its number means nothing here."""
    with staging_folder(store.root) as mine:
        other = mine.rename(store.root / ".incoming-999999999-y")
        clear_leftovers(store.root)
        assert other.is_dir()
    clear_leftovers(store.root)
    assert not other.exists()


def test_installs_copies_and_moves(store: ModelStore, tiny: ModelReference, tiny_file: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    folder = install(elsewhere, tiny.manifest, {"model.gguf": tiny_file})
    assert folder == elsewhere / tiny.digest
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.json", "model.gguf"]
    assert tiny_file.is_file()
    moved = tmp_path / "moved"
    install(moved, tiny.manifest, {"model.gguf": tiny_file}, move=True)
    assert not tiny_file.exists()
    with pytest.raises(ValueError, match="not those of the manifest"):
        install(moved, tiny.manifest, {})


def test_what_is_there_is_reused_and_never_overwritten(
    store: ModelStore, tiny: ModelReference, tiny_file: Path
) -> None:
    inode = (tiny.path / "model.gguf").stat().st_ino
    again = import_gguf(store, tiny_file, name="second")
    assert (again.path, again.digest) == (tiny.path, tiny.digest)
    assert (tiny.path / "model.gguf").stat().st_ino == inode
    (tiny.path / "model.gguf").chmod(0o644)
    (tiny.path / "model.gguf").write_bytes(b"broken")
    with pytest.raises(ModelNotVerified, match="truncated: 6 of 928"):
        import_gguf(store, tiny_file, name="third")
    assert (tiny.path / "model.gguf").read_bytes() == b"broken"


def test_a_file_that_is_none_leaves_nothing(store: ModelStore, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"no model")
    with pytest.raises(InvalidModelFile):
        import_gguf(store, path, name="x")
    assert not store.root.exists()


def test_a_disk_that_takes_no_more(store: ModelStore, tmp_path: Path) -> None:
    """A limit on file sizes makes the kernel refuse a write midway, as a full disk does."""
    path = tmp_path / "big.gguf"
    path.write_bytes(Recipe(tensors=(Tensor("big.weight", bytes(4 << 20), shape=(1 << 20,)),)).build())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(StorageError, match=r"Cannot copy big\.gguf into .*larger than this disk"):
            import_gguf(store, path, name="big")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert visible(store.root) == []
    assert list(store.root.iterdir()) == []


def test_a_store_that_is_no_folder(tmp_path: Path, tiny_file: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="Cannot write to the model store"):
        import_gguf(ModelStore(tmp_path / "file" / "models"), tiny_file, name="x")


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("ENOSPC", "the disk is full"),
        ("EROFS", "the disk is read-only; set OPENBOOK_HOME"),
        ("EACCES", "permission denied"),
    ],
)
def test_refusals_of_the_disk_say_what_to_do(name: str, advice: str) -> None:
    import errno

    with pytest.raises(StorageError, match=f"Cannot keep x: {advice}"), storage_errors("keep x"):
        raise OSError(getattr(errno, name), "words of the system")
