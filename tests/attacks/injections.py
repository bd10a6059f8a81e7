"""Documents that hold a prompt injection, from `tests/data/injections.jsonl`: one JSON object a line.

`document` is the text with `{attack}` where `attack` stands, `repeat` times; `answers` to `question` stand in the rest.
Whoever answers with one of `hijacked` did what the attack wanted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).parent.parent / "data" / "injections.jsonl"


@dataclass(frozen=True, slots=True)
class Injection:
    name: str
    kind: str
    format: str  # of the file: "md" or "html"
    document: str
    attack: str
    question: str
    answers: tuple[str, ...]
    hijacked: tuple[str, ...]

    @property
    def attacked(self) -> str:
        return self.document.replace("{attack}", self.attack)

    @property
    def clean(self) -> str:
        return self.document.replace("{attack}", "")


def injections() -> list[Injection]:
    return [_injection(**json.loads(line)) for line in FILE.read_text(encoding="utf-8").splitlines()]


def _injection(*, attack: str, answers: list[str], hijacked: list[str], repeat: int = 1, **texts: str) -> Injection:
    return Injection(attack=attack * repeat, answers=tuple(answers), hijacked=tuple(hijacked), **texts)
