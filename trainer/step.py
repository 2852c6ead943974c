"""One optimizer step over a global batch, or none where a number in it is not finite."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from avdata.trainer.ema import Ema
from avdata.trainer.group import Group
from avdata.trainer.optimizer import by_tower, divide_gradients, gradient_norms
from avdata.trainer.parallel import accumulating
from avdata.trainer.task import Batch, Seats, Task


@dataclass(frozen=True, slots=True)
class Learner:
    """What learns, in one process."""

    group: Group
    model: nn.Module
    """Without what shares its gradients."""
    parallel: nn.Module
    optimizer: torch.optim.Optimizer
    ema: Ema | None
    clip_norm: float


@dataclass(frozen=True, slots=True)
class Taken(Generic[Batch]):
    """The same on every process."""

    seats: Seats
    applied: bool
    """False: weights, optimizer and averages are as they were."""
    read_share: float
    """Of the batch's samples; loss and gradients are means over those that could be read."""
    loss: float
    norms: dict[str, float]
    """Of the gradients, by tower; `all` before clipping."""
    sums: Mapping[str, NDArray[np.float64]]
    broken: list[int]
    """Seats of the global batch whose loss is not finite."""
    draws: list[int]
    """Of every seat."""
    flags: dict[str, bool]
    """Whether any process raised them."""


def take_step(
    learner: Learner, task: Task[Batch], step: int, batch: Batch, flags: Mapping[str, bool]
) -> Taken[Batch]:
    """Forward and backward over the parts of this process's `batch`, one message, one update."""
    group = learner.group
    parts = task.parts(batch)
    total, read, sums, broken = _gradients(learner, task, parts)
    draws = torch.tensor(task.draws(batch), dtype=torch.float64)
    told = group.summed(
        {
            **{f"sum {name}": one for name, one in sums.items()},
            "total": total,
            "read": read,
            "broken": _placed(broken, group),
            "draws": _placed(draws, group),
            "flags": torch.tensor([float(one) for one in flags.values()]),
        }
    )
    seats, towers = task.seats(step), by_tower(learner.model)
    read_share = float(told["read"]) / seats.real
    loss = float(told["total"])
    if 0 < read_share < 1:  # The shares are those of a batch of which nothing was left out.
        loss /= read_share
        divide_gradients(towers, read_share)
    norms = gradient_norms(towers)
    norm = torch.stack(list(norms.values())).norm()
    found = torch.stack([norm, *norms.values()]).double().tolist()
    finite = bool(np.isfinite([loss, *found]).all()) and not told["broken"].any()
    applied = finite and read_share > 0
    if applied:
        for parameters in towers.values():
            nn.utils.clip_grads_with_norm_(parameters, learner.clip_norm, norm)
        learner.optimizer.step()
        if learner.ema is not None:
            learner.ema.update(step)
    learner.optimizer.zero_grad()
    return Taken(
        seats=seats,
        applied=applied,
        read_share=read_share,
        loss=loss,
        norms=dict(zip(["all", *norms], found, strict=True)),
        sums={n.removeprefix("sum "): one for n, one in told.items() if n.startswith("sum ")},
        broken=[int(seat) for seat in told["broken"].nonzero()[0]],
        draws=[int(one) for one in told["draws"]],
        flags={name: bool(one) for name, one in zip(flags, told["flags"], strict=True)},
    )


def _gradients(
    learner: Learner,
    task: Task[Batch],
    parts: Sequence[Batch],
) -> tuple[Tensor, Tensor, dict[str, Tensor], Tensor]:
    """Summed over the parts, of this process alone; the gradients are those of all."""
    total, read = torch.zeros(2, dtype=torch.float64, device=learner.group.device)
    sums: dict[str, Tensor] = {}
    broken = []
    for number, part in enumerate(parts):
        with accumulating(learner.parallel, last=number == len(parts) - 1):
            outcome = task.loss(learner.parallel, part)
            # The mean over processes is taken; the shares make it a sum.
            (outcome.total * learner.group.world).backward()
        total = total + outcome.total.detach()
        read = read + outcome.read
        for name, one in outcome.sums.items():
            sums[name] = sums[name] + one.double() if name in sums else one.double()
        broken.append(outcome.broken.double())
    return total, read, sums, torch.cat(broken)


def _placed(seats: Tensor, group: Group) -> Tensor:
    """This process's seats among all, with zeros for those of others."""
    wide = torch.zeros(group.world, len(seats), dtype=torch.float64, device=seats.device)
    wide[group.rank] = seats
    return wide.flatten()
