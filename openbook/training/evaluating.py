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


def evaluate(network: Any, trees: Sequence[Tree], recipe: Recipe, step: int) -> Evaluated:
    """`trees` must not be empty."""
    network.eval()
    found: list[Reading] = []
    for call in calls_of(trees, range(len(trees)), recipe.loop.call_tokens):
        found += readings(network, [row_of(trees[i]) for i in call])
    loss = sum(r.loss for r in found) / max(1, sum(r.tokens for r in found))
    numbers = {"loss": loss}
    if recipe.objective.kind == "reader":
        numbers |= reader_numbers(found)
    return Evaluated(step, numbers["score"] if recipe.evaluation.metric == "score" else -loss, numbers)


def reader_numbers(found: Sequence[Reading]) -> dict[str, float]:
    """Shares from 0 to 1; where there is nothing to count, none.

    exact: of the answerable, those answered with an accepted answer; abstained_wrongly: of the answerable;
    abstained_rightly: of the unanswerable; score: the mean of exact and abstained_rightly, as far as there are such.
    """
    # An abstention is known by its first token: the recipe's abstention begins with a word that answers rarely have.
    abstention = next((r.first_target for r in found if r.kind == "abstention"), None)
    answered: dict[str, list[Reading]] = {}
    for reading in found:
        if reading.kind == "answer":
            answered.setdefault(reading.question, []).append(reading)
    unanswerable = [r for r in found if r.kind == "abstention"]
    exact = [any(r.exact for r in each) for each in answered.values()]
    silent = [each[0].first_token == abstention for each in answered.values()]
    shares = {
        "exact": exact,
        "abstained_wrongly": silent if unanswerable else [],
        "abstained_rightly": [r.exact for r in unanswerable],
    }
    numbers = {name: sum(values) / len(values) for name, values in shares.items() if values}
    scored = [numbers[name] for name in ("exact", "abstained_rightly") if name in numbers]
    return numbers | {"score": sum(scored) / len(scored)}
