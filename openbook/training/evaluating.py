"""The dev data, read with the answers given: the loss, and what greedy decoding would have answered.

Where every token of an accepted answer is the likeliest after those before it, greedy decoding gives exactly that
answer; so one pass over a passage and its questions tells the exact matches without generating anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from openbook.training.examples import Tree, calls_of, row_of
from openbook.training.loop import Evaluated
from openbook.training.objective import Reading, readings
from openbook.training.recipe import Recipe

MOST_WRONGLY = 0.1  # of the questions that have an answer


def evaluate(network: Any, trees: Sequence[Tree], recipe: Recipe, step: int) -> Evaluated:
    """`trees` must not be empty."""
    network.eval()
    found: list[Reading] = []
    # An abstention is known by its first token: the recipe's abstention begins with a word that answers rarely have.
    silent = (b.tokens[b.answer_start] for tree in trees for b in tree.branches if b.kind == "abstention")
    abstention = next(silent, None)
    for call in calls_of(trees, range(len(trees)), recipe.loop.call_tokens):
        found += readings(network, [row_of(trees[i]) for i in call], abstention)
    loss = sum(r.loss for r in found) / max(1, sum(r.tokens for r in found))
    numbers = {"loss": loss}
    if recipe.objective.kind == "reader":
        numbers |= reader_numbers(found)
    return Evaluated(step, numbers["score"] if recipe.evaluation.metric == "score" else -loss, numbers)


def reader_numbers(found: Sequence[Reading]) -> dict[str, float]:
    """Shares from 0 to 1; where there is nothing to count, none.

    declines_above: the likelihood of an abstention from which on it abstains (`threshold_of`); exact: of the answerable, those
    answered with an accepted answer; abstained_wrongly: of the answerable; abstained_rightly: of the unanswerable; score:
    the mean of exact and abstained_rightly, as far as there are such.
    """
    answered: dict[str, list[Reading]] = {}
    for reading in found:
        if reading.kind == "answer":
            answered.setdefault(reading.question, []).append(reading)
    unanswerable = [r.abstention for r in found if r.kind == "abstention"]
    answerable = [each[0].abstention for each in answered.values()]
    threshold = threshold_of(answerable, unanswerable)
    exact = [any(r.exact for r in each) and each[0].abstention < threshold for each in answered.values()]
    shares = {
        "exact": exact,
        "abstained_wrongly": [chance >= threshold for chance in answerable] if unanswerable else [],
        "abstained_rightly": [chance >= threshold for chance in unanswerable],
    }
    numbers = {name: sum(values) / len(values) for name, values in shares.items() if values}
    scored = [numbers[name] for name in ("exact", "abstained_rightly") if name in numbers]
    fitted = {"declines_above": threshold} if answerable and unanswerable else {}
    return numbers | {"score": sum(scored) / len(scored)} | fitted


def threshold_of(answerable: Sequence[float], unanswerable: Sequence[float]) -> float:
    """The lowest of 0.05 to 0.95 by which at most `MOST_WRONGLY` of the answerable questions are declined, 0.95 where none is so low.

    So as many as possible of the unanswerable ones are declined, at a price that is known. 0.5 where there is only one kind.
    """
    if not answerable or not unanswerable:
        return 0.5
    candidates = [i / 100 for i in range(5, 96)]
    most = MOST_WRONGLY * len(answerable)
    return next((c for c in candidates if sum(chance >= c for chance in answerable) <= most), candidates[-1])
