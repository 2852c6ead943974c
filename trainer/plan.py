"""Which samples make which step: a pure function of the samples, the batch size and the seed.

A step is one global batch of one bucket, whatever the number of ranks; each rank takes its slice.
Every sample comes once an epoch; a bucket's last batch is filled with repeats of weight zero. So
the state of the loader is the number of the step, the same on every rank.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from avdata.errors import UsageError
from avdata.trainer.randomness import generator

ORDER, BATCHES = 101, 102
"""Streams of the plan's own draws."""


@dataclass(frozen=True, slots=True)
class Place:
    """One seat of a global batch."""

    index: int
    """Of the sample in the split."""
    epoch: int
    position: int
    """Place in the epoch, unique in it; with the epoch it keys this seat's noise."""
    share: float
    """Weight in the loss; the shares of a global batch sum to 1, repeats have 0."""


class Plan:
    """The order of training, for ever."""

    def __init__(self, buckets: Sequence[str], batch_size: int, seed: int) -> None:
        if not buckets:
            raise UsageError("the shards have no samples to train on")
        by_bucket: dict[str, list[int]] = defaultdict(list)
        for index, bucket in enumerate(buckets):
            by_bucket[bucket].append(index)
        self._buckets = [np.array(by_bucket[name]) for name in sorted(by_bucket)]
        self._batch_size = batch_size
        self._seed = seed
        self._epoch: tuple[int, list[Int64[ndarray, " some"]]] | None = None
        self.steps_per_epoch = sum(-(-len(one) // batch_size) for one in self._buckets)

    def batch(self, step: int) -> list[Place]:
        """The global batch of a step, counted from 0 over all epochs."""
        epoch, within = divmod(step, self.steps_per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = (epoch, self._batches(epoch))
        real = self._epoch[1][within]
        seats = np.resize(real, self._batch_size)  # Repeats from the start where real ones end.
        return [
            Place(
                index=int(index),
                epoch=epoch,
                position=within * self._batch_size + k,
                share=1 / len(real) if k < len(real) else 0.0,
            )
            for k, index in enumerate(seats)
        ]

    def _batches(self, epoch: int) -> list[Int64[ndarray, " some"]]:
        cut = []
        for number, indices in enumerate(self._buckets):
            order = generator(ORDER, self._seed, epoch, number).permutation(indices)
            cut += [order[k : k + self._batch_size] for k in range(0, len(order), self._batch_size)]
        mixed = generator(BATCHES, self._seed, epoch).permutation(len(cut))
        return [cut[k] for k in mixed]


def require_equal_shares(batch_size: int, world: int) -> None:
    """UsageError unless so many processes share a batch equally."""
    if batch_size % world:
        raise UsageError(
            f"batch_size = {batch_size} is not a multiple of {world} processes; "
            f"use {world * max(1, round(batch_size / world))}"
        )


def slice_of(places: list[Place], rank: int, world: int) -> list[Place]:
    """A rank's part of a global batch; UsageError unless the ranks share it equally."""
    require_equal_shares(len(places), world)
    each = len(places) // world
    return places[rank * each : (rank + 1) * each]
