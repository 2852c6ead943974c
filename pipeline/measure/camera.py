"""The camera's part of a flow: what a pan, zoom or roll alone would give."""

from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Float, Float32
from numpy import ndarray

LATTICE = 4
"""Every fourth value of the flow, across and down, is enough to fit four numbers."""
TRIPOD_PIXELS, TRIPOD_SHARE = 0.025, 0.7
"""Where so much of the picture moves less than this the camera stands still."""
NEAR_PIXELS = 0.19
"""What lies further from the fit is no background."""


def camera_flow(flow: Float[ndarray, "h w 2"]) -> Float32[ndarray, "h w 2"] | None:
    """A robust fit to a flow, in pixels; None when the camera stands still, or nothing fits."""
    height, width = flow.shape[:2]
    moved = flow[::LATTICE, ::LATTICE].reshape(-1, 2)
    if np.count_nonzero(np.abs(moved).max(axis=1) < TRIPOD_PIXELS) > TRIPOD_SHARE * len(moved):
        return None
    x, y = places(height, width)
    points = np.stack([x[::LATTICE, ::LATTICE], y[::LATTICE, ::LATTICE]], axis=2).reshape(-1, 2)
    found, _ = cv2.estimateAffinePartial2D(
        points,
        points + moved,
        method=cv2.RANSAC,
        ransacReprojThreshold=NEAR_PIXELS,
        maxIters=100,
        refineIters=2,
    )
    fit = np.asarray(found, np.float32)
    if fit.shape != (2, 3):  # OpenCV answers None where no fit has support.
        return None
    camera: Float32[ndarray, "h w 2"] = np.empty((height, width, 2), np.float32)
    camera[..., 0] = (fit[0, 0] - 1) * x + fit[0, 1] * y + fit[0, 2]
    camera[..., 1] = fit[1, 0] * x + (fit[1, 1] - 1) * y + fit[1, 2]
    return camera


@lru_cache(maxsize=4)
def places(height: int, width: int) -> tuple[Float32[ndarray, "h w"], Float32[ndarray, "h w"]]:
    """Columns and rows in pixels."""
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return x, y
