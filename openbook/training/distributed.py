"""One run on several processes: each holds a shard of the network (PyTorch's FSDP) and computes its share of every step.

Start it with `torchrun --nproc-per-node N -m openbook.training REQUEST`, which sets RANK and WORLD_SIZE. A step has the same
examples as on one process, but sums are added in another order: results agree within rounding, not bit for bit. Checkpoints
hold whole tensors, so the number of processes may change.
"""

from __future__ import annotations

import os
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Processes:
    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """True if this process writes files and shows progress."""
        return self.rank == 0

    def total(self, value: float) -> float:
        """The sum over all processes; all must call this."""
        if self.count == 1:
            return value
        found = torch.tensor(value, dtype=torch.float64)
        torch.distributed.all_reduce(found)
        return float(found)

    def any(self, flag: bool) -> bool:
        return self.total(float(flag)) > 0

    def wait(self) -> None:
        """Wait until all processes have called this."""
        self.any(False)

    def shard(self, network: Any) -> None:
        """Split the parameters of `network`, layer by layer, in place."""
        if self.count == 1:
            return
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

        from openbook.training.network import logits_at

        mesh = init_device_mesh("cpu", (self.count,))
        for layer in network.model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(network, mesh=mesh)
        network.logits_at = types.MethodType(logits_at, network)
        register_fsdp_forward_method(network, "logits_at")


ONE_PROCESS = Processes()


def whole(tensor: Any) -> Tensor:
    """The unsharded tensor; all processes must call this."""
    found: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return found


def shard_like(tensor: Tensor, like: Any) -> Tensor:
    """A whole tensor, on the device and sharded like the parameter `like`."""
    if not hasattr(like, "full_tensor"):
        return tensor.to(like.device)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


@contextmanager
def connect() -> Iterator[Processes]:
    """The processes that the environment names."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ONE_PROCESS
        return
    torch.distributed.init_process_group("gloo")
    try:
        yield Processes(torch.distributed.get_rank(), count)
    finally:
        torch.distributed.destroy_process_group()
