"""The learning rate's course: a share of its peak, by the number of the step alone."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class ScheduleConfig:
    """After the linear warm-up: constant; half a cosine to the end; or WSD (warm-up, stable,
    decay: arXiv 2404.06395), constant and then linear over the last steps.
    """

    kind: Literal["constant", "cosine", "wsd"] = "constant"
    decay_share: float = 0.2
    """Of wsd: the share of `steps` at the end in which the rate falls."""
    floor: float = 0.0
    """Where cosine and wsd end, as a share of the peak."""

    def __post_init__(self) -> None:
        if not 0 < self.decay_share <= 1:
            raise ValueError(f"decay_share must be in (0, 1], not {self.decay_share}")
        if not 0 <= self.floor <= 1:
            raise ValueError(f"floor must be in [0, 1], not {self.floor}")

    def steady_until(self, steps: int, warmup: int) -> float:
        """Steps that a run of `steps` has before its length matters to the rate."""
        if self.kind == "constant":
            return math.inf
        return warmup if self.kind == "cosine" else max(warmup, _decay_start(self, steps))


def share_of_peak(config: ScheduleConfig, step: int, steps: int, warmup: int) -> float:
    """For the step of that number, counted from 0, of a run of `steps`."""
    rising = min(1.0, (step + 1) / max(1, warmup))
    if config.kind == "constant":
        return rising
    begin = warmup if config.kind == "cosine" else max(warmup, _decay_start(config, steps))
    done = min(1.0, max(0, step - begin) / max(1, steps - begin))
    left = (1 + math.cos(math.pi * done)) / 2 if config.kind == "cosine" else 1 - done
    return rising * (config.floor + (1 - config.floor) * left)


def _decay_start(config: ScheduleConfig, steps: int) -> int:
    return round(steps * (1 - config.decay_share))
