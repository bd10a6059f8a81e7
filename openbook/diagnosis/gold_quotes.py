"""The words that stand for a place in a text: whole sentences, long enough not to stand anywhere else."""

from __future__ import annotations

import re

from openbook.diagnosis.verdicts import NO_SPACES
from openbook.knowledge.sentences import sentence_spans

SHORTEST_CHARS = 20  # of a quote that is looked for in all documents


def sentence_at(text: str, start: int, length: int = 1) -> str:
    """The sentence of the text that `[start, start + length)` stands in, or the sentences if it reaches into several.

    What has fewer than `SHORTEST_CHARS` comes with the nearest sentences beside it. Empty where there is no sentence.
    """
    spans = sentence_spans(text, 0, len(text))
    around = [i for i, (begin, end) in enumerate(spans) if begin < start + length and end > start]
    if not around:
        return ""
    first, last = around[0], around[-1]
    while spans[last][1] - spans[first][0] < SHORTEST_CHARS and last - first + 1 < len(spans):
        before = spans[first][0] - spans[first - 1][1] if first else len(text)
        after = spans[last + 1][0] - spans[last][1] if last + 1 < len(spans) else len(text)
        first, last = (first - 1, last) if before < after else (first, last + 1)
    return text[spans[first][0] : spans[last][1]]


def pattern_of(answer: str) -> re.Pattern[str] | None:
    """A pattern for the words of an answer, whatever the spaces between them. None: it has no words."""
    words = r"\s+".join(map(re.escape, answer.strip().rstrip(".").split()))
    if not words:
        return None
    return re.compile(words if NO_SPACES.search(answer) else rf"(?<!\w){words}(?!\w)")
