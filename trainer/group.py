"""The processes that train together."""

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist

from avdata.encoders.device import usable

TIMEOUT = datetime.timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Group:
    """This process among the others."""

    rank: int
    world: int
    device: torch.device


@contextmanager
def joined(device: Literal["auto", "cpu", "cuda"]) -> Iterator[Group]:
    """The group that torchrun set up, or a group of one where it did not start this process.

    NCCL on CUDA, gloo on CPU.
    """
    here = usable(device)
    if here.type == "cuda":
        here = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(here)
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
