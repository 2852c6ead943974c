import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import ColorRange, ColorTrc

from avdata.pipeline.media.geometry import scaled
from avdata.pipeline.media.luma import scaled_luma, shrunk
from tests.pipeline.media import textured
from tests.pipeline.test_hdr import ten_bit_grey

SIZE = (90, 160)


def frame_of(format_name: str, *, full: bool = False) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(textured(3, 180, 320), format="rgb24")
    wide = ColorRange.JPEG if full else ColorRange.MPEG
    found = frame.reformat(format=format_name, dst_color_range=wide)
    found.color_range = wide
    return found


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    "name", ["yuv420p", "yuv444p", "nv12", "yuv420p10le", "yuv420p10be", "rgb24", "yuyv422"]
)
def test_luma_is_that_of_the_colours(name: str, full: bool) -> None:
    frame = frame_of(name, full=full)
    grey = cv2.cvtColor(scaled(frame, *SIZE), cv2.COLOR_RGB2GRAY)
    apart = np.abs(scaled_luma(frame, *SIZE).astype(int) - grey)
    assert np.median(apart) <= 2
    assert apart.max() < 25


def test_diffuse_white_of_high_range_is_white_in_ordinary_range() -> None:
    """203 nits (ITU-R BT.2408): code 58 % in PQ, 75 % in HLG."""
    for transfer, share in ((ColorTrc.SMPTE2084, 0.58), (ColorTrc.ARIB_STD_B67, 0.75)):
        white = ten_bit_grey(64 + round(share * 876), transfer)
        black = ten_bit_grey(64, transfer)
        assert scaled_luma(white, 24, 32).mean() > 245
        assert scaled_luma(black, 24, 32).mean() == 0


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(90, 160), (77, 131), (180, 320), (60, 300), (7, 12), (22, 40)])
@pytest.mark.parametrize("larger", [1, 3])
def test_shrinking_keeps_the_mean_and_what_is_where(
    larger: int, size: tuple[int, int], kind: type[np.uint8 | np.uint16]
) -> None:
    image: np.ndarray = textured(1, 180 * larger, 320 * larger)[..., 0].astype(kind)
    small = shrunk(image, *size)
    assert small.shape == size
    exact = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    assert small.mean() == pytest.approx(image.mean(), abs=1.0)
    assert np.abs(small.astype(int) - exact).mean() < 6
