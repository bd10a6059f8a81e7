from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from openbook.core.errors import TrainingError
from openbook.training import checkpoints
from openbook.training.loop import EvalResult, Learner, learning_rate
from openbook.training.network import lora_pairs, make_trainable
from openbook.training.recipe import Optimiser, Recipe
from tests.training.examples import small_recipe, small_trees
from tests.training.networks import small_network

pytestmark = pytest.mark.laws


def new_learner(recipe: Recipe) -> Learner:
    network = small_network()
    return Learner(recipe, network, make_trainable(network, recipe.method, recipe.loop.seed), small_trees())


def finished(learner: Learner) -> dict[str, bytes]:
    for _ in learner.steps_to_go():
        pass
    return {name: value.numpy().tobytes() for name, value in learner.learned.items()}


@pytest.mark.parametrize(("method", "stopped_at"), [("lora", 1), ("full", 3), ("lora", 7)])
def test_the_same_recipe_gives_the_same_bytes_also_when_it_was_stopped(
    tmp_path: Path, method: str, stopped_at: int
) -> None:
    recipe = small_recipe(method={"kind": method})
    whole = finished(new_learner(recipe))
    first = new_learner(recipe)
    for progress in first.steps_to_go():
        if progress.step == 2:
            first.keep_if_best(EvalResult(2, 0.5, {}))
        if progress.step == stopped_at:
            break
    checkpoints.save(tmp_path, first.checkpoint())
    second = new_learner(recipe)
    found = checkpoints.load_newest(tmp_path, recipe.digest, pytest.fail)
    assert found is not None
    second.restore(found)
    assert second.state == first.state
    assert finished(second) == whole
    assert finished(new_learner(small_recipe(method={"kind": method}, loop={"seed": 4}))) != whole


def test_learning_lowers_the_loss_and_changes_only_what_is_learned() -> None:
    recipe = small_recipe(loop={"steps": 40})
    learner = new_learner(recipe)
    frozen = {n: p.clone() for n, p in learner.network.named_parameters() if "lora_" not in n}
    losses = [progress.loss for progress in learner.steps_to_go()]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert all(torch.equal(p, frozen[n]) for n, p in learner.network.named_parameters() if "lora_" not in n)
    assert len(lora_pairs(learner.network)) == 2 * 7
    above = new_learner(small_recipe(method={"kind": "lora", "first_layer": 1, "targets": ["q_proj"]}))
    assert list(lora_pairs(above.network)) == ["model.layers.1.self_attn.q_proj"]


def test_the_best_parameters_are_kept() -> None:
    learner = new_learner(small_recipe())
    best: dict[str, torch.Tensor] = {}
    for progress in learner.steps_to_go():
        learner.keep_if_best(EvalResult(progress.step, 1.0 if progress.step == 3 else 0.5, {}))
        if progress.step == 3:
            best = {name: value.clone() for name, value in learner.learned.items()}
    assert learner.state.best_step == 3
    learner.use_best()
    assert all(torch.equal(value, best[name]) for name, value in learner.learned.items())


def test_a_run_ends_early_when_it_gets_no_better() -> None:
    recipe = small_recipe(evaluation={"patience": 2}, loop={"steps": 50})
    learner, steps = new_learner(recipe), 0
    for progress in learner.steps_to_go():
        learner.keep_if_best(EvalResult(progress.step, 1.0, {}))
        steps += 1
    assert steps == 3
    resumed = new_learner(recipe)
    resumed.restore(learner.checkpoint())
    assert list(resumed.steps_to_go()) == []


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_loss_or_gradient_that_is_not_finite_changes_nothing_and_names_the_examples(what: str) -> None:
    learner = new_learner(small_recipe())
    steps = learner.steps_to_go()
    next(steps)
    if what == "loss":
        for value in learner.learned.values():
            value.fill_(float("nan"))
        learner.masters.publish()
    else:
        first = next(each for each in learner.network.parameters() if each.requires_grad)
        first.register_hook(lambda gradient: gradient * math.inf)
    before = learner.checkpoint()
    with pytest.raises(TrainingError, match=rf"{what} at step 2 is (nan|inf), with line \d+"):
        next(steps)
    after = learner.checkpoint()
    assert after.state == before.state
    for name, value in after.parameters.items():
        assert torch.equal(value.nan_to_num(), before.parameters[name].nan_to_num())


def test_the_learning_rate_rises_and_falls() -> None:
    options = Optimiser(learning_rate=1.0, warmup_steps=4, floor=0.1)
    rates = [learning_rate(options, step, 20) for step in range(20)]
    assert rates[:4] == [0.25, 0.5 * 0.95, 0.75 * 0.9, 0.85]
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] == pytest.approx(0.1)
