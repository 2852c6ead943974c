from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from jaxtyping import Float32, Int64
from numpy import ndarray
from scipy.signal import resample_poly

from avdata.pipeline.measure.fingerprint import TEMPORAL_BITS, picture_print, small_picture
from avdata.pipeline.measure.spectrum import HOP, first_window, low_spectrum
from tests.pipeline.media import RATE, bouncing_ball, plain, silence, textured, tone

SIZE = (180, 320)


def prints(pictures: list[ndarray]) -> Iterator[int]:
    before = None
    for picture in pictures:
        small = small_picture(np.ascontiguousarray(picture[..., 0]))
        yield picture_print(small, before)
        before = small


def apart(one: int, other: int) -> int:
    return int.bit_count((one ^ other) & (2**64 - 1))


def melody(seed: int, seconds: float = 4.0) -> Float32[ndarray, " m"]:
    rng = np.random.default_rng(seed)
    notes = [
        tone(hz, 0.25, 0.2)[0] + tone(1.5 * hz, 0.25, 0.1)[0] for hz in rng.uniform(250, 1500, 16)
    ]
    sound = np.concatenate(notes)[: round(seconds * RATE)]
    return (sound + 0.003 * rng.standard_normal(len(sound))).astype(np.float32)


def sound_prints(sound: Float32[ndarray, " m"]) -> Int64[ndarray, " n"]:
    return low_spectrum(sound, RATE).prints


def error(one: Int64[ndarray, " n"], other: Int64[ndarray, " m"]) -> float:
    many = min(len(one), len(other))
    both = (one[:many] != 0) & (other[:many] != 0)
    return float(np.bitwise_count(one[:many][both] ^ other[:many][both]).mean() / 32)


def test_a_scene_outlives_scaling_blur_and_a_little_brightness() -> None:
    picture = textured(1, *SIZE)
    changed = [
        cv2.resize(picture, (160, 90), interpolation=cv2.INTER_AREA),
        cv2.GaussianBlur(picture, (0, 0), 2),
        (picture * 0.9 + 10).astype(np.uint8),
    ]
    (original,) = prints([picture])
    for other in changed:
        (found,) = prints([np.asarray(other)])
        assert apart(original, found) <= 3
    (unlike,) = prints([textured(2, *SIZE)])
    assert apart(original, unlike) > 8


def test_nothing_to_see_has_no_print() -> None:
    assert set(prints([plain(0, *SIZE), plain(128, *SIZE)])) == {0}


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_what_moves_before_light_that_falls_off_evenly_has_a_print(turns: int) -> None:
    """To whichever side: of darkening to the right alone no step is a rising one."""
    shade = np.tile(np.linspace(150, 25, 320), (320, 1))
    pictures = []
    for y in range(40, 280, 30):
        lit = shade.copy()
        lit[y - 25 : y + 25, :34] = 235
        turned = np.rot90(lit, turns).astype(np.uint8)
        pictures.append(np.repeat(turned[..., None], 3, axis=2))
    small = [cv2.resize(one, (160, 160), interpolation=cv2.INTER_AREA) for one in pictures]
    for one, other in list(zip(prints(pictures), prints(small), strict=True))[1:]:
        assert int.bit_count(one & TEMPORAL_BITS) >= 2
        assert apart(one, other) <= 3


def test_only_what_moves_changes_and_noise_does_not() -> None:
    rng = np.random.default_rng(0)
    still = [
        (textured(1, *SIZE) + rng.integers(-4, 5, (*SIZE, 1))).astype(np.uint8) for _ in range(4)
    ]
    assert [each & TEMPORAL_BITS for each in prints(still)] == [0] * 4
    moving = [each & TEMPORAL_BITS for each in prints(bouncing_ball()[::6])]
    assert all(1 <= int.bit_count(each) <= 12 for each in moving[1:])
    assert len(set(moving)) > 3


@pytest.mark.parametrize("gain", [0.1, 1.0, 3.0])
def test_a_sound_outlives_gain_noise_and_a_lower_rate(gain: float) -> None:
    sound = melody(1)
    rng = np.random.default_rng(0)
    hiss = 0.005 * rng.standard_normal(len(sound))
    narrow = resample_poly(resample_poly(sound, 1, 3), 3, 1)[: len(sound)]
    assert (
        error(sound_prints(sound), sound_prints((gain * (narrow + hiss)).astype(np.float32))) < 0.2
    )
    assert error(sound_prints(sound), sound_prints(melody(2))) > 0.35


def test_a_sound_that_begins_later_has_the_same_prints_later() -> None:
    sound = melody(1)
    late = np.concatenate([silence(0.3)[0], sound])
    hops = round(0.3 * RATE / 8 / HOP)
    assert error(sound_prints(sound)[4:], sound_prints(late)[4 + hops :]) < 0.2


def test_silence_and_a_sound_shorter_than_a_window_have_no_prints() -> None:
    assert not sound_prints(silence(3.0)[0]).any()
    assert len(sound_prints(silence(0.3)[0])) == 0
    assert len(sound_prints(np.zeros(0, np.float32))) == 0


def test_windows_are_numbered_by_their_middle() -> None:
    step = HOP * 8 / RATE
    assert first_window(0.0, RATE) == 0
    firsts = [first_window(at, RATE) for at in np.arange(1, 5, step)]
    assert set(np.diff(firsts)) == {1}
