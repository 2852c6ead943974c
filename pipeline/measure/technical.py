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


HELD_SECONDS = 0.25
"""After which a picture that stays is frozen though no frame repeats it; at a constant rate none
worth the name of video holds one for so long."""


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
    exposures: list[FrameExposure],
    frozen: float,
    looks: list[Look],
    bits_per_pixel: float | None,
) -> Technical:
    """The clip's numbers from its frames' (at least one), `frozen_share` and the looks at it."""
    table: Float[ndarray, "n 2"] = np.array([(e.mean, e.std) for e in exposures])
    return Technical(
        luma_mean=float(table[:, 0].mean()),
        luma_std=float(table[:, 1].mean()),
        black_share=float((table[:, 0] < BLACK_LUMA).mean()),
        frozen_share=frozen,
        sharpness=mean_sharpness(looks),
        letterbox_share=letterbox_share([look.sides for look in looks]),
        border_share=border_share([look.sides for look in looks]),
        bits_per_pixel=bits_per_pixel,
    )


def frozen_share(
    exposures: list[FrameExposure], edges_s: Float[ndarray, " n+1"], start_s: float
) -> float:
    """Share of the time from `start_s` in which a frame is shown that repeats the one before, or is
    held. `edges_s` are when each frame is first shown, the first of them maybe earlier, and when
    the clip ends."""
    repeats = np.array([one.change < FROZEN_CHANGE for one in exposures])
    begin = np.maximum(edges_s[:-1], start_s)
    still_from = np.where(repeats, begin, np.maximum(edges_s[:-1] + HELD_SECONDS, begin))
    still = np.maximum(edges_s[1:] - still_from, 0.0).sum()
    return float(still / (edges_s[-1] - start_s))


def bits_per_pixel(source: Source, media: Media) -> float | None:
    """Of the whole file, sound included; None where it has no duration."""
    pixels = media.duration_s * media.fps * media.width * media.height
    return 8 * source.size_bytes / pixels if pixels > 0 else None
