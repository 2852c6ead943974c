"""Shots: PySceneDetect's adaptive detector, fed from our own decode.

Cuts come out on our clock, the time of the first frame of each new shot, whatever the file's
frame rate does.
"""

import itertools

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from scenedetect import FrameTimecode
from scenedetect.detectors import AdaptiveDetector

MIN_SHOT_SECONDS = 0.3


class ShotFinder:
    """Takes every frame in order; `cuts` has the indices at which a new shot begins."""

    def __init__(self, fps: float) -> None:
        self._fps = float(max(fps, 1))  # An int means something else to FrameTimecode.
        self._detector = AdaptiveDetector(min_scene_len=max(2, round(MIN_SHOT_SECONDS * fps)))
        self.cuts: list[int] = []

    def add(self, index: int, image: UInt8[ndarray, "h w 3"]) -> None:
        """Frame `index`, RGB."""
        bgr = np.ascontiguousarray(image[..., ::-1])
        found = self._detector.process_frame(FrameTimecode(index, self._fps), bgr)
        self.cuts.extend(cut.frame_num for cut in found)


def shots(times: list[float], end: float, cuts: list[int]) -> list[tuple[float, float]]:
    """(start, end) of each shot in seconds; they tile the source from its first frame to `end`."""
    edges = [times[0], *(times[cut] for cut in sorted(set(cuts)) if 0 < cut < len(times)), end]
    return list(itertools.pairwise(edges))
