"""Exposure and stillness, a few numbers a frame, gathered over a clip."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from avdata.pipeline.record import Technical

BLACK_LUMA = 0.06
"""Mean luma under which a frame counts as black; video black is 16/255."""
FROZEN_CHANGE = 0.002
"""Mean absolute change of luma under which a frame repeats the one before it."""


@dataclass(frozen=True, slots=True)
class FrameExposure:
    """One frame's part."""

    mean: float
    std: float
    change: float
    """Mean absolute difference from the frame before; infinite for the first."""


def frame_exposure(
    luma: UInt8[ndarray, "h w"], before: UInt8[ndarray, "h w"] | None
) -> FrameExposure:
    """Numbers of one frame, luma in 0..1."""
    change = np.inf
    if before is not None:
        change = float(np.abs(luma.astype(np.int16) - before).mean()) / 255
    return FrameExposure(float(luma.mean()) / 255, float(luma.std()) / 255, change)


def technical(exposures: list[FrameExposure]) -> Technical:
    """The clip's numbers from its frames' (at least one)."""
    table: Float[ndarray, "n 3"] = np.array([(e.mean, e.std, e.change) for e in exposures])
    repeats = table[1:, 2] < FROZEN_CHANGE
    return Technical(
        luma_mean=float(table[:, 0].mean()),
        luma_std=float(table[:, 1].mean()),
        black_share=float((table[:, 0] < BLACK_LUMA).mean()),
        frozen_share=float(repeats.mean()) if len(repeats) else 0.0,
    )
