"""Trials: which files an engine has loaded and asked in a process of its own, and what their chat template wrote there.

A trial is of files and not of a model's digest: keys that change no answer, and so no digest, can still end an engine.
Written where stamps are, and worth as much: who owns the disk can forge it. One that is missing only means a new trial.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from openbook.errors import InvalidModelFile
from openbook.files import replace_file
from openbook.models.fields import Fields
from openbook.records import Digest, canonical_json

FORMAT = 2  # 1: templates were rendered with thinking
MAX_TRIAL_BYTES = 1 << 20

TemplateText: TypeAlias = tuple[str, str, str]
"""What a chat template writes before a system message, between it and the user's message, and after that."""


@dataclass(frozen=True, slots=True)
class Trial:
    """`files`: the SHA-256 of the model's file, and of the adapter's on it. `template` is None for a model without one."""

    engine: str
    files: tuple[Digest, ...]
    template: TemplateText | None


def read_trial(path: Path) -> Trial | None:
    """The recorded trial; None if there is none that can be read."""
    try:
        with path.open("rb") as stream:
            fields = Fields(json.loads(stream.read(MAX_TRIAL_BYTES)), path.name)
        if fields.integer("format") != FORMAT:
            return None
        template = fields.texts("template")
        if len(template) not in (0, 3):
            return None
        return Trial(
            fields.text("engine"), fields.texts("files"), (template[0], template[1], template[2]) if template else None
        )
    except (OSError, ValueError, RecursionError, InvalidModelFile):
        return None


def write_trial(path: Path, trial: Trial) -> None:
    """Best effort: on a disk that cannot be written, every opening is tried anew."""
    value = {
        "engine": trial.engine,
        "files": list(trial.files),
        "format": FORMAT,
        "template": list(trial.template or ()),
    }
    with suppress(OSError):
        replace_file(path, canonical_json(value))


def trial_path(root: Path, digest: Digest) -> Path:
    return root / "trials" / f"{digest}.json"
