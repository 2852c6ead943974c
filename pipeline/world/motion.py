"""How much moves, from true positions: the definition of the labels static, small and large.

The same as docs/manifest.md has for what is measured, with true velocities in the place of optical
flow: the camera has no part in it, a height of the picture is the unit of length.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from avdata.pipeline.world.scene import Shot

MotionClass = Literal["static", "small", "large"]
STATIC_PEAK = 0.15
LARGE = 0.175
"""Heights per second. Not taken from the measurement, which has less for large: the truth does not
follow it."""


def motion_class(
    area_speeds: Float[ndarray, " n"], top_speeds: Float[ndarray, " n"]
) -> MotionClass:
    """static when the 95th percentile over frames of the top speed is under 0.15 heights per
    second; large when its geometric mean with the mean area speed is over 0.175; else small."""
    peak = np.percentile(top_speeds, 95)
    if peak < STATIC_PEAK:
        return "static"
    return "large" if np.sqrt(peak * area_speeds.mean()) > LARGE else "small"


def speeds(shot: Shot) -> tuple[Float[ndarray, " n"], Float[ndarray, " n"]]:
    """Area speed and top speed at each frame, in heights per second.

    A thing's speed is the root mean square over its points, turning included, on the way from the
    frame before (at the first frame: to the next). It counts at frames where its middle is seen.
    Top speed is the largest; area speed the sum, each times the share of the picture it fills.
    """
    times = shot.span.times
    area, top = np.zeros(len(times)), np.zeros(len(times))
    if len(times) < 2:
        return area, top
    for body, (ball, track) in enumerate(zip(shot.balls, shot.tracks, strict=True)):
        x, y = shot.centre(body).T
        seen = (x >= 0) & (x <= shot.span.aspect) & (y >= 0) & (y <= 1)
        if shot.occluder is not None:
            seen &= ~shot.occluder.covers(track[:, 0], times)
        rates = np.diff(track, axis=0) / np.diff(times)[:, None]
        squares = rates[:, 0] ** 2 + rates[:, 1] ** 2 + (rates[:, 2] * ball.radius) ** 2 / 2
        speed = seen * np.sqrt(np.concatenate([squares[:1], squares]))
        top = np.maximum(top, speed)
        area += speed * np.pi * ball.radius**2 / shot.span.aspect
    if shot.occluder is not None:
        shown = _shown_width(shot) / shot.span.aspect
        area += abs(shot.occluder.speed) * shown
        top = np.maximum(top, abs(shot.occluder.speed) * (shown > 0))
    return area, top


def _shown_width(shot: Shot) -> Float[ndarray, " n"]:
    """Of the occluder."""
    assert shot.occluder is not None
    times = shot.span.times
    middle, half = shot.occluder.at(times) - shot.camera.at(times)[:, 0], shot.occluder.width / 2
    left, right = (edge.clip(0, shot.span.aspect) for edge in (middle - half, middle + half))
    width: Float[ndarray, " n"] = right - left
    return width
