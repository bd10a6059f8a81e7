"""`openbook models promote` with a real comparison: what reads worse takes no name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openbook.models import ModelReference, ModelStore
from tests.cli.conftest import Out

PASSAGES = {
    "Ferries": ("The ferry to Sandhavn leaves at noon from pier 4.", "Where does the ferry leave from?", "pier 4"),
    "Kessin": ("Mount Kessin is 3,412 metres high.", "How high is Mount Kessin?", "3,412 metres"),
    "Bridge": ("The bridge was opened by mayor Lila Ortega in 1926.", "Who opened the bridge?", "Lila Ortega"),
    "Library": ("The library was founded in 1874 and closes on Mondays.", "When was the library founded?", "1874"),
}


@pytest.fixture
def reading(tmp_path: Path) -> Path:
    lines = [
        {"title": title, "passage": passage, "questions": [{"question": question, "answers": [answer]}]}
        for title, (passage, question, answer) in PASSAGES.items()
    ]
    path = tmp_path / "reading.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.mark.model
def test_a_name_that_openbook_ships_a_model_for_is_held_by_that_model(
    model_reference: ModelReference,
    reader_reference: ModelReference,
    home_of_models: Path,
    reading: Path,
    tmp_path: Path,
    out: Out,
) -> None:
    """Also where nobody has asked for it yet: the base, which cannot read, does not become the reader."""
    (home_of_models / "models" / "names" / "reader.json").unlink()
    known = tmp_path / "known.jsonl"
    known.write_text('{"question": "What is the capital of France?", "answers": ["Paris"]}\n', encoding="utf-8")
    words = ("models", "promote", "reader", model_reference.digest, "--reading", reading, "--known", known)
    code, stdout, _ = out(*words, "--json")
    assert code == 3
    told = json.loads(stdout)
    assert (told["holder"], told["passed"]) == (reader_reference.digest, False)
    assert [check["name"] for check in told["checks"] if not check["passed"]] == ["reading"]
    assert ModelStore(home_of_models / "models").resolve("reader").digest == reader_reference.digest
