"""Which samples make which step: a pure function of the samples, the batch sizes and the seed.

A step is one global batch of one bucket, whatever the number of ranks; each rank takes its slice.
Everything is computed from the number of the step: no order is stored, so the state of a loader is
that number, the same on every rank, and any step costs the same, but for what `Batches` sums once.

Samples of equal weight form a group. A group is one endless sequence of passes, each a permutation
of its samples; an epoch takes as many of the next as are due by its end. With weight 1 that is one
pass: every sample once. A bucket's epoch is what its groups give, mixed, and cut into batches.
"""

import bisect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from avdata.errors import UsageError
from avdata.trainer.data.bucket import Batches, Bucket
from avdata.trainer.data.config import Remainder
from avdata.trainer.data.permutation import Permutation

BLOCK_SEATS = 1 << 13
"""Of steps that are looked up at once: most of the cost of a small batch is the same for many."""
MOST_SEATS = 1 << 20
"""Of a batch: more is a slip of the pen, and fits into no memory."""
PASS, MIX, BATCHES = 101, 102, 103
"""Streams of the plan's own draws."""


@dataclass(frozen=True, slots=True)
class GlobalBatch:
    """What all ranks train on in one step."""

    step: int
    epoch: int
    bucket: str
    rows: Int64[ndarray, " seats"]
    """Of the samples in the index; repeats fill it up to the batch size."""
    num_real: int
    """The first so many seats count, equally; the others have weight 0."""
    first_position: int
    """Of its seats in the epoch; with the epoch it keys their noise."""


class Plan:
    """The order of training, for ever."""

    def __init__(
        self, buckets: Mapping[str, Bucket], seed: int, remainder: Remainder = "pad"
    ) -> None:
        if seed < 0:
            raise UsageError(f"seed = {seed} must not be negative")
        for name, bucket in buckets.items():
            if not 1 <= bucket.batch_size <= MOST_SEATS:
                raise UsageError(
                    f"bucket {name}: a batch of {bucket.batch_size} samples, not 1 to "
                    f"{MOST_SEATS}; give another batch_size or data.mix.batch_tokens"
                )
        self.names = sorted(name for name, bucket in buckets.items() if bucket.due)
        self._buckets = [buckets[name] for name in self.names]
        self._batches = [Batches(bucket, remainder) for bucket in self._buckets]
        self._seed, self._remainder = seed, remainder
        self._block: Sequence[GlobalBatch] = ()
        if not self._buckets:
            raise UsageError("the shards have no samples to train on")
        if sum(bucket.due for bucket in self._buckets) < 1:
            raise UsageError("the weights leave less than one sample an epoch; give larger ones")
        self._stride = max(bucket.batch_size for bucket in self._buckets)
        self._span = max(1, BLOCK_SEATS // self._stride)
        small = [
            f"{name} ({float(bucket.due):g} an epoch, batches of {bucket.batch_size})"
            for name, bucket in zip(self.names, self._buckets, strict=True)
            if bucket.due < bucket.batch_size
        ]
        if remainder == "drop" and small:
            raise UsageError(
                f"remainder = drop would hardly ever train on {', '.join(small)}, which have fewer "
                "samples than a batch; use pad or carry, a smaller batch, or leave them out by "
                "only_buckets"
            )

    @property
    def num_samples(self) -> int:
        """Different ones."""
        return sum(len(group.samples) for bucket in self._buckets for group in bucket.groups)

    def steps_before(self, epoch: int) -> int:
        """Steps of all epochs before this one."""
        return sum(batches.before(epoch) for batches in self._batches)

    def batch(self, step: int) -> GlobalBatch:
        """The global batch of a step, counted from 0 over all epochs."""
        block = self._block
        if not (block and block[0].step <= step <= block[-1].step):
            block = self._block = self._looked_up(step)
        return block[step - block[0].step]

    def epoch_of(self, step: int) -> int:
        """The epoch that a step belongs to."""
        return _epoch_with(step, self.steps_before)

    def _looked_up(self, step: int) -> list[GlobalBatch]:
        """The steps around this one, all of its epoch."""
        epoch = self.epoch_of(step)
        before = self.steps_before(epoch)
        steps = self.steps_before(epoch + 1) - before
        first = (step - before) // self._span * self._span
        within = np.arange(first, min(first + self._span, steps))
        # Which of the epoch's batches, counted by bucket, these steps are.
        numbers = Permutation(steps, BATCHES, self._seed, epoch)(within)
        found: dict[int, GlobalBatch] = {}
        for place, bucket in enumerate(self._buckets):
            begun = self._batches[place].before(epoch)
            count = self._batches[place].before(epoch + 1) - begun
            (here,) = np.nonzero((numbers >= 0) & (numbers < count))
            seats, sizes = self._seats(bucket, epoch, begun, numbers[here])
            numbers -= count
            rows, end = self._rows(place, seats), 0
            for number, size in zip(within[here].tolist(), sizes.tolist(), strict=True):
                real, end = rows[end : end + size], end + size
                found[number] = GlobalBatch(
                    step=before + number,
                    epoch=epoch,
                    bucket=self.names[place],
                    # Repeats from the start where real ones end.
                    rows=real if size == bucket.batch_size else np.resize(real, bucket.batch_size),
                    num_real=size,
                    first_position=number * self._stride,
                )
        return [found[number] for number in within.tolist()]

    def _seats(
        self, bucket: Bucket, epoch: int, begun: int, numbers: Int64[ndarray, " batches"]
    ) -> tuple[Int64[ndarray, " real"], Int64[ndarray, " batches"]]:
        """Of some of an epoch's batches, one after the other, counted over all epochs; and how many
        each has.
        """
        size = bucket.batch_size
        if self._remainder == "carry":
            first = (begun + numbers) * size
            end = first + size
        else:
            first = bucket.seats_before(epoch) + numbers * size
            end = np.minimum(first + size, bucket.seats_before(epoch + 1))
        seats = first[:, None] + np.arange(size)
        return seats[seats < end[:, None]], end - first

    def _rows(self, place: int, seats: Int64[ndarray, " real"]) -> Int64[ndarray, " real"]:
        """The samples that sit there."""
        bucket = self._buckets[place]
        rows = np.empty_like(seats)
        for epoch, first, end in _epochs(bucket, seats):
            here = (seats >= first) & (seats < end)
            mixed = seats[here] - first
            if len(bucket.groups) > 1:  # One group's passes are in random order already.
                mixed = Permutation(end - first, MIX, self._seed, epoch, place)(mixed)
            rows[here] = self._drawn(place, epoch, mixed)
        return rows

    def _drawn(
        self, place: int, epoch: int, seats: Int64[ndarray, " some"]
    ) -> Int64[ndarray, " some"]:
        """Groups follow each other in an epoch's seats, each with the next part of its passes."""
        rows, first = np.empty_like(seats), 0
        for number, group in enumerate(self._buckets[place].groups):
            begun = group.seats_before(epoch)
            end = first + group.seats_before(epoch + 1) - begun
            mine = (seats >= first) & (seats < end)
            passes, within = np.divmod(begun + seats[mine] - first, max(1, len(group.samples)))
            found = np.empty_like(within)
            for one in np.unique(passes):
                here = passes == one
                key = (PASS, self._seed, int(one), place, number)
                found[here] = Permutation(len(group.samples), *key)(within[here])
            rows[mine] = group.samples.at(found)
            first = end
        return rows


def _epoch_with(number: int, before: Callable[[int], int]) -> int:
    """The epoch that has the step or seat of this number, by how many come before each epoch."""
    beyond = 1
    while before(beyond) <= number:
        beyond *= 2
    return bisect.bisect_right(range(beyond + 1), number, key=before) - 1


def _epochs(bucket: Bucket, seats: Int64[ndarray, " some"]) -> Iterator[tuple[int, int, int]]:
    """The epochs that some seats lie in, each with its first seat and the first of the next."""
    left = np.sort(seats)
    while len(left):
        epoch = _epoch_with(int(left[0]), bucket.seats_before)
        end = bucket.seats_before(epoch + 1)
        yield epoch, bucket.seats_before(epoch), end
        left = left[left >= end]


def slice_of(
    batch: GlobalBatch, rank: int, world: int
) -> tuple[Int64[ndarray, " each"], Int64[ndarray, " each"]]:
    """A rank's seats of a global batch, and which of them count (1) or are repeats (0).

    Every rank has as many; where the ranks cannot share the batch equally, repeats fill it up.
    """
    each = -(-len(batch.rows) // world)
    seats = np.arange(rank * each, (rank + 1) * each)
    counts = (seats < batch.num_real).astype(np.int64)
    return seats % len(batch.rows), counts
