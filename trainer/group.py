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
from avdata.errors import UsageError

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

    NCCL on CUDA, gloo on CPU. UsageError where torchrun was told to restart in a way that cannot
    work.
    """
    here = usable(device)
    if here.type == "cuda":
        here = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        _require_there(here)
        torch.cuda.set_device(here)
    if dist.is_initialized():
        yield Group(dist.get_rank(), dist.get_world_size(), here)
        return
    backend = "nccl" if here.type == "cuda" else "gloo"
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    store = _store() if "RANK" in os.environ else dist.HashStore()
    dist.init_process_group(backend, timeout=TIMEOUT, store=store, rank=rank, world_size=world)
    try:
        yield Group(dist.get_rank(), dist.get_world_size(), here)
    finally:
        dist.destroy_process_group()


def _require_there(device: torch.device) -> None:
    count = torch.cuda.device_count()
    if device.index >= count:
        raise UsageError(
            f"process {device.index + 1} of this machine has no GPU of its own, of {count}; start "
            f"{count} at most, or give --set device=cpu"
        )


def _store() -> dist.Store | None:
    """Where the processes of a launcher find each other; None is where torch looks by itself.

    Torchrun's own store outlives processes that are started again and keeps the addresses of those
    before, which torch 2.14 then calls (its issue 135712): every start gets names of its own.
    """
    told = os.environ
    if told.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    if int(told["GROUP_WORLD_SIZE"]) > 1 and int(told["TORCHELASTIC_MAX_RESTARTS"]) > 0:
        # Nodes count starts each for itself, so they would not agree on a name.
        raise UsageError(
            "torchrun --max-restarts over several nodes: start each with --rdzv-backend c10d and "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in its environment, or without restarts"
        )
    shared = dist.TCPStore(
        told["MASTER_ADDR"], int(told["MASTER_PORT"]), is_master=False, timeout=TIMEOUT
    )
    return dist.PrefixStore(f"start-{told['TORCHELASTIC_RESTART_COUNT']}", shared)
