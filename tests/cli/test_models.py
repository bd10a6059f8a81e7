"""`openbook models` over small models that are made here."""

from __future__ import annotations

from pathlib import Path

from openbook.models import ModelStore, ensure, import_gguf
from tests.cli.conftest import Out
from tests.models.test_gguf_writer import base_file, stored_adapter


def test_all_parts_of_a_reader_are_verified(own_home: Path, out: Out, tmp_path: Path) -> None:
    """Its passages are read by the merged file, so that is a part of it."""
    store = ModelStore(own_home / "models")
    base = import_gguf(store, base_file(tmp_path / "base.gguf"), name="base")
    adapter = stored_adapter(store, base, tmp_path)
    merged = ensure(store, "small").merged
    assert merged is not None
    stdout = out.ok("models", "verify", "small")
    assert [line.split()[-1] for line in stdout.splitlines()] == [adapter.digest, base.digest, merged.digest]
    data = bytearray(merged.main_file.read_bytes())
    data[-1] ^= 1
    merged.main_file.chmod(0o600)
    merged.main_file.write_bytes(data)
    out.refused(3, f"{merged.name} is not what its digest says", "models", "verify", "small")
