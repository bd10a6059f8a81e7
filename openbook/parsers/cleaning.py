"""What every document's text may hold: printable characters, newline and tab.

A document is written by someone else and ends up in a terminal, in a prompt and in SQLite. Control characters could
move a cursor, bidirectional overrides could reorder what a person sees, tag characters spell instructions that a model
reads and no person sees, and lone surrogates cannot be stored.
"""

from __future__ import annotations

import re
from pathlib import PurePath

LONGEST_TITLE_CHARS = 200

_NEWLINE = re.compile("\r\n?|[\f\x85\u2028\u2029]")
_UNSAFE = re.compile(
    "[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff\U000e0000-\U000e007f]"
)


def clean(text: str) -> str:
    """The same text with line feeds as its only newlines and a space for each unsafe character. Idempotent."""
    return _UNSAFE.sub(" ", _NEWLINE.sub("\n", text))


def one_line(text: str) -> str:
    """`text` as a title: cleaned, white space collapsed, cut to `LONGEST_TITLE_CHARS`."""
    return " ".join(clean(text[: 8 * LONGEST_TITLE_CHARS]).split())[:LONGEST_TITLE_CHARS].rstrip()


def title_from_name(name: str) -> str:
    return one_line(PurePath(name).stem)
