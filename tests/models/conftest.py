from __future__ import annotations

from pathlib import Path

import pytest

from openbook.models import ModelReference, ModelStore, import_gguf
from tests.models.gguf_files import Recipe


@pytest.fixture
def tiny_file(tmp_path: Path) -> Path:
    return Recipe().write(tmp_path / "Tiny Model.gguf")


@pytest.fixture
def tiny(store: ModelStore, tiny_file: Path) -> ModelReference:
    return import_gguf(store, tiny_file, name="tiny")
