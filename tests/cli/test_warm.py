"""Reading ahead, and forgetting what was read, with the real reader from the shell."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from openbook.cli import main
from openbook.models import ModelReference
from tests.conftest import MODEL_HOME

pytestmark = pytest.mark.model


def test_passages_are_read_ahead_asked_and_forgotten(
    tmp_path: Path,
    own_home: Path,
    capsys: pytest.CaptureFixture[str],
    reader_reference: ModelReference,
    embedder_reference: ModelReference,
) -> None:
    own_home.mkdir()
    (own_home / "models").symlink_to(MODEL_HOME / "models")
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "ferry.md").write_text("# Ferry\n\nThe ferry leaves at noon from pier 4.\n")
    (docs / "library.md").write_text("# Library\n\nThe library closes on Mondays.\n")

    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        found = capsys.readouterr()
        assert ended.value.code in (0, None), found.err
        return found.out

    def states() -> int:
        return int(json.loads(run("status", "--json"))["kept_states"]["states"])

    run("add", str(docs))
    assert states() == 0
    assert run("warm", "--top", "1").startswith("1 of 1 passages are read")
    assert run("warm").startswith("2 of 2 passages are read")
    assert states() == 3  # and the instruction's
    assert "0 of them new" in run("warm")
    assert "Read ahead      3 states, " in run("status")
    question = ("ask", "When does the ferry leave?", "--passages", "2", "--json")
    warm = json.loads(run(*question))
    assert "noon" in warm["answer"]
    assert states() == 3  # nothing had to be read
    purged = json.loads(run("purge", str(docs / "ferry.md"), "--yes", "--json"))
    assert purged["states_dropped"] == 1
    assert states() == 2
    run("sync", str(docs))
    shutil.rmtree(own_home / "states")
    cold = json.loads(run(*question))
    assert (cold["answer"], cold["receipt"]["answer_digest"]) == (warm["answer"], warm["receipt"]["answer_digest"])
    assert cold["receipt"]["prompt_digest"] == warm["receipt"]["prompt_digest"]
