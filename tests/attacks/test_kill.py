"""Killed with SIGKILL at any moment, a knowledge base opens, is consistent, and the next run completes the work."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from openbook.knowledge.check import check
from tests.knowledge.conftest import Library

SCRIPT = """
import sys
from pathlib import Path
from openbook.knowledge import KnowledgeBase, sync
from openbook.testing import HashEmbedder
embedder = HashEmbedder()
base = KnowledgeBase.open(Path(sys.argv[1]), embedder.identity)
print("ready", flush=True)
sync(base, Path(sys.argv[2]), embedder)
"""


def killed_run(kb: Path, docs: Path, after_s: float) -> bool:
    """Whether a sync in another process was killed before it ended."""
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(kb), str(docs)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(after_s)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    return process.returncode == -signal.SIGKILL


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
@pytest.mark.parametrize("attempts", [3, pytest.param(8, marks=pytest.mark.slow)])
def test_killed_at_any_moment_nothing_is_lost_and_nothing_is_half_done(library: Library, attempts: int) -> None:
    chance, kb, versions, kills = random.Random(7), library.base.folder, [0], 0
    library.base.close()  # nobody else has it open
    for i in range(120):
        words = " ".join(f"word{chance.randrange(500)}" for _ in range(200))
        library.write(f"{i:03}.txt", f"Document {i}: {words}")
    for attempt in range(attempts):
        library.write("000.txt", f"Changed for attempt {attempt}, with word{chance.randrange(500)}.")
        kills += killed_run(kb, library.docs, chance.uniform(0.0, 0.6))
        with closing(library.reopened()) as base:
            assert check(base).damaged == ()
            assert base.version in (versions[-1], versions[-1] + 1)
            versions.append(base.version)
            whole = len(base.documents())
            assert whole in (0, 120)  # a version is there as a whole or not at all
            if whole:
                assert base.search("word7 word8", library.embedder)[1]
    assert kills > 0
    library.base = library.reopened()
    library.sync()
    assert len(library.base.documents()) == 120
    assert library.sync().passages_embedded == 0
    assert check(library.base).damaged == ()
