import av
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, ColorTrc

from avdata.pipeline.media.geometry import scaled
from avdata.pipeline.media.hdr import hdr


def ten_bit_grey(code: int, transfer: ColorTrc) -> av.VideoFrame:
    frame = av.VideoFrame(64, 48, "yuv420p10le")
    for plane, value in zip(frame.planes, (code, 512, 512), strict=True):
        plane.update(np.full(plane.buffer_size // 2, value, np.uint16).tobytes())
    frame.color_trc, frame.color_primaries = transfer, ColorPrimaries.BT2020
    return frame


@pytest.mark.parametrize(
    ("transfer", "kind"),
    [(ColorTrc.SMPTE2084, "pq"), (ColorTrc.ARIB_STD_B67, "hlg"), (ColorTrc.BT709, None)],
)
def test_the_transfer_says_what_is_hdr(transfer: ColorTrc, kind: str | None) -> None:
    assert hdr(ten_bit_grey(500, transfer)) == kind


def test_ten_bits_are_read_as_eight() -> None:
    picture = scaled(ten_bit_grey(64 + 438, ColorTrc.BT709), 24, 32)
    assert picture.shape == (24, 32, 3)
    assert picture.mean() == pytest.approx(127.5, abs=2)


def test_diffuse_white_in_pq_is_bright_in_ordinary_range() -> None:
    """203 nits (ITU-R BT.2408) are code 58 % in PQ; shown as they are, a grey."""
    picture = scaled(ten_bit_grey(64 + round(0.58 * 876), ColorTrc.SMPTE2084), 24, 32)
    assert picture.mean() > 170
