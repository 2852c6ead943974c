"""Optical flow of every frame with the camera's part removed, kept as a grid of velocities.

Global means and sparse sampling lose exactly the shots that matter here, a small thing that moves
or bounces before a still camera, so every frame is measured and every grid cell keeps the velocity
of what moves in it rather than the average with its still background.
"""

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8
from numpy import ndarray

from avdata.pipeline.measure.camera import camera_flow, places
from avdata.pipeline.measure.frame_motion import (
    GRID_COLUMNS,
    GRID_ROWS,
    FrameMotion,
    MotionSpool,
    still,
)
from avdata.pipeline.media.stream import SmallPicture
from avdata.pipeline.record import Motion

MOVING_SPEED = 0.04
"""Heights per second beyond which a pixel moves, where a frame lasts long enough to tell."""
MOVING_PIXELS = 0.09
"""Pixels of the small picture per frame under which flow is noise. Of 45 rows at 24 frames a second
this is a twentieth of a height a second, and decides.
"""
MIN_STEP_SECONDS = 0.028
"""Flow needs no more than 36 frames a second; frames that come sooner are left out."""
UNCHANGED = 2
"""Change of luma, of 255, anywhere in the small picture, that is no motion."""
EXPLAINED = 0.9
"""Share of a cell's change that is left when the picture is moved back along the flow, from which
the flow is an invention: light changed, or something appeared.
"""
FAINT_CHANGE = 0.3
"""Change of luma, of 255, that is too little to need an explanation."""
EVIDENT = 2.0
"""How many times what the flow leaves of the median cell must change in or beside one that moves.
What it leaves is noise and light, of which flow makes motion where it finds nothing to hold on to.
"""
STATIC_PEAK = 0.15
LARGE = 0.16
"""Labels: see `motion_label`."""


class FlowMeter:
    """Takes every frame in order; `motions[k]` is of the time from `times[k - 1]` to `times[k]`."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.motions = MotionSpool()
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._flow.setUseSpatialPropagation(False)  # A sixth faster, and small things keep theirs.
        self._flow.setFinestScale(0)  # The small picture is the scale at which it would stop.
        self._before: SmallPicture | None = None

    def add(self, picture: SmallPicture) -> None:
        """The next frame; left out when it comes too soon after the one before."""
        if self.times and picture.t - self.times[-1] < MIN_STEP_SECONDS:
            return
        before, self._before = self._before, picture
        self.times.append(picture.t)
        if before is None or cv2.norm(before.small, picture.small, cv2.NORM_INF) <= UNCHANGED:
            self.motions.append(still())
        else:
            self.motions.append(self._motion(before.small, picture.small, picture.t - before.t))

    def cut(self, t: float) -> None:
        """A new shot begins at `t`: what differs across a cut is no motion."""
        at = int(np.searchsorted(self.times, t - 1e-6))
        if at < len(self.motions):
            self.motions.replace(at, still())

    def _motion(
        self, before: UInt8[ndarray, "h w"], luma: UInt8[ndarray, "h w"], seconds: float
    ) -> FrameMotion:
        height, width = luma.shape
        flow = np.asarray(self._flow.calc(before, luma, np.zeros((height, width, 2), np.float32)))
        # Where the flow leads to in the second picture, before the camera's part is taken out.
        x, y = places(height, width)
        there = (x + flow[..., 0], y + flow[..., 1])
        back = cv2.remap(luma, *there, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        heights = seconds * height
        camera, camera_speed = camera_flow(flow), 0.0
        if camera is not None:
            flow = flow - camera
            camera_speed = float(_speed(camera).mean(dtype=np.float64)) / heights
        moves = _speed(flow) > max(MOVING_PIXELS, MOVING_SPEED * heights)
        weight = moves.astype(np.float32)
        change, left = (cv2.absdiff(before, one).astype(np.float32) for one in (luma, back))
        values = [weight, *cv2.split(flow * (weight / heights)[..., None]), left]
        cells, changed = _cells(cv2.merge(values)), _cells(change)
        share, left = cells[..., 0], cells[..., 3]
        return FrameMotion(
            velocity=cells[..., 1:3] / np.maximum(share, 1e-6)[..., None],
            moving=share,
            camera_speed=camera_speed,
            luma=cv2.mean(luma)[0],
            explained=left - EXPLAINED * changed <= FAINT_CHANGE,
            evident=_around(changed) > EVIDENT * _middle(left),
        )


def _speed(flow: Float[ndarray, "h w 2"]) -> Float[ndarray, "h w"]:
    """Not `cv2.magnitude`, whose last bit depends on where in memory the flow lies."""
    x, y = flow[..., 0], flow[..., 1]
    return np.asarray(np.sqrt(x * x + y * y))


def _cells(pixels: Float32[ndarray, "h w *c"]) -> Float32[ndarray, "rows columns *c"]:
    """The mean over each cell, fractions of border pixels included."""
    cells = cv2.resize(pixels, (GRID_COLUMNS, GRID_ROWS), interpolation=cv2.INTER_AREA)
    return np.asarray(cells, np.float32)


def _middle(cells: Float32[ndarray, "rows columns"]) -> float:
    """The upper median; NumPy's takes longer than all else that is done with cells."""
    return float(np.partition(cells, cells.size // 2, axis=None)[cells.size // 2])


def _around(cells: Float32[ndarray, "rows columns"]) -> Float32[ndarray, "rows columns"]:
    """The largest in or beside each cell: the middle of a plain thing that moves stays as it is."""
    return np.asarray(cv2.dilate(cells, np.ones((3, 3))), np.float32)


def motion(frames: list[FrameMotion]) -> Motion:
    """The clip's numbers from its frames' (at least one)."""
    speed = np.array([np.linalg.norm(frame.velocity, axis=2) for frame in frames])
    moving = np.array([frame.moving * frame.explained * frame.evident for frame in frames])
    return Motion(
        mean=float((speed * moving).mean()),
        peak=float(np.percentile((speed * np.sqrt(moving)).max(axis=(1, 2)), 95)),
        moving_share=float(moving.mean()),
        camera_speed=float(np.median([frame.camera_speed for frame in frames])),
    )


def motion_label(measured: Motion) -> str:
    """static, small or large: how much moves by itself, not the camera. What is large moves fast
    somewhere and much in all: the geometric mean of both decides.
    """
    if measured.peak < STATIC_PEAK:
        return "static"
    if np.sqrt(measured.mean * measured.peak) > LARGE:
        return "large"
    return "small"
