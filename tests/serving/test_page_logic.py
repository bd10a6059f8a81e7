"""What the page's modules compute, in Node's own test runner: tests/serving/web. Skipped where Node 18 or newer is missing."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from openbook.serving.page import FOLDER
from tests.conftest import ROOT

NODE = shutil.which("node")


@pytest.mark.skipif(NODE is None, reason="Node is not installed")
def test_the_modules_of_the_page_compute_what_they_say(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "web")
    shutil.copytree(ROOT / "tests" / "serving" / "web", tmp_path / "tests")
    (tmp_path / "package.json").write_text(json.dumps({"type": "module"}))
    tests = sorted((tmp_path / "tests").glob("*.test.js"))
    done = subprocess.run([str(NODE), "--test", *tests], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(tests) > 1
