"""Reading ahead, and forgetting what was read, with the real reader from the shell."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Out

pytestmark = pytest.mark.model


@pytest.mark.usefixtures("reader_reference", "embedder_reference")
def test_passages_are_read_ahead_asked_and_forgotten(tmp_path: Path, home_of_models: Path, out: Out) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "ferry.md").write_text("# Ferry\n\nThe ferry leaves at noon from pier 4.\n")
    (docs / "library.md").write_text("# Library\n\nThe library closes on Mondays.\n")

    def states() -> int:
        return int(out.json("status")["kept_states"]["states"])

    out.ok("add", docs)
    assert states() == 0
    assert out.ok("warm", "--top", "1").startswith("1 of 1 passages are read")
    assert out.ok("warm").startswith("2 of 2 passages are read")
    assert states() == 3  # and the instruction's
    assert "0 of them new" in out.ok("warm")
    assert "Read ahead      3 states, " in out.ok("status")
    question = ("ask", "When does the ferry leave?", "--passages", "2")
    warm = out.json(*question)
    assert "noon" in warm["answer"]
    assert states() == 3  # nothing had to be read
    shutil.rmtree(home_of_models / "states")
    cold = out.json(*question)
    assert cold["receipt"] == warm["receipt"]
    assert out.json("purge", docs / "ferry.md", "--yes")["states_dropped"] == 1
