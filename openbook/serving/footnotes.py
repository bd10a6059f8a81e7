"""Citations in the text of an answer, for clients that show only text: numbered footnotes without markup."""

from __future__ import annotations

import unicodedata

from openbook.records import Answer, Citation

_JOINERS = "\u200c\u200d"  # they make other letters and pictures of their neighbours, and nothing else


def footnotes(answer: Answer) -> str:
    """What stands after the text: for each citation a paragraph "[1] `document`, page 2, characters 10-20: `quote`".

    The numbers are those of `openbook.citations`, counted from 1. Nothing without citations, as after an abstention.
    """
    return "".join(f"\n\n[{i}] {_footnote(each)}" for i, each in enumerate(answer.citations, 1))


def _footnote(citation: Citation) -> str:
    page = "" if citation.page is None else f", page {citation.page}"
    place = f"characters {citation.start}-{citation.end}"
    return f"{_inert(citation.document)}{page}, {place}: {_inert(citation.quote)}"


def _inert(text: str) -> str:
    """On one line, in backticks, between which Markdown is text; without characters that control how it is shown."""
    line = " ".join("".join(map(_plain, text)).split())
    return f"`{line or ' '}`"  # two backticks with nothing between would begin something else


def _plain(character: str) -> str:
    if character == "`":
        return "'"
    kind = unicodedata.category(character)
    if kind in ("Cc", "Cs", "Zl", "Zp"):
        return " "
    return "" if kind == "Cf" and character not in _JOINERS else character
