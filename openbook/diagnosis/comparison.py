"""Compares one diagnosis with another, on the questions that are the same in both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from openbook.diagnosis.run_log import Header, differences
from openbook.diagnosis.scoring import mcnemar
from openbook.diagnosis.summary import ModelSummary, Outcome
from openbook.diagnosis.verdicts import Verdict
from openbook.errors import ConfigError

_SETTINGS = {  # of a header, in words
    "knowledge_base": "knowledge bases",
    "knowledge_base_version": "versions of the knowledge base",
    "embedder": "embedders",
    "where": "filters (--where)",
    "labels": "access labels (--label)",
    "strategy": "strategies of reading",
    "passages": "numbers of passages",
    "min_similarity": "least similarities",
    "context_tokens": "sizes of the context, in tokens,",
    "decoding": "decodings",
}


@dataclass(frozen=True, slots=True)
class ModelOutcomes:
    """The outcome of each question that one model was asked. `header`: with what it was asked."""

    name: str
    header: Header
    outcomes: Sequence[Outcome]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models, or two runs, on the questions that both were asked and neither failed on. `right` as in `Outcome`.

    `p`: McNemar's test, two-sided: how likely a difference like this is if both are equally good. `moved`: how many
    questions went from one verdict to another. `left_out`: questions that only one of the two was asked. `failed`: those
    that both were asked, and at least one failed on. `notes`: in what the two differ besides the model.
    """

    first: str
    second: str
    questions: int
    both_right: int
    only_first: int
    only_second: int
    p: float | None
    moved: tuple[tuple[Verdict, Verdict, int], ...]
    left_out: int
    failed: int
    notes: tuple[str, ...]

    @property
    def p_text(self) -> str:
        if self.p is None:
            return "no data"
        return f"{self.p:.3f}" if self.p >= 0.001 else "< 0.001"

    def all_notes(self) -> list[str]:
        """What a reader of the numbers must know."""
        found = list(self.notes)
        if self.left_out:
            found.append(f"Questions left out, because only one of the two was asked them: {self.left_out:,}.")
        if self.failed:
            found.append(f"Questions left out, because at least one of the two failed on them: {self.failed:,}.")
        return found


def compare(first: ModelOutcomes | ModelSummary, second: ModelOutcomes | ModelSummary) -> Comparison:
    """Raises ConfigError if no question is the same in both: one with the same words, kind and answers (`words_digest`)."""
    ones, others = ({each.question: each for each in model.outcomes} for model in (first, second))
    same = [(outcome, others[words]) for words, outcome in ones.items() if words in others]
    if not same and first.header.questions != second.header.questions:
        raise ConfigError(
            f"{first.name} and {second.name} were asked other questions (digests {first.header.questions[:12]} and "
            f"{second.header.questions[:12]}), and none of them is the same in both. Compare diagnoses of the same questions."
        )
    pairs = [(a, b) for a, b in same if "failed" not in (a.verdict, b.verdict)]
    only_first = sum(a.right and not b.right for a, b in pairs)
    only_second = sum(b.right and not a.right for a, b in pairs)
    moved = Counter((a.verdict, b.verdict) for a, b in pairs if a.verdict != b.verdict)
    return Comparison(
        first=first.name,
        second=second.name,
        questions=len(pairs),
        both_right=sum(a.right and b.right for a, b in pairs),
        only_first=only_first,
        only_second=only_second,
        p=mcnemar(only_first, only_second) if pairs else None,
        moved=tuple((a, b, n) for (a, b), n in sorted(moved.items(), key=lambda each: (-each[1], each[0]))),
        left_out=len(ones) + len(others) - 2 * len(same),
        failed=len(same) - len(pairs),
        notes=tuple(_notes(first.header, second.header)),
    )


def _notes(first: Header, second: Header) -> Iterator[str]:
    """A sentence for each difference."""
    for field, one, other in differences(first, second):
        if field == "questions":
            yield f"The files of questions differ (digests {one[:12]} and {other[:12]}); compared is what both ask."
        elif field in _SETTINGS:
            yield f"The {_SETTINGS[field]} differ: {one} and {other}."
