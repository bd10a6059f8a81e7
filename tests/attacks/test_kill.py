"""Killed with SIGKILL at any moment, a knowledge base opens, is consistent, and the next run completes the work."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from openbook.knowledge.check import check
from tests.conftest import ROOT
from tests.knowledge.conftest import Library

# The moments are counted in calls of built-in functions, of which every write, rename and SQL statement is one.
SCRIPT = """
import os, signal, sys
from pathlib import Path
from openbook.knowledge import KnowledgeBase, sync
from openbook.parsers.sandbox.pool import ParserPool
from openbook.testing import HashEmbedder
from tests.conftest import parse_here
ParserPool.parse_all = parse_here
embedder = HashEmbedder()
base = KnowledgeBase.open(Path(sys.argv[1]), embedder.identity)
calls, last = 0, int(sys.argv[3])
def count(frame, event, argument):
    global calls
    if event == "c_call":
        calls += 1
        if calls == last:
            os.kill(os.getpid(), signal.SIGKILL)
sys.setprofile(count)
sync(base, Path(sys.argv[2]), embedder)
sys.setprofile(None)
print(calls)
"""


def synced(kb: Path, docs: Path, last: int) -> tuple[bool, int]:
    """Whether a sync in another process was killed at its call `last`, and the number of calls that it made otherwise."""
    command = [sys.executable, "-c", SCRIPT, str(kb), str(docs), str(last)]
    done = subprocess.run(command, stdout=subprocess.PIPE, cwd=ROOT, check=False)
    assert done.returncode in (0, -signal.SIGKILL)
    return done.returncode != 0, int(done.stdout or 0)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
@pytest.mark.parametrize(("attempts", "files"), [(2, 12), pytest.param(12, 120, marks=pytest.mark.laws)])
def test_killed_at_any_moment_nothing_is_lost_and_nothing_is_half_done(
    library: Library, attempts: int, files: int
) -> None:
    chance, kb, versions, kills = random.Random(7), library.base.folder, [0], 0
    library.base.close()  # the other process alone has it open
    for i in range(files):
        words = " ".join(f"word{chance.randrange(500)}" for _ in range(200))
        library.write(f"{i:03}.txt", f"Document {i}: {words}")
    was_killed, calls = synced(Path(shutil.copytree(kb, kb.with_name("copy"))), library.docs, 0)
    assert not was_killed
    for attempt in range(attempts):
        library.write("000.txt", f"Changed for attempt {attempt}, with word{chance.randrange(500)}.")
        was_killed, _ = synced(kb, library.docs, 1 + int(calls * (attempt + chance.random()) / attempts))
        kills += was_killed
        with closing(library.reopened()) as base:
            assert check(base).damaged == ()
            assert base.version in (versions[-1], versions[-1] + 1)
            versions.append(base.version)
            whole = len(base.documents())
            assert whole in (0, files)  # a version is there as a whole or not at all
            if whole:
                assert base.search("word7 word8", library.embedder)[1]
    assert kills > 0
    library.base = library.reopened()
    library.sync()
    assert len(library.base.documents()) == files
    assert library.sync().passages_embedded == 0
    assert check(library.base).damaged == ()
