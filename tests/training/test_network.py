"""A tree gives the network the same as its branches apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from openbook.training.attention import batch_of, pieces_of
from openbook.training.network import learned_logits, loss_sum
from openbook.training.trees import Branch, Tree, row_of
from tests.training.examples import small_trees
from tests.training.networks import dense_logits, small_network

pytestmark = pytest.mark.laws


def logits(network: object, *trees: Tree) -> torch.Tensor:
    return learned_logits(network, batch_of([row_of(tree) for tree in trees]))


def apart(tree: Tree) -> list[Tree]:
    return [tree.with_branches([branch]) for branch in tree.branches]


def test_trees_give_the_logits_of_their_branches_and_of_a_dense_mask() -> None:
    network, trees = small_network(), small_trees(12)
    together = logits(network, *trees)  # with padding
    alone = torch.cat([logits(network, each) for tree in trees for each in apart(tree)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    dense = torch.cat([dense_logits(network, row_of(tree)) for tree in trees])
    torch.testing.assert_close(together, dense, rtol=1e-5, atol=1e-5)


def test_trees_give_the_gradients_of_their_branches() -> None:
    tree = max(small_trees(6), key=lambda t: len(t.branches))
    gradients = []
    for trees in ([tree], apart(tree)):
        network = small_network().requires_grad_(True)
        for each in trees:
            loss_sum(network, batch_of([row_of(each)])).backward()
        gradients.append({name: p.grad.clone() for name, p in network.named_parameters()})
    for name, together in gradients[0].items():
        torch.testing.assert_close(together, gradients[1][name], rtol=1e-4, atol=1e-5, msg=name)


def test_a_passage_is_read_without_the_others() -> None:
    tree = Tree((1, 2), (Branch((7, 8), 1, reads=(0, 2)),), passages=((3,), (4, 4, 4, 4), (5, 5)))
    network, other = small_network(), replace(tree, passages=((3,), (6, 6), (5, 5)))
    torch.testing.assert_close(logits(network, tree), logits(network, other), rtol=1e-5, atol=1e-5)


def test_whole_sequences_need_no_mask() -> None:
    pieces = pieces_of(row_of(Tree((), (Branch(tuple(range(12)), 0),))))
    assert [piece.mask for piece in pieces] == [None]
