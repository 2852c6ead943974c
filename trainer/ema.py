"""An exponential moving average of the weights, kept in float32 where each process has its shard.

Updating moves no data between processes. It is part of every checkpoint, and of exports.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


class Ema:
    """Averages of the trained parameters, by their names in the model."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        for name, one in self.parameters.items():
            if one.dtype != torch.float32:
                raise AssertionError(f"{name} is {one.dtype}: an average of it rounds to nothing")
        self.averages = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After the step of that number, counted from 0; a young average forgets faster."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(
            [local(one) for one in self.averages.values()],
            [local(one) for one in self.parameters.values()],
            1 - decay,
        )

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the averages for weights in the block, and its own again after it."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self.parameters.items():
            ours, theirs = local(self.averages[name]), local(parameter)
            kept = theirs.clone()
            theirs.copy_(ours)
            ours.copy_(kept)


def local(tensor: Tensor) -> Tensor:
    """This process's shard, or the tensor itself where it is whole."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
