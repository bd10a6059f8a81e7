"""Numbers of a diagnosis, and what is made of them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, replace

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.cli import command
from openbook.diagnosis.advice import advice
from openbook.diagnosis.run_log import Observation
from openbook.diagnosis.scoring import Share
from openbook.diagnosis.summary import RANKS, ModelSummary, summarise
from openbook.diagnosis.verdicts import verdicts_of
from tests.diagnosis.table_engine import HEADER, SILENT, WRONG, mixed, observation


def summary_of(cases: Sequence[Observation]) -> ModelSummary:
    return summarise(HEADER, verdicts_of(cases))


@given(st.lists(st.integers(0, 20), max_size=12))
def test_recall_and_mrr_are_what_a_search_through_the_lists_gives(ranks: list[int]) -> None:
    """The definitions, over lists of 20 of which one at most is gold (rank 0: none)."""
    lists = [[position == rank for position in range(1, 21)] for rank in ranks]
    retrieval = summary_of([observation(n, rank=rank) for n, rank in enumerate(ranks)]).retrieval
    assert retrieval.questions == len(ranks)
    for k in RANKS:
        recalled = [sum(found[:k]) for found in lists]
        assert retrieval.found[k].count == sum(recalled)
        assert retrieval.found[k].share == (sum(recalled) / len(lists) if lists else None)
    reciprocal = [max((1 / at for at, gold in enumerate(found, 1) if gold), default=0.0) for found in lists]
    assert bool(lists) == (retrieval.mrr is not None)
    if retrieval.mrr is not None:
        assert retrieval.mrr.mean == pytest.approx(sum(reciprocal) / len(lists))


def test_no_data_is_not_zero() -> None:
    assert summary_of([]).retrieval.mrr is None
    right = summary_of([observation(1, failure="It fell over.")]).overall.right
    assert (right, str(right)) == (Share(0, 0, None, None, None), "no data")
    json.dumps(asdict(summary_of([])), allow_nan=False)


def misses(*ranks: int) -> list[Observation]:
    return [observation(n, opened=WRONG, found=(), rank=rank) for n, rank in enumerate(ranks)]


FAILED, ABSTAINED = observation(1, failure="It fell over."), observation(2, answers=(), opened=SILENT, holding=())
ADVICE: list[tuple[list[Observation], str, list[str]]] = [  # (the cases, the strategy, parts of the advice in order)
    (mixed(), "together", [
        "Right: 0% of 10 alone, 30% of 10 with documents, 80% of 10 with the right passage",
        "50% of the misses (4 of 8) are retriever misses",
        "Of these 4, in 3 it stands at a rank from 3 to 20; in 1 it is not among the first 20.",
        "More passages (the setting `passages`) reach 3 of 4",
        "25% of the misses (2 of 8) are reader gaps",
        "Training on the facts is not likely", "inventions", "1 of 13 questions are not counted", "only 8 misses",
    ]),
    # More passages are advised where most misses stand behind those given.
    (misses(9, *[0] * 50), "together",
     ["Of these 51, in 1 it stands at a rank from 3 to 20; in 50 it is not", "more passages help in only 1 of 51."]),
    (misses(*[9] * 26, *[0] * 25), "together",
     ["in 26 it stands at a rank from 3 to 20; in 25 it is not", "reach 26 of 51"]),
    (misses(1), "each",
     ["in 1 it stands among the first 2, but its similarity to the question is below 0.2, or it did not fit",
      "more passages will not."]),
    (misses(9), "parallel",
     ["in 1 it stands at a rank from 3 to 20", "`passages`, as many as can lie side by side) reach 1 of 1"]),
    (misses(1, 2, 9), "together", ["in 2 it stands among the first 2", "more passages help in only 1 of 3."]),
    (misses(2), "together", ["or it did not fit into 4,096 tokens.", "more passages will not."]),
    (misses(0), "together", ["more passages will not"]),
    ([observation(1)], "together", ["There are no misses"]),
    ([FAILED], "together", ["Nothing was measured"]),
    ([ABSTAINED], "together", ["No question has an answer"]),
    ([FAILED, ABSTAINED], "together", ["The model failed on all 1 questions with an answer; 1/1 = 100%"]),
    ([observation(1, opened=WRONG)], "together", ["are distractions"]),
    ([observation(1, closed="01:40", opened=WRONG)], "together", ["harmed by retrieval"]),
    ([observation(1, opened=SILENT, holding=(), rank=0)], "together", ["was not found in any passage"]),
    ([observation(1, opened=WRONG, closed=WRONG, cited=())], "together", ["from memory against the passage"]),
]  # fmt: skip


@pytest.mark.parametrize(("cases", "strategy", "parts"), ADVICE)
def test_advice_begins_with_the_most_frequent_cause(cases: list[Observation], strategy: str, parts: list[str]) -> None:
    text = "\n".join(map(str, advice(summarise(replace(HEADER, strategy=strategy), verdicts_of(cases)))))
    places = [text.find(part) for part in parts]
    assert -1 not in places
    assert places == sorted(places)


@pytest.mark.parametrize("strategy", ["each", "parallel", "checked", "together"])
def test_each_command_in_the_advice_exists_and_suits_the_model(strategy: str) -> None:
    cases = [
        observation(1, opened=WRONG, oracle=WRONG),
        observation(2, closed="02:40", opened=WRONG),
        observation(3, answers=(), opened=WRONG, holding=(), rank=0),
    ]
    text = " ".join(map(str, advice(summarise(replace(HEADER, strategy=strategy), verdicts_of(cases)))))
    for name, options in re.findall(r"openbook (\w+)((?: --[a-z-]+)*)", text):
        verb = command.get_command(click.Context(command), name)
        assert verb is not None, name
        assert {form for parameter in verb.params for form in parameter.opts}.issuperset(options.split()), name
    assert "openbook ask --closed-book --model table" in text
    assert "openbook train RECIPE" in text
    # Another model would refuse it.
    assert ("openbook ask --quote --model table" in text) == (strategy == "each")
