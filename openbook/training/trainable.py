"""Which numbers are learned: low-rank updates (LoRA, Hu et al. 2021, by PEFT) or all parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from openbook.errors import ConfigError
from openbook.training.processes import ALONE, Processes, local, part_of, whole
from openbook.training.recipe import Method

ADAPTER = "default"


def prepare(network: Any, method: Method, seed: int) -> dict[str, torch.nn.Parameter]:
    """Make what `method` says learnable, in place. The parameters by name, in the order of their names.

    The seed is set before any parameter is made, so that the beginning is a function of the recipe.
    """
    torch.manual_seed(seed)
    if method.kind == "lora":
        _inject(network, method)
    else:
        network.requires_grad_(True)
    chosen = {name: p for name, p in network.named_parameters() if p.requires_grad}
    return dict(sorted(chosen.items()))


def _inject(network: Any, method: Method) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    layers = range(method.first_layer, network.config.num_hidden_layers)
    if not layers:
        raise ConfigError(
            f"method.first_layer is {method.first_layer}, and the base has the layers 0 to {layers.stop - 1}: nothing is left."
        )
    config = LoraConfig(
        r=method.rank,
        lora_alpha=method.alpha,  # type: ignore[arg-type]
        lora_dropout=0.0,
        target_modules=list(method.targets),
        layers_to_transform=list(layers),
        layers_pattern="layers",
    )
    inject_adapter_in_model(config, network, ADAPTER)
    # In the type of the network: PEFT would cast every input of every layer for the sake of float32 here. What is learned
    # is kept in float32 beside it (`Masters`).
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(network.dtype)


class Masters:
    """What is learned, in float32; the network computes with a copy in its own type.

    Gradients are gathered here in float32 too, so that the sum over the calls of a step loses nothing. With several
    processes `values` are this one's parts; what goes in by `set` and comes out of `whole` is always whole.
    """

    def __init__(self, parameters: dict[str, torch.nn.Parameter], processes: Processes = ALONE) -> None:
        self._copies, self._processes = parameters, processes
        self.values = {name: local(p.detach()).float().clone() for name, p in parameters.items()}

    def gather(self) -> None:
        """Add the gradients of the network's parameters to those here, and clear them there."""
        for name, copy in self._copies.items():
            if copy.grad is None:
                continue
            value, gradient = self.values[name], self._processes.gradient(copy)
            value.grad = gradient if value.grad is None else value.grad.add_(gradient)
            copy.grad = None

    def publish(self) -> None:
        """Give the network the values as they are now."""
        with torch.no_grad():
            for name, copy in self._copies.items():
                local(copy).copy_(self.values[name])

    def set(self, values: Mapping[str, torch.Tensor]) -> None:
        for name, value in self.values.items():
            value.copy_(self.part(name, values[name]))
        self.publish()

    def part(self, name: str, value: torch.Tensor) -> torch.Tensor:
        return part_of(value, self._copies[name])

    def whole(self, name: str, part: torch.Tensor) -> torch.Tensor:
        """All processes must ask for it at the same time."""
        return whole(part, self._copies[name])

    def whole_values(self) -> dict[str, torch.Tensor]:
        return {name: self.whole(name, value) for name, value in self.values.items()}


def lora_pairs(network: Any) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Module name to (A [rank, in], B [out, rank]); the update is B @ A * alpha / rank."""
    found: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for name, module in network.named_modules():
        if hasattr(module, "lora_A") and ADAPTER in module.lora_A:
            found[name] = (module.lora_A[ADAPTER].weight.detach(), module.lora_B[ADAPTER].weight.detach())
    return found
