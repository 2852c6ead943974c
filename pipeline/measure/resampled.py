"""A sound at a lower rate, made a span at a time, so that memory does not grow with the source."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from numpy import ndarray
from scipy.signal import resample_poly

from avdata.pipeline.media.sound import Samples

MARGIN = 16
"""Samples of the lower rate: on either side the filter of `resample_poly` reaches over 10."""


@dataclass(frozen=True, slots=True)
class Resampled:
    """As `scipy.signal.resample_poly` of the whole, to the last bit; `down` is at least `up`, and
    the two have no common divisor.
    """

    sound: Samples
    up: int
    down: int

    def __len__(self) -> int:
        return math.ceil(len(self.sound) * self.up / self.down)

    def __getitem__(self, span: slice, /) -> Float32[ndarray, " n"]:
        low, high, _ = span.indices(len(self))
        if low >= high:
            return np.zeros(0, np.float32)
        # Where a sample of either rate falls on one of the other.
        begin = max(0, (low - MARGIN) // self.up)
        end = math.ceil((high + MARGIN) / self.up)
        piece = resample_poly(self.sound[begin * self.down : end * self.down], self.up, self.down)
        first = begin * self.up
        return np.asarray(piece[low - first : high - first], np.float32)
