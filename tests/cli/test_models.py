"""`openbook models`: all parts of a reader are verified, and what reads worse takes no name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openbook.models import ModelReference, ModelStore, ensure, import_gguf
from tests.cli.conftest import Out, TypeIn
from tests.conftest import flip
from tests.models.test_gguf_writer import base_file, stored_adapter


def test_all_parts_of_a_reader_are_verified(own_home: Path, out: Out, tmp_path: Path) -> None:
    """Its passages are read by the merged file, so that is a part of it."""
    store = ModelStore(own_home / "models")
    base = import_gguf(store, base_file(tmp_path / "base.gguf"), name="base")
    adapter = stored_adapter(store, base, tmp_path)
    merged = ensure(store, "small").merged
    assert merged is not None
    stdout = out.ok("verify", "small")
    assert [line.split()[-1] for line in stdout.splitlines()] == [adapter.digest, base.digest, merged.digest]
    flip(merged.main_file)
    out.refused(3, f"openbook models remove {merged.digest[:12]} --yes", "verify", "small")
    assert merged.digest[:12] in out.ok("models", "remove", merged.digest[:12], "--yes")


def test_a_model_is_deleted_with_its_last_name_unless_an_adapter_needs_it(
    own_home: Path, out: Out, tmp_path: Path
) -> None:
    store = ModelStore(own_home / "models")
    base = import_gguf(store, base_file(tmp_path / "base.gguf"), name="base")
    adapter = stored_adapter(store, base, tmp_path)
    assert "Its model stays" in out.ok("models", "remove", "base", "--yes")
    assert store.resolve(base.digest).digest == base.digest
    stdout = out.ok("models", "remove", "small", "--yes")
    assert adapter.digest[:12] in stdout
    out.refused(3, "No model is called 'small'", "models", "show", "small")


def test_remove_asks_for_confirmation(own_home: Path, out: Out, tmp_path: Path, type_in: TypeIn) -> None:
    store = ModelStore(own_home / "models")
    base = import_gguf(store, base_file(tmp_path / "base.gguf"), name="base")
    out.refused(3, "No model is called 'bse'", "models", "remove", "bse")
    for answer in (["n"], []):
        type_in(*answer)
        out.refused(130, "Remove the model 'base'?", "models", "remove", "base")
    assert store.resolve("base") == base
    (base.path / "manifest.json").chmod(0o600)
    (base.path / "manifest.json").write_text("{")
    type_in("y")
    assert base.digest[:12] in out.ok("models", "remove", "base")


PASSAGES = {
    "Ferries": ("The ferry to Sandhavn leaves at noon from pier 4.", "Where does the ferry leave from?", "pier 4"),
    "Kessin": ("Mount Kessin is 3,412 metres high.", "How high is Mount Kessin?", "3,412 metres"),
    "Bridge": ("The bridge was opened by mayor Lila Ortega in 1926.", "Who opened the bridge?", "Lila Ortega"),
    "Library": ("The library was founded in 1874 and closes on Mondays.", "When was the library founded?", "1874"),
}


@pytest.mark.laws
@pytest.mark.model
def test_a_new_name_is_compared_with_the_catalogues_model(
    model_reference: ModelReference, reader_reference: ModelReference, home_of_models: Path, tmp_path: Path, out: Out
) -> None:
    """Also where nobody has asked for it yet: the base, which cannot read, does not become the reader."""
    reading, known = tmp_path / "reading.jsonl", tmp_path / "known.jsonl"
    lines = [
        {"title": title, "passage": passage, "questions": [{"question": question, "answers": [answer]}]}
        for title, (passage, question, answer) in PASSAGES.items()
    ]
    reading.write_text("\n".join(map(json.dumps, lines)))
    known.write_text('{"question": "What is the capital of France?", "answers": ["Paris"]}\n')
    (home_of_models / "models" / "names" / "reader.json").unlink()
    words = ("models", "promote", "reader", model_reference.digest, "--reading", reading, "--known", known)
    code, stdout, _ = out(*words, "--json")
    told = json.loads(stdout)
    assert (code, told["holder"], told["passed"]) == (3, reader_reference.digest, False)
    assert [check["name"] for check in told["checks"] if not check["passed"]] == ["reading"]
    assert ModelStore(home_of_models / "models").resolve("reader").digest == reader_reference.digest
