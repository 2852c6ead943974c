"""What the buckets give an epoch: whole seats for any weights, exact in the long run.

A group of n samples of weight w is due n w seats an epoch. Before epoch e it has had the whole part
of e n w: so a weight of 2 gives each sample twice an epoch, a weight of 0.1 ten epochs for one
round, and however small a group is, its mean is the weight.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from avdata.trainer.data.config import Remainder
from avdata.trainer.data.rows import Rows


@dataclass(frozen=True, slots=True)
class Group:
    """Samples of one bucket and one weight."""

    samples: Rows
    weight: Fraction = Fraction(1)
    """How many times an epoch each of them comes, above 0."""

    @property
    def due(self) -> Fraction:
        """Seats that they take in an epoch, on average."""
        return len(self.samples) * self.weight

    def seats_before(self, epoch: int) -> int:
        """Seats that they take in all epochs before this one."""
        return epoch * len(self.samples) * self.weight.numerator // self.weight.denominator


@dataclass(frozen=True, slots=True)
class Bucket:
    """Samples of one shape."""

    groups: Sequence[Group]
    batch_size: int
    """Global."""

    @property
    def due(self) -> Fraction:
        """Seats in an epoch, on average."""
        return sum((group.due for group in self.groups), Fraction(0))

    def seats_before(self, epoch: int) -> int:
        """In all epochs before this one."""
        return sum(group.seats_before(epoch) for group in self.groups)


class Batches:
    """How many batches a bucket has had before any epoch.

    Seats repeat with the common denominator of what the groups are due. No formula is known for
    the batches within such a period, so as many sums as it has epochs are kept, or as were asked
    for: one where the weights are whole.
    """

    def __init__(self, bucket: Bucket, remainder: Remainder) -> None:
        self._bucket, self._remainder = bucket, remainder
        self._period = math.lcm(*(group.due.denominator for group in bucket.groups))
        self._sums, self._seats = [0], 0

    def before(self, epoch: int) -> int:
        """In all epochs before this one."""
        if self._remainder == "carry":
            return self._bucket.seats_before(epoch) // self._bucket.batch_size
        periods, rest = divmod(epoch, self._period)
        return self._first(rest) + (periods * self._first(self._period) if periods else 0)

    def _first(self, epochs: int) -> int:
        """In the first so many epochs, one period at most."""
        for epoch in range(len(self._sums), epochs + 1):
            seats = self._bucket.seats_before(epoch)
            whole, left = divmod(seats - self._seats, self._bucket.batch_size)
            self._seats = seats
            self._sums.append(self._sums[-1] + whole + (left > 0 and self._remainder == "pad"))
        return self._sums[epochs]
