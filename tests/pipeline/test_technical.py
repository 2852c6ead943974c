import cv2
import numpy as np
import pytest
from jaxtyping import UInt8
from numpy import ndarray

from avdata.pipeline.measure.borders import border_share, letterbox_share, sides
from avdata.pipeline.measure.looks import Looker, sharpness
from avdata.pipeline.measure.technical import bits_per_pixel
from tests.pipeline.clips import a_clip
from tests.pipeline.media import picture, plain, textured

SIZE = (180, 320)
Luma = UInt8[ndarray, "h w"]


def scenes(count: int = 6) -> list[Luma]:
    return [textured(seed, *SIZE)[..., 0] for seed in range(count)]


def framed(
    luma: Luma, level: int, top: int = 0, bottom: int = 0, left: int = 0, right: int = 0
) -> Luma:
    image = np.full_like(luma, level)
    image[top : SIZE[0] - bottom, left : SIZE[1] - right] = luma[
        top : SIZE[0] - bottom, left : SIZE[1] - right
    ]
    return image


def test_blur_makes_less_sharp_and_contrast_does_not_matter() -> None:
    luma = textured(1, *SIZE)[..., 0]
    known = [sharpness(cv2.GaussianBlur(luma, (0, 0), sigma)) for sigma in (0.5, 1, 2, 4)]
    values = [value for value in known if value is not None]
    assert values == sorted(values, reverse=True)
    assert values[0] > 4 * values[-1]
    assert sharpness((luma // 2 + 60).astype(np.uint8)) == pytest.approx(sharpness(luma), rel=0.1)
    assert sharpness(plain(90, *SIZE)[..., 0]) is None


@pytest.mark.parametrize("noise", [0, 3])
def test_bars_count_as_they_were_painted(noise: int) -> None:
    rng = np.random.default_rng(0)
    frames = []
    for luma in scenes():
        image = framed(luma, 16, top=20, bottom=20).astype(int)
        image += rng.integers(-noise, noise + 1, SIZE)
        frames.append(sides(image.astype(np.uint8)))
    assert letterbox_share(frames) == pytest.approx(40 / 180, abs=1e-6)
    assert border_share(frames) == pytest.approx(40 / 180, abs=1e-6)


def test_bars_on_four_sides_are_not_counted_twice() -> None:
    frames = [sides(framed(luma, 16, 18, 18, 32, 32)) for luma in scenes()]
    assert letterbox_share(frames) == pytest.approx(1 - 0.8 * 0.8)


def test_a_coloured_border_is_a_border_and_no_letterbox() -> None:
    frames = [sides(framed(luma, 230, left=40, right=24)) for luma in scenes()]
    assert letterbox_share(frames) == 0
    assert border_share(frames) == pytest.approx(64 / 320)


def test_what_does_not_last_or_has_no_opposite_is_no_border() -> None:
    passing = [framed(luma, 16, top=30, bottom=30) for luma in scenes(2)] + scenes(2)
    assert letterbox_share([sides(luma) for luma in passing]) == 0
    sky = [sides(framed(luma, 200, top=60)) for luma in scenes()]
    assert border_share(sky) == 0
    flicker = [sides(framed(luma, 60 + 30 * k, 9, 9)) for k, luma in enumerate(scenes(5))]
    assert border_share(flicker) == 0


def test_a_black_picture_has_no_bars_and_hides_none() -> None:
    black = sides(plain(0, *SIZE)[..., 0])
    assert letterbox_share([black]) is None
    assert border_share([black]) is None
    frames = [sides(framed(luma, 16, top=18, bottom=18)) for luma in scenes()]
    assert letterbox_share([black, *frames]) == letterbox_share(frames) == pytest.approx(0.2)


def test_bits_per_pixel_are_of_the_whole_file() -> None:
    clip = a_clip()
    expected = 8 * clip.source.size_bytes / (10.0 * 24.0 * 320 * 180)
    assert bits_per_pixel(clip.source, clip.media) == pytest.approx(expected)


@pytest.mark.parametrize("fps", [7.3, 15.0, 24.0, 60.0])
def test_there_is_one_look_for_every_quarter_second_whatever_the_rate(fps: float) -> None:
    looker = Looker()
    for k in range(round(3 * fps)):
        looker.add(picture(k / fps, textured(1, *SIZE)))
    assert len(looker.looks) == 12
    assert len(looker.between(0.5, 1.5)) == 4
    assert looker.between(5.0, 6.0) == []
