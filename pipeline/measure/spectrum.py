"""Spectra of a sound's low part over a whole source: sound fingerprints and the hint of music.

Both are read at an eighth of the rate in windows of 0.37 s, long enough to tell a held note, which
is one sharp line, from a voice, whose pitch glides within the window, and from noise.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray
from scipy.fft import rfft

from avdata.pipeline.measure.fingerprint import SOUND_BANDS_HZ, sound_prints
from avdata.pipeline.measure.resampled import Resampled
from avdata.pipeline.media.sound import Samples

DECIMATION = 8
WINDOW, HOP = 2048, 256
"""Samples after decimation: 0.37 s and 46 ms at 44.1 kHz."""
WINDOWS_AT_ONCE = 512
"""24 s: memory does not grow with the source."""
BINS_TOGETHER = 32
"""86 Hz: lines are looked for within each such stretch of the spectrum."""
FIRST_BIN = 32
AUDIBLE_POWER = 1e-7
"""-70 dBFS of mean power: quieter windows are neither tonal nor not."""


@dataclass(frozen=True, slots=True)
class LowSpectrum:
    """What is left of the spectra, an entry a window."""

    rate: int
    """Of the sound they were made from."""
    prints: Int64[ndarray, " n"]
    lines: Float32[ndarray, " n"]
    """Share of the power that lies in sharp lines; NaN where it is silent."""

    def between(self, start_s: float, end_s: float) -> slice:
        """The windows whose middle lies in a span."""
        return slice(first_window(start_s, self.rate), first_window(end_s, self.rate))


def low_spectrum(sound: Samples, rate: int) -> LowSpectrum:
    """Of a mono sound; without entries when it is shorter than a window."""
    low = Resampled(sound, 1, DECIMATION)
    slow = rate / DECIMATION
    count = max(0, (len(low) - WINDOW) // HOP + 1)
    bands = np.zeros((count, len(SOUND_BANDS_HZ) - 1), np.float32)
    lines = np.zeros(count, np.float32)
    if count:
        taper = np.hanning(WINDOW).astype(np.float32)
        edges = np.round(SOUND_BANDS_HZ * WINDOW / slow).astype(int)
        for first in range(0, count, WINDOWS_AT_ONCE):
            some = slice(first, first + WINDOWS_AT_ONCE)
            piece = low[first * HOP : min(first + WINDOWS_AT_ONCE, count) * HOP - HOP + WINDOW]
            windows = np.lib.stride_tricks.sliding_window_view(piece, WINDOW)[::HOP]
            spectrum = rfft(windows * taper, axis=1)
            power = (np.square(spectrum.real) + np.square(spectrum.imag)).astype(np.float32)
            power *= 2 / (WINDOW * np.square(taper).sum())
            bands[some] = np.add.reduceat(power, edges, axis=1)[:, :-1]
            lines[some] = _line_share(power)
    return LowSpectrum(rate, sound_prints(bands), lines)


def first_window(at_s: float, rate: int) -> int:
    """Number of the first window whose middle is not before a time."""
    return max(0, math.ceil((at_s * rate / DECIMATION - WINDOW / 2) / HOP - 1e-6))


def _line_share(power: Float32[ndarray, "n bins"]) -> Float32[ndarray, " n"]:
    """Power of the strongest line of each stretch over the power of all; a Hann line is 3 bins."""
    last = power.shape[1] - (power.shape[1] - FIRST_BIN - 2) % BINS_TOGETHER
    inside = power[:, FIRST_BIN:last]
    three = inside[:, :-2] + inside[:, 1:-1] + inside[:, 2:]
    strongest = three.reshape(len(power), -1, BINS_TOGETHER).max(axis=2).sum(axis=1)
    total = inside.sum(axis=1)
    share = np.minimum(strongest / np.maximum(total, AUDIBLE_POWER), 1.0)
    return np.where(total > AUDIBLE_POWER, share, np.nan).astype(np.float32)
