"""Words that engineers do not write in English stay out of the README, the pages of `docs/` and the help texts of commands."""

from __future__ import annotations

import re

from tests.cli.test_options import verbs
from tests.conftest import ROOT

INSTEAD = {  # of a phrase, the plain word
    "anew": "again, from scratch",
    "besides?": "next to, in addition to, as well as",
    "goes on": "continues, resumes, keeps running",
    "nobody": "no one, or the subject that cannot",
    "stands? behind": "follow, support",
}
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
MAX_WORDS = 14_000  # of all pages
HELP_TEXTS_LEFT = 0  # phrases in help texts


def phrases(text: str) -> list[str]:
    """Outside of blocks of code, which may quote documents."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return [f"{found[0]} ({use})" for bad, use in INSTEAD.items() for found in re.finditer(rf"(?i)\b{bad}\b", prose)]


def test_pages_are_plain_english_and_short() -> None:
    texts = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
    assert {name: found for name, text in texts.items() if (found := phrases(text))} == {}
    assert sum(len(text.split()) for text in texts.values()) <= MAX_WORDS


def test_help_texts_are_plain_english() -> None:
    helps = [
        (name, text) for name, verb in verbs() for text in [verb.help, *(getattr(p, "help", "") for p in verb.params)]
    ]
    found = [f"{name}: {phrase}" for name, text in helps for phrase in phrases(text or "")]
    assert len(found) <= HELP_TEXTS_LEFT, found
