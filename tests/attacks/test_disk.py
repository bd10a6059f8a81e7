"""Disks that are full or cannot be written: a sentence, and nothing lost or half-written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from openbook.core.errors import StorageError
from openbook.knowledge import KnowledgeBase, add
from openbook.knowledge.docs_cache import for_documents
from openbook.testing import HashEmbedder
from tests.conftest import ROOT

Mount = Callable[[str], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """A small disk of its own; needs Linux and the right to mount."""
    if shutil.which("mount") is None:
        pytest.skip("no mount command here")
    point = tmp_path / "disk"
    point.mkdir()
    mounted = False

    def mount(options: str) -> Path:
        nonlocal mounted
        remount = "remount," if mounted else ""
        command = ["mount", "-t", "tmpfs", "-o", remount + options, "tmpfs", str(point)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0 and not mounted:
            pytest.skip("no right to mount a disk here")
        assert done.returncode == 0, done.stderr
        mounted = True
        return point

    yield mount
    if mounted:
        subprocess.run(["umount", "-l", str(point)], check=True)


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for i in range(30):
        lines = [f"Paragraph {j} of document {i} has the number {i * 1000 + j}.\n\n" for j in range(300)]
        (folder / f"{i:02}.txt").write_text("".join(lines))
    return folder


SMALL_FILES = """
import json, resource, signal, sys
from pathlib import Path
from openbook.core.errors import OpenBookError
from openbook.knowledge import KnowledgeBase, add
from openbook.testing import HashEmbedder

kb, limit_bytes, docs = Path(sys.argv[1]), int(sys.argv[2]), [Path(word) for word in sys.argv[3:]]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write then fails, as on a full disk, instead of ending the process
resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))
try:
    base = KnowledgeBase.open(kb, HashEmbedder().identity)
    if docs:
        add(base, docs, HashEmbedder())
    version, hits = base.search("number 7", HashEmbedder())
    print(json.dumps([version, [hit.passage.id for hit in hits]]))
except OpenBookError as error:
    print(type(error).__name__, error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


def with_small_files(kb: Path, limit_bytes: int, *docs: Path) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("resource", reason="Windows has no limit on the size of files")
    command = [sys.executable, "-c", SMALL_FILES, str(kb), str(limit_bytes), *map(str, docs)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done


# From the first write to late in the run, whose longest file, the log of the database, grows to 4 MB.
@pytest.mark.parametrize("limit_bytes", [1_000, 300_000, 1_500_000])
def test_files_that_may_not_grow_lose_nothing_and_the_next_run_goes_on(
    tmp_path: Path, docs: Path, embedder: HashEmbedder, limit_bytes: int
) -> None:
    with closing(KnowledgeBase.ensure(tmp_path / "kb", embedder.identity)) as base:
        add(base, [docs / "00.txt"], embedder)
        before = base.search("number 7", embedder)
    done = with_small_files(tmp_path / "kb", limit_bytes, docs)
    assert done.returncode == StorageError.exit_code, done.stderr
    assert done.stderr.startswith("StorageError Cannot ")
    with closing(KnowledgeBase.open(tmp_path / "kb", embedder.identity)) as base:
        assert base.version == 1
        assert base.search("number 7", embedder) == before
        assert add(base, [docs], embedder).version == 2
        assert len(base.documents()) == 30


# Below the size of the largest keyword file, and of the vectors. SQLite itself needs 32 KiB to read.
def test_indexes_that_cannot_be_written_are_made_in_memory(tmp_path: Path, docs: Path, embedder: HashEmbedder) -> None:
    with closing(KnowledgeBase.ensure(tmp_path / "kb", embedder.identity)) as base:
        add(base, [docs], embedder)
        version, hits = base.search("number 7", embedder)
    shutil.rmtree(tmp_path / "kb" / "derived" / "index")
    for limit_bytes in (40_000, 100_000):
        done = with_small_files(tmp_path / "kb", limit_bytes)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == [version, [hit.passage.id for hit in hits]]


def test_a_read_only_disk_still_answers_and_says_why_it_does_not_add(
    mount: Mount, docs: Path, embedder: HashEmbedder
) -> None:
    disk = mount("size=60m")
    with closing(KnowledgeBase.ensure(disk / "kb", embedder.identity)) as base:
        add(base, [docs / "00.txt"], embedder)
        expected = base.search("number 7", embedder)
    for indexed in (True, False):
        if not indexed:  # then it is searched in memory
            mount("rw")
            (disk / "kb" / "derived" / "index" / "state.json").unlink()
        mount("ro")
        with closing(KnowledgeBase.open(disk / "kb", embedder.identity)) as base:
            assert base.search("number 7", embedder) == expected
            with pytest.raises(StorageError, match=r"[Rr]ead.only"):
                add(base, [docs], embedder)
    attempts: list[Callable[[], object]] = [
        lambda: KnowledgeBase.ensure(disk / "another", embedder.identity),
        lambda: for_documents([docs], disk / "derived", embedder),
    ]
    for attempt in attempts:
        with pytest.raises(StorageError, match=r"[Rr]ead.only"):
            attempt()
