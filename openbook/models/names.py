"""Which names models and their files may have: any that is one plain file name on every system."""

from __future__ import annotations

import re

from openbook.errors import ConfigError

MAX_NAME_CHARS = 100
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_WINDOWS_DEVICES = {"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(10)}


def name_problem(name: str) -> str:
    """Why `name` cannot name a model or a file, or an empty string."""
    if not _NAME.fullmatch(name):
        return f"use 1 to {MAX_NAME_CHARS} letters, digits, '.', '_' and '-', beginning with a letter or digit"
    if name.endswith("."):
        return "it must not end with a dot"
    if name.split(".", 1)[0].lower() in _WINDOWS_DEVICES:
        return "Windows keeps that name for a device"
    if _DIGEST.fullmatch(name):
        return "it reads like a digest"
    return ""


def checked_name(name: str) -> str:
    """`name`, if it can name a model. Raises ConfigError."""
    if problem := name_problem(name):
        raise ConfigError(f"{name[:120]!r} cannot be a model's name: {problem}.")
    return name


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None
