"""One run on several processes: each holds a part of the network (FSDP) and does a part of every step.

Start them with `torchrun --nproc-per-node N -m openbook.training ...`, which sets RANK and WORLD_SIZE. A step has the same examples as with one process; the sums come in another order, so numbers agree within
rounding and not in every bit (the numeric class names the number of processes). Checkpoints hold whole tensors, so a run
goes on with another number of processes.
"""

from __future__ import annotations

import os
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Processes:
    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """The one that writes files and shows progress."""
        return self.rank == 0

    def total(self, value: float) -> float:
        """The sum over all processes."""
        if self.count == 1:
            return value
        found = torch.tensor(value, dtype=torch.float64)
        torch.distributed.all_reduce(found)
        return float(found)

    def any(self, flag: bool) -> bool:
        return self.total(float(flag)) > 0

    def wait(self) -> None:
        """Until all have come here."""
        self.total(0.0)

    def shard(self, network: Any) -> None:
        """Split the network's parameters between the processes, layer by layer, in place."""
        if self.count == 1:
            return
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

        from openbook.training.objective import answer

        mesh = init_device_mesh("cpu", (self.count,))
        for layer in network.model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(network, mesh=mesh)
        network.answer = types.MethodType(answer, network)
        register_fsdp_forward_method(network, "answer")

    def gradient(self, parameter: Any) -> Tensor:
        """This process's part of the sum of all gradients, in float32."""
        if self.count == 1:
            gradient: Tensor = parameter.grad
            return gradient.float()
        # FSDP gives the mean.
        part: Tensor = parameter.grad.to_local()
        return part.float() * self.count


ALONE = Processes()


def local(tensor: Any) -> Tensor:
    """This process's part."""
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part


def whole(part: Tensor, like: Any) -> Tensor:
    """The tensor that the parts make together, laid out as the parameter `like` is."""
    if not hasattr(like, "to_local") or part.dim() == 0:
        return part
    from torch.distributed.tensor import DTensor

    spread = DTensor.from_local(part, like.device_mesh, like.placements, shape=like.shape, stride=like.stride())
    return spread.full_tensor()


def part_of(tensor: Tensor, like: Any) -> Tensor:
    """This process's part of a whole tensor, laid out as the parameter `like` is."""
    if not hasattr(like, "to_local") or tensor.dim() == 0:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None).to_local().clone()


@contextmanager
def processes() -> Iterator[Processes]:
    """Those that the environment names, connected; one where it names none."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes()
        return
    torch.distributed.init_process_group("gloo")
    try:
        yield Processes(torch.distributed.get_rank(), count)
    finally:
        torch.distributed.destroy_process_group()
