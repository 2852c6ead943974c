import math
from collections.abc import Iterable, Iterator
from fractions import Fraction

import av
import numpy as np
import pytest
from jaxtyping import Float32
from numpy import ndarray

from avdata.pipeline.media.sound import Mono, SoundTrack, dbfs
from tests.pipeline.media import RATE, tone

Stereo = Float32[ndarray, "2 m"]


def frames(
    samples: Stereo, start_s: float | None, rate: int = RATE, clock: int = RATE
) -> Iterator[av.AudioFrame]:
    """Blocks as a decoder gives them; `clock` is the ticks a second of the container."""
    for at in range(0, samples.shape[1], 1024):
        piece = np.ascontiguousarray(samples[:, at : at + 1024])
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="stereo")
        frame.sample_rate, frame.time_base = rate, Fraction(1, clock)
        frame.pts = None if start_s is None else round((start_s + at / rate) * clock)
        yield frame


def track(*stretches: Iterable[av.AudioFrame], rate: int = RATE) -> SoundTrack:
    collected = SoundTrack(rate)
    for stretch in stretches:
        for frame in stretch:
            collected.add(frame)
    return collected


def test_sound_lies_where_its_timestamps_say() -> None:
    sound = tone(300, 0.5)
    for start in (0.0, 0.25, 1.5):
        out = track(frames(sound, start)).finish(0.0)
        first = round(start * RATE)
        assert out.shape == (2, first + sound.shape[1])
        assert not out[:, :first].any()
        np.testing.assert_allclose(out[:, first:], sound, atol=1e-6)


def test_any_piece_of_it_has_exactly_the_length_asked_for() -> None:
    sound = tone(300, 0.5)
    whole = track(frames(sound, 1.0)).finish(0.0, 2 * RATE)
    for start_s, length in ((0.0, 100), (0.9, RATE), (1.2, 500), (1.4, RATE), (3.0, 10), (0.5, 0)):
        piece = track(frames(sound, 1.0)).finish(start_s, length)
        assert piece.shape == (2, length)
        first = round(start_s * RATE)
        there = whole[:, first : first + length]
        np.testing.assert_allclose(piece[:, : there.shape[1]], there, atol=1e-6)
        assert not piece[:, there.shape[1] :].any()


def test_a_hole_in_the_sound_is_silence_and_what_follows_keeps_its_time() -> None:
    one, two = tone(300, 0.2), tone(500, 0.2)
    out = track(frames(one, 0.0), frames(two, 0.7)).finish(0.0)
    hole, second = slice(round(0.2 * RATE), round(0.7 * RATE)), round(0.7 * RATE)
    assert not out[:, hole].any()
    np.testing.assert_allclose(out[:, second : second + two.shape[1]], two, atol=1e-6)


def test_the_jitter_of_a_coarse_clock_does_not_tear_the_sound() -> None:
    """Matroska counts milliseconds; 1024 samples are 23.2 of them."""
    sound = tone(300, 1.0)
    out = track(frames(sound, 0.0, clock=1000)).finish(0.0)
    np.testing.assert_allclose(out, sound, atol=1e-6)


def test_frames_without_a_timestamp_follow_the_last() -> None:
    sound = tone(300, 0.5)
    cut = 10 * 1024
    out = track(frames(sound[:, :cut], 0.25), frames(sound[:, cut:], None)).finish(0.25)
    np.testing.assert_allclose(out, sound, atol=1e-6)


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_another_rate_keeps_pitch_length_and_time(rate: int) -> None:
    out = track(frames(tone(300, 0.5), 0.25), rate=rate).finish(0.0)
    wanted = 0.3 * np.sin(2 * np.pi * 300 * np.arange(rate // 2) / rate)
    found = out[0, rate // 4 :]
    assert len(found) == pytest.approx(len(wanted), abs=2)
    inner = slice(rate // 20, rate // 2 - rate // 20)
    np.testing.assert_allclose(found[inner], wanted[inner], atol=0.003)


def test_values_that_are_no_numbers_become_silence() -> None:
    sound = tone(300, 0.1)
    sound[:, 100:200] = np.nan
    out = track(frames(sound, 0.0)).finish(0.0)
    assert np.isfinite(out).all()
    assert not out[:, 100:200].any()


def test_no_frames_are_no_sound() -> None:
    assert track().first_s is None
    assert track().finish(0.0).shape == (2, 0)
    assert track().finish(0.0, 10).tolist() == [[0.0] * 10] * 2


def test_left_and_right_are_heard_alike_in_mono() -> None:
    heard = []
    for silent in (0, 1):
        sound = tone(300, 0.2)
        sound[silent] = 0
        heard.append(Mono(track(frames(sound, 0.0)).placed(lambda times: times))[:])
    np.testing.assert_allclose(heard[0], heard[1], atol=1e-6)
    assert heard[0].any()


@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1"])
def test_the_same_sound_in_every_channel_keeps_its_level(layout: str) -> None:
    count = av.AudioLayout(layout).nb_channels
    wave = np.ascontiguousarray(np.repeat(tone(300, 0.2)[:1], count, axis=0))
    frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout=layout)
    frame.sample_rate = RATE
    collected = track([frame])
    assert collected.is_mono == (layout == "mono")
    out = collected.finish(0.0)
    np.testing.assert_allclose(out, np.repeat(wave[:1], 2, axis=0), atol=1e-4)
    np.testing.assert_allclose(Mono(collected.placed(lambda times: times))[:], wave[0], atol=1e-4)


@pytest.mark.parametrize(
    ("layout", "count", "packed"),
    [("ambisonic 1", 4, False), ("ambisonic 1", 4, True), ("ambisonic 2", 9, True)],
)
def test_of_an_ambisonic_sound_is_heard_what_comes_from_all_around(
    layout: str, count: int, packed: bool
) -> None:
    wave = tone(300, 0.2)[:1]
    every = np.concatenate([wave, *(tone(500 + k, 0.2)[:1] for k in range(count - 1))])
    laid = every.T.reshape(1, -1) if packed else every
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(laid), format="flt" if packed else "fltp", layout=layout
    )
    frame.sample_rate = RATE
    collected = track([frame])
    assert collected.num_refused == 0
    np.testing.assert_allclose(collected.finish(0.0), np.repeat(wave, 2, axis=0), atol=1e-4)


def test_a_change_of_layout_or_rate_in_mid_stream_tears_nothing() -> None:
    wave = tone(300, 0.4)
    half = wave.shape[1] // 2
    before = list(frames(np.ascontiguousarray(wave[:, :half]), 0.0))
    mono = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(wave[:1, half:]), format="fltp", layout="mono"
    )
    mono.sample_rate, mono.time_base, mono.pts = RATE, Fraction(1, RATE), half
    np.testing.assert_allclose(track(before, [mono]).finish(0.0), wave, atol=1e-4)


def test_dbfs_is_a_logarithm_with_a_floor() -> None:
    assert dbfs(1.0) == 0.0
    assert dbfs(0.1) == pytest.approx(-20)
    assert dbfs(0.5) - dbfs(0.25) == pytest.approx(20 * math.log10(2))
    assert dbfs(0.0) == dbfs(1e-9) == -120.0


def test_what_ffmpeg_cannot_resample_is_counted_and_left_out() -> None:
    sound = tone(300, 0.5)
    spoilt = list(frames(sound, 0.0))
    spoilt[3].sample_rate = 0  # As a damaged header gives it.
    collected = track(spoilt)
    out = collected.finish(0.0)
    assert collected.num_refused == 1
    hole = slice(3 * 1024, 4 * 1024)
    assert not out[:, hole].any()
    np.testing.assert_allclose(out[:, 5 * 1024 :], sound[:, 5 * 1024 :], atol=1e-4)
    nothing = list(frames(sound, 0.0))
    for frame in nothing:
        frame.sample_rate = 0
    assert track(nothing).first_s is None
