from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from openbook.training.batches import batch_of
from openbook.training.examples import Branch, Tree, calls_of, fitted, row_of, steps_in_epoch, steps_of
from openbook.training.objective import answer_logits, loss_sum, readings
from tests.training.networks import dense_logits, small_network, small_trees

TREES = st.lists(
    st.builds(
        Tree,
        st.lists(st.integers(0, 96), min_size=1, max_size=12).map(tuple),
        st.lists(
            st.builds(Branch, st.lists(st.integers(0, 96), min_size=2, max_size=8).map(tuple), st.integers(0, 1)),
            min_size=1,
            max_size=4,
        ).map(tuple),
    ),
    min_size=1,
    max_size=12,
)


def apart(tree: Tree) -> list[Tree]:
    return [tree.with_branches([branch]) for branch in tree.branches]


def test_a_tree_gives_what_its_branches_give_alone() -> None:
    network = small_network()
    for tree in small_trees(6):
        together = answer_logits(network, batch_of([row_of(tree)]))
        alone = torch.cat([answer_logits(network, batch_of([row_of(each)])) for each in apart(tree)])
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_a_tree_gives_the_gradients_that_its_branches_give_alone() -> None:
    tree = max(small_trees(6), key=lambda t: len(t.branches))
    gradients = []
    for trees in ([tree], apart(tree)):
        network = small_network().requires_grad_(True)
        for each in trees:
            loss_sum(network, batch_of([row_of(each)])).backward()  # type: ignore[no-untyped-call]
        gradients.append({name: p.grad.clone() for name, p in network.named_parameters()})
    for name, together in gradients[0].items():
        torch.testing.assert_close(together, gradients[1][name], rtol=1e-4, atol=1e-5, msg=name)


def test_attending_by_pieces_gives_what_one_mask_of_all_tokens_gives() -> None:
    network = small_network()
    for tree in small_trees(12):
        row = row_of(tree)
        torch.testing.assert_close(
            answer_logits(network, batch_of([row])), dense_logits(network, row), rtol=1e-5, atol=1e-5
        )


def test_a_passage_is_read_without_the_others_and_the_question_behind_the_longest() -> None:
    tree = Tree((1, 2), (Branch((7, 8), 1, reads=(0, 2)), Branch((7, 8), 1)), passages=((3,), (4, 4, 4, 4), (5, 5)))
    row = row_of(tree)
    assert row.positions == [0, 1, 2, 2, 3, 4, 5, 2, 3, 4, 5, 2, 3]
    assert row.seen == [(0,), (0, 1), (0, 2), (0, 3), (0, 1, 3, 4), (0, 5)]
    assert tree.with_branches(tree.branches).passages == ((3,), (5, 5))
    network = small_network()
    other = replace(tree, passages=((3,), (6, 6), (5, 5)))
    torch.testing.assert_close(
        answer_logits(network, batch_of([row])), answer_logits(network, batch_of([row_of(other)])), rtol=1e-5, atol=1e-5
    )


def test_no_branch_sees_another() -> None:
    network = small_network()
    tree = next(t for t in small_trees(20) if len(t.branches) > 2)
    other = Branch((5, 6, 7, 8), 2)
    changed = replace(tree, branches=(other, *tree.branches[1:]))
    skip = len(other.tokens) - 2
    before = answer_logits(network, batch_of([row_of(tree)]))[
        len(tree.branches[0].tokens) - tree.branches[0].answer_start :
    ]
    after = answer_logits(network, batch_of([row_of(changed)]))[skip:]
    torch.testing.assert_close(before, after, rtol=1e-5, atol=1e-5)


def test_padding_changes_nothing() -> None:
    network = small_network()
    trees = small_trees(4)
    alone = torch.cat([answer_logits(network, batch_of([row_of(t)])) for t in trees])
    torch.testing.assert_close(
        answer_logits(network, batch_of([row_of(t) for t in trees])), alone, rtol=1e-5, atol=1e-5
    )


def test_readings_tell_what_greedy_decoding_would_say() -> None:
    network = small_network()
    beginning = (3, 14, 15)
    sequence = [*beginning, 9]
    for _ in range(3):
        sequence.append(int(network(torch.tensor([sequence])).logits[0, -1].argmax()))
    right = Branch(tuple(sequence[3:]), 1, "answer", "0")
    wrong = Branch((*sequence[3:-1], (sequence[-1] + 1) % 97), 1, "answer", "1")
    rows = [row_of(Tree(beginning, (right, wrong), "line 1"))]
    found = readings(network, rows)
    assert [r.exact for r in found] == [True, False]
    assert [r.question for r in found] == ["line 1/0", "line 1/1"]
    likely = readings(network, rows, sequence[4])
    assert likely[0].abstention == max(likely[0].abstention, readings(network, rows, 5)[0].abstention)
    # Whether to abstain is decided apart, so an answer is right that follows only the beginning of an abstention.
    second = int(network(torch.tensor([sequence[:4]])).logits[0, -1].topk(2).indices[1])
    one = Branch((sequence[3], second), 1, "answer", "0")
    assert not readings(network, [row_of(Tree(beginning, (one,), "line 1"))])[0].exact
    assert readings(network, [row_of(Tree(beginning, (one,), "line 1"))], sequence[4])[0].exact


@given(TREES, st.integers(10, 100), st.integers(0, 3), st.integers(0, 3))
def test_each_epoch_has_each_tree_once_in_an_order_of_its_own(
    trees: list[Tree], step_tokens: int, seed: int, epoch: int
) -> None:
    steps = steps_of(trees, step_tokens, seed, epoch)
    assert sorted(i for step in steps for i in step) == list(range(len(trees)))
    assert steps == steps_of(trees, step_tokens, seed, epoch)
    assert all(steps)
    assert len(steps) == steps_in_epoch(trees, step_tokens)  # whatever the epoch
    longest = max(tree.tokens for tree in trees)
    assert all(sum(trees[i].tokens for i in step) < step_tokens + 2 * longest for step in steps)


@given(TREES, st.integers(10, 100))
def test_calls_have_each_tree_once_and_keep_to_their_size(trees: list[Tree], call_tokens: int) -> None:
    calls = list(calls_of(trees, range(len(trees)), call_tokens))
    assert sorted(i for call in calls for i in call) == list(range(len(trees)))
    for call in calls:
        assert len(call) == 1 or max(trees[i].tokens for i in call) * len(call) <= call_tokens


@given(TREES, st.integers(6, 30))
def test_trees_that_are_too_long_are_divided_and_what_cannot_fit_is_named(trees: list[Tree], limit: int) -> None:
    kept, problems = fitted(trees, limit)
    assert all(tree.tokens <= limit for tree in kept)
    assert sum(len(t.branches) for t in kept) + len(problems) == sum(len(t.branches) for t in trees)


def test_a_branch_without_an_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves nothing to learn"):
        Branch((1, 2), 2)
