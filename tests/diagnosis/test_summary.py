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


def test_the_counts_are_right() -> None:
    summary = summary_of(mixed())
    counts = {verdict: found.count for verdict, found in summary.overall.verdicts.items() if found.count}
    assert counts == {
        "fixed_by_retrieval": 3, "not_in_the_knowledge_base": 2, "retriever_miss": 4, "distracted": 1, "reader_gap": 2
    }  # fmt: skip
    assert list(summary.misses.items())[:2] == [("retriever_miss", 4), ("reader_gap", 2)]
    assert (summary.overall.questions, summary.overall.failed) == (13, 1)
    assert (summary.overall.right.count, summary.overall.right.of) == (4, 12)
    assert (summary.abstained.count, summary.abstained.of) == (1, 2)
    assert summary.by_tag["easy"].verdicts["fixed_by_retrieval"].share == 1.0
    assert summary.by_kind["unanswerable"].questions == 2
    assert (summary.right_in["closed_book"].count, summary.right_in["closed_book"].of) == (0, 10)
    assert (summary.right_in["oracle"].count, summary.right_in["oracle"].of) == (8, 10)
    assert (summary.misses_within_depth, summary.misses_cut_off) == (3, 0)
    assert (summary.retrieval.questions, summary.retrieval.reached.count) == (10, 6)
    cost = summary.costs  # failures cost nothing
    assert (cost["closed_book"].requests, cost["open_book"].prompt_tokens) == (12, 1300)
    assert cost["open_book"].seconds == pytest.approx(13 * 1.5)
    assert cost["oracle"].requests == cost["oracle"].seconds == 11


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


def test_advice_begins_with_the_most_frequent_cause_and_its_numbers() -> None:
    found = advice(summary_of(mixed()))
    assert found[0].what.startswith("Right: 0% of 10 alone, 30% of 10 with documents, 80% of 10 with the right passage")
    assert found[1].what.startswith("50% of the misses (4 of 8) are retriever misses")
    assert "Of these 4, in 3 it stands at a rank from 3 to 20; in 1 it is not among the first 20." in found[1].what
    assert "More passages (the setting `passages`) reach 3 of 4" in found[1].do
    assert found[2].what.startswith("25% of the misses (2 of 8) are reader gaps")
    assert "Training on the facts is not likely" in found[2].do
    text = "\n".join(map(str, found))
    assert "inventions" in text
    assert "1 of 13 questions are not counted" in text
    assert "only 8 misses" in text


@pytest.mark.parametrize(
    ("ranks", "strategy", "what", "do"),
    [
        ([9] + [0] * 50, "together", "Of these 51, in 1 it stands at a rank from 3 to 20; in 50 it is not",
         "more passages help in only 1 of 51."),
        ([9] * 26 + [0] * 25, "together", "in 26 it stands at a rank from 3 to 20; in 25 it is not", "reach 26 of 51"),
        ([1], "each", "in 1 it stands among the first 2, but its similarity to the question is below 0.2, or it did not fit",
         "more passages will not."),
        ([9], "parallel", "in 1 it stands at a rank from 3 to 20",
         "(the setting `passages`, as many as can lie side by side) reach 1 of 1"),
        ([1, 2, 9], "together", "in 2 it stands among the first 2, but its similarity to the question is below 0.2, or it",
         "more passages help in only 1 of 3."),
        ([2], "together", "or it did not fit into 4,096 tokens.", "more passages will not."),
    ],
)  # fmt: skip
def test_more_passages_are_advised_where_most_misses_stand_behind_those_given(
    ranks: list[int], strategy: str, what: str, do: str
) -> None:
    cases = [observation(n, opened=WRONG, found=(), rank=rank) for n, rank in enumerate(ranks)]
    found = advice(summarise(replace(HEADER, strategy=strategy), verdicts_of(cases)))[1]
    assert what in found.what
    assert do in found.do


FAILED, ABSTAINED = observation(1, failure="It fell over."), observation(2, answers=(), opened=SILENT, holding=())


@pytest.mark.parametrize(
    ("cases", "says"),
    [
        ([observation(1)], "There are no misses"),
        ([FAILED], "Nothing was measured"),
        ([ABSTAINED], "No question has an answer"),
        ([FAILED, ABSTAINED], "The model failed on all 1 questions with an answer; 1/1 = 100%"),
        ([observation(1, opened=WRONG)], "are distractions"),
        ([observation(1, closed="01:40", opened=WRONG)], "harmed by retrieval"),
        ([observation(1, opened=WRONG, found=(), rank=0)], "more passages will not"),
        ([observation(1, opened=SILENT, holding=(), rank=0)], "was not found in any passage"),
        ([observation(1, opened=WRONG, closed=WRONG, cited=())], "from memory against the passage"),
    ],
)
def test_every_kind_of_advice(cases: list[Observation], says: str) -> None:
    assert says in "\n".join(map(str, advice(summary_of(cases))))


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
