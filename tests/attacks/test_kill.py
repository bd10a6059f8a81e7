"""Killed with SIGKILL at any moment, a knowledge base opens, is consistent, and the next run completes the work."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from openbook.knowledge import KnowledgeBase, sync
from openbook.knowledge.check import check
from openbook.testing import HashEmbedder

SCRIPT = """
import sys
from pathlib import Path
from openbook.knowledge import KnowledgeBase, sync
from openbook.testing import HashEmbedder
embedder = HashEmbedder()
base = KnowledgeBase.ensure(Path(sys.argv[1]), embedder.identity)
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
def test_killed_at_any_moment_nothing_is_lost_and_nothing_is_half_done(
    tmp_path: Path, embedder: HashEmbedder, attempts: int
) -> None:
    docs, chance = tmp_path / "docs", random.Random(7)
    docs.mkdir()
    for i in range(120):
        (docs / f"{i:03}.txt").write_text(
            f"Document {i}: " + " ".join(f"word{chance.randrange(500)}" for _ in range(200))
        )
    kb = tmp_path / "kb"
    versions, kills = [0], 0
    for attempt in range(attempts):
        (docs / "000.txt").write_text(f"Changed for attempt {attempt}, with word{chance.randrange(500)}.")
        kills += killed_run(kb, docs, chance.uniform(0.0, 0.6))
        base = KnowledgeBase.open(kb, embedder.identity)
        report = check(base)
        assert report.damaged == ()
        assert base.version in (versions[-1], versions[-1] + 1)
        versions.append(base.version)
        whole = len(base.documents())
        assert whole in (0, 120)  # a version is there as a whole or not at all
        if whole:
            assert base.search("word7 word8", embedder)[1]
        base.close()
    assert kills > 0
    base = KnowledgeBase.open(kb, embedder.identity)
    sync(base, docs, embedder)
    assert len(base.documents()) == 120
    assert sync(base, docs, embedder).passages_embedded == 0
    assert check(base).damaged == ()
