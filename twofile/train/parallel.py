"""One process or many: who this is, on which device, and how a model lies over all of them.

Started by `torchrun`, every process takes part in every step; by itself a process is the whole world. Two ways to lie:
`replicated` (DDP: each has all weights, gradients are averaged while they are computed) and `sharded` (FSDP2: each has
its rows of every weight, gradient and moment, and gathers a layer while it is at work). Guarantees: the same steps as
one process with the same global batch, up to the order of sums. Cost of sharding: each weight crosses the network
three times a step; of replicating: a whole training state (16 bytes a parameter) in each process.

Sources: DDP, arXiv:2006.15704; FSDP, arXiv:2304.11277, as `torch.distributed.fsdp.fully_shard`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from twofile.errors import TrainError

__all__ = ["Layout", "World", "join", "spread"]

Layout = Literal["auto", "replicated", "sharded"]

_PATIENCE = timedelta(days=1)  # while the first process packs a large corpus the others wait
_STATE = 16  # bytes a parameter: weight, gradient and two moments in float32
_SHARE = 0.4  # of the device's memory that the state may take before it is sharded; the rest is for activations


@dataclass(frozen=True)
class World:
    """This process among all of a run."""

    rank: int
    size: int
    device: torch.device

    @staticmethod
    def here() -> World:
        """As the process group says; one process where there is none."""
        rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        if torch.cuda.is_available():
            return World(rank, size, torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))))
        return World(rank, size, torch.device("cpu"))

    def barrier(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier()

    def first(self, value: float) -> float:
        """What the first process says."""
        return self.sum(value if self.rank == 0 else 0.0)[0]

    def largest(self, *values: float) -> list[float]:
        """The largest of each value over all processes, so that all take the same turn."""
        return self._reduce(values, dist.ReduceOp.MAX)

    def sum(self, *values: float) -> list[float]:
        """The sum of each value over all processes."""
        return self._reduce(values, dist.ReduceOp.SUM)

    def _reduce(self, values: tuple[float, ...], how: dist.ReduceOp.RedOpType) -> list[float]:
        if self.size == 1:
            return list(values)
        held = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(held, how)
        return held.tolist()


@contextlib.contextmanager
def join() -> Iterator[World]:
    """Meet the other processes that `torchrun` has started, if it has, and part from them at the end."""
    alone = "WORLD_SIZE" not in os.environ or dist.is_initialized()
    if not alone:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        # gloo carries what lies on a CPU: what the processes agree on, and gradients there
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield World.here()
    finally:
        if not alone:
            dist.destroy_process_group()


def spread(model: nn.Module, layers: nn.ModuleList | None, world: World, layout: Layout = "auto") -> nn.Module:
    """Lay a model over all processes. Give back what is to be called in its place; `model` keeps its names.

    `layers`: what is gathered at once when sharded. A model must fit on one device before it is sharded, without its
    gradients and moments. TrainError for a layout that is none."""
    model.to(world.device)
    if layout not in ("auto", "replicated", "sharded"):
        raise TrainError(f"layout is {layout!r}: auto, replicated or sharded")
    if layout == "auto":
        state = _STATE * sum(weight.numel() for weight in model.parameters())
        room = torch.cuda.get_device_properties(world.device).total_memory if world.device.type == "cuda" else 1 << 62
        layout = "sharded" if state > _SHARE * room else "replicated"
    if world.size == 1:
        return model
    if layout == "replicated":
        torch._dynamo.config.optimize_ddp = False  # it would cut compiled layers in pieces where buckets end
        return DistributedDataParallel(model, gradient_as_bucket_view=True)
    mesh = init_device_mesh(world.device.type, (world.size,))
    for layer in layers or ():
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


@contextlib.contextmanager
def accumulating(model: nn.Module, last: bool) -> Iterator[None]:
    """Around forward and backward of one micro-batch: gradients are averaged over processes after the last alone."""
    if isinstance(model, DistributedDataParallel) and not last:
        with model.no_sync():
            yield
        return
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(last)
    yield


def gradient_norm(model: nn.Module, largest: float) -> float:
    """The norm of all gradients together, which are scaled down to `largest` where it is larger."""
    norm = nn.utils.clip_grad_norm_(model.parameters(), largest, foreach=True)
    whole: Tensor = norm.full_tensor() if isinstance(norm, DTensor) else norm
    return float(whole)
