"""One diagnosis against another, on the questions that are the same in both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

from openbook.diagnosis.observations import Header
from openbook.diagnosis.scoring import mcnemar
from openbook.diagnosis.summary import ModelSummary, Outcome
from openbook.diagnosis.verdicts import Verdict
from openbook.errors import ConfigError
from openbook.records import Decoding, Digest, EmbedderIdentity

_SHOWN = 12  # characters of a digest in a sentence
_SETTINGS = {  # fields of a header, in words
    "embedder": "embedders",
    "where": "filters (--where)",
    "labels": "access labels (--label)",
    "strategy": "strategies of reading",
    "passages": "numbers of passages",
    "min_similarity": "least similarities",
    "context_tokens": "sizes of the context, in tokens,",
}


@dataclass(frozen=True, slots=True)
class Diagnosed:
    """What became of each question that one model was asked. `header`: with what it was asked."""

    name: str
    header: Header
    outcomes: Sequence[Outcome]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models, or two runs, on the questions that both were asked and neither failed on. `right` as in `Outcome`.

    `p`: McNemar's test, two-sided: how likely a difference like this is, were both equally good. `moved`: how many
    questions went from one verdict to another. `left_out`: questions that only one of the two was asked. `failed`: those that
    both were asked, and at least one failed on. `notes`: in what the two differ besides the model.
    """

    first: str
    second: str
    questions: int
    both_right: int
    only_first: int
    only_second: int
    p: float | None
    moved: tuple[tuple[Verdict, Verdict, int], ...]
    left_out: int = 0
    failed: int = 0
    notes: tuple[str, ...] = ()


def compare(first: Diagnosed, second: Diagnosed) -> Comparison:
    """Raises ConfigError where the two were asked other questions, and none of them is the same in both.

    Where the digests of all questions are equal, an id names a question; otherwise it takes the same words, in all wordings,
    the same kind and the same accepted answers.
    """
    same = _same_ids(first, second) if first.header.questions == second.header.questions else _same_words(first, second)
    pairs = [(a, b) for a, b in same if "failed" not in (a.verdict, b.verdict)]
    only_first = sum(a.right and not b.right for a, b in pairs)
    only_second = sum(b.right and not a.right for a, b in pairs)
    moved = Counter((a.verdict, b.verdict) for a, b in pairs if a.verdict != b.verdict)
    return Comparison(
        first.name,
        second.name,
        len(pairs),
        sum(a.right and b.right for a, b in pairs),
        only_first,
        only_second,
        mcnemar(only_first, only_second) if pairs else None,
        tuple((a, b, n) for (a, b), n in sorted(moved.items(), key=lambda each: (-each[1], each[0]))),
        len(first.outcomes) + len(second.outcomes) - 2 * len(same),
        len(same) - len(pairs),
        _notes(first.header, second.header),
    )


def _same_ids(first: Diagnosed, second: Diagnosed) -> list[tuple[Outcome, Outcome]]:
    there = {outcome.id: outcome for outcome in second.outcomes}
    return [(outcome, there[outcome.id]) for outcome in first.outcomes if outcome.id in there]


def _same_words(first: Diagnosed, second: Diagnosed) -> list[tuple[Outcome, Outcome]]:
    there = _by_words(second.outcomes)
    found = [(each, there[key]) for key, each in _by_words(first.outcomes).items() if key in there]
    if found:
        return found
    old = not all(each.question for side in (first, second) for each in side.outcomes)
    advice = (
        "A diagnosis.json of an older OpenBook does not say which questions are the same: run openbook diagnose again, which "
        "asks no model again."
        if old
        else "Compare diagnoses of the same questions."
    )
    raise ConfigError(
        f"{first.name} and {second.name} were asked other questions (digests {first.header.questions[:_SHOWN]} and "
        f"{second.header.questions[:_SHOWN]}), and none of them is the same in both. {advice}"
    )


def _by_words(outcomes: Sequence[Outcome]) -> Mapping[tuple[Digest, int], Outcome]:
    """The n-th outcome of a question by its digest and n: files may ask the same twice."""
    seen: Counter[Digest] = Counter()
    found = {}
    for outcome in outcomes:
        if outcome.question:
            found[outcome.question, seen[outcome.question]] = outcome
            seen[outcome.question] += 1
    return found


def _notes(first: Header, second: Header) -> tuple[str, ...]:
    """A sentence for each difference."""
    found = []
    if first.knowledge_base != second.knowledge_base:
        both = [f"{each.knowledge_base} (version {each.knowledge_base_version})" for each in (first, second)]
        found.append(f"The knowledge bases differ: {both[0]} and {both[1]}.")
    elif first.knowledge_base_version != second.knowledge_base_version:
        both = [str(each.knowledge_base_version) for each in (first, second)]
        found.append(f"The versions of the knowledge base differ: {both[0]} and {both[1]}.")
    if first.questions != second.questions:
        both = [each.questions[:_SHOWN] for each in (first, second)]
        found.append(f"The files of questions differ (digests {both[0]} and {both[1]}); compared is what both ask.")
    found += _differences(first, second, _SETTINGS)
    found += _differences(
        first.decoding, second.decoding, {each.name: f"decodings ({each.name})" for each in fields(Decoding)}
    )
    return tuple(found)


def _differences(first: object, second: object, names: Mapping[str, str]) -> Iterator[str]:
    for field, name in names.items():
        one, two = getattr(first, field), getattr(second, field)
        if one != two:
            yield f"The {name} differ: {_said(one)} and {_said(two)}."


def _said(value: object) -> str:
    match value:
        case EmbedderIdentity():
            return f"{value.name} ({value.digest[:_SHOWN]}, {value.dimensions} dimensions)"
        case tuple():
            return ", ".join(map(repr, value)) or "none"
        case str():
            return value or "none"
        case _:
            return str(value)


def pairs_of(summaries: Sequence[ModelSummary]) -> list[Comparison]:
    """Each model against the first. Raises as `compare` does."""
    all_of_them = [Diagnosed(each.name, each.header, each.outcomes) for each in summaries]
    return [compare(all_of_them[0], each) for each in all_of_them[1:]]
