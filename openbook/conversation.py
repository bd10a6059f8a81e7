"""The search query of a question that may refer back to earlier ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from openbook.prompts import MAX_QUESTION_CHARS

MAX_EARLIER = 2  # user turns that a question may refer back to
GAIN = 0.15  # of cosine: a self-contained question hardly ever gains this much (research/log.md)


def search_query(earlier: Sequence[str], question: str, nearness: Callable[[str], float]) -> str:
    """`question` alone, or after the query of the turn before it if that finds much nearer passages.

    "And on Sundays?" needs the question before it. `earlier`: the user's turns, oldest first. `nearness`: the cosine of
    a query's nearest passage.
    """
    query = ""
    for turn in (*earlier[-MAX_EARLIER:], question):
        room = MAX_QUESTION_CHARS - len(turn) - 1
        together = f"{query[-room:]}\n{turn}" if query.strip() and room > 0 else turn
        query = together if together != turn and nearness(together) - nearness(turn) >= GAIN else turn
    return query
