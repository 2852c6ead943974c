from fractions import Fraction

import av
import numpy as np
import pytest
from jaxtyping import Float, Float32
from numpy import ndarray

from avdata.pipeline.measure import speech
from avdata.pipeline.measure.audio import Heard, bandwidth_hz, lufs
from avdata.pipeline.measure.labels import labels
from avdata.pipeline.measure.spectrum import low_spectrum
from avdata.pipeline.media.sound import Mono, SoundTrack
from avdata.pipeline.record import Audio, Motion
from tests.pipeline.clips import EVENT
from tests.pipeline.media import RATE, clicks, silence, tone

SECONDS = 2.0
STILL = Motion(mean=0, peak=0, moving_share=0, camera_speed=0)


def noise(seconds: float = SECONDS, level: float = 0.1, seed: int = 0) -> Float32[ndarray, " m"]:
    random = np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    return (level * random).astype(np.float32)


def collected(channels: Float[ndarray, "c m"]) -> SoundTrack:
    track = SoundTrack(RATE)
    samples, layout = channels.astype(np.float32), ("mono", "stereo")[len(channels) - 1]
    for at in range(0, samples.shape[1], 1024):
        piece = np.ascontiguousarray(samples[:, at : at + 1024])
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = RATE, at, Fraction(1, RATE)
        track.add(frame)
    return track


def listening(channels: Float[ndarray, "c m"]) -> Heard:
    track = collected(channels)
    sound = track.placed(lambda times: times)
    return Heard(sound, track.is_mono, RATE, [], [], low_spectrum(Mono(sound), RATE), speech=None)


def heard(*channels: Float[ndarray, " m"]) -> Audio:
    return listening(np.stack(channels)).audio(0.0, len(channels[0]) / RATE)


def test_loudness_is_in_dbfs() -> None:
    loud, half = heard(tone(441, 1.0, amplitude=1.0)[0]), heard(tone(441, 1.0, amplitude=0.5)[0])
    assert loud.peak_dbfs == pytest.approx(0, abs=0.01)
    assert loud.rms_dbfs == pytest.approx(-3.01, abs=0.05)
    assert loud.rms_dbfs - half.rms_dbfs == pytest.approx(6.02, abs=0.05)


def test_silence_is_a_share_of_the_windows() -> None:
    half = np.concatenate([tone(441, 1.0)[0], silence(1.0)[0]])
    assert heard(half).silence_share == pytest.approx(0.5)
    nothing = heard(silence(1.0)[0])
    assert (nothing.rms_dbfs, nothing.silence_share) == (-120.0, 1.0)
    assert heard(np.zeros(0)).rms_dbfs == -120.0


def test_what_silence_does_not_have_is_none_and_not_zero() -> None:
    for sound in (silence(SECONDS)[0], np.zeros(0), np.zeros(100)):
        found = heard(sound)
        assert found.lufs is found.bandwidth_hz is found.snr_db is found.tonal_share is None


def test_a_full_scale_tone_has_the_loudness_of_the_standard() -> None:
    # ITU-R BS.1770-4: 0 dBFS at 997 Hz in one channel reads -3.01 LKFS.
    def one(seconds: float, amplitude: float = 1.0) -> Float32[ndarray, "1 m"]:
        return tone(997, seconds, amplitude)[:1]

    assert lufs(one(3.0), RATE) == pytest.approx(-3.01, abs=0.1)
    assert lufs(one(3.0, 0.1), RATE) == pytest.approx(-23.01, abs=0.1)
    # The powers of channels add up.
    assert lufs(tone(997, 3.0, amplitude=0.1), RATE) == pytest.approx(-20.0, abs=0.1)
    assert lufs(one(0.3), RATE) is None
    assert lufs(one(3.0, 1e-4), RATE) is None


def test_clipping_is_a_share_of_the_samples() -> None:
    wave = tone(441, SECONDS, amplitude=0.9)[0]
    assert heard(wave).clipped_share == 0
    assert heard(np.sign(wave + 1e-9)).clipped_share == 1
    some = wave.copy()
    some[:RATE] = 1.0
    assert heard(some).clipped_share == pytest.approx(0.5)


@pytest.mark.parametrize("hertz", [1000, 4000, 12_000])
def test_bandwidth_is_where_a_filter_cut(hertz: int) -> None:
    spectrum = np.fft.rfft(noise())
    spectrum[np.fft.rfftfreq(len(noise()), 1 / RATE) > hertz] = 0
    low = np.fft.irfft(spectrum)
    assert bandwidth_hz(low.astype(np.float32), RATE) == pytest.approx(hertz, rel=0.05)


def test_an_offset_is_found() -> None:
    assert heard(noise() + 0.05).dc_offset == pytest.approx(0.05, abs=0.002)


@pytest.mark.parametrize("decibels", [10, 20, 40])
def test_noise_ratio_is_of_what_stands_out_over_what_stays(decibels: float) -> None:
    hiss = noise(level=0.3 / np.sqrt(2) * 10 ** (-decibels / 20))
    on_and_off = np.where(np.arange(len(hiss)) // (RATE // 4) % 2, tone(441, SECONDS, 0.3)[0], 0)
    assert heard(on_and_off + hiss).snr_db == pytest.approx(decibels, abs=1.0)
    steady = heard(hiss).snr_db
    assert steady is not None
    assert steady < 1


@pytest.mark.parametrize("offset", [0.0, 0.1])
def test_channels_agree_oppose_or_have_nothing_in_common(offset: float) -> None:
    one, other = noise(seed=1), noise(seed=2)

    def correlation(*channels: Float[ndarray, " m"]) -> float | None:
        return heard(*(channel + offset for channel in channels)).channel_correlation

    assert correlation(one, 0.3 * one) == pytest.approx(1, abs=1e-4)
    assert correlation(one, -one) == pytest.approx(-1, abs=1e-4)
    assert correlation(one, other) == pytest.approx(0, abs=0.02)
    assert correlation(one, 0 * one) is None
    assert correlation(one) is None


def test_the_numbers_of_a_span_are_those_of_the_span() -> None:
    one, other = noise(1.0, seed=1), noise(1.0, seed=2)
    source = listening(np.stack([np.r_[one, 0.1 * one], np.r_[one, other]]))
    first, second = source.audio(0.0, 1.0), source.audio(1.0, 2.0)
    assert first.channel_correlation == pytest.approx(1)
    assert second.channel_correlation == pytest.approx(0, abs=0.02)
    assert first.rms_dbfs == pytest.approx(second.rms_dbfs, abs=0.2)


def test_what_is_in_opposite_phase_is_as_loud_as_each_channel() -> None:
    wave = tone(300, SECONDS)[0]
    alone, opposed = heard(wave), heard(wave, -wave)
    for found in (alone, opposed):
        assert (found.silence_share, found.clipped_share) == (0, 0)
        assert found.rms_dbfs == pytest.approx(-13.5, abs=0.1)
        assert not labels(STILL, found, []).silent
    assert opposed.lufs == pytest.approx((alone.lufs or 0) + 3.01, abs=0.1)
    assert opposed.bandwidth_hz == alone.bandwidth_hz


def test_one_channel_that_clips_is_seen_whatever_the_other_holds() -> None:
    square = 0.999 * np.sign(tone(300, SECONDS)[0] + 1e-6)
    for pair in ((square, 0 * square), (0 * square, square)):
        found = heard(*pair)
        assert (found.clipped_share, found.silence_share) == (1, 0)
        assert found.peak_dbfs == pytest.approx(0, abs=0.02)
        assert found.dc_offset == pytest.approx(heard(square).dc_offset)


def test_a_constant_is_no_sound_and_hides_none() -> None:
    constant = heard(np.full(round(SECONDS * RATE), 0.1))
    assert (constant.rms_dbfs, constant.silence_share, constant.lufs) == (-120, 1, None)
    assert labels(STILL, constant, []).silent
    hiss = noise(level=0.03)
    plain, shifted = heard(hiss), heard(hiss + 0.2)
    assert shifted.dc_offset == pytest.approx(0.2, abs=0.001)
    for name in ("rms_dbfs", "loudest_dbfs", "bandwidth_hz", "snr_db", "lufs"):
        assert getattr(shifted, name) == pytest.approx(getattr(plain, name), rel=0.01, abs=0.01)


def test_a_click_in_silence_is_no_silence() -> None:
    sound = clicks([0.5, 1.2], SECONDS)[0]
    for gain, silent in ((0.3, False), (0.1, False), (1e-3, True)):
        found = heard(gain * sound)
        assert found.rms_dbfs < -35
        assert labels(STILL, found, []).silent == silent
        assert not labels(STILL, found, [EVENT]).silent
    assert labels(STILL, None, []).silent


def test_the_loudest_window_is_of_either_channel() -> None:
    left = np.r_[tone(300, 1.0, 0.01)[0], tone(300, 1.0, 0.1)[0]]
    right = np.r_[tone(300, 1.0, 0.3)[0], silence(1.0)[0]]
    assert heard(left, right).loudest_dbfs == pytest.approx(-13.5, abs=0.1)
    assert heard(left).loudest_dbfs == pytest.approx(-23.0, abs=0.1)


def test_held_notes_are_tonal_and_noise_and_glides_are_not() -> None:
    chord = sum(tone(hz, SECONDS, 0.1)[0] for hz in (262, 330, 392, 523))
    seconds = np.arange(round(SECONDS * RATE)) / RATE
    glide = 0.3 * np.sin(2 * np.pi * (200 * seconds + 200 * np.square(seconds)))
    assert heard(np.asarray(chord)).tonal_share == 1
    assert heard(noise()).tonal_share == 0
    assert heard(glide).tonal_share == 0


def test_labels_claim_only_what_was_measured() -> None:
    assert (labels(STILL, None, []).speech, labels(STILL, None, []).music) == (None, None)
    chord = heard(tone(440, SECONDS)[0])
    assert labels(STILL, chord, []).music is True
    assert labels(STILL, chord, []).speech is None  # Not measured here.


def test_neither_noise_nor_a_tone_is_speech() -> None:
    pytest.importorskip("silero_vad", reason="the extra `speech` is not installed")
    model = speech.speech_digest()
    assert model is not None
    for sound in (noise(5.0), tone(440, 5.0)[0], silence(5.0)[0]):
        track = speech.speech_track(sound, RATE, model)
        assert track is not None
        assert len(track) == pytest.approx(5.0 / 0.032, abs=1)
        assert speech.speech_share(track, 0.0, 5.0) == pytest.approx(0, abs=0.1)


def test_without_its_model_speech_is_not_measured() -> None:
    assert speech.speech_track(noise(), RATE, "none") is None
    assert speech.speech_share(None, 0.0, 1.0) is None
