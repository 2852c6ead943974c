"""From a decoded frame to the pixels wanted: pixel aspect, rotation, mirror, size, crop."""

from dataclasses import dataclass
from typing import Any, Literal, cast

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer, Type
from numpy.typing import NDArray

from avdata.pipeline.media.hdr import hdr, scaled_sdr

Place = Literal["start", "center", "end"]
SHARES: dict[Place, float] = {"start": 0.0, "center": 0.5, "end": 1.0}


@dataclass(frozen=True, slots=True)
class Fit:
    """How a picture of one shape becomes one of another."""

    how: Literal["crop", "pad", "stretch"] = "crop"
    """Scaled until it covers the size and cut, or until it lies within and filled up with black,
    or pulled out of shape.
    """
    at: Place = "center"
    """Which part a cut leaves, or where the picture lies: at top and left, in the middle, or at
    bottom and right.
    """


CENTER_CROP = Fit()


def pixel_aspect(container: av.container.InputContainer) -> float:
    """Width of a pixel over its height in the best video stream, 1 where the file does not say."""
    stream = container.streams.best("video")
    aspect = stream.sample_aspect_ratio if isinstance(stream, av.VideoStream) else None
    return float(aspect) if aspect else 1.0


def quarter_turns(frame: av.VideoFrame) -> int:
    """By which a player turns the frame, counter-clockwise; the nearest to an odd angle."""
    return round(frame.rotation / 90) % 4


def mirrored(frame: av.VideoFrame) -> bool:
    """Whether a player turns the frame top to bottom before it turns it around: whether its display
    matrix has a negative determinant. The angle is that of its rows either way.
    """
    # The frame's own `side_data` refers to the frame, which would outlive its use by some seconds.
    data = cast(Any, SideDataContainer)(frame).get(Type.DISPLAYMATRIX)
    if data is None:
        return False
    a, b, _, c, d = np.frombuffer(data, "i4")[:5].tolist()
    return bool(a * d < b * c)


def upright(picture: NDArray[Any], frame: av.VideoFrame) -> NDArray[np.uint8]:
    """(h, w, ...) 8-bit pixels as `frame` stores them, as a player shows them."""
    if mirrored(frame):
        picture = picture[::-1]
    return np.ascontiguousarray(np.rot90(picture, k=quarter_turns(frame)))


def shown_size(frame: av.VideoFrame, aspect: float) -> tuple[int, int]:
    """(height, width) in square pixels as a player shows the frame, after rotation.

    `aspect` is the width of a stored pixel over its height.
    """
    return stored_size(frame, frame.height, max(1, round(frame.width * aspect)))


def stored_size(frame: av.VideoFrame, height: int, width: int) -> tuple[int, int]:
    """(height, width) before a player turns the frame, of a size after it, or the reverse."""
    return (width, height) if quarter_turns(frame) % 2 else (height, width)


def scaled(frame: av.VideoFrame, height: int, width: int) -> NDArray[np.uint8]:
    """(height, width, 3) RGB of the whole frame, upright."""
    tall, wide = stored_size(frame, height, width)
    if hdr(frame):
        rgb = scaled_sdr(frame, tall, wide).to_ndarray()
    else:
        rgb = frame.reformat(
            width=wide, height=tall, format="rgb24", interpolation="AREA"
        ).to_ndarray()
    return upright(rgb, frame)


def fitted(
    frame: av.VideoFrame, aspect: float, height: int, width: int, fit: Fit = CENTER_CROP
) -> NDArray[np.uint8]:
    """(height, width, 3) RGB; `aspect` is the width of a stored pixel over its height."""
    if fit.how == "stretch":
        return scaled(frame, height, width)
    shown_height, shown_width = shown_size(frame, aspect)
    factors, share = (height / shown_height, width / shown_width), SHARES[fit.at]
    scale = max(factors) if fit.how == "crop" else min(factors)
    tall, wide = max(1, round(shown_height * scale)), max(1, round(shown_width * scale))
    if fit.how == "pad":
        tall, wide = min(height, tall), min(width, wide)
        top, left = int((height - tall) * share), int((width - wide) * share)
        whole = np.zeros((height, width, 3), np.uint8)
        whole[top : top + tall, left : left + wide] = scaled(frame, tall, wide)
        return whole
    tall, wide = max(height, tall), max(width, wide)
    top, left = int((tall - height) * share), int((wide - width) * share)
    picture = scaled(frame, tall, wide)[top : top + height, left : left + width]
    return np.ascontiguousarray(picture)


def analysis_size(shown_height: int, shown_width: int, longer_side: int) -> tuple[int, int]:
    """(height, width), even, whose longer side is at most `longer_side`."""
    scale = min(1.0, longer_side / max(shown_height, shown_width))
    return (
        max(2, 2 * round(shown_height * scale / 2)),
        max(2, 2 * round(shown_width * scale / 2)),
    )
