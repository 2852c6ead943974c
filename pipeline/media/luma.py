"""The luma of a decoded frame at another size, upright, from the frame's first plane.

Measurements need no colour, and to convert every frame to RGB costs more than to decode it.
"""

from functools import lru_cache

import av
import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from avdata.pipeline.media.geometry import scaled, stored_size, upright
from avdata.pipeline.media.hdr import hdr, ordinary_range

ENOUGH_ROWS = 8
"""Of a block of pixels, evenly spread, to know its mean."""
FULL_RANGE = 2
"""FFmpeg's number for luma that uses all codes; otherwise 8 bits go from 16 to 235."""


def scaled_luma(frame: av.VideoFrame, height: int, width: int) -> UInt8[ndarray, "h w"]:
    """Of the whole frame, 0 black to 255 white; HDR in ordinary range."""
    plane = _luma_plane(frame)
    if plane is None:
        return cv2.cvtColor(scaled(frame, height, width), cv2.COLOR_RGB2GRAY).astype(np.uint8)
    tall, wide = stored_size(frame, height, width)
    full = frame.color_range == FULL_RANGE or frame.format.name.startswith(("yuvj", "gray"))
    table = _levels(frame.format.components[0].bits, full, hdr(frame))
    small = shrunk(plane, tall, wide)
    small = cv2.LUT(small, table) if len(table) == 256 else table[small & (len(table) - 1)]
    return upright(small, frame)


def shrunk(picture: ndarray, height: int, width: int) -> ndarray:
    """A picture of one channel made smaller: means over whole blocks, then between neighbours.

    Exact means over fractions of pixels cost eight times as much and show nothing more; nor do
    more rows of a block than `ENOUGH_ROWS`.
    """
    step = min(picture.shape[0] // height, picture.shape[1] // width)
    if step > 1:
        picture = _block_means(picture, step)
    if picture.shape == (height, width):
        return picture
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)


def _block_means(picture: ndarray, step: int) -> ndarray:
    """Of the whole blocks of step x step pixels."""
    tall, wide = picture.shape[0] // step, picture.shape[1] // step
    skip = next(k for k in range(max(1, step // ENOUGH_ROWS), 0, -1) if step % k == 0)
    picture = picture[skip // 2 : tall * step : skip, : wide * step]
    rows = step // skip
    # OpenCV halves many times as fast as it takes larger steps. It rounds halves up, so only once.
    if rows >= ENOUGH_ROWS and rows % 2 == 0 and step % 2 == 0:
        picture = _area(picture, picture.shape[0] // 2, picture.shape[1] // 2)
    return _area(picture, tall, wide)


def _area(picture: ndarray, height: int, width: int) -> ndarray:
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def _luma_plane(frame: av.VideoFrame) -> ndarray | None:
    """(h, w) of 8 or 16 bits, on the frame's memory; None where luma has no plane of its own."""
    name, plane = frame.format.name, frame.planes[0]
    planar = name.startswith(("yuv4", "yuvj4", "yuva4", "nv12", "nv21", "gray"))
    bits, odd = frame.format.components[0].bits, name.endswith("be") or "msb" in name
    if not planar or odd or not 8 <= bits <= 16 or "f16" in name or plane.line_size <= 0:
        return None
    kind = np.dtype(np.uint8 if bits == 8 else "<u2")
    rows = np.frombuffer(memoryview(plane), kind).reshape(-1, plane.line_size // kind.itemsize)
    luma: ndarray = rows[: frame.height, : frame.width]
    return luma


@lru_cache(maxsize=16)
def _levels(bits: int, full: bool, transfer: str | None) -> UInt8[ndarray, " codes"]:
    """What each code of so many bits is in 0..255."""
    codes = np.arange(1 << bits)
    step = 1 << (bits - 8)
    luma = codes / codes[-1] if full else (codes - 16 * step) / (219 * step)
    luma = ordinary_range(luma.clip(0, 1), transfer)
    return np.round(255 * luma).astype(np.uint8)
