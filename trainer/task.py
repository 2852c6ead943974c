"""What the loop asks of the thing that is trained; it knows nothing else of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

Batch = TypeVar("Batch")


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one forward pass over some seats of a global batch."""

    total: Tensor
    """What is minimised: each seat's loss by its share of the global batch, summed."""
    sums: dict[str, Tensor]
    """Anything else that adds up over seats and processes; the same names and shapes always."""
    read: Tensor
    """How many seats count: those that are no repeats and could be read."""
    broken: Tensor
    """(b,), True for seats whose loss is not finite."""


@dataclass(frozen=True, slots=True)
class Seats:
    """The global batch of a step, as every process knows it."""

    keys: list[str]
    """Clips in their order."""
    epoch: int
    real: int
    """Those that are no repeats."""


class Task(Protocol[Batch]):
    """Data, loss and measures; batches are this process's part of the global ones."""

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """Those of steps `first` to `last` - 1, counted from 0."""
        ...

    def seats(self, step: int) -> Seats:
        """Who sits in the global batch."""
        ...

    def parts(self, batch: Batch) -> Sequence[Batch]:
        """What is computed at once, one after the other."""
        ...

    def draws(self, batch: Batch) -> list[int]:
        """Of each seat a digest below 2**48 of what was drawn for it."""
        ...

    def loss(self, model: nn.Module, batch: Batch) -> Outcome:
        """Forward pass, with gradients."""
        ...

    def line(self, sums: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
        """Metrics out of the sums over the global batch."""
        ...

    def work(self, batch: Batch) -> tuple[int, int]:
        """Operations of a training step, and tokens, of one seat of this batch."""
        ...

    def measured(self, step: int, *, validate: bool, sample: bool) -> dict[str, Any]:
        """What is measured after a step, now and then; all processes call it."""
        ...
