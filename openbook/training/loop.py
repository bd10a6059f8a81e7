"""The loop, to be read from top to bottom: order, forward, backward, step, evaluate, checkpoint.

What happens at a step is a function of the recipe, the data and the step's number, never of the clock or of where the
run was stopped; so a run that was killed and resumed ends with the same bytes as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from openbook.errors import TrainingError
from openbook.training.batches import batch_of
from openbook.training.checkpoints import Checkpoint, State
from openbook.training.examples import Tree, calls_of, row_of, steps_in_epoch, steps_of
from openbook.training.objective import loss_sum
from openbook.training.processes import ALONE, Processes
from openbook.training.recipe import Optimiser, Recipe
from openbook.training.trainable import Masters

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Progress:
    """One step's numbers: `loss` in nats for each answer token, tokens as they went through the network."""

    step: int
    steps: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Evaluated:
    """`metric` is what the recipe keeps the best of, higher is better; `numbers` are for people."""

    step: int
    metric: float
    numbers: dict[str, float]


class Run:
    """A run in memory: the network, what is learned of it, the optimiser and how far it is."""

    def __init__(
        self,
        recipe: Recipe,
        network: Any,
        parameters: dict[str, torch.nn.Parameter],
        trees: Sequence[Tree],
        processes: Processes = ALONE,
    ) -> None:
        if not trees:
            raise TrainingError("There is nothing to learn from: no example fits into sequence_tokens.")
        self.recipe, self.network, self.trees = recipe, network, trees
        self.processes = processes
        self.masters = Masters(parameters, processes)
        self.learned = self.masters.values
        self.state = State(recipe.digest, 0)
        self.best: dict[str, Tensor] = {}
        options = recipe.optimiser
        self.optimiser = torch.optim.AdamW(
            list(self.learned.values()),
            lr=options.learning_rate,
            betas=options.betas,
            weight_decay=options.weight_decay,
            foreach=False,
        )
        self._order: tuple[int, list[list[int]]] | None = None  # (epoch, its steps)
        self.steps_in_epoch = steps_in_epoch(trees, recipe.loop.step_tokens)
        epochs = recipe.loop.epochs
        self.steps = recipe.loop.steps or max(1, math.ceil((epochs or 0) * self.steps_in_epoch))

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from there. Raises TrainingError when its parameters are not those of this recipe."""
        if checkpoint.parameters.keys() != self.learned.keys():
            raise TrainingError(
                "The checkpoint holds other parameters than the recipe trains. Train into another folder."
            )
        self.state, self.best = checkpoint.state, dict(checkpoint.best)
        self.masters.set(checkpoint.parameters)
        for name, parameter in self.learned.items():
            if f"{name}/exp_avg" in checkpoint.moments:
                self.optimiser.state[parameter] = {
                    "step": checkpoint.moments[f"{name}/step"],
                    "exp_avg": self.masters.part(name, checkpoint.moments[f"{name}/exp_avg"]).to(parameter.device),
                    "exp_avg_sq": self.masters.part(name, checkpoint.moments[f"{name}/exp_avg_sq"]).to(
                        parameter.device
                    ),
                }

    def checkpoint(self) -> Checkpoint:
        moments = {
            f"{name}/{key}": self.masters.whole(name, value)
            for name, parameter in self.learned.items()
            for key, value in self.optimiser.state.get(parameter, {}).items()
        }
        return Checkpoint(self.state, self.masters.whole_values(), moments, self.best)

    def computed_in(self, numeric_class: str) -> None:
        """From here on steps are done in this numeric class."""
        if self.state.numeric_classes[-1:] != (numeric_class,):
            self.state = replace(self.state, numeric_classes=(*self.state.numeric_classes, numeric_class))

    @property
    def kept_step(self) -> int:
        """The step whose parameters the run ends with: the best that was evaluated, or the last."""
        return self.state.step if self.state.best_metric is None else self.state.best_step

    def keep_best(self) -> None:
        """The parameters of the best evaluation become those of the network."""
        if self.best:
            self.masters.set(self.best)

    def steps_to_go(self) -> Iterator[Progress]:
        """One step after the other, until all are done or evaluations stop getting better. State is whole at each yield."""
        while self.state.step < self.steps:
            if 0 < self.recipe.evaluation.patience <= self.state.evaluations_since_best:
                return
            yield self._step()

    def note(self, evaluated: Evaluated) -> None:
        """Take notice of an evaluation of the present parameters."""
        state = self.state
        if state.best_metric is None or evaluated.metric > state.best_metric:
            self.best = {name: value.clone() for name, value in self.masters.whole_values().items()}
            self.state = replace(
                state, best_metric=evaluated.metric, best_step=evaluated.step, evaluations_since_best=0
            )
        else:
            self.state = replace(state, evaluations_since_best=state.evaluations_since_best + 1)

    def _step(self) -> Progress:
        started = time.perf_counter()
        loop, number = self.recipe.loop, self.state.step
        epoch, place = divmod(number, self.steps_in_epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, steps_of(self.trees, loop.step_tokens, loop.seed, epoch)
        chosen = self._order[1][place]
        answer_tokens = sum(self.trees[i].answer_tokens for i in chosen)
        total, tokens = 0.0, 0
        self.network.train()
        for call, weight in self._own_calls(list(calls_of(self.trees, chosen, loop.call_tokens))):
            batch = batch_of([row_of(self.trees[i]) for i in call])
            loss = loss_sum(self.network, batch) / answer_tokens
            if weight == 0.0:
                loss = loss * weight
            if not math.isfinite(loss.item()):
                raise TrainingError(
                    f"The loss at step {number + 1} is {loss.item()}, with {', '.join(self.trees[i].origin for i in call[:8])}. "
                    "Lower optimiser.learning_rate or look at these examples; the last checkpoint is kept."
                )
            loss.backward()  # type: ignore[no-untyped-call]
            self.masters.gather()
            total += loss.item()
            tokens += batch.real_tokens if weight else 0
        norm = self._clip()
        if not math.isfinite(norm):
            raise TrainingError(
                f"The gradient at step {number + 1} is {norm}, with {', '.join(self.trees[i].origin for i in chosen[:8])}. "
                "Lower optimiser.learning_rate or look at these examples; the last checkpoint is kept."
            )
        total, tokens = self.processes.total(total), round(self.processes.total(tokens))
        rate = learning_rate(self.recipe.optimiser, number, self.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.masters.publish()
        self.state = replace(self.state, step=number + 1, tokens=self.state.tokens + tokens)
        return Progress(number + 1, self.steps, total, rate, norm, tokens, time.perf_counter() - started)

    def _own_calls(self, calls: list[list[int]]) -> Iterator[tuple[list[int], float]]:
        """This process's share, each with its weight. All get equally many, since each call needs all processes."""
        own = calls[self.processes.rank :: self.processes.count]
        yield from ((call, 1.0) for call in own)
        if len(own) < math.ceil(len(calls) / self.processes.count):
            yield calls[0], 0.0

    def _clip(self) -> float:
        """Scale all gradients to a norm of at most `clip_norm`. The norm as it was."""
        most = self.recipe.optimiser.clip_norm
        if self.processes.count == 1:
            return float(torch.nn.utils.clip_grad_norm_(self.learned.values(), most, foreach=False))
        gradients = [value.grad for value in self.learned.values() if value.grad is not None]
        norm = math.sqrt(self.processes.total(sum(float(g.double().square().sum()) for g in gradients)))
        for gradient in gradients:
            gradient.mul_(min(1.0, most / (norm + 1e-6)))
        return norm


def learning_rate(options: Optimiser, step: int, steps: int) -> float:
    """The rate of step `step`, counted from 0, of `steps`."""
    rising = min(1.0, (step + 1) / max(1, options.warmup_steps))
    done = step / max(1, steps)
    falling = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}[
        options.schedule
    ]
    return options.learning_rate * rising * max(options.floor, falling)
