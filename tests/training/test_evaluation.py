from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from openbook.training.evaluation import (
    MAX_WRONG_ABSTENTIONS,
    BranchScore,
    abstention_threshold,
    branch_scores,
    reader_numbers,
    sample_answers,
)
from openbook.training.trees import Branch, Tree, row_of
from tests.training.examples import Letters
from tests.training.networks import small_network

pytestmark = pytest.mark.laws

CHANCES = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def score(kind: str, question: str, exact: bool, abstention: float = 0.1) -> BranchScore:
    return BranchScore(kind, question, 1.0, 2, exact, abstention)


def test_any_accepted_answer_counts_and_empty_shares_are_left_out() -> None:
    numbers = reader_numbers(
        [
            score("answer", "a", False),
            score("answer", "a", True),
            score("answer", "b", True, abstention=0.9),
            score("abstention", "c", False, abstention=0.2),
            score("abstention", "d", True, abstention=0.9),
            score("abstention", "e", False, abstention=0.9),
        ]
    )
    assert 0.9 < numbers.pop("declines_above") <= 0.95  # a lower threshold would decline half of the answerable
    assert numbers == {"exact": 1.0, "abstained_wrongly": 0.0, "abstained_rightly": 0.0, "score": 0.5}
    assert reader_numbers([score("answer", "a", True)]) == {"exact": 1.0, "score": 1.0}
    only = reader_numbers([score("abstention", "a", True, abstention=0.9)])
    assert only == {"abstained_rightly": 1.0, "score": 1.0}


@given(CHANCES, CHANCES)
def test_the_threshold_is_the_lowest_that_declines_few_answerable_questions(
    answerable: list[float], unanswerable: list[float]
) -> None:
    def wrong(threshold: float) -> float:
        return sum(chance >= threshold for chance in answerable) / len(answerable)

    found = abstention_threshold(answerable, unanswerable)
    assert 0.05 <= found <= 0.95
    assert wrong(found) <= MAX_WRONG_ABSTENTIONS or found == 0.95
    assert found == 0.05 or wrong(found - 0.01) > MAX_WRONG_ABSTENTIONS


def test_scores_tell_what_greedy_decoding_would_say() -> None:
    network = small_network()
    beginning = (3, 14, 15)
    sequence = [*beginning, 9]
    for _ in range(3):
        sequence.append(int(network(torch.tensor([sequence])).logits[0, -1].argmax()))
    right = Branch(tuple(sequence[3:]), 1, "answer", "0")
    wrong = Branch((*sequence[3:-1], (sequence[-1] + 1) % 97), 1, "answer", "1")
    rows = [row_of(Tree(beginning, (right, wrong), "line 1"))]
    found = branch_scores(network, rows)
    assert [(each.exact, each.question) for each in found] == [(True, "line 1/0"), (False, "line 1/1")]
    assert branch_scores(network, rows, sequence[4])[0].abstention > branch_scores(network, rows, 5)[0].abstention
    # The threshold decides about abstaining, so an answer is right if only an abstention is likelier.
    second = int(network(torch.tensor([sequence[:4]])).logits[0, -1].topk(2).indices[1])
    rows = [row_of(Tree(beginning, (Branch((sequence[3], second), 1, "answer", "0"),), "line 1"))]
    assert not branch_scores(network, rows)[0].exact
    assert branch_scores(network, rows, sequence[4])[0].exact


def test_a_sample_of_a_conversation_is_its_first_answer() -> None:
    """The tokens spell: why, end; so, end; and, end; no, end."""
    tokens = (23, 8, 25, 27, 19, 15, 27, 1, 14, 4, 27, 14, 15, 27)
    conversation = Branch(tokens, 4, skipped=((7, 11),))
    tokenizer = SimpleNamespace(model=Letters())
    (sample,) = sample_answers(small_network(), [Tree((), (conversation,))], tokenizer)
    assert sample["expected"].startswith("so")
    assert "and" not in sample["expected"]
