"""What is said where a package of an extra cannot be used."""

from __future__ import annotations

import re

import pytest

from openbook.errors import ConfigError, needs_extra

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


def test_a_module_of_openbook_that_is_missing_is_no_missing_extra() -> None:
    missing = ModuleNotFoundError("No module named 'openbook.sky'", name="openbook.sky")
    with pytest.raises(ModuleNotFoundError, match=r"openbook\.sky"), needs_extra("Forecasts", "sky"):
        raise missing
