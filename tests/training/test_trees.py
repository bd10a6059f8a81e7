from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.training.trees import Branch, Tree, epoch_steps, fit, micro_batches, row_of, steps_per_epoch

TOKENS = st.integers(0, 96)
BRANCHES = st.builds(Branch, st.lists(TOKENS, min_size=2, max_size=8).map(tuple), st.integers(0, 1))
TREES = st.lists(
    st.builds(
        Tree,
        st.lists(TOKENS, min_size=1, max_size=12).map(tuple),
        st.lists(BRANCHES, min_size=1, max_size=4).map(tuple),
    ),
    min_size=1,
    max_size=12,
)


def test_a_question_follows_its_longest_passage() -> None:
    tree = Tree((1, 2), (Branch((7, 8), 1, reads=(0, 2)), Branch((7, 8), 1)), passages=((3,), (4, 4, 4, 4), (5, 5)))
    row = row_of(tree)
    assert row.positions == [0, 1, 2, 2, 3, 4, 5, 2, 3, 4, 5, 2, 3]
    assert row.visible_parts == [(0,), (0, 1), (0, 2), (0, 3), (0, 1, 3, 4), (0, 5)]
    assert tree.with_branches(tree.branches).passages == ((3,), (5, 5))


@given(TREES, st.integers(10, 100), st.integers(0, 3), st.integers(0, 3))
def test_each_epoch_has_each_tree_once_in_another_order(
    trees: list[Tree], step_tokens: int, seed: int, epoch: int
) -> None:
    steps = epoch_steps(trees, step_tokens, seed, epoch)
    assert sorted(i for step in steps for i in step) == list(range(len(trees)))
    assert steps == epoch_steps(trees, step_tokens, seed, epoch)
    assert all(steps)
    assert len(steps) == steps_per_epoch(trees, step_tokens)  # whatever the epoch
    longest = max(tree.tokens for tree in trees)
    assert all(sum(trees[i].tokens for i in step) < step_tokens + 2 * longest for step in steps)


@given(TREES, st.integers(10, 100))
def test_micro_batches_have_each_tree_once_and_keep_to_their_size(trees: list[Tree], call_tokens: int) -> None:
    groups = list(micro_batches(trees, range(len(trees)), call_tokens))
    assert sorted(i for group in groups for i in group) == list(range(len(trees)))
    for group in groups:
        assert len(group) == 1 or max(trees[i].tokens for i in group) * len(group) <= call_tokens


@given(TREES, st.integers(6, 30))
def test_long_trees_are_divided_and_long_branches_named(trees: list[Tree], limit: int) -> None:
    fitting, problems = fit(trees, limit)
    assert all(tree.tokens <= limit for tree in fitting)
    assert sum(len(t.branches) for t in fitting) + len(problems) == sum(len(t.branches) for t in trees)


def test_a_branch_without_an_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves nothing to learn"):
        Branch((1, 2), 2)
