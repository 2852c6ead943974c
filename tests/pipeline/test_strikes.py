import numpy as np
import pytest
from numpy.typing import NDArray

from avdata.pipeline.measure.strikes import strikes

RATE = 44_100
AT = 0.5


def sounding(
    wave: NDArray[np.float64], at: float = AT, seconds: float = 2.0
) -> NDArray[np.float32]:
    """Silence but for a wave."""
    sound = np.zeros(round(seconds * RATE), np.float32)
    begin = round(at * RATE)
    sound[begin : begin + len(wave)] += wave.astype(np.float32)[: len(sound) - begin]
    return sound


def noise(seconds: float, decay_s: float, rise_s: float = 0.0) -> NDArray[np.float64]:
    """A burst that dies away, after a rise."""
    t = np.arange(round(seconds * RATE)) / RATE
    envelope = np.exp(-np.maximum(t - rise_s, 0) / decay_s) * np.minimum(
        1.0, (t + 1e-4) / (rise_s + 1e-4)
    )
    burst: NDArray[np.float64] = 0.3 * envelope * np.random.default_rng(0).standard_normal(len(t))
    return burst


def bell(seconds: float, decay_s: float) -> NDArray[np.float64]:
    """A few tones that ring on."""
    t = np.arange(round(seconds * RATE)) / RATE
    tones = np.sin(2 * np.pi * t[:, None] * np.array([523.0, 1411.0, 2748.0])).sum(axis=1)
    rung: NDArray[np.float64] = 0.2 * tones * np.exp(-t / decay_s)
    return rung


def is_struck(sound: NDArray[np.float32], at: float = AT) -> bool:
    return bool(strikes(sound, RATE, [at]))


def test_what_dies_away_is_struck_and_what_lasts_is_driven() -> None:
    assert is_struck(sounding(noise(1.0, decay_s=0.03)))
    assert not is_struck(sounding(noise(1.0, decay_s=2.0)))


def test_what_swells_is_not_struck() -> None:
    assert not is_struck(sounding(noise(1.0, decay_s=0.03, rise_s=0.06)))


def test_a_bell_rings_longer_than_noise_may() -> None:
    assert is_struck(sounding(bell(1.5, decay_s=0.4)))
    assert not is_struck(sounding(noise(1.5, decay_s=0.4)))
    assert not is_struck(sounding(bell(1.5, decay_s=100.0)))


def test_a_vowel_is_not_struck() -> None:
    t = np.arange(round(0.3 * RATE)) / RATE
    harmonics = np.sin(2 * np.pi * 140 * t[:, None] * np.arange(1, 20)) @ (1 / np.arange(1, 20))
    vowel = 0.2 * harmonics * np.minimum(1.0, t / 0.015) * np.minimum(1.0, (0.3 - t) / 0.05)
    assert not is_struck(sounding(vowel))


def test_strokes_of_a_roll_are_told_apart() -> None:
    """Each decays until the next, eight a second."""
    onsets = [0.2 + 0.125 * k for k in range(8)]
    sound = sum(sounding(noise(0.3, decay_s=0.02), at) for at in onsets)
    assert isinstance(sound, np.ndarray)
    assert [one.t for one in strikes(sound, RATE, onsets)] == onsets


@pytest.mark.parametrize("gain_db", [-30.0, -6.0])
def test_level_follows_the_sound_and_the_verdict_does_not(gain_db: float) -> None:
    loud = sounding(noise(1.0, decay_s=0.03))
    (one,), (other,) = (
        strikes(s, RATE, [AT]) for s in (loud, loud * np.float32(10 ** (gain_db / 20)))
    )
    assert other.level_db - one.level_db == pytest.approx(gain_db, abs=0.1)


def test_an_onset_at_the_very_end_is_judged_without_error() -> None:
    sound = sounding(noise(0.05, decay_s=0.03), at=1.99)
    assert len(strikes(sound, RATE, [0.0, 1.99, 2.5])) <= 3
    assert strikes(np.zeros(0, np.float32), RATE, []) == []
