"""A question that may refer back to the ones before it: what to search for.

No conversation is kept here; the caller brings it along.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from openbook.prompts import MAX_QUESTION_CHARS

MAX_EARLIER = 2  # turns of the user that a question may refer back to
GAIN = 0.15  # of cosine: what a question that stands alone hardly ever gains (research/log.md)


def search_query(earlier: Sequence[str], question: str, nearness: Callable[[str], float]) -> str:
    """`question` alone, or below what the turn before it was searched for with, where that brings much nearer passages.

    "And on Sundays?" is near to nothing; with the question before it, it is. A question about something else is nearest
    to its own passages alone. `earlier`: the user's turns, oldest first. `nearness`: the cosine of the nearest passage.
    """
    query = ""
    for turn in (*earlier[-MAX_EARLIER:], question):
        room = MAX_QUESTION_CHARS - len(turn) - 1
        together = f"{query[-room:]}\n{turn}" if query.strip() and room > 0 else turn
        query = together if together != turn and nearness(together) - nearness(turn) >= GAIN else turn
    return query
