"""High dynamic range: which frames have it, and the same picture in ordinary range.

Read as if they were ordinary, PQ and HLG frames come out grey and flat. FFmpeg's scaler (libswscale
9 and later) maps their tones and gamut to BT.709; its table takes seconds to make, once a source.
"""

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorTrc, VideoReformatter
from jaxtyping import Float
from numpy import ndarray

TRANSFERS = {int(ColorTrc.SMPTE2084): "pq", int(ColorTrc.ARIB_STD_B67): "hlg"}

REFERENCE_WHITE_NITS = 203.0
"""Diffuse white of both transfers (ITU-R BT.2408); what is brighter shines."""

# It keeps the table of the last kind and size of frame; a frame's own `reformat` would not.
_to_sdr = VideoReformatter()


def hdr(frame: av.VideoFrame) -> str | None:
    """pq, hlg, or None for an ordinary frame."""
    return TRANSFERS.get(int(frame.color_trc))


def scaled_sdr(frame: av.VideoFrame, height: int, width: int) -> av.VideoFrame:
    """The frame as RGB of that size, its tones mapped to ordinary range."""
    return _to_sdr.reformat(
        frame,
        width=width,
        height=height,
        format="rgb24",
        interpolation="AREA",
        dst_color_trc=ColorTrc.BT709,
        dst_color_primaries=ColorPrimaries.BT709,
    )


def ordinary_range(signal: Float[ndarray, " n"], transfer: str | None) -> Float[ndarray, " n"]:
    """Luma in 0..1 of a signal in 0..1, for measuring: reference white and what is brighter is 1.

    The transfers are those of ITU-R BT.2100, HLG on a display of 1000 nits.
    """
    if transfer is None:
        return signal
    if transfer == "pq":
        root = signal ** (1 / 78.84375)
        nits = 10_000 * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (
            1 / 0.1593017578125
        )
    else:
        bright = (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12
        nits = 1000 * np.where(signal <= 0.5, signal**2 / 3, bright) ** 1.2
    return (nits / REFERENCE_WHITE_NITS).clip(0, 1) ** (1 / 2.4)
