"""What is said where a package of an extra cannot be used, or a name is not known."""

from __future__ import annotations

import re

import pytest

from openbook.core.errors import ConfigError, did_you_mean, needs_extra

NAME = "cannot import name 'Cloud' from 'weather' (weather.py)"


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (ModuleNotFoundError("No module named 'weather'", name="weather"), "weather is not installed"),
        (ImportError(NAME, name="weather"), NAME),  # a version that is too old
        (ImportError("libweather.so: no such file\nsecond line"), "libweather.so: no such file"),
    ],
)
def test_an_extra_that_cannot_be_used_is_named_with_the_reason(error: ImportError, why: str) -> None:
    said = f"Forecasts needs the extra 'sky' ({why}): pip install 'openbook[sky]'"
    with pytest.raises(ConfigError, match=f"^{re.escape(said)}$"), needs_extra("Forecasts", "sky"):
        raise error


def test_a_missing_module_of_openbook_is_not_a_missing_extra() -> None:
    missing = ModuleNotFoundError("No module named 'openbook.sky'", name="openbook.sky")
    with pytest.raises(ModuleNotFoundError, match=r"openbook\.sky"), needs_extra("Forecasts", "sky"):
        raise missing


FILES = ["README.md", "a.md", "b.md", "docker-compose.yml", "handbook.md", "invoice-2024.pdf", "other", "report.pdf"]


MEANT = {
    "readme.MD": "README.md", "handbok.md": "handbook.md", "raport.pdf": "report.pdf", "report.md": "report.pdf",
    "report": "report.pdf", "compose": "docker-compose.yml", "invoice-2023.pdf": "invoice-2024.pdf",
}  # fmt: skip


def test_a_hint_is_a_near_name_or_none() -> None:
    for word, meant in MEANT.items():
        assert did_you_mean(word, FILES) == f" Did you mean {meant!r}?"
    for word in ("c.md", "the", "x1.pdf", "port", "", "..", ".md"):
        assert not did_you_mean(word, FILES)
