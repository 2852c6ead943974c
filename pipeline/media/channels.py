"""What two channels have in common, gathered as they go by: analysis keeps only their mean."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


class ChannelSums:
    """Energies of left and right and their product, one entry a decoded frame."""

    def __init__(self) -> None:
        self._rows: list[tuple[float, float, float, float]] = []

    def add(self, middle_s: float, samples: NDArray[Any]) -> None:
        """(2, n) float samples around a time on the container's clock."""
        left, right = samples
        sums = (float(left @ left), float(right @ right), float(left @ right))
        self._rows.append((middle_s, *sums))

    def moved(self, by_s: float) -> "ChannelSums":
        """The same on another clock."""
        moved = ChannelSums()
        moved._rows = [(at + by_s, left, right, both) for at, left, right, both in self._rows]
        return moved

    def correlation(self, start_s: float, end_s: float) -> float | None:
        """Of left and right in a span, -1..1; None for one channel or where either is silent."""
        inside = [sums for at, *sums in self._rows if start_s <= at < end_s]
        if not inside:
            return None
        left, right, both = np.sum(inside, axis=0)
        if left <= 0 or right <= 0:
            return None
        return float(np.clip(both / np.sqrt(left * right), -1, 1))
