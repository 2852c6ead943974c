"""What two channels have in common, gathered as they go by: analysis keeps only their mean."""

from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


class ChannelSums:
    """Energies of left and right and their product, one entry a decoded frame."""

    def __init__(self) -> None:
        self._rows = array("d")
        self._times: NDArray[np.float64] | None = None

    def add(self, middle_s: float, samples: NDArray[Any]) -> None:
        """(2, n) float samples around a time on the container's clock."""
        left, right = samples
        self._rows.extend((middle_s, left @ left, right @ right, left @ right))

    def on(self, clock: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> "ChannelSums":
        """The same on another clock, which tells its own times for the container's."""
        there = ChannelSums()
        there._rows = self._rows
        there._times = clock(np.frombuffer(self._rows)[::4])
        return there

    def correlation(self, start_s: float, end_s: float) -> float | None:
        """Of left and right in a span, -1..1; None for one channel or where either is silent."""
        rows = np.frombuffer(self._rows).reshape(-1, 4)
        at = rows[:, 0] if self._times is None else self._times
        inside = rows[(at >= start_s) & (at < end_s), 1:]
        if len(inside) == 0:
            return None
        left, right, both = np.sum(inside, axis=0)
        if left <= 0 or right <= 0:
            return None
        return float(np.clip(both / np.sqrt(left * right), -1, 1))
