"""One model on many processes: DistributedDataParallel, or FSDP2 over a mesh of copies and shards.

Both take the mean of the gradients over all processes and keep weights, gradients and optimizer
state in float32, so the loop, clipping, averages and checkpoints are the same for either.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from avdata.errors import UsageError
from avdata.trainer.group import Group
from avdata.trainer.model.units import Unit


@dataclass(frozen=True, slots=True)
class ParallelConfig:
    """How processes share the work; a run may go on under another choice."""

    kind: Literal["ddp", "fsdp"] = "ddp"
    """ddp: every process has all of the state. fsdp: each has a share of it, for large models."""
    shard: int | None = None
    """Of fsdp: so many processes hold one copy together, say those of one machine (HSDP); it
    must divide their number. None: all of them.
    """

    def __post_init__(self) -> None:
        if self.shard is not None and (self.kind != "fsdp" or self.shard < 1):
            raise ValueError(f"shard = {self.shard} is for kind = fsdp, and at least 1")


def parallelized(
    model: nn.Module, units: Sequence[Unit], config: ParallelConfig, group: Group, half: bool
) -> nn.Module:
    """The model on its device, ready to be called by all processes at once.

    `half`: fsdp gathers the layers' weights and multiplies in bfloat16; sums stay float32.
    Norms and tables of modulation are among these weights and so rounded; under ddp they are not.
    UsageError where `shard` does not divide the processes.
    """
    if config.kind == "ddp":
        model = model.to(group.device)
        ids = [group.device] if group.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)
    shape = mesh_shape(config, group.world)
    mesh = init_device_mesh(group.device.type, shape, mesh_dim_names=("copies", "shards"))
    # Inputs keep their type: a time in bfloat16 would be a rounded one.
    exact = MixedPrecisionPolicy(cast_forward_inputs=False)
    fast = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    done: set[nn.Parameter] = set()
    for unit in units:
        with _owning(unit):
            fully_shard(unit.called, mesh=mesh, mp_policy=fast if half else exact)
            done |= set(unit.called.parameters())
    fully_shard(model, mesh=mesh, mp_policy=exact, ignored_params=done)
    return model


def mesh_shape(config: ParallelConfig, processes: int) -> tuple[int, int]:
    """Copies and shards of each under fsdp; UsageError where `shard` does not divide them."""
    shard = config.shard or processes
    if processes % shard:
        raise UsageError(f"parallel.shard = {shard} does not divide {processes} processes")
    return processes // shard, shard


def threads_of_each(processes: int) -> int:
    """So many CPU cores for each process of this machine, which share them equally."""
    return max(1, (os.cpu_count() or 1) // processes)


@contextmanager
def _owning(unit: Unit) -> Iterator[None]:
    """FSDP shards what a module contains; it must gather all that the module uses."""
    for number, module in enumerate(unit.within):
        unit.called.add_module(f"within{number}", module)
    try:
        yield
    finally:
        for number in range(len(unit.within)):
            del unit.called._modules[f"within{number}"]


@contextmanager
def accumulating(parallel: nn.Module, last: bool) -> Iterator[None]:
    """Gradients of all but the last part of a batch are added up before they are exchanged.

    FSDP sends each part's gradients to their shard at once, as whole ones would not fit, and
    adds up the copies' at the end.
    """
    if isinstance(parallel, FSDPModule):
        parallel.set_requires_all_reduce(last)
        yield
        return
    alone: Any = parallel
    with contextlib.nullcontext() if last else alone.no_sync():
        yield


def raw(parallel: nn.Module) -> nn.Module:
    """What to call when no gradient is wanted."""
    inner = parallel.module if isinstance(parallel, DistributedDataParallel) else parallel
    assert isinstance(inner, nn.Module)
    return inner


def forget_gathered(parallel: nn.Module) -> None:
    """After weights have changed outside the optimizer, or calls without a backward pass.

    FSDP keeps the outermost weights that it has gathered until a backward pass.
    """
    if isinstance(parallel, FSDPModule):
        for module in parallel.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


def whole(value: torch.Tensor) -> torch.Tensor:
    """A number that FSDP left in shares."""
    return value.full_tensor() if isinstance(value, DTensor) else value
