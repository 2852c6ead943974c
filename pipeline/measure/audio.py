"""The numbers of one clip's sound: level, loudness, spectrum and what it may be.

Levels are of the louder channel, with its mean taken off: what is in opposite phase left and right
is heard though its mono mix is empty, and a constant is not.
"""

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
import pyloudnorm
from jaxtyping import Float, Float32
from numpy import ndarray
from scipy.fft import rfft

from avdata.pipeline.measure.sound import onsets
from avdata.pipeline.measure.spectrum import LowSpectrum, low_spectrum
from avdata.pipeline.measure.speech import speech_share, speech_track
from avdata.pipeline.measure.strikes import Strike, strikes
from avdata.pipeline.media.sound import Mono, Stereo, dbfs
from avdata.pipeline.media.stream import ANALYSIS_RATE, SourceStream
from avdata.pipeline.record import Audio

SILENCE_POWER = 1e-6
"""-60 dBFS."""
WINDOW_SECONDS = 0.05
CLIPPED = 0.99
"""Amplitude that counts as clipped; lossy coding moves clipped tops a little, both ways."""
LUFS_SECONDS = 0.4
"""A block of ITU-R BS.1770-4; a shorter sound has no loudness."""
LUFS_GATE = -70.0
BANDWIDTH_ENERGY = 0.99
SPECTRUM_SAMPLES = 2048
NOISE_FLOOR_POWER = 1e-9
"""-90 dBFS: no noise is taken to be less, so digital silence gives no infinite ratio."""
LINE_SHARE = 0.6
"""Share of its power in sharp lines from which a window is tonal; noise has 0.25."""


@dataclass(frozen=True, slots=True)
class Heard:
    """The sound of a whole source and what was found in it."""

    sound: Stereo
    is_mono: bool
    rate: int
    onsets_s: list[float]
    struck: list[Strike]
    low: LowSpectrum
    speech: Float32[ndarray, " n"] | None

    def prints(self, start_s: float, end_s: float) -> list[int]:
        """Sound fingerprints of a span; none where nothing is to be heard."""
        found = self.low.prints[self.low.between(start_s, end_s)]
        return [int(each) for each in found] if found.any() else []

    def audio(self, start_s: float, end_s: float) -> Audio:
        """The numbers of a span; onsets count from its start."""
        channels = self.sound.read(round(start_s * self.rate), round(end_s * self.rate))
        if channels.size == 0:
            channels = np.zeros((2, 1), np.float32)
        if self.is_mono:
            channels = channels[:1]
        offsets = channels.mean(axis=1, keepdims=True)
        centred = channels - offsets
        powers = _window_powers(centred, self.rate)
        louder, power = int(powers.mean(axis=1).argmax()), powers.max(axis=0)
        onsets = (bisect_left(self.onsets_s, at) for at in (start_s, end_s))
        lines = self.low.lines[self.low.between(start_s, end_s)]
        lines = lines[~np.isnan(lines)]
        size = np.abs(channels)
        return Audio(
            rms_dbfs=dbfs(float(np.sqrt(powers[louder].mean()))),
            loudest_dbfs=dbfs(float(np.sqrt(power.max()))),
            peak_dbfs=dbfs(float(size.max())),
            silence_share=float((power <= SILENCE_POWER).mean()),
            onsets_s=[t - start_s for t in self.onsets_s[slice(*onsets)]],
            lufs=lufs(centred, self.rate),
            clipped_share=float((size >= CLIPPED).mean(axis=1).max()),
            dc_offset=float(offsets.flat[np.abs(offsets).argmax()]),
            bandwidth_hz=bandwidth_hz(centred[louder], self.rate),
            snr_db=_snr_db(power),
            channel_correlation=_correlation(centred),
            speech_share=speech_share(self.speech, start_s, end_s),
            tonal_share=float((lines > LINE_SHARE).mean()) if len(lines) else None,
        )


def listened(stream: SourceStream, speech: str) -> Heard | None:
    """Everything about the sound of a source that has been read; None where it has none. `speech`
    is that of `IngestConfig`, decided.
    """
    both = stream.sound()
    if both is None:
        return None
    sound = Mono(both)
    found = onsets(sound, ANALYSIS_RATE)
    return Heard(
        sound=both,
        is_mono=stream.is_mono,
        rate=ANALYSIS_RATE,
        onsets_s=found,
        struck=strikes(sound, ANALYSIS_RATE, found),
        low=low_spectrum(sound, ANALYSIS_RATE),
        speech=speech_track(sound, ANALYSIS_RATE, speech),
    )


def lufs(channels: Float32[ndarray, "c m"], rate: int) -> float | None:
    """Integrated loudness, ITU-R BS.1770-4; None for less than a block or below its gate."""
    if channels.shape[1] < LUFS_SECONDS * rate or not channels.any():
        return None
    found = float(pyloudnorm.Meter(rate).integrated_loudness(channels.T.astype(np.float64)))
    return found if found > LUFS_GATE else None


def bandwidth_hz(sound: Float32[ndarray, " m"], rate: int) -> float | None:
    """The frequency below which lies 99 % of the energy; None for silence."""
    count = len(sound) // SPECTRUM_SAMPLES
    if count == 0:
        return None
    blocks = sound[: count * SPECTRUM_SAMPLES].reshape(count, SPECTRUM_SAMPLES)
    taper = np.hanning(SPECTRUM_SAMPLES).astype(np.float32)
    energy = np.square(np.abs(rfft(blocks * taper, axis=1))).sum(axis=0, dtype=np.float64)
    if energy.sum() / (count * SPECTRUM_SAMPLES**2) < NOISE_FLOOR_POWER:
        return None
    below = np.cumsum(energy) / energy.sum()
    return float(np.searchsorted(below, BANDWIDTH_ENERGY)) * rate / SPECTRUM_SAMPLES


def _window_powers(channels: Float32[ndarray, "c m"], rate: int) -> Float[ndarray, "c n"]:
    """Of whole windows; of a sound shorter than one, of all of it."""
    window = min(round(WINDOW_SECONDS * rate), channels.shape[1])
    count = channels.shape[1] // window
    blocks = channels[:, : count * window].reshape(len(channels), count, window)
    return np.asarray(np.square(blocks).mean(axis=2), np.float64)


def _correlation(centred: Float32[ndarray, "c m"]) -> float | None:
    if len(centred) == 1:
        return None
    left, right = (float(one @ one) for one in centred)
    if min(left, right) <= NOISE_FLOOR_POWER * centred.shape[1]:
        return None
    return float(np.clip(centred[0] @ centred[1] / np.sqrt(left * right), -1, 1))


def _snr_db(power: Float[ndarray, " n"]) -> float | None:
    """95th over 5th percentile of the power of 50 ms windows: what stands out over what stays.

    A steady sound has no pauses to read its noise from and gives 0. None for silence.
    """
    low, high = np.percentile(power, [5, 95])
    if high <= SILENCE_POWER:
        return None
    return float(10 * np.log10(high / max(low, NOISE_FLOOR_POWER)))
