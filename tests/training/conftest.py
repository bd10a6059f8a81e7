"""Modules that need PyTorch are laws. Where it is not installed they are not collected."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

laws = [path.name for path in Path(__file__).parent.glob("test_*.py") if "mark.laws" in path.read_text("utf-8")]
collect_ignore = [] if find_spec("torch") else laws
