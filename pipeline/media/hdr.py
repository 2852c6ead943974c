"""High dynamic range: which frames have it, and the same picture in ordinary range.

Read as if they were ordinary, PQ and HLG frames come out grey and flat. FFmpeg's scaler (libswscale
9 and later) maps their tones and gamut to BT.709; its table takes seconds to make, once a source.
"""

import av
from av.video.reformatter import ColorPrimaries, ColorTrc, VideoReformatter

TRANSFERS = {int(ColorTrc.SMPTE2084): "pq", int(ColorTrc.ARIB_STD_B67): "hlg"}

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
