"""The processes that train together."""

import datetime
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from avdata.encoders.device import usable

TIMEOUT = datetime.timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Group:
    """This process among the others."""

    rank: int
    world: int
    device: torch.device

    def summed(self, parts: Mapping[str, Tensor]) -> dict[str, NDArray[np.float64]]:
        """Sums over all processes, in one message; all give the same names and shapes.

        Whole numbers below 2**53 come through exactly.
        """
        flat = torch.cat(
            [one.detach().to(self.device).double().flatten() for one in parts.values()]
        )
        dist.all_reduce(flat)
        sizes = [one.numel() for one in parts.values()]
        pieces = np.split(flat.cpu().numpy(), np.cumsum(sizes)[:-1])
        return {
            name: piece.reshape(tuple(one.shape))
            for (name, one), piece in zip(parts.items(), pieces, strict=True)
        }


@contextmanager
def joined(device: Literal["auto", "cpu", "cuda"]) -> Iterator[Group]:
    """The group that torchrun or Ray Train set up, or a group of one where there is neither.

    NCCL on CUDA, gloo on CPU.
    """
    here = usable(device)
    if here.type == "cuda":
        here = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(here)
    if dist.is_initialized():
        yield Group(dist.get_rank(), dist.get_world_size(), here)
        return
    backend = "nccl" if here.type == "cuda" else "gloo"
    if "RANK" in os.environ:
        dist.init_process_group(backend, timeout=TIMEOUT)
    else:
        store = dist.HashStore()
        dist.init_process_group(backend, timeout=TIMEOUT, store=store, rank=0, world_size=1)
    try:
        yield Group(dist.get_rank(), dist.get_world_size(), here)
    finally:
        dist.destroy_process_group()
