"""Hard cuts as PySceneDetect's adaptive detector proposes them, from thumbnails."""

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from scenedetect import FrameTimecode
from scenedetect.detectors import AdaptiveDetector

from avdata.pipeline.measure.dissolves import MIN_CHANGE

THUMBNAIL = (32, 18)
"""Width and height."""
PROPOSED_RATIO = 2.0
"""A change this many times those around it is looked at; PySceneDetect's own 3 is for a detector
that decides alone."""
DETECTOR_FRAMES = 2
"""By which the detector looks back and ahead."""
AT_ONCE = 1024
"""Thumbnails that are compared at once: memory does not grow with the source."""


def proposed_cuts(thumbnails: UInt8[ndarray, "n d"], fps: float) -> list[int]:
    """Numbers of the frames that the detector finds in all of them. A cut needs a large change, and
    depends on two changes on either side, so no others are shown to it; each stretch to a new one.
    """
    large = np.flatnonzero(_changes(thumbnails) >= MIN_CHANGE) + 1
    shown = np.zeros(len(thumbnails), bool)
    for away in range(-DETECTOR_FRAMES - 1, DETECTOR_FRAMES + 1):
        shown[(large + away).clip(0, len(thumbnails) - 1)] = True
    found: list[int] = []
    for begin, end in np.flatnonzero(np.diff(np.r_[False, shown, False])).reshape(-1, 2).tolist():
        # Hue is noise in dark pictures, so luma alone decides.
        detector = AdaptiveDetector(
            PROPOSED_RATIO,
            min_scene_len=1,
            window_width=DETECTOR_FRAMES,
            min_content_val=MIN_CHANGE,
            luma_only=True,
        )
        for index in range(begin, end):
            grey = cv2.cvtColor(thumbnails[index].reshape(THUMBNAIL[::-1]), cv2.COLOR_GRAY2BGR)
            cuts = detector.process_frame(FrameTimecode(index, fps), grey)
            found.extend(cut.frame_num for cut in cuts)
    return found


def _changes(thumbnails: UInt8[ndarray, "n d"]) -> Float[ndarray, " n-1"]:
    """Mean difference from one to the next."""
    found = np.zeros(len(thumbnails) - 1)
    for first in range(0, len(found), AT_ONCE):
        some = thumbnails[first : first + AT_ONCE + 1].astype(np.int16)
        found[first : first + AT_ONCE] = np.abs(np.diff(some, axis=0)).mean(axis=1)
    return found
