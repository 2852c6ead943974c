"""Four looks a second at the picture: what need not be measured on every frame.

Instants lie on a grid on the source's clock, so that a copy of the file is looked at in the same
moments whatever its frame rate.
"""

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray

from avdata.pipeline.measure.borders import Sides, sides
from avdata.pipeline.measure.fingerprint import (
    PICTURE_SECONDS,
    TEMPORAL_BITS,
    picture_print,
    small_picture,
)
from avdata.pipeline.media.stream import Picture

FLAT_LUMA = 2.0
"""Spread of luma, of 255, under which there is no detail to be sharp."""


@dataclass(frozen=True, slots=True)
class Look:
    """One look."""

    sharpness: float | None
    sides: Sides
    print: int


class Looker:
    """Takes every frame in order; `looks[k]` is of the first frame at or after k * 0.25 s."""

    def __init__(self) -> None:
        self.looks: list[Look] = []
        self._small: Float32[ndarray, "rows columns"] | None = None

    def add(self, picture: Picture) -> None:
        """The next frame."""
        due = math.floor(picture.t / PICTURE_SECONDS + 1e-6)
        if due < len(self.looks):
            return
        if self.looks:  # A picture held over several instants changes nothing in them.
            held = replace(self.looks[-1], print=self.looks[-1].print & ~TEMPORAL_BITS)
            self.looks += [held] * (due - len(self.looks))
        luma = picture.luma()
        small = small_picture(luma)
        found = picture_print(small, self._small)
        self.looks.append(Look(sharpness(luma), sides(luma), found))
        self._small = small

    def between(self, start_s: float, end_s: float) -> list[Look]:
        """Those whose instant lies in the span."""
        return self.looks[first_look(start_s) : first_look(end_s)]


def first_look(at_s: float) -> int:
    """Number of the first instant at or after a time."""
    return math.ceil(at_s / PICTURE_SECONDS - 1e-6)


def sharpness(luma: UInt8[ndarray, "h w"]) -> float | None:
    """Variance of the Laplacian over the variance of luma; None for a flat picture."""
    spread = float(cv2.meanStdDev(luma)[1][0, 0])
    if spread < FLAT_LUMA:
        return None
    detail = float(cv2.meanStdDev(cv2.Laplacian(luma, cv2.CV_16S))[1][0, 0])
    return (detail / spread) ** 2


def mean_sharpness(looks: list[Look]) -> float | None:
    """Over the looks that have any."""
    known = [look.sharpness for look in looks if look.sharpness is not None]
    return float(np.mean(known)) if known else None
