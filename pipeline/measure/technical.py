"""Exposure and stillness, a few numbers a frame, gathered over a clip."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float
from numpy import ndarray

from avdata.pipeline.measure.borders import border_share, letterbox_share
from avdata.pipeline.measure.looks import Look, mean_sharpness
from avdata.pipeline.media.stream import SmallPicture
from avdata.pipeline.record import Media, Source, Technical

BLACK_LUMA = 0.06
"""Mean luma under which a frame counts as black; video black is 16/255."""
CELLS = (16, 9)
FROZEN_CHANGE = 0.006
"""Change of luma in the most changed cell under which a frame repeats the one before it; over the
whole picture a small thing that moves would be lost in its still background.
"""


@dataclass(frozen=True, slots=True)
class FrameExposure:
    """One frame's part."""

    mean: float
    std: float
    change: float
    """Mean absolute difference from the frame before in the cell where it is largest; infinite for
    the first.
    """


def frame_exposure(picture: SmallPicture, before: SmallPicture | None) -> FrameExposure:
    """Numbers of one frame, luma in 0..1."""
    change = np.inf
    if before is not None:
        apart = cv2.absdiff(picture.small, before.small).astype(np.float32)
        change = float(cv2.resize(apart, CELLS, interpolation=cv2.INTER_AREA).max()) / 255
    mean, spread = cv2.meanStdDev(picture.small)
    return FrameExposure(mean.item() / 255, spread.item() / 255, change)


def technical(
    exposures: list[FrameExposure], looks: list[Look], bits_per_pixel: float | None
) -> Technical:
    """The clip's numbers from its frames' (at least one) and the looks at it."""
    table: Float[ndarray, "n 3"] = np.array([(e.mean, e.std, e.change) for e in exposures])
    repeats = table[1:, 2] < FROZEN_CHANGE
    return Technical(
        luma_mean=float(table[:, 0].mean()),
        luma_std=float(table[:, 1].mean()),
        black_share=float((table[:, 0] < BLACK_LUMA).mean()),
        frozen_share=float(repeats.mean()) if len(repeats) else 0.0,
        sharpness=mean_sharpness(looks),
        letterbox_share=letterbox_share([look.sides for look in looks]),
        border_share=border_share([look.sides for look in looks]),
        bits_per_pixel=bits_per_pixel,
    )


def bits_per_pixel(source: Source, media: Media) -> float | None:
    """Of the whole file, sound included; None where it has no duration."""
    pixels = media.duration_s * media.fps * media.width * media.height
    return 8 * source.size_bytes / pixels if pixels > 0 else None
