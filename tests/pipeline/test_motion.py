from dataclasses import replace

import numpy as np
import pytest

from avdata.pipeline.measure.frame_motion import FrameMotion, still
from avdata.pipeline.measure.motion import FlowMeter, motion, motion_label
from tests.pipeline.media import (
    Image,
    picture,
    textured,
    with_square,
)

FPS = 24.0
SIZE = (180, 320)


def flow(pictures: list[Image]) -> list[FrameMotion]:
    meter = FlowMeter()
    for k, image in enumerate(pictures):
        meter.add(picture(k / FPS, image))
    return meter.motions[:]


def label(pictures: list[Image]) -> str:
    return motion_label(motion(flow(pictures)))


def panned(steps: int, pixels: int) -> list[Image]:
    height, width = SIZE
    wide = textured(1, height, width + steps * pixels)
    return [wide[:, k * pixels : k * pixels + width] for k in range(steps)]


def flying(steps: int, pixels: float) -> list[Image]:
    return [with_square(textured(1, *SIZE), 20 + k * pixels, 70, 40) for k in range(steps)]


def test_nothing_moves_in_a_still_picture_nor_in_a_little_noise() -> None:
    still = [textured(1, *SIZE)] * 12
    rng = np.random.default_rng(0)
    grainy = [
        (image + rng.integers(-2, 3, image.shape[:2])[..., None]).clip(0, 255).astype(np.uint8)
        for image in still
    ]
    assert label(still) == label(grainy) == "static"
    assert motion(flow(still)).moving_share == 0


def test_a_pan_is_the_camera_and_no_motion() -> None:
    found = motion(flow(panned(12, 3)))
    assert motion_label(found) == "static"
    assert found.camera_speed == pytest.approx(3 * FPS / SIZE[0], rel=0.1)


def test_the_camera_is_as_fast_as_it_is_for_half_of_the_time() -> None:
    frames = [replace(still(), camera_speed=speed) for speed in (0.1, 0.2, 0.3, 0.4, 9.0)]
    assert motion(frames).camera_speed == pytest.approx(0.3)


def test_a_thing_that_moves_before_a_still_camera_is_motion() -> None:
    found = motion(flow(flying(12, 4)))
    assert motion_label(found) != "static"
    assert found.camera_speed < 0.02
    assert 0 < found.moving_share < 0.3


def test_velocity_has_the_direction_and_speed_of_the_thing() -> None:
    strongest = []
    for frame in flow(flying(12, 4))[2:]:
        momentum = np.linalg.norm(frame.velocity, axis=2) * np.sqrt(frame.moving)
        strongest.append(frame.velocity[np.unravel_index(momentum.argmax(), momentum.shape)])
    across, down = np.median(strongest, axis=0)
    assert across == pytest.approx(4 * FPS / SIZE[0], rel=0.3)
    assert abs(down) < 0.2 * across


def test_of_fast_video_every_second_frame_is_enough() -> None:
    meter = FlowMeter()
    for k, image in enumerate(flying(24, 2)):
        meter.add(picture(k / 60, image))
    np.testing.assert_allclose(np.diff(meter.times), 2 / 60)
    assert motion(meter.motions[:]).peak == pytest.approx(motion(flow(flying(24, 5))).peak, rel=0.3)


def test_what_differs_across_a_cut_is_no_motion() -> None:
    meter = FlowMeter()
    for k, image in enumerate([textured(1, *SIZE)] * 4 + [textured(2, *SIZE)] * 4):
        meter.add(picture(k / FPS, image))
    assert motion(meter.motions[:]).peak > 0
    meter.cut(4 / FPS)
    assert motion(meter.motions[:]).peak == 0


def test_light_that_changes_is_no_motion() -> None:
    """Of the whole picture, and of a part that no flow leads to."""
    base = textured(1, *SIZE).astype(float)
    fading = [(base * (0.3 + 0.06 * k)).clip(0, 255).astype(np.uint8) for k in range(12)]
    appearing = [textured(1, *SIZE) for _ in range(12)]
    for k, image in enumerate(appearing):
        image[60:120, 100:200] = 20 * k
    assert motion(flow(fading)).mean < 0.3 * motion(flow(flying(12, 4))).mean
    assert motion(flow(appearing)).mean < 0.3 * motion(flow(flying(12, 4))).mean


LIGHTS = {
    "in": lambda luma, share: luma * share,
    "out": lambda luma, share: luma * (1 - share),
    "white": lambda luma, share: luma + (255 - luma) * share,
    "exposure": lambda luma, share: 255 * (luma / 255) ** (2 - share),
    "step": lambda luma, share: luma * (0.8 if share < 0.5 else 1),
}


def lit(pictures: list[Image], light: str) -> list[Image]:
    steps = np.linspace(0, 1, len(pictures))
    changed = [
        LIGHTS[light](image.astype(float), step)
        for image, step in zip(pictures, steps, strict=True)
    ]
    return [image.round().clip(0, 255).astype(np.uint8) for image in changed]


def noisy(pictures: list[Image], spread: float) -> list[Image]:
    rng = np.random.default_rng(0)
    noise = [spread * rng.standard_normal((*SIZE, 1)) for _ in pictures]
    return [
        (image + one).round().clip(0, 255).astype(np.uint8)
        for image, one in zip(pictures, noise, strict=True)
    ]


def wall() -> Image:
    """Smooth, with a little shade: nothing in it tells how it moves."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    shade = 100 + 50 * x / SIZE[1] + 20 * y / SIZE[0]
    return np.repeat(shade[..., None], 3, axis=2).astype(np.uint8)


@pytest.mark.parametrize("light", LIGHTS)
def test_what_moves_in_changing_light_moves_as_in_steady_light(light: str) -> None:
    steady, changing = motion(flow(flying(24, 4))), motion(flow(lit(flying(24, 4), light)))
    assert changing.mean == pytest.approx(steady.mean, rel=0.4)
    assert changing.peak == pytest.approx(steady.peak, rel=0.25)


@pytest.mark.parametrize("light", LIGHTS)
def test_neither_light_nor_a_pan_in_it_is_motion(light: str) -> None:
    assert label(noisy(lit([wall()] * 24, light), 1)) == "static"
    assert label(lit(panned(24, 3), light)) == "static"


@pytest.mark.parametrize("spread", [2, 6])
def test_noise_is_no_motion_and_hides_none(spread: float) -> None:
    still, thing = [wall()] * 24, [with_square(wall(), 20 + 4 * k, 70, 40) for k in range(24)]
    assert motion(flow(noisy(still, spread))).moving_share < 0.01
    found, clean = motion(flow(noisy(thing, spread))), motion(flow(thing))
    assert found.peak == pytest.approx(clean.peak, rel=0.5)
    assert found.mean == pytest.approx(clean.mean, rel=0.6)


def test_all_of_a_plain_thing_moves_not_its_edges_alone() -> None:
    side = 80
    plain_thing = [with_square(textured(1, *SIZE), 20 + 4 * k, 40, side) for k in range(12)]
    share = side**2 / (SIZE[0] * SIZE[1])
    assert motion(flow(plain_thing)[1:]).moving_share == pytest.approx(share, rel=0.3)


def test_faster_is_more() -> None:
    slow, fast = motion(flow(flying(12, 2))), motion(flow(flying(12, 6)))
    assert fast.peak > slow.peak
    assert fast.mean > slow.mean


# Sound.
