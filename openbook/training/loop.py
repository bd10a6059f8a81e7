"""The training loop: order, forward, backward, step. `run` evaluates and saves between steps.

A step is a function of the recipe, the data and its number, not of the clock or of interruptions. So a run that was killed
and resumed ends with the same bytes as any other.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from openbook.core.errors import TrainingError
from openbook.training.attention import batch_of
from openbook.training.checkpoints import Checkpoint, State
from openbook.training.distributed import ONE_PROCESS, Processes, shard_like, whole
from openbook.training.network import loss_sum
from openbook.training.recipe import Optimiser, Recipe
from openbook.training.trees import Tree, epoch_steps, micro_batches, row_of, steps_per_epoch


@dataclass(frozen=True, slots=True)
class StepResult:
    """`loss` is in nats per learned token; `tokens` counts all that the network read."""

    step: int
    steps: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class EvalResult:
    """The run keeps the parameters with the highest `metric`. `numbers` are for people."""

    step: int
    metric: float
    numbers: dict[str, float]


class MasterWeights:
    """The learned parameters and their gradients in float32. The network computes with copies in its own type.

    With several processes `values` are this process's shards; `set` takes whole tensors and `whole` returns them.
    """

    def __init__(self, parameters: dict[str, torch.nn.Parameter], processes: Processes = ONE_PROCESS) -> None:
        self._copies, self._processes = parameters, processes
        self.values: dict[str, Tensor] = {name: p.detach().float().clone() for name, p in parameters.items()}

    def collect_gradients(self) -> None:
        """Move the network's gradients to the sums here."""
        for name, copy in self._copies.items():
            if copy.grad is None:
                continue
            value, gradient = self.values[name], copy.grad.float()
            if self._processes.count > 1:
                gradient = gradient * self._processes.count  # FSDP gives the mean
            value.grad = gradient if value.grad is None else value.grad.add_(gradient)
            copy.grad = None

    def publish(self) -> None:
        with torch.no_grad():
            for name, copy in self._copies.items():
                copy.copy_(self.values[name])

    def set(self, values: Mapping[str, Tensor]) -> None:
        for name, value in self.values.items():
            value.copy_(shard_like(values[name], value))
        self.publish()

    def whole(self) -> dict[str, Tensor]:
        return {name: whole(value) for name, value in self.values.items()}


class Learner:
    def __init__(
        self,
        recipe: Recipe,
        network: Any,
        parameters: dict[str, torch.nn.Parameter],
        trees: Sequence[Tree],
        processes: Processes = ONE_PROCESS,
    ) -> None:
        self.recipe, self.network, self.trees, self.processes = recipe, network, trees, processes
        self.masters = MasterWeights(parameters, processes)
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
        self._epoch: tuple[int, list[list[int]]] = (-1, [])  # (number, its steps)
        self.steps_per_epoch = steps_per_epoch(trees, recipe.loop.step_tokens)
        self.steps = recipe.loop.steps or max(1, math.ceil((recipe.loop.epochs or 0) * self.steps_per_epoch))

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from the checkpoint. Raises TrainingError for other parameters than the recipe's."""
        if checkpoint.parameters.keys() != self.learned.keys():
            raise TrainingError("The checkpoint has other parameters than the recipe. Train into another folder.")
        self.state, self.best = checkpoint.state, dict(checkpoint.best)
        self.masters.set(checkpoint.parameters)
        moments = checkpoint.moments
        for name, value in self.learned.items():
            if f"{name}/step" in moments:
                averages = {key: shard_like(moments[f"{name}/{key}"], value) for key in ("exp_avg", "exp_avg_sq")}
                self.optimiser.state[value] = {"step": moments[f"{name}/step"], **averages}

    def checkpoint(self) -> Checkpoint:
        moments = {
            f"{name}/{key}": whole(moment)
            for name, value in self.learned.items()
            for key, moment in self.optimiser.state.get(value, {}).items()
        }
        return Checkpoint(self.state, self.masters.whole(), moments, self.best)

    def steps_to_go(self) -> Iterator[StepResult]:
        """Do the remaining steps, until evaluations stop improving (`evaluation.patience`)."""
        while self.state.step < self.steps:
            if 0 < self.recipe.evaluation.patience <= self.state.evaluations_since_best:
                return
            yield self._step()

    def _step(self) -> StepResult:
        started = time.perf_counter()
        loop, number = self.recipe.loop, self.state.step
        # 1. The trees of this step.
        epoch, place = divmod(number, self.steps_per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = epoch, epoch_steps(self.trees, loop.step_tokens, loop.seed, epoch)
        chosen = self._epoch[1][place]
        rows = {i: row_of(self.trees[i]) for i in chosen}
        learned_tokens = sum(len(row.targets) for row in rows.values())
        # 2. Forward and backward.
        total, tokens = 0.0, 0
        self.network.train()
        for group, weight in self._own_share(list(micro_batches(self.trees, chosen, loop.call_tokens))):
            batch = batch_of([rows[i] for i in group])
            loss = loss_sum(self.network, batch) * weight / learned_tokens
            self._check_finite("loss", loss.item(), group)
            loss.backward()
            self.masters.collect_gradients()
            total += loss.item()
            tokens += int(batch.real_tokens * weight)
        total, tokens = self.processes.total(total), round(self.processes.total(tokens))
        # 3. Clip and step.
        clip_norm = self.recipe.optimiser.clip_norm
        norm = float(whole(torch.nn.utils.clip_grad_norm_(self.learned.values(), clip_norm, foreach=False)))
        self._check_finite("gradient", norm, chosen)
        rate = learning_rate(self.recipe.optimiser, number, self.steps)
        for parameters in self.optimiser.param_groups:
            parameters["lr"] = rate
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.masters.publish()
        self.state = replace(self.state, step=number + 1, tokens=self.state.tokens + tokens)
        return StepResult(number + 1, self.steps, total, rate, norm, tokens, time.perf_counter() - started)

    def _own_share(self, groups: list[list[int]]) -> Iterator[tuple[list[int], float]]:
        """The micro-batches of this process, with weights.

        Every process gets the same number, because each forward pass needs all of them; an extra one has weight 0.
        """
        own = groups[self.processes.rank :: self.processes.count]
        yield from ((group, 1.0) for group in own)
        if len(own) < math.ceil(len(groups) / self.processes.count):
            yield groups[0], 0.0

    def _check_finite(self, what: str, value: float, numbers: Sequence[int]) -> None:
        if not math.isfinite(value):
            raise TrainingError(
                f"The {what} at step {self.state.step + 1} is {value}, with "
                f"{', '.join(self.trees[i].origin for i in numbers[:8])}. Lower optimiser.learning_rate or check these "
                "examples. The last checkpoint is kept."
            )

    def keep_if_best(self, result: EvalResult) -> None:
        """Remember the current parameters if `result`, their evaluation, is the best so far."""
        state = self.state
        if state.best_metric is None or result.metric > state.best_metric:
            self.best = {name: value.clone() for name, value in self.masters.whole().items()}
            self.state = replace(state, best_metric=result.metric, best_step=result.step, evaluations_since_best=0)
        else:
            self.state = replace(state, evaluations_since_best=state.evaluations_since_best + 1)

    @property
    def final_step(self) -> int:
        """The best step evaluated, or the last."""
        return self.state.step if self.state.best_metric is None else self.state.best_step

    def use_best(self) -> None:
        if self.best:
            self.masters.set(self.best)


def learning_rate(options: Optimiser, step: int, steps: int) -> float:
    """The rate at `step`, counted from 0."""
    warmup = min(1.0, (step + 1) / max(1, options.warmup_steps))
    done = step / max(1, steps)
    decay = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}[options.schedule]
    return options.learning_rate * warmup * max(options.floor, decay)
