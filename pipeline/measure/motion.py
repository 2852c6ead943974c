"""Optical flow of every frame with the camera's part removed, kept as a grid of velocities.

Global means and sparse sampling lose exactly the shots that matter here, a small thing that moves
or bounces before a still camera, so every frame is measured and every grid cell keeps the velocity
of what moves in it rather than the average with its still background. Units are frame heights per
second, so thresholds do not depend on size or rate.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from avdata.pipeline.record import Motion

GRID_ROWS, GRID_COLUMNS = 9, 16
MOVING_SPEED = 0.04
"""Heights per second beyond which a pixel moves; about a third of a pixel a frame at 24 fps."""
MOVING_PIXELS = 0.35
"""Pixels per frame under which flow is noise, whatever the rate."""
STATIC_PEAK = 0.15
LARGE_MEAN = 0.08
LARGE_PEAK = 0.9
"""Labels: see `motion_label`."""


@dataclass(frozen=True, slots=True)
class FrameMotion:
    """One frame's flow from the frame before it."""

    velocity: Float[ndarray, "rows columns 2"]
    """Mean velocity (x, y) of the moving pixels of each cell; zero where none move."""
    moving: Float[ndarray, "rows columns"]
    """Share of each cell that moves."""
    camera_speed: float


def still() -> FrameMotion:
    """The motion of a frame that has none, or none before it."""
    return FrameMotion(
        np.zeros((GRID_ROWS, GRID_COLUMNS, 2), np.float32),
        np.zeros((GRID_ROWS, GRID_COLUMNS), np.float32),
        0.0,
    )


class FlowMeter:
    """Measures frame after frame; holds only the one before."""

    def __init__(self) -> None:
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._before: UInt8[ndarray, "h w"] | None = None

    def add(self, luma: UInt8[ndarray, "h w"], seconds: float) -> FrameMotion:
        """Motion since the last frame, which was `seconds` ago."""
        before, self._before = self._before, luma
        if before is None or seconds <= 0 or np.array_equal(before, luma):
            return still()
        flow = np.asarray(self._flow.calc(before, luma, np.zeros((*luma.shape, 2), np.float32)))
        camera = _camera_flow(flow)
        height = luma.shape[0]
        own = flow - camera
        speed = np.linalg.norm(own, axis=2)
        moves = speed > max(MOVING_PIXELS, MOVING_SPEED * seconds * height)
        velocity, share = _gather(own / (seconds * height), moves)
        camera_speed = float(np.linalg.norm(camera, axis=2).mean()) / (seconds * height)
        return FrameMotion(velocity, share, camera_speed)


def motion(frames: list[FrameMotion]) -> Motion:
    """The clip's numbers from its frames' (at least one)."""
    speed = np.array([np.linalg.norm(frame.velocity, axis=2) for frame in frames])
    moving = np.array([frame.moving for frame in frames])
    return Motion(
        mean=float((speed * moving).mean()),
        peak=float(np.percentile((speed * np.sqrt(moving)).max(axis=(1, 2)), 95)),
        moving_share=float(moving.mean()),
        camera_speed=float(np.median([frame.camera_speed for frame in frames])),
    )


def motion_label(measured: Motion) -> str:
    """static, small or large: how much moves by itself, not the camera."""
    if measured.peak < STATIC_PEAK:
        return "static"
    if measured.mean > LARGE_MEAN or measured.peak > LARGE_PEAK:
        return "large"
    return "small"


def _camera_flow(flow: Float[ndarray, "h w 2"]) -> Float[ndarray, "h w 2"]:
    """The flow that a pan, zoom or roll alone would give: a robust fit over a coarse lattice."""
    height, width = flow.shape[:2]
    rows, columns = np.mgrid[4:height:8, 4:width:8]
    points = np.stack([columns.ravel(), rows.ravel()], axis=1).astype(np.float32)
    moved = points + flow[rows.ravel(), columns.ravel()]
    found, _ = cv2.estimateAffinePartial2D(
        points, moved, method=cv2.RANSAC, ransacReprojThreshold=0.75, maxIters=200
    )
    fit = np.asarray(found)
    if fit.shape != (2, 3):  # OpenCV answers None where no fit has support.
        return np.zeros_like(flow)
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    shift_x = fit[0, 0] * x + fit[0, 1] * y + fit[0, 2] - x
    shift_y = fit[1, 0] * x + fit[1, 1] * y + fit[1, 2] - y
    return np.stack([shift_x, shift_y], axis=2).astype(np.float32)


def _gather(
    velocity: Float[ndarray, "h w 2"], moves: Bool[ndarray, "h w"]
) -> tuple[Float[ndarray, "rows columns 2"], Float[ndarray, "rows columns"]]:
    """Per cell: mean velocity of its moving pixels and their share."""
    size = (GRID_COLUMNS, GRID_ROWS)
    weight = moves.astype(np.float32)
    # INTER_AREA is the mean over each cell, fractions of border pixels included.
    share = cv2.resize(weight, size, interpolation=cv2.INTER_AREA)
    weighted = cv2.resize(velocity * weight[..., None], size, interpolation=cv2.INTER_AREA)
    mean = weighted / np.maximum(share, 1e-6)[..., None]
    return mean.astype(np.float32), share
