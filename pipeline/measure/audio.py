"""The numbers of one clip's sound: level, loudness, spectrum and what it may be."""

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
from avdata.pipeline.media.channels import ChannelSums
from avdata.pipeline.media.sound import Samples, dbfs
from avdata.pipeline.media.stream import ANALYSIS_RATE, SourceStream
from avdata.pipeline.record import Audio

SILENCE_DBFS = -60.0
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

    sound: Samples
    rate: int
    onsets_s: list[float]
    struck: list[Strike]
    low: LowSpectrum
    speech: Float32[ndarray, " n"] | None
    channels: ChannelSums

    def prints(self, start_s: float, end_s: float) -> list[int]:
        """Sound fingerprints of a span; none where nothing is to be heard."""
        found = self.low.prints[self.low.between(start_s, end_s)]
        return [int(each) for each in found] if found.any() else []

    def audio(self, start_s: float, end_s: float) -> Audio:
        """The numbers of a span; onsets count from its start."""
        piece = self.sound[round(start_s * self.rate) : round(end_s * self.rate)]
        power = _window_power(piece, self.rate)
        onsets = (bisect_left(self.onsets_s, at) for at in (start_s, end_s))
        lines = self.low.lines[self.low.between(start_s, end_s)]
        lines = lines[~np.isnan(lines)]
        return Audio(
            rms_dbfs=dbfs(float(np.sqrt(power.mean()))),
            peak_dbfs=dbfs(float(np.abs(piece).max(initial=0.0))),
            silence_share=float((power <= 10 ** (SILENCE_DBFS / 10)).mean()),
            onsets_s=[t - start_s for t in self.onsets_s[slice(*onsets)]],
            lufs=lufs(piece, self.rate),
            clipped_share=float((np.abs(piece) >= CLIPPED).mean()) if len(piece) else 0.0,
            dc_offset=float(piece.mean()) if len(piece) else 0.0,
            bandwidth_hz=bandwidth_hz(piece, self.rate),
            snr_db=_snr_db(power),
            channel_correlation=self.channels.correlation(start_s, end_s),
            speech_share=speech_share(self.speech, start_s, end_s),
            tonal_share=float((lines > LINE_SHARE).mean()) if len(lines) else None,
        )


def listened(stream: SourceStream, speech: str) -> Heard | None:
    """Everything about the sound of a source that has been read; None where it has none. `speech`
    is that of `IngestConfig`, decided.
    """
    sound = stream.sound()
    if sound is None:
        return None
    found = onsets(sound, ANALYSIS_RATE)
    return Heard(
        sound=sound,
        rate=ANALYSIS_RATE,
        onsets_s=found,
        struck=strikes(sound, ANALYSIS_RATE, found),
        low=low_spectrum(sound, ANALYSIS_RATE),
        speech=speech_track(sound, ANALYSIS_RATE, speech),
        channels=stream.channel_sums(),
    )


def lufs(sound: Float32[ndarray, " m"], rate: int) -> float | None:
    """Integrated loudness, ITU-R BS.1770-4; None for less than a block or below its gate."""
    if len(sound) < LUFS_SECONDS * rate or not sound.any():
        return None
    found = float(pyloudnorm.Meter(rate).integrated_loudness(sound.astype(np.float64)))
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


def _window_power(sound: Float32[ndarray, " m"], rate: int) -> Float[ndarray, " n"]:
    window = max(1, round(WINDOW_SECONDS * rate))
    count = max(1, len(sound) // window)
    blocks = np.resize(sound, (count, window)) if len(sound) < window else sound[: count * window]
    return np.asarray(np.square(blocks.reshape(count, -1)).mean(axis=1), np.float64)


def _snr_db(power: Float[ndarray, " n"]) -> float | None:
    """95th over 5th percentile of the power of 50 ms windows: what stands out over what stays.

    A steady sound has no pauses to read its noise from and gives 0. None for silence.
    """
    low, high = np.percentile(power, [5, 95])
    if high <= 10 ** (SILENCE_DBFS / 10):
        return None
    return float(10 * np.log10(high / max(low, NOISE_FLOOR_POWER)))
